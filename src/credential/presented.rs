//! Where a request may carry a key: the same places on the data plane and on `/api/v1`.

use http::header::{AUTHORIZATION, HeaderName, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderValue};

use super::key::PlainKey;

/// A request carries no usable key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKey {
    /// None of ours; what else was shown is an upstream's.
    Missing,
    /// One of ours by its beginning, and of no shape that we make.
    Malformed,
    /// Two different ones.
    TwoKeys,
}

/// Headers whose whole value is a key, besides `Authorization: Bearer` and the WebSocket subprotocol.
pub static KEY_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// How OpenAI's realtime clients in browsers, which cannot set headers, show a key.
pub const SUBPROTOCOL: &str = "openai-insecure-api-key.";

/// The one key of a request. The same key in two places is one key; what does not begin like ours is
/// passed over.
///
/// # Errors
///
/// [`NoKey`].
pub fn find(headers: &HeaderMap) -> Result<PlainKey, NoKey> {
    let bearer = headers.get_all(AUTHORIZATION).iter().filter_map(bearer);
    let plain = KEY_HEADERS.iter().flat_map(|name| headers.get_all(name));
    let plain = plain.filter_map(|value| value.to_str().ok()).map(str::trim);
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
    let (scheme, credential) = value.to_str().ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim())
}
