//! `[[routes]]`: their keys, their upstreams, and what holds where they do not say what they open and charge.

use std::collections::BTreeMap;

use super::file::{CAPTURES, UpstreamDraft};
use super::spelling::nearest;
use super::tree::{Section, Tree};
use super::{Capture, Charge, Grant, Route, calls, forms};
use crate::dialect::Dialect;
use crate::path::Path;

/// Lists that a route does not have in the file, so that the usual ones hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// `charge`
    pub charge: bool,
    /// `allow`
    pub allow: bool,
}

/// What costs a conversation on a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketCharge {
    /// Each response of OpenAI's sockets, also one that the server starts by itself.
    Response,
    /// Each message of the client.
    Message,
    /// Opening it.
    Connection,
    /// Nothing does.
    Nothing,
}

/// One route before its upstream is looked up.
pub(super) struct RouteDraft {
    path: String,
    upstream: Option<String>,
    /// The upstream's name when not given.
    scope: Option<String>,
    /// These depend on prefix, dialect and upstream when not given.
    charge: Option<Vec<Charge>>,
    free: Option<Vec<Grant>>,
    allow: Option<Vec<Grant>>,
    /// With upstream 0 and an empty scope, and without the lists above; `None` when the prefix is not sound.
    ready: Option<Route>,
}

const SOCKET_CHARGES: [(&str, SocketCharge); 4] = [
    ("response", SocketCharge::Response),
    ("message", SocketCharge::Message),
    ("connection", SocketCharge::Connection),
    ("none", SocketCharge::Nothing),
];

/// Reads one route; `capture` is that of the message log.
pub(super) fn read(mut s: Section<'_>, capture: Capture) -> RouteDraft {
    let dialects = [
        ("openai", Dialect::OpenAi),
        ("anthropic", Dialect::Anthropic),
        ("ollama", Dialect::Ollama),
        ("plain", Dialect::Plain),
    ];
    let prefix = s.required("prefix", forms::prefix);
    let upstream = s.required("upstream", forms::text);
    let scope = s.value("scope", forms::name);
    let charge = s.list("charge", forms::charge);
    let free = s.list("free", forms::grant);
    let allow = s.list("allow", forms::grant);
    let host = s.value("host", forms::host);
    let dialect = s.value("dialect", forms::choice(dialects));
    let strip_prefix = s.value_or("strip_prefix", forms::switch, false);
    let capture = s.value_or("capture", forms::choice(CAPTURES), capture);
    let websocket = s.value_or("websocket", forms::switch, false);
    let websocket_charge = s.value("websocket_charge", forms::choice(SOCKET_CHARGES));
    let r_type = s.value("r_type", forms::text);
    let research_models = s.list("research_models", forms::pattern).unwrap_or_default();
    let identity_headers = s.value_or("identity_headers", forms::switch, false);
    let answer = s.value("answer", forms::pointer);
    let refund_client_errors = s.value_or("refund_client_errors", forms::switch, true);
    let keep_upstream_headers = s.value_or("keep_upstream_headers", forms::switch, false);
    let ready = prefix.map(|prefix| Route {
        prefix,
        host,
        upstream: 0,
        dialect,
        scope: String::new(),
        charge: Vec::new(),
        free: Vec::new(),
        allow: Vec::new(),
        left_out: LeftOut { charge: charge.is_none(), allow: allow.is_none() },
        strip_prefix,
        capture,
        websocket,
        websocket_charge,
        r_type,
        research_models,
        identity_headers,
        answer,
        refund_client_errors,
        keep_upstream_headers,
    });
    let path = s.path().to_owned();
    s.finish();
    RouteDraft { path, upstream, scope, charge, free, allow, ready }
}

/// The routes with their upstreams; `None` when one of them is not sound.
pub(super) fn check(
    tree: &Tree<'_>,
    drafts: Vec<RouteDraft>,
    upstreams: &[UpstreamDraft],
) -> Option<Vec<Route>> {
    for upstream in upstreams {
        let name = name_of(upstream);
        let is_used = drafts.iter().any(|route| route.upstream.as_deref() == Some(name));
        if !is_used && !name.is_empty() {
            tree.warning(&upstream.path, format!("no route leads to \"{name}\""));
        }
    }
    let mut seen: BTreeMap<(Option<String>, String), String> = BTreeMap::new();
    let mut routes = Vec::with_capacity(drafts.len());
    for draft in drafts {
        if let Some(route) = &draft.ready
            && let Some(first) = seen.insert(claim(route), draft.path.clone())
        {
            let message = format!("{first} has the same prefix and host: change or remove one of them");
            tree.mistake(&format!("{}.prefix", draft.path), message);
        }
        routes.push(finish(tree, draft, upstreams));
    }
    routes.into_iter().collect()
}

/// What no other route may have: host and prefix, as requests are compared with them.
fn claim(route: &Route) -> (Option<String>, String) {
    (route.host.clone(), Path::new(&route.prefix).canonical().to_owned())
}

fn name_of(upstream: &UpstreamDraft) -> &str {
    upstream.name.as_deref().unwrap_or_default()
}

fn finish(tree: &Tree<'_>, mut draft: RouteDraft, upstreams: &[UpstreamDraft]) -> Option<Route> {
    let name = draft.upstream.take()?;
    let found = upstreams.iter().position(|upstream| name_of(upstream) == name);
    if found.is_none() {
        let known = nearest(&name, upstreams.iter().map(name_of).filter(|name| !name.is_empty()));
        let way_out = known
            .map_or("add an [[upstreams]] with this name".to_owned(), |n| format!("did you mean \"{n}\"?"));
        let message = format!("there is no upstream \"{name}\"; {way_out}");
        tree.mistake(&format!("{}.upstream", draft.path), message);
    }
    let route = draft.ready.take()?;
    refuse_what_never_happens(tree, &draft, &route.prefix);
    let upstream = upstreams.get(found?)?;
    let scope = draft.scope.take().unwrap_or(name);
    Some(with_lists(Route { upstream: found?, scope, ..route }, draft, upstream))
}

/// The route with what it charges, gives away and opens, as written or as usual.
fn with_lists(mut route: Route, draft: RouteDraft, upstream: &UpstreamDraft) -> Route {
    let is_plain = route.dialect == Some(Dialect::Plain);
    let base = upstream.ready.as_ref().map_or("", |upstream| upstream.base_path.as_str());
    let stands_for_api = route.dialect == Some(Dialect::Ollama) || base.ends_with("/api");
    route.free = match (draft.free, &draft.charge) {
        (Some(free), _) => free,
        (None, None) if !is_plain => calls::free(&route, stands_for_api),
        (None, _) => Vec::new(),
    };
    route.charge = draft.charge.unwrap_or_else(|| calls::charged(&route));
    let is_shared = upstream.credential.is_some() && !is_plain;
    let usual = || if is_shared { calls::opened(&route, stands_for_api) } else { vec![Grant::everything()] };
    route.allow = draft.allow.unwrap_or_else(usual);
    route
}

fn refuse_what_never_happens(tree: &Tree<'_>, draft: &RouteDraft, prefix: &str) {
    let charges = draft.charge.iter().flatten().map(|charge| charge.may_apply(prefix)).enumerate();
    let grants = |list: &Option<Vec<Grant>>| -> Vec<_> {
        list.iter().flatten().map(|grant| grant.may_apply(prefix)).enumerate().collect()
    };
    let lists =
        [("charge", charges.collect()), ("free", grants(&draft.free)), ("allow", grants(&draft.allow))];
    for (key, applies) in lists {
        for (index, _) in applies.into_iter().filter(|(_, applies)| !applies) {
            let message = format!("never happens here: write the path as clients send it, below {prefix}");
            tree.mistake(&format!("{}.{key}[{index}]", draft.path), message);
        }
    }
}
