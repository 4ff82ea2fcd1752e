//! `/metrics`: the gateway's counters.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRequestParts, State};
use axum::response::IntoResponse;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;

use super::openapi::refused;
use super::problem::Problem;
use super::{Control, Surface};
use crate::config::MetricsAccess;
use crate::listen::{ClientIp, FromTrustedProxy};
use crate::telemetry::Metrics;

/// A caller that may read the metrics: anyone on the listener of the admins; on one that clients reach, this
/// machine, a listed network, or the holder of the token.
pub(super) struct Monitor;

/// The media type of what [`crate::telemetry::Metrics::text`] writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Headers by which a proxy says that it forwards for somebody else, besides `x-forwarded-*`.
const FORWARDING: [&str; 8] = [
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-envoy-external-address",
];

/// Shows the counters of the gateway.
///
/// In the text form of OpenMetrics, for Prometheus. On the listener of the admins, where there is one; else to
/// callers on the same machine, from `metrics.allowed_ips`, or with `metrics.token` as a bearer token.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "Health",
    responses(
        (status = 200, description = "Every series.", body = String, content_type = "application/openmetrics-text", example = "# TYPE tollgate_in_flight gauge\ntollgate_in_flight 3\n# EOF\n"),
        refused::MetricsNotAllowed,
    ),
)]
pub(super) async fn metrics(State(control): State<Arc<Control>>, _: Monitor) -> impl IntoResponse {
    shown(&control.metrics)
}

/// Every series, as an answer.
pub(super) fn shown(metrics: &Metrics) -> impl IntoResponse + use<> {
    ([(CONTENT_TYPE, OPEN_METRICS)], metrics.text())
}

// === impl Monitor ===

impl FromRequestParts<Arc<Control>> for Monitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, control: &Arc<Control>) -> Result<Self, Problem> {
        let Ok(Extension(surface)) = Extension::<Surface>::from_request_parts(parts, control).await else {
            return Err(Problem::Internal("a listener without a surface".to_owned()));
        };
        let access = &control.metrics_access;
        let permitted = surface == Surface::Admin
            || shows_token(&parts.headers, access)
            || address(parts).is_some_and(|(ip, direct)| permits(access, ip, direct));
        if permitted { Ok(Self) } else { Err(Problem::MetricsNotAllowed) }
    }
}

/// The address that the request comes from, and whether no proxy stands between; `None` where a proxy does whose
/// word is not taken.
fn address(parts: &Parts) -> Option<(IpAddr, bool)> {
    let ClientIp(ip) = parts.extensions.get::<ClientIp>().copied()?;
    if !is_forwarded(&parts.headers) {
        return Some((ip, true));
    }
    let is_told = parts.extensions.get::<FromTrustedProxy>().is_some()
        && parts.headers.contains_key(HeaderName::from_static("x-forwarded-for"));
    is_told.then_some((ip, false))
}

fn is_forwarded(headers: &HeaderMap) -> bool {
    headers
        .keys()
        .map(HeaderName::as_str)
        .any(|name| name.starts_with("x-forwarded") || FORWARDING.contains(&name))
}

fn permits(access: &MetricsAccess, ip: IpAddr, direct: bool) -> bool {
    direct && ip.is_loopback() || access.allowed_ips.iter().any(|network| network.contains(&ip))
}

fn shows_token(headers: &HeaderMap, access: &MetricsAccess) -> bool {
    let Some(token) = &access.token else { return false };
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (given.next(), given.next()) else { return false };
    let Some((scheme, shown)) = only.to_str().ok().and_then(|value| value.trim().split_once(' ')) else {
        return false;
    };
    let same: bool = shown.trim().as_bytes().ct_eq(token.expose_secret().as_bytes()).into();
    scheme.eq_ignore_ascii_case("bearer") && same
}

#[cfg(test)]
mod tests {
    use http::Request;
    use secrecy::SecretString;

    use super::{MetricsAccess, address, permits, shows_token};
    use crate::listen::{ClientIp, FromTrustedProxy};

    /// The address a request was resolved to, whether by a trusted proxy, its headers, and whether it is answered.
    type Case<'c> = (&'c str, bool, &'c [(&'c str, &'c str)], bool);

    fn access() -> MetricsAccess {
        MetricsAccess {
            allowed_ips: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            token: Some(SecretString::from("a-token-for-prometheus")),
        }
    }

    /// Whether a request is answered that was resolved to `ip` and has these headers.
    fn answered(ip: &str, trusted: bool, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::get("/metrics").extension(ClientIp(ip.parse().unwrap()));
        if trusted {
            request = request.extension(FromTrustedProxy);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let by_address = address(&parts).is_some_and(|(ip, direct)| permits(&access(), ip, direct));
        by_address || shows_token(&parts.headers, &access())
    }

    #[test]
    fn this_machine_listed_networks_and_the_token_are_answered_and_nobody_else() {
        let xff = ("x-forwarded-for", "10.1.1.1");
        let cases: &[Case] = &[
            ("127.0.0.1", false, &[], true),
            ("127.0.0.9", false, &[], true),
            ("::1", false, &[], true),
            ("10.1.2.3", false, &[], true),
            ("fd00::5", false, &[], true),
            ("203.0.113.7", false, &[], false),
            ("2001:db8::1", false, &[], false),
            // A proxy on this machine, trusted or not, speaks for somebody else.
            ("127.0.0.1", false, &[xff], false),
            ("127.0.0.1", true, &[xff], false),
            ("127.0.0.1", false, &[("forwarded", "for=127.0.0.1")], false),
            ("127.0.0.1", false, &[("x-real-ip", "127.0.0.1")], false),
            ("127.0.0.1", false, &[("x-forwarded-host", "gate.example")], false),
            ("127.0.0.1", false, &[("via", "1.1 nginx")], false),
            // A listed network behind a proxy counts where the proxy is trusted to name its client.
            ("10.1.1.1", true, &[xff], true),
            ("10.0.0.2", false, &[xff], false),
            ("10.0.0.2", true, &[("x-real-ip", "203.0.113.7")], false),
            ("203.0.113.7", true, &[("x-forwarded-for", "203.0.113.7")], false),
            ("203.0.113.7", false, &[("authorization", "Bearer a-token-for-prometheus")], true),
            ("203.0.113.7", false, &[("authorization", "bearer  a-token-for-prometheus"), xff], true),
            ("203.0.113.7", false, &[("authorization", "Bearer a-token-for-prometheu")], false),
            ("203.0.113.7", false, &[("authorization", "Basic a-token-for-prometheus")], false),
            ("203.0.113.7", false, &[("authorization", "Bearer ")], false),
            ("203.0.113.7", false, &[("x-api-key", "a-token-for-prometheus")], false),
            (
                "203.0.113.7",
                false,
                &[("authorization", "Bearer a-token-for-prometheus"), ("authorization", "Bearer x")],
                false,
            ),
        ];
        for (ip, trusted, headers, expected) in cases {
            assert_eq!(answered(ip, *trusted, headers), *expected, "{ip} {trusted} {headers:?}");
        }
        let nothing_listed = MetricsAccess::default();
        assert!(permits(&nothing_listed, "127.0.0.1".parse().unwrap(), true));
        assert!(!permits(&nothing_listed, "10.1.2.3".parse().unwrap(), true));
    }
}
