//! Which route takes a request, and what costs a conversation: read by the gate itself and by what explains it.

use std::cmp::Reverse;

use http::Method;

use super::{Charge, Route};
use crate::path::{Doubt, Path};

/// A request, as far as its route depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Method.
    pub method: &'a Method,
    /// The host without its port.
    pub host: &'a str,
    /// The path, before `strip_prefix`.
    pub path: &'a Path<'a>,
}

/// Why no route takes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrouted {
    /// Servers may disagree on what its path names.
    Doubtful,
    /// No prefix fits.
    Nothing,
}

/// The route that takes a request, by its position in `routes`: the longest prefix of the path's canonical
/// form. Where the path as it was written lies below another prefix, the one of both that charges for the request
/// takes it, so that no spelling turns a charged request into a free one.
///
/// # Errors
///
/// When the path is in doubt, or no route takes it.
pub fn route_for<'r, R>(routes: R, target: &Target<'_>) -> Result<usize, Unrouted>
where
    R: Iterator<Item = &'r Route> + Clone,
{
    let path = target.path;
    let doubt = path.doubt();
    if doubt == Some(Doubt::Always) {
        return Err(Unrouted::Doubtful);
    }
    let for_host = routes.enumerate().filter(|(_, route)| route.is_for(target.host));
    let first = |takes: &dyn Fn(&Route) -> bool| {
        for_host.clone().filter(|(_, route)| takes(route)).min_by_key(|(_, route)| route.precedence())
    };
    let read = first(&|route| route.takes_path(path)).ok_or(Unrouted::Nothing)?;
    let written =
        if path.is_canonical() { None } else { first(&|route| path.is_written_under(&route.prefix)) };
    let candidates = [Some(read), written];
    let mut candidates = candidates.iter().flatten();
    if doubt.is_some() && candidates.clone().any(|(_, route)| route.charges_some(target.method)) {
        return Err(Unrouted::Doubtful);
    }
    let charging = candidates.find(|(_, route)| route.charges(target.method, path));
    Ok(charging.unwrap_or(&read).0)
}

// === impl Route ===

impl Route {
    /// Of several routes that take a request, the least goes first: the longest prefix, and of two with
    /// the same the one for a host.
    #[must_use]
    pub fn precedence(&self) -> (Reverse<usize>, bool) {
        (Reverse(self.prefix.len()), self.host.is_none())
    }

    /// Whether a request for this path is this route's, where no longer prefix takes it, whatever its host.
    #[must_use]
    pub fn takes_path(&self, path: &Path<'_>) -> bool {
        path.lies_under(&Path::new(&self.prefix))
    }

    /// Whether a request costs a conversation.
    #[must_use]
    pub fn charges(&self, method: &Method, path: &Path<'_>) -> bool {
        self.charge.iter().any(|charge| charge.applies(method, path))
    }

    /// Whether some request with this method costs a conversation.
    #[must_use]
    pub fn charges_some(&self, method: &Method) -> bool {
        self.charge.iter().any(|charge| charge.is_of(method))
    }

    /// The path as the upstream knows it: as it was written, without the segments of a prefix that is stripped.
    #[must_use]
    pub fn upstream_path<'a>(&self, path: &Path<'a>) -> &'a str {
        if self.strip_prefix { path.below(self.prefix.matches('/').count()) } else { path.written() }
    }

    fn is_for(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.host.as_deref().is_none_or(|wanted| host.eq_ignore_ascii_case(wanted))
    }
}

// === impl Charge ===

impl Charge {
    /// Whether a request with this method and path costs a conversation.
    ///
    /// Compared as by an upstream that is lenient: by the canonical form of the path ([`Path::canonical`]), with or
    /// without a file extension (Rails answers `/chat.json` as `/chat`), and with HEAD as GET.
    #[must_use]
    pub fn applies(&self, method: &Method, path: &Path<'_>) -> bool {
        if !self.is_of(method) {
            return false;
        }
        let path = path.canonical();
        match self.path.strip_suffix('*') {
            Some(stem) => begins(path, stem)
                .or_else(|| begins(path, stem.strip_suffix('/')?).filter(|rest| rest.is_empty()))
                .is_some(),
            None => begins(path, without_last_slash(&self.path))
                .is_some_and(|rest| rest.is_empty() || is_extension(rest)),
        }
    }

    /// Whether it is about requests with this method.
    #[must_use]
    pub fn is_of(&self, method: &Method) -> bool {
        self.method.as_str().eq_ignore_ascii_case(method.as_str())
            || (self.method == Method::GET && method.as_str().eq_ignore_ascii_case("HEAD"))
    }
}

fn without_last_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// What follows `stem`, which is plain but for its case, in a canonical path.
fn begins<'a>(path: &'a str, stem: &str) -> Option<&'a str> {
    let (start, rest) = path.split_at_checked(stem.len())?;
    start.eq_ignore_ascii_case(stem).then_some(rest)
}

fn is_extension(rest: &str) -> bool {
    rest.strip_prefix('.').is_some_and(|name| !name.contains('/'))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{Target, Unrouted, route_for};
    use crate::config::{Charge, Config, Route, Vars};
    use crate::path::Path;

    fn routes(lines: &[&str]) -> Vec<Route> {
        let dir = tempfile::tempdir().unwrap();
        let lines = lines.iter().map(|lines| format!("[[routes]]\nupstream = \"app\"\n{lines}\n"));
        let text: String =
            std::iter::once("[[upstreams]]\nname = \"app\"\nurl = \"http://app\"\n".to_owned())
                .chain(lines)
                .collect();
        Config::from_toml(&text, dir.path(), &Vars::default()).unwrap().routes
    }

    fn found(routes: &[Route], host: &str, method: &str, path: &str) -> Result<usize, Unrouted> {
        let (method, path) = (method.parse::<Method>().unwrap(), Path::new(path));
        route_for(routes.iter(), &Target { method: &method, host, path: &path })
    }

    #[test]
    fn no_spelling_of_a_charged_path_is_routed_elsewhere() {
        let charged = "prefix = \"/v1\"\ncharge = [\"POST /v1/chat\"]";
        let routes = routes(&["prefix = \"/\"\ncharge = []", charged]);
        let found = |method: &str, path: &str| found(&routes, "gate", method, path);
        for path in ["/v1/chat", "/V1/chat", "/v1/CHAT/", "/V1/chat.json", "/v1/chat%7E", "/V1"] {
            assert_eq!(found("POST", path), Ok(1), "{path}");
        }
        for path in ["/v1/chat%3Fx", "/v1%23/chat", "/v1/chat%20", "/V1/models/%20", "/v1/%FF"] {
            assert_eq!(found("POST", path), Err(Unrouted::Doubtful), "{path}");
            assert_eq!(found("GET", path), Ok(1), "{path}: nothing is charged for GET here");
        }
        for path in ["/v1%2Fchat", "/v1;x/chat", "//v1/chat", "/v1/./chat", "/v1/%63hat", "/x/../v1/chat"] {
            assert_eq!(found("POST", path), Err(Unrouted::Doubtful), "{path}");
        }
        for path in ["/", "/v2/chat", "/files/a%20b", "/v1x", "/x/v1/chat"] {
            assert_eq!(found("POST", path), Ok(0), "{path}");
        }
    }

    #[test]
    fn a_route_that_charges_is_not_undercut_by_one_that_does_not() {
        let routes = routes(&[
            "prefix = \"/v1\"\ncharge = [\"POST /v1/*\"]",
            "prefix = \"/v1/free\"\ncharge = []",
            "prefix = \"/v1\"\nhost = \"free.example\"\ncharge = []",
        ]);
        assert_eq!(found(&routes, "gate", "POST", "/v1/free/x"), Ok(1), "as the operator wrote it");
        assert_eq!(found(&routes, "gate", "POST", "/v1/FREE/x"), Ok(0), "the app may tell them apart");
        assert_eq!(found(&routes, "gate", "GET", "/v1/FREE/x"), Ok(1));
        assert_eq!(found(&routes, "gate", "POST", "/v1/FREE/a%20b"), Err(Unrouted::Doubtful));
        assert_eq!(found(&routes, "gate", "POST", "/v1/free/a%20b"), Ok(1));
        assert_eq!(found(&routes, "FREE.example.", "POST", "/v1/chat"), Ok(2));
        assert_eq!(found(&routes, "gate", "POST", "/v2"), Err(Unrouted::Nothing));
    }

    #[test]
    fn a_charge_is_read_as_a_lenient_app_would() {
        let charge =
            |method: &str, path: &str| Charge { method: method.parse().unwrap(), path: path.to_owned() };
        let applies = |method: &str, path: &str, asked: &str, to: &str| {
            charge(method, path).applies(&asked.parse().unwrap(), &Path::new(to))
        };
        for to in ["/chat", "/Chat/", "/CHAT", "/chat.json", "/chat.", "/chat%3Fx", "/chat%0a", "/x/../chat"]
        {
            assert!(applies("POST", "/Chat", "POST", to), "{to}");
            assert!(applies("POST", "/chat/", "post", to), "{to}");
        }
        for to in ["/", "/cha", "/chats", "/chat/x", "/chat.d/x", "/x/chat"] {
            assert!(!applies("POST", "/chat", "POST", to), "{to}");
        }
        for to in ["/paid/x", "/PAID/x/y", "/paid/", "/paid"] {
            assert!(applies("GET", "/paid/*", "GET", to) && applies("GET", "/paid/*", "HEAD", to), "{to}");
            assert!(!applies("GET", "/paid/*", "POST", to), "{to}");
        }
        assert!(!applies("GET", "/paid/*", "GET", "/paidx") && applies("GET", "/paid*", "GET", "/paidx"));
        assert!(applies("POST", "/*", "POST", "/") && applies("POST", "/", "POST", "/"));
    }
}
