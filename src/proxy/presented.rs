//! The key a request shows, taken out of it: no credential of a client ever goes on.

use http::header::{AUTHORIZATION, COOKIE, HeaderName, PROXY_AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderValue, Request};

use crate::credential::key::PlainKey;

/// No usable key was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// None of ours; what else was shown is an upstream's and is dropped.
    Missing,
    /// One of ours by its beginning, and of no shape that we make.
    Malformed,
    /// Two different ones.
    TwoKeys,
}

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const API_KEY: HeaderName = HeaderName::from_static("api-key");
const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");
/// How OpenAI's realtime clients in browsers, which cannot set headers, show a key.
const SUBPROTOCOL: &str = "openai-insecure-api-key.";

/// Takes the key out of the request, and every other credential with it.
///
/// Looked at in order: `Authorization: Bearer`, `x-api-key`, `api-key`, `x-goog-api-key`, the
/// WebSocket subprotocol. The same key in two places is one key.
pub(super) fn take<B>(req: &mut Request<B>) -> Result<PlainKey, NoKey> {
    let found = find(req.headers());
    strip(req.headers_mut());
    found
}

fn find(headers: &HeaderMap) -> Result<PlainKey, NoKey> {
    let bearer = headers.get_all(AUTHORIZATION).iter().filter_map(bearer);
    let plain = [X_API_KEY, API_KEY, X_GOOG_API_KEY];
    let plain = plain.iter().flat_map(|name| headers.get_all(name)).filter_map(|value| value.to_str().ok());
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let protocols =
        protocols.flat_map(|list| list.split(',')).filter_map(|p| p.trim().strip_prefix(SUBPROTOCOL));
    let mut ours = bearer.chain(plain).chain(protocols).filter(|value| PlainKey::looks_like_ours(value));
    let first = ours.next().ok_or(NoKey::Missing)?;
    if ours.any(|other| other != first) {
        return Err(NoKey::TwoKeys);
    }
    PlainKey::parse(first).map_err(|_| NoKey::Malformed)
}

/// The credential of a Bearer challenge (RFC 6750 §2.1); the scheme is case-insensitive.
fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, credential) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim())
}

fn strip(headers: &mut HeaderMap) {
    for name in [AUTHORIZATION, X_API_KEY, API_KEY, X_GOOG_API_KEY, COOKIE, PROXY_AUTHORIZATION] {
        headers.remove(name);
    }
    let Some(offered) = headers.remove(SEC_WEBSOCKET_PROTOCOL) else { return };
    let others = offered.to_str().unwrap_or_default().split(',').map(str::trim);
    let others: Vec<_> = others.filter(|protocol| !protocol.starts_with(SUBPROTOCOL)).collect();
    if let Ok(others) = HeaderValue::try_from(others.join(", ")).map_err(drop)
        && !others.is_empty()
    {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::{NoKey, take};

    const ONE: &str = "pe-0123456789abcdefghijABCDEFGHIJ01";
    const TWO: &str = "pe-0123456789abcdefghijABCDEFGHIJ02";

    fn shown(headers: &[(&str, &str)]) -> (Result<String, NoKey>, usize) {
        let mut req = Request::new(());
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            req.headers_mut().append(name, value.parse().unwrap());
        }
        let key = take(&mut req).map(|key| key.expose().to_owned());
        (key, req.headers().len())
    }

    #[test]
    fn a_key_is_found_wherever_clients_put_it_and_goes_no_further() {
        let bearer = format!("bEaReR {ONE}");
        let protocol = format!("realtime, openai-insecure-api-key.{ONE}");
        for header in
            [("authorization", &*bearer), ("x-api-key", ONE), ("api-key", ONE), ("x-goog-api-key", ONE)]
        {
            assert_eq!(shown(&[header, ("cookie", "a=b")]), (Ok(ONE.into()), 0), "{header:?}");
        }
        assert_eq!(shown(&[("sec-websocket-protocol", &protocol)]), (Ok(ONE.into()), 1));
    }

    #[test]
    fn an_upstream_credential_is_dropped_and_is_no_key() {
        assert_eq!(shown(&[("authorization", "Bearer sk-123")]), (Err(NoKey::Missing), 0));
        assert_eq!(shown(&[("authorization", "Bearer sk-123"), ("x-api-key", ONE)]), (Ok(ONE.into()), 0));
        assert_eq!(shown(&[("authorization", &format!("Basic {ONE}"))]), (Err(NoKey::Missing), 0));
    }

    #[test]
    fn two_keys_are_one_too_many_unless_they_are_the_same() {
        assert_eq!(shown(&[("x-api-key", ONE), ("api-key", TWO)]).0, Err(NoKey::TwoKeys));
        assert_eq!(shown(&[("x-api-key", ONE), ("api-key", ONE)]).0, Ok(ONE.into()));
        assert_eq!(shown(&[("x-api-key", ONE), ("x-api-key", TWO)]).0, Err(NoKey::TwoKeys));
    }

    #[test]
    fn a_key_of_no_known_shape_is_malformed() {
        assert_eq!(shown(&[("x-api-key", "pe-short")]).0, Err(NoKey::Malformed));
    }
}
