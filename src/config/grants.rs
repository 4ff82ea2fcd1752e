//! What a route grants: the calls that it opens (`allow`) and those that cost nothing (`free`).
//!
//! A charge is read as leniently as the most lenient server would ([`Charge`](super::Charge)); a grant is read
//! strictly, so that no server's leniency turns one call into another: a path must be written as the grant says, but for a
//! slash at its end.

use std::fmt;

use http::Method;

use crate::path::Path;

/// One entry of `allow` or `free`: a method and a path, `*` for any method, and in the path
///
/// - `*` alone for every path,
/// - `*` at the end for whatever follows,
/// - `*` at the beginning, before a `/` or a `:`, for any base: the version, the deployment, the provider. A base is
///   no resource of its own, see [`is_base`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// `None` for every method.
    method: Option<Method>,
    /// Whether any base may come before `path`.
    anywhere: bool,
    /// What is written between the stars, without a slash at the end.
    path: String,
    /// Whether anything may follow.
    open: bool,
}

/// Segments whose next segment is a name that operators or clients chose.
const NAMED_NEXT: &[&str] =
    &["accounts", "deployments", "endpoints", "engines", "locations", "projects", "publishers"];

/// Segments at which something begins that is no conversation: stored things, and the administration of known servers.
/// A server that looks at a path's beginning takes what is below for theirs.
const RESOURCES: &[&str] = &[
    "admin",
    "agents",
    "assistants",
    "audio",
    "audit",
    "batch",
    "batches",
    "blobs",
    "budget",
    "cache",
    "cachedcontents",
    "callbacks",
    "chat",
    "chatkit",
    "completion",
    "completions",
    "config",
    "containers",
    "conversations",
    "copy",
    "corpora",
    "create",
    "credentials",
    "customer",
    "delete",
    "embedding",
    "embeddings",
    "end_user",
    "evals",
    "files",
    "fine-tunes",
    "fine-tuning",
    "fine_tunes",
    "fine_tuning",
    "generate",
    "get",
    "global",
    "guardrails",
    "health",
    "images",
    "interactions",
    "invitation",
    "jobs",
    "key",
    "keys",
    "lora-adapters",
    "mcp",
    "messages",
    "metrics",
    "model",
    "model_group",
    "moderations",
    "operations",
    "organization",
    "organizations",
    "permissions",
    "policy",
    "prompts",
    "props",
    "pull",
    "push",
    "rerank",
    "responses",
    "runs",
    "scim",
    "sessions",
    "settings",
    "skills",
    "slots",
    "spend",
    "sso",
    "tag",
    "team",
    "threads",
    "uploads",
    "usage",
    "user",
    "users",
    "vector_stores",
    "videos",
    "workspaces",
];

// === impl Grant ===

impl Grant {
    /// Reads `METHOD /path`, or `*` for everything.
    ///
    /// # Errors
    ///
    /// What to write instead.
    pub(super) fn parse(text: &str, is_plain: impl Fn(&str) -> bool) -> Result<Self, String> {
        let text = text.trim();
        let (method, path) =
            if text == "*" { ("*", "*") } else { text.split_once(' ').ok_or_else(way_out)? };
        let method = match method {
            "*" => None,
            word if word.bytes().all(|b| b.is_ascii_uppercase()) => {
                Some(Method::try_from(word).map_err(|_| way_out())?)
            }
            _ => return Err(way_out()),
        };
        let path = path.trim_start();
        let (rest, open) = path.strip_suffix('*').map_or((path, false), |rest| (rest, true));
        let (rest, anywhere) = rest.strip_prefix('*').map_or((rest, false), |rest| (rest, true));
        let begins =
            rest.starts_with('/') || (anywhere && rest.starts_with(':')) || (rest.is_empty() && open);
        if !begins {
            return Err(way_out());
        }
        if !is_plain(rest) {
            let message = "its path must be plain: no blanks, \"%\", \"?\", \"#\", \";\", \"//\" or \"..\"; \"*\" only at its \
                           beginning and its end";
            return Err(message.to_owned());
        }
        let path = if open { rest } else { without_last_slash(rest) };
        Ok(Self { method, anywhere: anywhere && !rest.is_empty(), path: path.to_owned(), open })
    }

    /// Every call.
    #[must_use]
    pub fn everything() -> Self {
        Self { method: None, anywhere: false, path: String::new(), open: true }
    }

    /// One call, exactly.
    #[must_use]
    pub fn exactly(method: Method, path: &str) -> Self {
        Self { method: Some(method), anywhere: false, path: without_last_slash(path).to_owned(), open: false }
    }

    /// Whether a request is one of these. `prefix` is how many segments its route's prefix has: a base begins below.
    #[must_use]
    pub fn covers(&self, method: &Method, path: &Path<'_>, prefix: usize) -> bool {
        self.is_of(method) && self.covers_path(path, prefix)
    }

    /// Whether a request with some method for this path is one of these.
    #[must_use]
    pub fn covers_path(&self, path: &Path<'_>, prefix: usize) -> bool {
        let is_everything = self.path.is_empty() && self.open;
        is_everything || self.spells(path, prefix) && path.doubt().is_none()
    }

    fn spells(&self, path: &Path<'_>, prefix: usize) -> bool {
        let written = path.written();
        match (self.anywhere, self.open) {
            (false, true) => written.starts_with(&self.path),
            (false, false) => without_last_slash(written) == self.path,
            (true, open) => {
                let below = written.len().saturating_sub(path.below(prefix).len());
                let is_base = |at| written.get(below..at).is_none_or(|base| self.may_follow(base));
                if open {
                    // A version in what follows would begin another base.
                    let follows = |at: usize| written.get(at + self.path.len()..).unwrap_or_default();
                    written
                        .match_indices(&self.path)
                        .any(|(at, _)| is_base(at) && !follows(at).split('/').any(is_version))
                } else {
                    without_last_slash(written)
                        .strip_suffix(self.path.as_str())
                        .is_some_and(|base| is_base(base.len()))
                }
            }
        }
    }

    /// Its path without the stars.
    pub(super) fn written(&self) -> &str {
        &self.path
    }

    /// Whether it stands for more than one path.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.anywhere || self.open
    }

    /// Whether its path can be that of a request below `prefix`.
    pub(super) fn may_apply(&self, prefix: &str) -> bool {
        let prefix = Path::new(prefix);
        if self.anywhere {
            return true;
        }
        if self.open {
            let stem = self.path.to_ascii_lowercase();
            return stem.starts_with(prefix.canonical()) || prefix.canonical().starts_with(&stem);
        }
        Path::new(&self.path).lies_under(&prefix)
    }

    fn is_of(&self, method: &Method) -> bool {
        match &self.method {
            None => true,
            Some(own) => own == method || (*own == Method::GET && *method == Method::HEAD),
        }
    }

    fn may_follow(&self, base: &str) -> bool {
        if self.path.starts_with(':') {
            // The last segment names what the verb is about.
            base.rsplit_once('/').is_some_and(|(base, name)| !name.is_empty() && is_base(base, true))
        } else {
            is_base(base, false)
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = self.method.as_ref().map_or("*", Method::as_str);
        let star = |is_there: bool| if is_there { "*" } else { "" };
        match (self.path.is_empty(), self.open, &self.method) {
            (true, true, None) => return f.write_str("*"),
            (true, false, _) => return write!(f, "{method} /"),
            _ => {}
        }
        write!(f, "{method} {}{}{}", star(self.anywhere), self.path, star(self.open))
    }
}

fn way_out() -> String {
    "write a method and a path, such as \"POST /v1/embeddings\" or \"POST */embeddings\", or \"*\" for everything".to_owned()
}

fn without_last_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// Whether this may come before a call: versions, providers, and deployments by name, but no resource, and no name
/// with a dot in it, such as `admin.php`, which a server may take for the whole path. `models` is a base only directly before
/// a call, before a version (`/models/owner/name/v1/…`), or where a verb is asked of a model.
pub(super) fn is_base(base: &str, of_verb: bool) -> bool {
    let mut segments = base.split('/').skip(1).map(str::to_ascii_lowercase).peekable();
    while let Some(segment) = segments.next() {
        if NAMED_NEXT.contains(&segment.as_str()) {
            segments.next();
        } else if matches!(segment.as_str(), "models" | "tunedmodels") {
            if of_verb {
                segments.next();
            } else if segments.peek().is_some() && !segments.any(|segment| is_version(segment.as_str())) {
                return false;
            }
        } else if RESOURCES.contains(&segment.as_str())
            || (segment.contains('.') && !is_version(segment.as_str()))
        {
            return false;
        }
    }
    true
}

/// `v1`, `v1beta`, `v1.0`
pub(super) fn is_version(segment: &str) -> bool {
    let number = segment.strip_prefix('v').unwrap_or_default();
    let stage = number.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let stage = stage.trim_end_matches(|c: char| c.is_ascii_digit());
    number.starts_with(|c: char| c.is_ascii_digit()) && matches!(stage, "" | "alpha" | "beta")
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::Grant;
    use crate::path::Path;

    fn covers(grant: &str, method: &str, path: &str, prefix: usize) -> bool {
        let grant = Grant::parse(grant, |_| true).unwrap();
        grant.covers(&method.parse().unwrap(), &Path::new(path), prefix)
    }

    #[test]
    fn a_grant_is_printed_as_it_is_written() {
        for text in [
            "*",
            "GET *",
            "POST /v1/embeddings",
            "* /v1/*",
            "POST */embeddings",
            "GET */models/*",
            "POST *:countTokens",
            "GET /",
        ] {
            assert_eq!(Grant::parse(text, |_| true).unwrap().to_string(), text);
        }
        assert_eq!(Grant::parse("* *", |_| true).unwrap(), Grant::everything());
        for text in
            ["", "POST", "/v1/x", "post /v1/x", "POST v1", "POST *x", "POST :x", "** /x", "*/x", "POST "]
        {
            assert!(Grant::parse(text, |_| true).is_err(), "{text}");
        }
        assert!(Grant::parse("POST /v1/*/x", |path| !path.contains('*')).is_err());
    }

    #[test]
    fn a_grant_is_read_as_it_is_written_and_no_more() {
        let call = "POST /v1/embeddings";
        for path in ["/v1/embeddings", "/v1/embeddings/"] {
            assert!(covers(call, "POST", path, 1), "{path}");
        }
        for path in [
            "/v1/Embeddings",
            "/V1/embeddings",
            "/v1/embeddings.json",
            "/v1/embeddings/x",
            "/v1/embeddings//",
            "/v1/embedding%73",
            "/v1/embeddings%20",
            "/v1/embeddings;x",
            "/v1/x/../embeddings",
            "/v1/embedding",
            "/x/v1/embeddings",
        ] {
            assert!(!covers(call, "POST", path, 1), "{path}");
        }
        for method in ["GET", "post", "PUT", "OPTIONS"] {
            assert!(!covers(call, method, "/v1/embeddings", 1), "{method}");
        }
        assert!(covers("GET /v1/models", "HEAD", "/v1/models", 1));
        assert!(covers("* /v1/models", "DELETE", "/v1/models", 1));
        assert!(covers("GET /v1/models/*", "GET", "/v1/models/Owner/Name:free", 1));
        for path in [
            "/v1/models",
            "/v1/models/a%20b",
            "/v1/models/../files",
            "/v1/models/%2e%2e/files",
            "/V1/models/x",
        ] {
            assert!(!covers("GET /v1/models/*", "GET", path, 1), "{path}");
        }
        assert!(covers("*", "FOO", "/files/a%20b", 0));
    }

    #[test]
    fn a_base_is_no_resource_of_its_own() {
        for (grant, path) in [
            ("POST */embeddings", "/embeddings"),
            ("POST */embeddings", "/v1/embeddings"),
            ("POST */embeddings", "/openai/deployments/d/embeddings"),
            ("POST */embeddings", "/openai/deployments/files/embeddings"),
            ("POST */embeddings", "/openai/deployments/GPT-4.1/embeddings/"),
            ("POST */embeddings", "/v1/engines/text-3.5/embeddings"),
            ("POST */embeddings", "/compatible-mode/v1/embeddings"),
            ("POST */embeddings", "/api/paas/v4/embeddings"),
            ("POST */embeddings", "/models/embeddings"),
            ("POST */embeddings", "/models/owner/name/v1/embeddings"),
            ("POST */embeddings", "/v1.0/embeddings"),
            ("POST *:countTokens", "/v1beta/models/gemini-1.5-pro:countTokens"),
            ("POST *:countTokens", "/v1/projects/p.q/locations/l/publishers/google/models/m:countTokens"),
            ("POST *:countTokens", "/v1beta/models/vertex/gemini-1.5:countTokens"),
            ("POST *:countTokens", "/v1beta/tunedModels/t:countTokens"),
            ("GET */models/*", "/v1/models/owner/name"),
        ] {
            let (method, _) = grant.split_once(' ').unwrap();
            assert!(covers(grant, method, path, 0), "{grant} {path}");
        }
        for (grant, path) in [
            ("POST */embeddings", "/v1/files/x/embeddings"),
            ("POST */embeddings", "/v1/Files/x/embeddings"),
            ("POST */embeddings", "/v1/chat/completions/embeddings"),
            ("POST */embeddings", "/models/owner/embeddings"),
            ("POST */embeddings", "/v2/models/owner/embeddings"),
            ("POST */embeddings", "/admin.php/v1/embeddings"),
            ("POST */embeddings", "/key/generate/embeddings"),
            ("POST */embeddings", "/x-embeddings"),
            ("POST *:countTokens", "/v1beta/models/:countTokens"),
            ("POST *:countTokens", "/v1beta/files/m:countTokens"),
            ("POST *:countTokens", "/v1beta/models/m:counttokens"),
            ("POST *:countTokens", "/v1beta/models/m:countTokens/x"),
            ("GET */models/*", "/v1/files/models/x"),
            ("GET */models/*", "/v1/threads/models/x"),
            ("GET */models/*", "/v1/models"),
        ] {
            let (method, _) = grant.split_once(' ').unwrap();
            assert!(!covers(grant, method, path, 0), "{grant} {path}");
        }
        // What the prefix says is the operator's own word.
        assert!(covers("POST */embeddings", "POST", "/files/v1/embeddings", 1));
        assert!(covers("POST */chat/completions", "POST", "/v1/chat/completions", 2));
        assert!(!covers("POST */embeddings", "POST", "/llm/files/embeddings", 1));
    }

    #[test]
    fn one_that_never_happens_below_a_prefix_is_found() {
        let may = |grant: &str, prefix: &str| Grant::parse(grant, |_| true).unwrap().may_apply(prefix);
        assert!(
            may("POST /v1/x", "/v1") && may("*", "/v1") && may("POST */x", "/v1") && may("POST /*", "/v1")
        );
        assert!(
            may("POST /v1*", "/v1")
                && may("POST /V1/x", "/v1")
                && !may("POST /v2/x", "/v1")
                && !may("* /v2/*", "/v1")
        );
        assert_eq!(Grant::exactly(Method::GET, "/x/").to_string(), "GET /x");
    }
}
