//! The calls of the known APIs of language models, as far as a route opens them or gives them away where it does not
//! say: see `allow`, `free` and `charge`.

use http::Method;

use super::grants::is_version;
use super::{Charge, Grant, Route};
use crate::dialect::Dialect;
use crate::path::Path;

/// Calls that make a model work and leave nothing behind that another user could find.
const GENERATING: [&str; 25] = [
    "*/chat/completions",
    "*/completions",
    "*/completion",
    "*/complete",
    "*/infill",
    "*/responses",
    "*/responses/compact",
    "*/messages",
    "*/images/generations",
    "*/images/edits",
    "*/images/variations",
    "*/audio/speech",
    "*/audio/transcriptions",
    "*/audio/translations",
    "*/rerank",
    "*/api/chat",
    "*/api/generate",
    "*:generateContent",
    "*:streamGenerateContent",
    "*:generateText",
    "*:generateMessage",
    "*:predict",
    "*:rawPredict",
    "*:streamRawPredict",
    "*:serverStreamingPredict",
];

/// Calls that generate nothing.
const FREE: [&str; 16] = [
    "*/embeddings",
    "*/embedding",
    "*/moderations",
    "*/messages/count_tokens",
    "*/responses/input_tokens",
    "*/tokenize",
    "*/detokenize",
    "*/apply-template",
    "*/api/embed",
    "*/api/show",
    "*:embedContent",
    "*:batchEmbedContents",
    "*:embedText",
    "*:countTokens",
    "*:countTextTokens",
    "*:countMessageTokens",
];

/// What is read of the models themselves.
const READING: [&str; 5] = ["*/models", "*/models/*", "*/api/tags", "*/api/ps", "*/api/version"];

/// Calls that begin as a WebSocket and are no POST as well.
const SOCKETS: [&str; 2] = ["*/realtime", "*/ws/google.ai.generativelanguage.*"];

/// Ollama's calls below its `/api`, where a route's prefix stands for that.
const OLLAMA: [(&str, bool); 5] =
    [("/chat", false), ("/generate", false), ("/embed", true), ("/embeddings", true), ("/show", true)];

// === impl Route ===

impl Route {
    /// Known calls that make a model work and are open, but cost nothing by what the file says, at the place where
    /// clients usually send them.
    #[must_use]
    pub fn free_work(&self) -> Vec<String> {
        if self.dialect == Some(Dialect::Plain) {
            return Vec::new();
        }
        let is_versioned = self.prefix.rsplit('/').next().is_some_and(is_version);
        let tails =
            GENERATING.iter().filter_map(|line| line.strip_prefix('*')).filter(|tail| tail.starts_with('/'));
        let paths = tails.map(|tail| {
            let version = if is_versioned || tail.starts_with("/api/") { "" } else { "/v1" };
            format!("{}{version}{tail}", self.prefix)
        });
        let is_free = |path: &String| {
            let path = Path::new(path);
            self.allows(&Method::POST, &path, false) && !self.charges(&Method::POST, &path, true)
        };
        paths.filter(is_free).map(|path| format!("POST {path}")).collect()
    }
}

/// What a route opens that does not say so, to an upstream that is sent the operator's credential: what makes a
/// model work, and what `charge` and `free` name. Files, batches, stored answers, fine-tuning and the upstream's own
/// administration belong to whoever owns the account.
pub(super) fn opened(route: &Route, stands_for_api: bool) -> Vec<Grant> {
    let mut grants = lines("POST", &GENERATING);
    grants.extend(lines("POST", &FREE));
    grants.extend(lines("GET", &READING));
    if route.websocket {
        grants.extend(lines("GET", &SOCKETS));
    }
    if stands_for_api {
        grants.extend(OLLAMA.iter().map(|(tail, _)| below(route, Method::POST, tail)));
        grants.extend(["/tags", "/ps", "/version"].iter().map(|tail| below(route, Method::GET, tail)));
    }
    let charged = route.charge.iter().filter(|charge| !charge.path.ends_with('*'));
    let named = charged.map(|charge| Grant::exactly(charge.method.clone(), &charge.path));
    for grant in named.chain(route.free.iter().filter(|grant| !grant.is_open()).cloned()) {
        if !grants.contains(&grant) {
            grants.push(grant);
        }
    }
    grants
}

/// What costs nothing on a route that says neither this nor what costs.
pub(super) fn free(route: &Route, stands_for_api: bool) -> Vec<Grant> {
    let mut grants = lines("POST", &FREE);
    if stands_for_api {
        let free = OLLAMA.iter().filter(|(_, is_free)| *is_free);
        grants.extend(free.map(|(tail, _)| below(route, Method::POST, tail)));
    }
    grants
}

/// What costs a conversation on a route that does not say: all that may make something work. Of a plain app every POST.
pub(super) fn charged(route: &Route) -> Vec<Charge> {
    let methods: &[Method] = match route.dialect {
        Some(Dialect::Plain) => &[Method::POST],
        _ => &[Method::POST, Method::PUT, Method::PATCH],
    };
    let below = |method: &Method| Charge { method: method.clone(), path: format!("{}*", route.prefix) };
    methods.iter().map(below).collect()
}

/// Whether a server that does not look at the method might take this for a call that makes a model work.
pub(super) fn may_generate(path: &Path<'_>) -> bool {
    let path = path.canonical();
    GENERATING.iter().filter_map(|line| line.strip_prefix('*')).any(|tail| {
        let at = path.len().checked_sub(tail.len());
        at.and_then(|at| path.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(tail))
    })
}

/// Whether a WebSocket at this path does what a POST does there.
pub(super) fn is_socket_of_post(path: &Path<'_>) -> bool {
    path.canonical().ends_with("/responses")
}

fn lines(method: &str, paths: &[&str]) -> Vec<Grant> {
    paths.iter().filter_map(|path| Grant::parse(&format!("{method} {path}"), |_| true).ok()).collect()
}

fn below(route: &Route, method: Method, tail: &str) -> Grant {
    Grant::exactly(method, &format!("{}{tail}", route.prefix))
}
