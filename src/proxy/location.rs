//! Where an upstream sends a client. An address of the upstream's own means nothing to the client, and may be one
//! that the operator keeps to themselves: it is written anew as the client sees the same place.

use http::header::{CONTENT_LOCATION, HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::uri::Scheme;

use crate::config::{Route, Upstream};

/// Fields whose value is one URI reference (RFC 9110 §8.7 and §10.2.2, and Azure's of long operations).
const FIELDS: [HeaderName; 3] = [LOCATION, CONTENT_LOCATION, HeaderName::from_static("operation-location")];

/// Rewrites what names the upstream's own origin, or a path as only the upstream knows it.
pub(super) fn rewrite(headers: &mut HeaderMap, upstream: &Upstream, route: &Route) {
    for name in &FIELDS {
        let http::header::Entry::Occupied(mut entry) = headers.entry(name) else { continue };
        for value in entry.iter_mut() {
            let text = std::str::from_utf8(value.as_bytes()).ok();
            let seen = text.and_then(|text| client_view(text.trim(), upstream, route));
            if let Some(seen) = seen.and_then(|seen| HeaderValue::try_from(seen).ok()) {
                *value = seen;
            }
        }
    }
}

/// The same place as the client sees it; `None` where the reference is not about this upstream, or is seen alike
/// from both sides.
fn client_view(reference: &str, upstream: &Upstream, route: &Route) -> Option<String> {
    let rest = match authority(reference) {
        Some((scheme, authority, rest)) => is_own(upstream, scheme, authority).then_some(rest)?,
        None => Some(reference).filter(|reference| reference.starts_with('/'))?,
    };
    let (path, more) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    let path = path.replace('\\', "/");
    let inner = path.strip_prefix(upstream.base_path.as_str());
    let inner = inner.filter(|inner| inner.is_empty() || inner.starts_with('/')).unwrap_or(&path);
    let prefix = if route.strip_prefix { route.prefix.as_str() } else { "" };
    let path = format!("{prefix}{inner}");
    // "//host" would be another host's (RFC 3986 §4.2 and §5.3).
    let start = match path.as_bytes() {
        [] => "/",
        [b'/', b'/', ..] => "/.",
        _ => "",
    };
    Some(format!("{start}{path}{more}"))
}

/// Scheme ("" for a network-path reference), authority, and what follows; browsers take "\" for "/".
fn authority(reference: &str) -> Option<(&str, &str, &str)> {
    let slash = |c: char| matches!(c, '/' | '\\');
    let (scheme, rest) = match reference.split_once(':') {
        Some((scheme, rest))
            if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") =>
        {
            (scheme, rest)
        }
        _ => ("", reference),
    };
    let rest = rest.strip_prefix(slash)?.strip_prefix(slash)?;
    let (authority, rest) = rest.split_at(rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len()));
    Some((scheme, authority, rest))
}

/// Whether an authority is the upstream's, also where it leaves the port out or says another scheme: an app behind
/// its own TLS does.
fn is_own(upstream: &Upstream, scheme: &str, authority: &str) -> bool {
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = host_and_port(authority);
    let (own_host, own_port) = host_and_port(upstream.authority.as_str());
    let default = |is_https: bool| if is_https { "443" } else { "80" };
    let own_port = own_port.unwrap_or_else(|| default(upstream.scheme == Scheme::HTTPS));
    let is_port = port.is_none_or(|port| port == own_port)
        || upstream.authority.port().is_none() && port == Some(default(scheme.eq_ignore_ascii_case("https")));
    let is_host = host.eq_ignore_ascii_case(own_host) || (is_loopback(host) && is_loopback(own_host));
    is_host && is_port
}

fn host_and_port(authority: &str) -> (&str, Option<&str>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port).filter(|port| !port.is_empty())),
        _ => (authority, None),
    };
    (host.strip_suffix('.').unwrap_or(host), port)
}

/// This machine, by any of its names for itself.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}
