//! Which upstream a request is for. A path that two parsers could read in two ways is refused, never
//! mended: what is checked here is byte for byte what the upstream gets.

use std::sync::Arc;

use http::{HeaderMap, Method, Request, Uri, header};

use crate::config;
use crate::dialect::{Call, Dialect};

/// The routes, longest prefix first.
pub(super) struct Routes(Vec<Arc<Route>>);

/// One route, as the walk uses it.
pub(super) struct Route {
    /// What the operator wrote.
    pub(super) config: config::Route,
    /// The prefix, shared by the rows and metrics of its requests.
    pub(super) name: Arc<str>,
}

/// No route took the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoute {
    /// The path has more than one reading.
    DoubtfulPath,
    /// No host, or several.
    DoubtfulHost,
    /// No prefix fits.
    Nothing,
    /// `CONNECT` and `TRACE` are never forwarded.
    Method,
}

// === impl Routes ===

impl Routes {
    pub(super) fn new(routes: &[config::Route]) -> Self {
        let named = |config: &config::Route| {
            let name = if config.prefix.is_empty() { "/" } else { config.prefix.as_str() };
            Arc::new(Route { name: name.into(), config: config.clone() })
        };
        let mut routes: Vec<_> = routes.iter().map(named).collect();
        routes.sort_by_key(|route| route.config.precedence());
        Self(routes)
    }

    pub(super) fn find<B>(&self, req: &Request<B>) -> Result<&Arc<Route>, NoRoute> {
        if matches!(*req.method(), Method::CONNECT | Method::TRACE) {
            return Err(NoRoute::Method);
        }
        let path = plain_path(req.uri(), req.version() < http::Version::HTTP_2)?;
        let host = host(req.uri(), req.headers())?;
        self.0.iter().find(|route| route.config.takes(host, path)).ok_or(NoRoute::Nothing)
    }

    /// Whose errors a client expects, also where no route was found.
    pub(super) fn dialect_of(&self, uri: &Uri, has_anthropic_version: bool) -> Dialect {
        let path = uri.path();
        let configured =
            self.0.iter().find(|route| route.config.takes_path(path)).and_then(|r| r.config.dialect);
        configured.unwrap_or_else(|| Dialect::guess(path, has_anthropic_version))
    }

    /// The route a path belongs to, by name, whatever its host.
    pub(super) fn name_of(&self, path: &str) -> &str {
        self.0.iter().find(|route| route.config.takes_path(path)).map_or("none", |route| &route.name)
    }
}

// === impl Route ===

impl Route {
    /// The call a request makes. A custom app's paths mean nothing to us.
    pub(super) fn call(&self, method: &Method, path: &str) -> Call {
        if self.config.dialect == Some(Dialect::Plain) { Call::Other } else { Call::of(method, path) }
    }

    /// Whether a request costs a conversation.
    pub(super) fn charges(&self, method: &Method, path: &str) -> bool {
        self.config.charge.iter().any(|charge| charge.applies(method, path))
    }

    /// The path as the upstream knows it.
    pub(super) fn upstream_path<'a>(&self, path: &'a str) -> &'a str {
        if self.config.strip_prefix {
            path.strip_prefix(self.config.prefix.as_str()).unwrap_or(path)
        } else {
            path
        }
    }
}

/// The path, if it has one reading only (origin-form of RFC 9112 §3.2.1).
fn plain_path(uri: &Uri, http1: bool) -> Result<&str, NoRoute> {
    let absolute_form = http1 && (uri.authority().is_some() || uri.scheme().is_some());
    let path = uri.path();
    if absolute_form || !path.starts_with('/') || is_doubtful(path) {
        return Err(NoRoute::DoubtfulPath);
    }
    Ok(path)
}

fn is_doubtful(path: &str) -> bool {
    let odd = |b: u8| b <= b' ' || b >= 0x7f || matches!(b, b'\\' | b';');
    if path.bytes().any(odd) || has_doubtful_escape(path.as_bytes()) {
        return true;
    }
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let inner = segments.peek().is_some();
        if matches!(segment, "." | "..") || (segment.is_empty() && inner) {
            return true;
        }
    }
    false
}

/// An escape that hides a separator, a dot, a control character, something that needs no escape (RFC
/// 3986 §2.3: upstreams read `%63hat` as `chat`), or nothing at all.
fn has_doubtful_escape(path: &[u8]) -> bool {
    let mut rest = path;
    while let Some(at) = memchr::memchr(b'%', rest) {
        let escaped = rest.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        let Some(Ok(byte)) = escaped.map(|hex| u8::from_str_radix(hex, 16)) else { return true };
        let hides = matches!(byte, b'.' | b'/' | b'\\' | b'%' | b';' | b'-' | b'_');
        if byte < b' ' || byte == 0x7f || hides || byte.is_ascii_alphanumeric() {
            return true;
        }
        rest = rest.get(at + 3..).unwrap_or_default();
    }
    false
}

/// The host without its port: `:authority` in HTTP/2, else the one `Host`.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<&'a str, NoRoute> {
    let mut given = headers.get_all(header::HOST).iter();
    let named = match (uri.authority(), given.next(), given.next()) {
        (_, _, Some(_)) | (None, None, None) => return Err(NoRoute::DoubtfulHost),
        (Some(authority), _, None) => authority.as_str(),
        (None, Some(host), None) => host.to_str().map_err(|_| NoRoute::DoubtfulHost)?,
    };
    if named.contains('@') {
        return Err(NoRoute::DoubtfulHost);
    }
    let port = named.rfind(':').filter(|&at| !named.get(at..).is_some_and(|tail| tail.contains(']')));
    Ok(port.and_then(|at| named.get(..at)).unwrap_or(named))
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::{is_doubtful, plain_path};

    #[test]
    fn a_path_with_two_readings_is_refused() {
        for doubtful in [
            "//v1",
            "/v1//chat",
            "/./v1",
            "/v1/../admin",
            "/v1/..",
            "/v1/.",
            "/%2e%2e/admin",
            "/v1%2fchat",
            "/v1%5cchat",
            "/v1%00",
            "/v1%0a",
            "/v1/%2E",
            "/v1;x=1",
            "/v1%3bx",
            "/v1/%252e",
            "/v1/%",
            "/v1/%2",
            "/v1/%zz",
            "/a\\b",
            "/v1/%+1",
            "/v1/%63hat",
            "/v1/%43hat",
            "/v%31",
            "/v1/a%5fb",
            "/v1/a%2Db",
        ] {
            assert!(is_doubtful(doubtful), "{doubtful}");
        }
        for plain in [
            "/",
            "/v1",
            "/v1/",
            "/v1/models/gpt-4o:free",
            "/v1/models/a%20b",
            "/v1beta/x:generateContent",
            "/..a/b..",
            "/~x",
        ] {
            assert!(!is_doubtful(plain), "{plain}");
        }
    }

    #[test]
    fn only_the_origin_form_is_served_on_http_1() {
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        assert!(plain_path(&uri("http://evil.example/v1"), true).is_err());
        assert!(plain_path(&uri("*"), true).is_err());
        assert_eq!(plain_path(&uri("https://gate.example/v1"), false), Ok("/v1"));
        assert_eq!(plain_path(&uri("/v1?x=//"), true), Ok("/v1"));
    }
}
