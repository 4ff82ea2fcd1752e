//! Heads that hyper takes and the RFCs do not: read in one way here and in another behind, they smuggle.

use http::header::{HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, StatusCode, Version};

/// What to answer to a head that must not be passed on.
pub(super) fn malformed<B>(request: &Request<B>) -> Option<StatusCode> {
    if request.version() <= Version::HTTP_11 {
        return wrong_coding(request.headers(), request.version());
    }
    let is_wrong = names_two_hosts(request)
        || request.headers().values().any(|value| has_outer_blanks(value.as_bytes()))
        || (request.method() == Method::CONNECT && request.uri().authority().is_none());
    is_wrong.then_some(StatusCode::BAD_REQUEST)
}

/// RFC 9113 §8.3.1: `Host` must not differ from `:authority`.
fn names_two_hosts<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), another) = (hosts.next(), hosts.next()) else { return false };
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    another.is_some() || authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(host.as_bytes()))
}

/// RFC 9113 §8.2.1: a value neither starts nor ends with a blank.
fn has_outer_blanks(value: &[u8]) -> bool {
    let blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    blank(value.first()) || blank(value.last())
}

/// RFC 9112 §6.1: `chunked` once and last, no coding in HTTP/1.0, and 501 for a coding that is not known here.
fn wrong_coding(headers: &HeaderMap, version: Version) -> Option<StatusCode> {
    if !headers.contains_key(TRANSFER_ENCODING) {
        return None;
    }
    let values = headers.get_all(TRANSFER_ENCODING).iter();
    let codings: Option<Vec<&str>> = values.map(|value| value.to_str().ok()).collect();
    let codings = codings.unwrap_or_default().join(",");
    let mut codings = codings.split(',').map(str::trim).filter(|coding| !coding.is_empty());
    let is_chunked = |coding: &str| coding.eq_ignore_ascii_case("chunked");
    if version < Version::HTTP_11 || codings.clone().filter(|coding| is_chunked(coding)).count() != 1 {
        return Some(StatusCode::BAD_REQUEST);
    }
    codings.any(|coding| !is_chunked(coding)).then_some(StatusCode::NOT_IMPLEMENTED)
}

#[cfg(test)]
mod tests {
    use http::{Request, StatusCode, Version};

    use super::malformed;

    fn answer(version: Version, method: &str, uri: &str, fields: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().version(version).method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        malformed(&request.body(()).unwrap()).as_ref().map(StatusCode::as_u16)
    }

    #[test]
    fn a_coding_is_chunked_once_and_nothing_else() {
        for (coding, status) in [
            ("chunked", None),
            ("Chunked", None),
            (" chunked,", None),
            ("gzip, chunked", Some(501)),
            ("chunked, chunked", Some(400)),
            ("identity, chunked", Some(501)),
            ("chunked, gzip", Some(501)),
            ("chunked;q=1", Some(400)),
            ("gzip", Some(400)),
            ("", Some(400)),
        ] {
            let fields = [("transfer-encoding", coding)];
            assert_eq!(answer(Version::HTTP_11, "POST", "/", &fields), status, "{coding:?}");
        }
        let twice = [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(answer(Version::HTTP_11, "POST", "/", &twice), Some(400));
        assert_eq!(answer(Version::HTTP_10, "POST", "/", &twice[..1]), Some(400));
        assert_eq!(answer(Version::HTTP_11, "POST", "/", &[]), None);
    }

    #[test]
    fn http_2_names_one_host_and_values_without_outer_blanks() {
        let h2 =
            |method: &str, uri: &str, fields: &[(&str, &str)]| answer(Version::HTTP_2, method, uri, fields);
        let uri = "https://gate.example/v1";
        assert_eq!(h2("GET", uri, &[]), None);
        assert_eq!(h2("GET", uri, &[("host", "GATE.example"), ("x", "a b"), ("y", "")]), None);
        for fields in [
            &[("host", "other.example")][..],
            &[("host", "gate.example:444")],
            &[("host", "gate.example"), ("host", "gate.example")],
            &[("x", " a")],
            &[("x", "a\t")],
        ] {
            assert_eq!(h2("GET", uri, fields), Some(400), "{fields:?}");
        }
        assert_eq!(h2("GET", "/v1", &[("host", "gate.example")]), None);
        assert_eq!(h2("CONNECT", "/", &[]), Some(400));
        assert_eq!(h2("CONNECT", "gate.example:443", &[]), None);
    }
}
