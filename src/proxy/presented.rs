//! The key a request shows, taken out of it: no credential of a client ever goes on.

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderValue, Request};

use crate::credential::key::PlainKey;
use crate::credential::presented::{self, KEY_HEADERS, SUBPROTOCOL};

pub(super) use presented::NoKey;

/// Takes the key out of the request, and every other credential with it.
pub(super) fn take<B>(req: &mut Request<B>) -> Result<PlainKey, NoKey> {
    let found = presented::find(req.headers());
    strip(req.headers_mut());
    found
}

fn strip(headers: &mut HeaderMap) {
    for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].iter().chain(&KEY_HEADERS) {
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
