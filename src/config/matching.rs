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
    ///
    /// Read as an upstream might that is lenient about case, escapes and a last slash: what it would
    /// answer is not free because it was spelled in another way.
    #[must_use]
    pub fn applies(&self, method: &http::Method, path: &str) -> bool {
        let path_matches = match self.path.strip_suffix('*') {
            Some(stem) => {
                let mut read = reading(path);
                reading(stem).all(|byte| read.next() == Some(byte))
            }
            None => reading(without_last_slash(path)).eq(reading(without_last_slash(&self.path))),
        };
        path_matches && self.method.as_str().eq_ignore_ascii_case(method.as_str())
    }
}

fn without_last_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// The bytes of a path without escapes and capitals.
fn reading(path: &str) -> impl Iterator<Item = u8> {
    let mut rest = path.as_bytes();
    std::iter::from_fn(move || {
        let (first, tail) = rest.split_first()?;
        rest = tail;
        let escaped = tail.split_at_checked(2).filter(|_| *first == b'%').and_then(|(hex, after)| {
            let byte = u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?;
            Some((byte, after))
        });
        let byte = escaped.map_or(*first, |(byte, after)| {
            rest = after;
            byte
        });
        Some(byte.to_ascii_lowercase())
    })
}
