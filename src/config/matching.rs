//! Which requests a route takes, and which of them cost: read by the gate itself and by whoever explains it.

use std::cmp::Reverse;

use super::forms::lies_under;
use super::{Charge, Route};

// === impl Route ===

impl Route {
    /// Whether a request for `host` (without its port) and `path` is this route's, where no longer
    /// prefix takes it.
    #[must_use]
    pub fn takes(&self, host: &str, path: &str) -> bool {
        self.takes_path(path) && self.host.as_deref().is_none_or(|wanted| host.eq_ignore_ascii_case(wanted))
    }

    /// Of several routes that take a request, the least goes first: the longest prefix, and of two with
    /// the same the one for a host.
    #[must_use]
    pub fn precedence(&self) -> (Reverse<usize>, bool) {
        (Reverse(self.prefix.len()), self.host.is_none())
    }

    /// [`Route::takes`], whatever the host.
    #[must_use]
    pub fn takes_path(&self, path: &str) -> bool {
        lies_under(path, &self.prefix)
    }
}

// === impl Charge ===

impl Charge {
    /// Whether a request with this method and path costs a conversation.
    #[must_use]
    pub fn applies(&self, method: &http::Method, path: &str) -> bool {
        let path_matches = match self.path.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == self.path,
        };
        path_matches && self.method == *method
    }
}
