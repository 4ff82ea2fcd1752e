//! Defaults that are not those of the release before: notes of `check`, each with the line that restores
//! what was.

use crate::config::{Config, Finding, Route};
use crate::dialect::Dialect;
use crate::path::Path;

/// What cost a conversation on a route without `charge`.
const FORMERLY_CHARGED: [&str; 6] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/api/chat",
    "/api/generate",
];

/// What an unchanged file does differently now.
#[must_use]
pub fn changes(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut note = |path: &str, message: String| found.push(Finding { path: path.to_owned(), message });
    let per_minute = config.limits.rate_limit_per_minute;
    if per_minute > 0 {
        note(
            "limits.rate_limit_per_minute",
            format!(
                "{per_minute} a minute now hold for each user whose plan sets no rate, and for an IP address only what \
                 comes without a good key; give the plan a rate_limit_per_minute for another rate of its users"
            ),
        );
    }
    if config.plans.all().any(|plan| plan.rates.per_minute > 0 || plan.rates.parallel > 0) {
        note(
            "plans",
            "rate_limit_per_minute, burst and max_parallel_per_key hold for all keys of a user together, no longer \
             for each key; multiply them by the keys a user has to restore what was"
                .to_owned(),
        );
    }
    let max = config.server.connections.max_per_address;
    if max != 256 {
        note(
            "server.connections.max_per_address",
            format!(
                "is {max}; its default was 256 and is the smaller of 1024 and a quarter of max: \
                 max_per_address = 256 restores it"
            ),
        );
    }
    found.extend(of_refusals(config));
    for (at, route) in config.routes.iter().enumerate() {
        let has_credential =
            config.upstreams.get(route.upstream).is_some_and(|upstream| upstream.credential.is_some());
        found.extend(of_route(at, route, has_credential));
    }
    found
}

/// What is refused now, or under another code.
fn of_refusals(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut note = |path: &str, message: String| found.push(Finding { path: path.to_owned(), message });
    if config.server.admin_listen.is_empty() && config.metrics.is_closed() {
        note(
            "metrics",
            "/metrics answers this machine only; it answered everyone: metrics.allowed_ips = [\"0.0.0.0/0\", \"::/0\"] \
             restores that, better name the network of your monitoring there, or set metrics.token"
                .to_owned(),
        );
    }
    note(
        "security",
        "second factors, keys and e-mail addresses are changed with the password (and a code, where there is one) or \
         within 5 minutes of a login, no longer by an access token alone; no line restores that"
            .to_owned(),
    );
    note(
        "/api/v1",
        "error codes, X-Tollgate-Denied-By and tollgate_denied_total use the codes of the data plane, such as \
         insufficient_quota for insufficient-quota and ip_not_allowed for address-not-allowed; no line restores what was"
            .to_owned(),
    );
    if !config.authz.charge.is_empty() {
        note(
            "authz.charge",
            "a request that is not told clearly, in one pair of headers, by a trusted proxy, is 403; it was free: behind \
             Traefik or Caddy set authz.headers = \"x-forwarded\", and in apps that ask themselves add ?charge=0"
                .to_owned(),
        );
    }
    if config.plans.all().any(|plan| !plan.models.is_open()) {
        note(
            "plans",
            "models holds wherever a call names a model (paths, forms, events of WebSockets), a call that names none is \
             400, and a batch 403; models = [\"*\"] restores what was for those"
                .to_owned(),
        );
    }
    found
}

/// What an unchanged route does differently now. But for its WebSockets a plain app's is what it was.
fn of_route(at: usize, route: &Route, has_credential: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    if route.websocket && route.websocket_charge.is_none() && !route.charge.is_empty() {
        let message = "is left out: each response on OpenAI's WebSockets costs a conversation, and any other WebSocket one when \
                       it is opened; websocket_charge = \"none\" restores what was"
            .to_owned();
        found.push(Finding { path: format!("routes[{at}].websocket_charge"), message });
    }
    if route.dialect == Some(Dialect::Plain) {
        return found;
    }
    if route.left_out.charge {
        let message = format!(
            "is left out: every POST, PUT and PATCH costs a conversation but for `free`, and no longer the best-known \
             calls only; charge = [{}] restores what was",
            formerly_charged(&route.prefix).join(", ")
        );
        found.push(Finding { path: format!("routes[{at}].charge"), message });
    }
    if route.left_out.allow && has_credential {
        let message = "is left out beside an upstream's credential: calls that reach what users share upstream, such as files, \
                       batches and stored answers, are refused; allow = [\"*\"] restores what was"
            .to_owned();
        found.push(Finding { path: format!("routes[{at}].allow"), message });
    }
    found
}

/// The calls that were charged on a route with this prefix: as they are, below it, and in the place of `/v1` or `/api`.
fn formerly_charged(prefix: &str) -> Vec<String> {
    let below = FORMERLY_CHARGED.iter().flat_map(|path| {
        let tail = path.strip_prefix("/v1").or_else(|| path.strip_prefix("/api")).unwrap_or(path);
        [format!("{prefix}{path}"), format!("{prefix}{tail}")]
    });
    let mut paths: Vec<String> = Vec::new();
    for path in FORMERLY_CHARGED.iter().map(|path| (*path).to_owned()).chain(below) {
        if Path::new(&path).lies_under(&Path::new(prefix)) && !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths.into_iter().map(|path| format!("\"POST {path}\"")).collect()
}

/// What keys without a checksum cost, of which the database holds `keys`; what an unchanged file does with them.
#[must_use]
pub fn v1_keys(config: &Config, keys: i64) -> Finding {
    let cost = "a made-up key of their form costs a lookup in the database, where one with a checksum is refused unread";
    let message = match (config.security.accept_v1_keys, keys) {
        (None, 0) => "is false, since the database holds no key without a checksum; it was true: \
                      accept_v1_keys = true restores that"
            .to_owned(),
        (None, keys) => format!(
            "is true, since the database holds {keys} keys without a checksum; {cost}. Rotate them: then it is false at \
             the next start"
        ),
        (Some(true), 0) => {
            format!("is true, and the database holds no key without a checksum: {cost}. Remove the line")
        }
        (Some(true), keys) => {
            format!("is true for {keys} keys without a checksum: {cost}. Rotate them, and remove the line")
        }
        (Some(false), keys) => {
            format!("is false: the {keys} keys without a checksum that the database holds are refused")
        }
    };
    Finding { path: "security.accept_v1_keys".to_owned(), message }
}
