//! What the asking proxy says of the request it is about to forward, and whether that costs a conversation.
//!
//! Nothing here fails open: where `[authz] charge` is set and a request cannot be told from one that it names, the
//! answer is a refusal. A client may send any header through its proxy, so only the configured pair is read,
//! each of the two once, and the other pair must not contradict it.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, Method};

use super::super::Control;
use super::super::paging::Params;
use super::super::problem::Problem;
use crate::config::{AskedIn, Authz};
use crate::listen::FromTrustedProxy;
use crate::path::{Doubt, Path};

/// The request that the app behind the asking proxy is about to get.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::control) enum Asked {
    /// Nothing is said, or by a peer that is not a trusted proxy.
    Unsaid(&'static str),
    /// It is said in a way that has no reading, or several.
    Doubtful(&'static str),
    /// Every method that the app may take it for, and its path as it was written.
    Request(Vec<Method>, String),
}

/// The names of a pair: path, method.
const ORIGINAL: [&str; 2] = ["x-original-uri", "x-original-method"];
const FORWARDED: [&str; 2] = ["x-forwarded-uri", "x-forwarded-method"];
/// By these some frameworks take a request for one with another method.
const OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

const UNTRUSTED: &str = "The asking peer is not in server.trusted_proxies.";
const SILENT: &str = "The asking proxy names no path in the headers that authz.headers says.";
const TWICE: &str = "A header that names the request stands twice.";
const CONTRADICTED: &str = "X-Original-* and X-Forwarded-* name different requests.";
const NO_METHOD: &str = "The asking proxy names no method, or none that can be read.";
const NO_PATH: &str = "The path that the proxy was asked for cannot be read.";
const TWO_READINGS: &str = "The path that the proxy was asked for is ambiguous.";

// === impl Asked ===

impl Asked {
    /// Whether to take a conversation.
    pub(super) fn is_charged(&self, authz: &Authz, params: &Params) -> Result<bool, Problem> {
        let wanted = params.flag("charge")?;
        if authz.charge.is_empty() {
            return Ok(wanted);
        }
        match self {
            // An app that asks for itself says by `charge` what it wants.
            Self::Unsaid(_) if params.word("charge")?.is_some() => Ok(wanted),
            Self::Unsaid(why) | Self::Doubtful(why) => Err(Problem::DoubtfulRequest(why)),
            Self::Request(methods, path) => {
                let path = Path::new(path);
                let is_of = |method: &Method| authz.charge.iter().any(|charge| charge.is_of(method));
                match path.doubt() {
                    Some(Doubt::Always) => return Err(Problem::DoubtfulRequest(TWO_READINGS)),
                    Some(Doubt::WhereCharged) if methods.iter().any(is_of) => {
                        return Err(Problem::DoubtfulRequest(TWO_READINGS));
                    }
                    Some(Doubt::WhereCharged) | None => {}
                }
                let applies = |method| authz.charge.iter().any(|charge| charge.applies(method, &path));
                Ok(wanted || methods.iter().any(applies))
            }
        }
    }

    fn of(headers: &HeaderMap, family: AskedIn) -> Self {
        Self::read(headers, family).unwrap_or_else(Self::Doubtful)
    }

    fn read(headers: &HeaderMap, family: AskedIn) -> Result<Self, &'static str> {
        let (told, other) = match family {
            AskedIn::Original => (ORIGINAL, FORWARDED),
            AskedIn::Forwarded => (FORWARDED, ORIGINAL),
        };
        let [uri, method] = [only(headers, told[0])?, only(headers, told[1])?];
        for (told, other) in [uri, method].into_iter().zip(other) {
            let other = only(headers, other)?;
            if told.is_some() && other.is_some() && told != other {
                return Err(CONTRADICTED);
            }
        }
        let Some(uri) = uri else { return Ok(Self::Unsaid(SILENT)) };
        let method = method.and_then(|name| Method::from_bytes(name).ok()).ok_or(NO_METHOD)?;
        let mut methods = vec![method];
        for name in OVERRIDES {
            if let Some(method) = only(headers, name)? {
                methods.push(Method::from_bytes(method).map_err(|_| NO_METHOD)?);
            }
        }
        let path = uri.split(|b| *b == b'?').next().unwrap_or_default();
        let path = std::str::from_utf8(path).map_err(|_| NO_PATH)?;
        Ok(Self::Request(methods, path.to_owned()))
    }
}

impl FromRequestParts<Arc<Control>> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, control: &Arc<Control>) -> Result<Self, Problem> {
        let is_believed = parts.extensions.get::<FromTrustedProxy>().is_some();
        let family = control.authz.headers;
        Ok(if is_believed { Self::of(&parts.headers, family) } else { Self::Unsaid(UNTRUSTED) })
    }
}

/// The value of a header that may stand once.
fn only<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h [u8]>, &'static str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(TWICE),
        (value, None) => Ok(value.map(http::HeaderValue::as_bytes)),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Method};

    use super::{Asked, CONTRADICTED, NO_METHOD, NO_PATH, SILENT, TWICE};
    use crate::config::AskedIn;

    fn of(family: AskedIn, pairs: &[(&'static str, &str)]) -> Asked {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        Asked::of(&headers, family)
    }

    fn request(methods: &[Method], path: &str) -> Asked {
        Asked::Request(methods.to_vec(), path.to_owned())
    }

    #[test]
    fn what_was_asked_is_read_in_the_words_of_the_configured_family() {
        let nginx = [("x-original-uri", "/chat?x=1"), ("x-original-method", "POST")];
        assert_eq!(of(AskedIn::Original, &nginx), request(&[Method::POST], "/chat"));
        assert_eq!(of(AskedIn::Forwarded, &nginx), Asked::Unsaid(SILENT));
        let traefik = [("x-forwarded-uri", "/chat"), ("x-forwarded-method", "PUT")];
        assert_eq!(of(AskedIn::Forwarded, &traefik), request(&[Method::PUT], "/chat"));
        assert_eq!(of(AskedIn::Original, &traefik), Asked::Unsaid(SILENT));
        assert_eq!(of(AskedIn::Original, &[]), Asked::Unsaid(SILENT));
    }

    #[test]
    fn a_query_that_is_none_hides_no_path() {
        for uri in ["/chat?<", "/chat?\u{e4}", "/chat?a b", "/chat?#", "/chat??"] {
            let asked = of(AskedIn::Original, &[("x-original-uri", uri), ("x-original-method", "POST")]);
            assert_eq!(asked, request(&[Method::POST], "/chat"), "{uri}");
        }
    }

    #[test]
    fn what_has_no_reading_or_several_is_in_doubt() {
        let (uri, method) = (("x-original-uri", "/chat"), ("x-original-method", "POST"));
        let cases: [(&[(&str, &str)], &str); 9] = [
            (&[uri], NO_METHOD),
            (&[uri, ("x-original-method", "A B")], NO_METHOD),
            (&[uri, uri, method], TWICE),
            (&[uri, ("x-original-uri", "/free"), method], TWICE),
            (&[uri, method, ("x-original-method", "GET")], TWICE),
            (&[uri, method, ("x-forwarded-uri", "/free")], CONTRADICTED),
            (&[uri, method, ("x-forwarded-method", "GET")], CONTRADICTED),
            (&[uri, method, ("x-forwarded-uri", "/chat"), ("x-forwarded-uri", "/free")], TWICE),
            (&[uri, method, ("x-http-method-override", "A B")], NO_METHOD),
        ];
        for (pairs, why) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                let name = HeaderName::try_from(*name).unwrap();
                headers.append(name, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(Asked::of(&headers, AskedIn::Original), Asked::Doubtful(why), "{pairs:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("x-original-method", HeaderValue::from_static("POST"));
        headers.insert("x-original-uri", HeaderValue::from_bytes(b"/ch\xffat").unwrap());
        assert_eq!(Asked::of(&headers, AskedIn::Original), Asked::Doubtful(NO_PATH));
    }

    #[test]
    fn the_other_family_may_say_the_same_and_an_override_counts_too() {
        let (uri, method) = (("x-original-uri", "/chat"), ("x-original-method", "POST"));
        let same = [uri, method, ("x-forwarded-uri", "/chat"), ("x-forwarded-method", "POST")];
        assert_eq!(of(AskedIn::Original, &same), request(&[Method::POST], "/chat"));
        let other = [uri, method, ("x-http-method-override", "PUT")];
        assert_eq!(of(AskedIn::Original, &other), request(&[Method::POST, Method::PUT], "/chat"));
    }
}
