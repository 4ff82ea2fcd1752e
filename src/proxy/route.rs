//! Which upstream a request is for. Paths are compared in their canonical form (`path`); one that two parsers
//! could read in two ways is refused, never mended: what is checked here is byte for byte what the upstream gets.

use std::sync::Arc;

use http::{HeaderMap, Method, Request, Uri, header};
use http_body::Body;

use crate::config::{self, Target, Unrouted, route_for};
use crate::dialect::{Call, Dialect};
use crate::path::Path;

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

    pub(super) fn find<B: Body>(&self, req: &Request<B>) -> Result<&Arc<Route>, NoRoute> {
        if matches!(*req.method(), Method::CONNECT | Method::TRACE) {
            return Err(NoRoute::Method);
        }
        let path = Path::new(origin_form(req.uri(), req.version() < http::Version::HTTP_2)?);
        let host = host(req.uri(), req.headers())?;
        let has_body = !req.body().is_end_stream();
        let target = Target { method: req.method(), host, path: &path, has_body };
        let found = route_for(self.0.iter().map(|route| &route.config), &target)?;
        self.0.get(found).ok_or(NoRoute::Nothing)
    }

    /// Whose errors a client expects, also where no route was found.
    pub(super) fn dialect_of(&self, uri: &Uri, has_anthropic_version: bool) -> Dialect {
        let path = uri.path();
        let read = Path::new(path);
        let configured =
            self.0.iter().find(|route| route.config.takes_path(&read)).and_then(|r| r.config.dialect);
        configured.unwrap_or_else(|| Dialect::guess(path, has_anthropic_version))
    }

    /// The route a path belongs to, by name, whatever its host.
    pub(super) fn name_of(&self, path: &str) -> &str {
        let path = Path::new(path);
        self.0.iter().find(|route| route.config.takes_path(&path)).map_or("none", |route| &route.name)
    }
}

// === impl Route ===

impl Route {
    /// The call a request makes. A custom app's paths mean nothing to us.
    pub(super) fn call(&self, method: &Method, path: &str) -> Call {
        if self.config.dialect == Some(Dialect::Plain) { Call::Other } else { Call::of(method, path) }
    }

    /// Whether a request costs a conversation.
    pub(super) fn charges(&self, method: &Method, path: &str, has_body: bool) -> bool {
        self.config.charges(method, &Path::new(path), has_body)
    }

    /// Whether a request is one of those that the route opens.
    pub(super) fn allows(&self, method: &Method, path: &str, is_upgrade: bool) -> bool {
        self.config.allows(method, &Path::new(path), is_upgrade)
    }

    /// The path as the upstream knows it.
    pub(super) fn upstream_path<'a>(&self, path: &'a str) -> &'a str {
        self.config.upstream_path(&Path::new(path))
    }
}

// === impl NoRoute ===

impl From<Unrouted> for NoRoute {
    fn from(unrouted: Unrouted) -> Self {
        match unrouted {
            Unrouted::Doubtful => Self::DoubtfulPath,
            Unrouted::Nothing => Self::Nothing,
        }
    }
}

/// The path of a request in origin-form (RFC 9112 §3.2.1).
fn origin_form(uri: &Uri, http1: bool) -> Result<&str, NoRoute> {
    let absolute_form = http1 && (uri.authority().is_some() || uri.scheme().is_some());
    if absolute_form { Err(NoRoute::DoubtfulPath) } else { Ok(uri.path()) }
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

    use super::origin_form;

    #[test]
    fn only_the_origin_form_is_served_on_http_1() {
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        assert!(origin_form(&uri("http://evil.example/v1"), true).is_err());
        assert_eq!(origin_form(&uri("https://gate.example/v1"), false), Ok("/v1"));
        assert_eq!(origin_form(&uri("/v1?x=//"), true), Ok("/v1"));
    }
}
