//! Which header fields pass the gate, in both directions.
//!
//! Hop-by-hop fields (RFC 9110 §7.6.1) and whatever `Connection` names stay on their side, except
//! that a client cannot use `Connection` to take away what we set: ours are set last.

use std::time::Duration;

use http::Response;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING,
};
use http::request::Parts;

use super::ending::{Admitted, Day, Open};
use crate::clock::Timestamp;
use crate::config::{Capture, Upstream};
use crate::dialect::{Dialect, Framing};
use crate::ids::RequestId;
use crate::limits::Standing;
use crate::telemetry::metrics::Source;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const X_UPSTREAM_REQUEST_ID: HeaderName = HeaderName::from_static("x-upstream-request-id");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
pub(super) const ERROR_SOURCE: HeaderName = HeaderName::from_static("x-tollgate-error-source");

// === requests ===

/// Makes a client's header the one its upstream gets.
pub(super) fn toward_upstream(parts: &mut Parts, upstream: &Upstream, open: &Open, tls: bool) {
    let named = named_by_connection(&parts.headers);
    let given = std::mem::take(&mut parts.headers);
    let authority = parts.uri.authority().and_then(|name| HeaderValue::from_str(name.as_str()).ok());
    let host = authority.or_else(|| given.get(HOST).cloned());
    let mut kept = HeaderMap::with_capacity(given.len() + 4);
    let mut last = None;
    for (name, value) in given {
        last = name.or(last);
        let Some(name) = &last else { continue };
        if passes_to_upstream(name) && !named.iter().any(|listed| listed == name.as_str()) {
            kept.append(name.clone(), value);
        }
    }
    let route = &open.admitted.route.config;
    if route.capture == Capture::Full {
        kept.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    if let Some(credential) = &upstream.credential {
        kept.insert(credential.header.clone(), credential.value.clone());
    }
    insert(&mut kept, &X_REQUEST_ID, open.request_id.as_str());
    if upstream.forward_client_address {
        insert(&mut kept, &HeaderName::from_static("x-forwarded-for"), &open.admitted.ip.to_string());
        let proto = if tls { "https" } else { "http" };
        kept.insert(HeaderName::from_static("x-forwarded-proto"), HeaderValue::from_static(proto));
        host.and_then(|host| kept.insert(HeaderName::from_static("x-forwarded-host"), host));
    }
    if route.identity_headers {
        introduce(&mut kept, &open.admitted);
    }
    parts.headers = kept;
}

/// Who asks, as an upstream may be told.
fn introduce(headers: &mut HeaderMap, admitted: &Admitted) {
    let subject = &admitted.subject;
    insert(headers, &HeaderName::from_static("x-tollgate-user"), &subject.username);
    insert(headers, &HeaderName::from_static("x-tollgate-plan"), &subject.plan.name);
    insert(headers, &HeaderName::from_static("x-tollgate-level"), &subject.level);
    if let Some(day) = admitted.day() {
        insert(headers, &HeaderName::from_static("x-tollgate-remaining"), &day.left.to_string());
    }
}

fn passes_to_upstream(name: &HeaderName) -> bool {
    let name = name.as_str();
    // Some upstreams read `X_Forwarded_For` as `X-Forwarded-For`.
    if is_hop_by_hop(name) || name.contains('_') {
        return false;
    }
    let ours = ["x-forwarded-", "x-tollgate-", "proxy-", "x-pe-"];
    if ours.iter().any(|start| name.starts_with(start)) {
        return false;
    }
    !matches!(
        name,
        "host"
            | "content-length"
            | "expect"
            | "forwarded"
            | "x-real-ip"
            // Other frameworks take these for the path and the method, which we have decided on.
            | "x-original-url"
            | "x-rewrite-url"
            | "x-http-method"
            | "x-http-method-override"
            | "x-method-override"
            | "authorization"
            | "x-api-key"
            | "api-key"
            | "x-goog-api-key"
            | "cookie"
            | "x-request-id"
            | "request-id"
            | "openai-organization"
            | "openai-project"
            | "http2-settings"
    )
}

// === answers ===

/// Takes from an upstream's header what is not for the client. `true` when its framing was in doubt
/// (RFC 9112 §6.3: both a length and a coding), so that the connection must not be used again.
pub(super) fn from_upstream(headers: &mut HeaderMap, keep: bool) -> bool {
    let named = named_by_connection(headers);
    for name in &named {
        headers.remove(name.as_str());
    }
    let doubtful = headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH);
    if doubtful {
        headers.remove(CONTENT_LENGTH);
    }
    let unwanted = |name: &&HeaderName| {
        let name = name.as_str();
        is_hop_by_hop(name) || name.starts_with("x-tollgate-") || (!keep && is_the_operators(name))
    };
    let unwanted: Vec<_> = headers.keys().filter(unwanted).cloned().collect();
    for name in &unwanted {
        headers.remove(name);
    }
    let upstream_id = headers.remove(X_REQUEST_ID).or_else(|| headers.remove(REQUEST_ID));
    upstream_id.and_then(|id| headers.insert(X_UPSTREAM_REQUEST_ID, id));
    headers.remove(REQUEST_ID);
    doubtful
}

/// For how long the upstream keeps the connection after this answer: `Keep-Alive: timeout=5, max=100`.
pub(super) fn kept_for(headers: &HeaderMap) -> Option<Duration> {
    let parameters = headers.get("keep-alive")?.to_str().ok()?.split(',');
    let mut timeouts = parameters.filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| value.trim().parse().ok())?
    });
    timeouts.next().map(Duration::from_secs)
}

/// What describes the operator's account with the upstream, not the client's with us.
fn is_the_operators(name: &str) -> bool {
    let starts = ["x-ratelimit-", "anthropic-ratelimit-", "ratelimit"];
    starts.iter().any(|start| name.starts_with(start))
        || matches!(
            name,
            "openai-organization" | "anthropic-organization-id" | "set-cookie" | "server" | "alt-svc"
        )
}

/// Whose an error is.
pub(super) fn blame<B>(response: &mut Response<B>, source: Source) {
    if source == Source::Upstream && response.status().as_u16() >= 400 {
        response.headers_mut().insert(ERROR_SOURCE, HeaderValue::from_static("upstream"));
    }
}

/// Streams are neither stored nor gathered on their way.
pub(super) fn mark_stream(headers: &mut HeaderMap, framing: Framing) {
    if matches!(framing, Framing::Sse | Framing::Ndjson) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    }
}

/// The request's name, under both names the SDKs read.
pub(super) fn name_request(headers: &mut HeaderMap, id: &RequestId) {
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID, value.clone());
        headers.insert(X_REQUEST_ID, value);
    }
}

/// How the client stands: the dialect's own fields, and the IETF's
/// (draft-ietf-httpapi-ratelimit-headers-10).
pub(super) fn tell_standing(
    headers: &mut HeaderMap,
    dialect: Dialect,
    rate: Option<Standing>,
    day: Option<Day>,
    now: Timestamp,
) {
    let (mut policies, mut states) = (Vec::new(), Vec::new());
    if let Some(rate) = rate {
        policies.push(format!("\"minute\";q={};w=60", rate.per_minute));
        states.push(format!("\"minute\";r={};t={}", rate.remaining, rate.full_in.as_secs()));
    }
    if let Some(day) = day {
        policies.push(format!("\"day\";q={};w={}", day.limit, day.length.as_secs()));
        states.push(format!("\"day\";r={};t={}", day.left, day.resets_at.since(now).as_secs()));
    }
    if policies.is_empty() {
        return;
    }
    insert(headers, &HeaderName::from_static("ratelimit-policy"), &policies.join(", "));
    insert(headers, &HeaderName::from_static("ratelimit"), &states.join(", "));
    let of_day = day.map(|day| (day.limit, day.left, day.resets_at));
    let of_rate = rate.map(|rate| (rate.per_minute.into(), rate.remaining.into(), now.plus(rate.full_in)));
    let Some((limit, remaining, reset)) = of_day.or(of_rate) else { return };
    let names: [&'static str; 3] = match dialect {
        Dialect::Anthropic => [
            "anthropic-ratelimit-requests-limit",
            "anthropic-ratelimit-requests-remaining",
            "anthropic-ratelimit-requests-reset",
        ],
        _ => ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
    };
    let reset = match dialect {
        Dialect::Anthropic => reset.to_string(),
        _ => go_duration(reset.since(now)),
    };
    for (name, value) in names.into_iter().zip([limit.to_string(), remaining.to_string(), reset]) {
        insert(headers, &HeaderName::from_static(name), &value);
    }
}

/// As OpenAI writes durations: `1s`, `6m0s`, `13h59m9s`.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

// === both ===

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "proxy-authenticate"
            | "proxy-authorization"
    )
}

fn named_by_connection(headers: &HeaderMap) -> Vec<String> {
    let lists = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = lists.flat_map(|list| list.split(',')).map(|name| name.trim().to_ascii_lowercase());
    names.filter(|name| !matches!(name.as_str(), "" | "close" | "keep-alive" | "upgrade")).collect()
}

/// A value that no header can carry is left out: it is ours to have made, and says nothing new.
fn insert(headers: &mut HeaderMap, name: &HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderName};

    use super::{from_upstream, go_duration, kept_for, passes_to_upstream};

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn an_upstream_may_say_how_long_it_keeps_a_connection() {
        let said = |value| kept_for(&headers(&[("keep-alive", value)])).map(|time| time.as_secs());
        assert_eq!(said("timeout=5, max=100"), Some(5));
        assert_eq!(said("max=100, Timeout = 1"), Some(1));
        for nothing in ["", "timeout", "timeout=", "timeout=-1", "timeout=x", "max=3"] {
            assert_eq!(said(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn no_credential_address_or_alias_passes() {
        for name in [
            "authorization",
            "cookie",
            "x-api-key",
            "x-forwarded-for",
            "x-forwarded-prefix",
            "forwarded",
            "x-real-ip",
            "x_forwarded_proto",
            "x-tollgate-user",
            "proxy-authorization",
            "te",
            "transfer-encoding",
            "content-length",
            "expect",
            "openai-organization",
        ] {
            assert!(!passes_to_upstream(&HeaderName::from_static(name)), "{name}");
        }
        for name in [
            "anthropic-version",
            "anthropic-beta",
            "openai-beta",
            "idempotency-key",
            "traceparent",
            "accept",
            "content-type",
            "x-stainless-lang",
        ] {
            assert!(passes_to_upstream(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn an_upstreams_account_stays_with_the_operator() {
        let mut answer = headers(&[
            ("content-type", "text/plain"),
            ("set-cookie", "a"),
            ("server", "x"),
            ("x-ratelimit-limit-requests", "1"),
            ("x-request-id", "up-1"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
        ]);
        assert!(!from_upstream(&mut answer, false));
        let mut left: Vec<_> = answer.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-type", "x-upstream-request-id"]);
    }

    #[test]
    fn a_doubtful_framing_is_told() {
        let mut answer = headers(&[("content-length", "5"), ("transfer-encoding", "chunked")]);
        assert!(from_upstream(&mut answer, true));
        assert!(answer.is_empty());
    }

    #[test]
    fn durations_are_written_as_openai_does() {
        for (seconds, text) in [(1, "1s"), (360, "6m0s"), (50_349, "13h59m9s")] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
        }
    }
}
