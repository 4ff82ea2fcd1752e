//! Which route takes a request, and what costs a conversation: read by the gate itself and by what explains it.

use std::cmp::Reverse;

use http::Method;

use super::{Charge, Route, calls};
use crate::dialect::Dialect;
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
    /// Whether it has a body.
    pub has_body: bool,
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
    let charging = candidates.find(|(_, route)| route.charges(target.method, path, target.has_body));
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

    /// Whether a request costs a conversation: what `charge` covers and `free` does not. Where the file has no
    /// `charge` and the app is not a plain one, so does a method that no API of language models has, and a body sent to
    /// a call that makes a model work, whatever the method: not every server looks at it.
    #[must_use]
    pub fn charges(&self, method: &Method, path: &Path<'_>, has_body: bool) -> bool {
        let is_unsaid = self.left_out.charge && self.dialect != Some(Dialect::Plain);
        let is_charged = self.charge.iter().any(|charge| charge.applies(method, path))
            || is_unsaid && (!is_usual(method) || has_body && calls::may_generate(path));
        is_charged && !self.gives_away(method, path)
    }

    /// Whether `free` names this request.
    #[must_use]
    pub fn gives_away(&self, method: &Method, path: &Path<'_>) -> bool {
        self.free.iter().any(|free| free.covers(method, path, self.depth()))
    }

    /// Whether a request is forwarded. One that asks to become a WebSocket is a GET; at `…/responses` it is what a
    /// POST is otherwise.
    #[must_use]
    pub fn allows(&self, method: &Method, path: &Path<'_>, is_upgrade: bool) -> bool {
        let stands_for_post = is_upgrade && calls::is_socket_of_post(path);
        self.allow.iter().any(|grant| {
            if *method == Method::OPTIONS {
                return grant.covers_path(path, self.depth());
            }
            grant.covers(method, path, self.depth())
                || stands_for_post && grant.covers(&Method::POST, path, self.depth())
        })
    }

    /// Whether some request with this method costs a conversation.
    #[must_use]
    pub fn charges_some(&self, method: &Method) -> bool {
        self.charge.iter().any(|charge| charge.is_of(method))
    }

    /// The path as the upstream knows it: as it was written, without the segments of a prefix that is stripped.
    #[must_use]
    pub fn upstream_path<'a>(&self, path: &Path<'a>) -> &'a str {
        if self.strip_prefix { path.below(self.depth()) } else { path.written() }
    }

    /// How many segments the prefix has.
    fn depth(&self) -> usize {
        self.prefix.matches('/').count()
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

    /// Whether a request below `prefix` can be what this says.
    pub(super) fn may_apply(&self, prefix: &str) -> bool {
        let prefix = Path::new(prefix);
        match self.path.strip_suffix('*').map(str::to_ascii_lowercase) {
            Some(stem) => stem.starts_with(prefix.canonical()) || prefix.canonical().starts_with(&stem),
            None => Path::new(&self.path).lies_under(&prefix),
        }
    }

    /// Whether it is about requests with this method.
    #[must_use]
    pub fn is_of(&self, method: &Method) -> bool {
        self.method.as_str().eq_ignore_ascii_case(method.as_str())
            || (self.method == Method::GET && method.as_str().eq_ignore_ascii_case("HEAD"))
    }
}

/// Whether the known APIs of language models have calls with this method.
fn is_usual(method: &Method) -> bool {
    let usual = [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::DELETE,
        Method::POST,
        Method::PUT,
        Method::PATCH,
    ];
    usual.contains(method)
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
    use crate::config::{Charge, Config, Grant, Route, Vars};
    use crate::path::Path;

    fn routes(lines: &[&str]) -> Vec<Route> {
        routes_to("url = \"http://app\"", lines)
    }

    fn routes_to(upstream: &str, lines: &[&str]) -> Vec<Route> {
        let dir = tempfile::tempdir().unwrap();
        let lines = lines.iter().map(|lines| format!("[[routes]]\nupstream = \"app\"\n{lines}\n"));
        let text: String =
            std::iter::once(format!("[[upstreams]]\nname = \"app\"\n{upstream}\n")).chain(lines).collect();
        Config::from_toml(&text, dir.path(), &Vars::default()).unwrap().routes
    }

    fn found(routes: &[Route], host: &str, method: &str, path: &str) -> Result<usize, Unrouted> {
        let (method, path) = (method.parse::<Method>().unwrap(), Path::new(path));
        route_for(routes.iter(), &Target { method: &method, host, path: &path, has_body: true })
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

    /// A route by its keys, and the places below which its calls stand.
    const PLACES: [(&str, &[&str]); 7] = [
        (
            "prefix = \"/\"",
            &[
                "",
                "/v1",
                "/openai",
                "/openai/v1",
                "/openai/deployments/My-GPT-4.1",
                "/v1/engines/m",
                "/engines/files",
                "/compatible-mode/v1",
                "/api/paas/v4",
                "/api/v3",
                "/anthropic/v1",
                "/anthropic",
                "/cursor",
                "/v1beta/openai",
                "/v1/projects/p/locations/l/endpoints/openapi",
                "/models/owner/name/v1",
                "/somewhere/else/v1",
            ],
        ),
        ("prefix = \"/v1\"", &["/v1", "/v1/engines/m", "/v1/openai"]),
        ("prefix = \"/openai\"\nstrip_prefix = true", &["/openai", "/openai/v1", "/openai/deployments/d"]),
        ("prefix = \"/openai\"\ndialect = \"openai\"", &["/openai", "/openai/deployments/batches"]),
        ("prefix = \"/files/llm\"", &["/files/llm/v1", "/files/llm"]),
        ("prefix = \"/claude\"\ndialect = \"anthropic\"", &["/claude/v1", "/claude"]),
        ("prefix = \"/llama\"\ndialect = \"ollama\"", &["/llama", "/llama/v1"]),
    ];

    /// Calls that make a model work.
    const WORK: [&str; 25] = [
        "/chat/completions",
        "/completions",
        "/fim/completions",
        "/completion",
        "/complete",
        "/infill",
        "/responses",
        "/responses/compact",
        "/messages",
        "/images/generations",
        "/images/edits",
        "/images/variations",
        "/audio/speech",
        "/audio/transcriptions",
        "/audio/translations",
        "/rerank",
        "/api/chat",
        "/api/generate",
        "/models/gemini-1.5:generateContent",
        "/v1beta/models/m:streamGenerateContent",
        "/models/imagen:predict",
        "/publishers/anthropic/models/claude:rawPredict",
        "/publishers/anthropic/models/claude:streamRawPredict",
        "/publishers/google/models/m:generateContent",
        "/tunedModels/t:generateContent",
    ];

    /// Calls that generate nothing.
    const FREE: [&str; 14] = [
        "/embeddings",
        "/embedding",
        "/moderations",
        "/messages/count_tokens",
        "/responses/input_tokens",
        "/tokenize",
        "/detokenize",
        "/apply-template",
        "/api/embed",
        "/api/embeddings",
        "/api/show",
        "/models/m:embedContent",
        "/models/m:batchEmbedContents",
        "/models/m:countTokens",
    ];

    const READ: [&str; 6] =
        ["/models", "/models/m", "/models/owner/name", "/api/tags", "/api/ps", "/api/version"];

    /// Calls that reach what the users of one account share.
    const SHARED: [(&str, &str); 78] = [
        ("POST", "/files"),
        ("GET", "/files"),
        ("GET", "/files/f"),
        ("GET", "/files/f/content"),
        ("DELETE", "/files/f"),
        ("GET", "/files/models"),
        ("GET", "/files/models/f"),
        ("POST", "/files/f/chat/completions"),
        ("POST", "/uploads"),
        ("POST", "/uploads/u/parts"),
        ("POST", "/batches"),
        ("GET", "/batches"),
        ("GET", "/batches/b"),
        ("POST", "/batches/b/cancel"),
        ("POST", "/messages/batches"),
        ("GET", "/messages/batches"),
        ("GET", "/messages/batches/b/results"),
        ("DELETE", "/messages/batches/b"),
        ("POST", "/models/m:batchGenerateContent"),
        ("POST", "/models/m:asyncBatchEmbedContent"),
        ("POST", "/models/m:predictLongRunning"),
        ("POST", "/fine_tuning/jobs"),
        ("GET", "/fine_tuning/jobs"),
        ("POST", "/fine_tuning/jobs/j/cancel"),
        ("POST", "/fine-tunes"),
        ("GET", "/responses"),
        ("GET", "/responses/r"),
        ("HEAD", "/responses/r"),
        ("GET", "/responses/r/input_items"),
        ("DELETE", "/responses/r"),
        ("POST", "/responses/r/cancel"),
        ("POST", "/responses/r"),
        ("GET", "/chat/completions"),
        ("GET", "/chat/completions/c"),
        ("GET", "/chat/completions/c/messages"),
        ("POST", "/chat/completions/c"),
        ("DELETE", "/chat/completions/c"),
        ("DELETE", "/models/m"),
        ("PATCH", "/tunedModels/t"),
        ("POST", "/assistants"),
        ("GET", "/assistants"),
        ("POST", "/threads"),
        ("POST", "/threads/t/messages"),
        ("GET", "/threads/t/messages"),
        ("POST", "/threads/t/runs"),
        ("POST", "/vector_stores"),
        ("POST", "/vector_stores/v/search"),
        ("GET", "/vector_stores/v/files"),
        ("POST", "/conversations"),
        ("GET", "/conversations/c/items"),
        ("POST", "/containers"),
        ("GET", "/containers/c/files"),
        ("POST", "/videos"),
        ("GET", "/videos/v/content"),
        ("POST", "/evals"),
        ("POST", "/skills"),
        ("POST", "/audio/voices"),
        ("GET", "/audio/voices"),
        ("POST", "/realtime/client_secrets"),
        ("POST", "/realtime/sessions"),
        ("POST", "/realtime/calls"),
        ("POST", "/cachedContents"),
        ("GET", "/organization/usage/completions"),
        ("GET", "/organization/models"),
        ("POST", "/api/pull"),
        ("POST", "/api/push"),
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("DELETE", "/api/delete"),
        ("POST", "/api/blobs/sha256:0"),
        ("GET", "/model/info"),
        ("POST", "/model/new"),
        ("GET", "/get/config/callbacks"),
        ("POST", "/key/generate"),
        ("GET", "/key/list/models"),
        ("GET", "/slots"),
        ("GET", "/metrics"),
        ("POST", "/anything"),
    ];

    fn places() -> impl Iterator<Item = (Route, Route, &'static str)> {
        PLACES.iter().flat_map(|(keys, bases)| {
            let credential = "url = \"http://app\"\ncredential = { header = \"x-api-key\", value = \"s\" }";
            let (with, without) = (routes_to(credential, &[keys]), routes(&[keys]));
            bases.iter().map(move |base| (with[0].clone(), without[0].clone(), *base))
        })
    }

    #[test]
    fn the_usual_calls_are_open_charged_and_free_wherever_they_stand() {
        let mut tried = 0;
        for (with, without, base) in places() {
            for (method, tails, is_charged) in [
                ("POST", &WORK[..], true),
                ("POST", &FREE, false),
                ("GET", &READ, false),
                ("HEAD", &READ, false),
            ] {
                for tail in tails {
                    let (method, path) = (method.parse().unwrap(), format!("{base}{tail}"));
                    let path = Path::new(&path);
                    tried += 1;
                    assert!(with.allows(&method, &path, false), "{method} {base}{tail} is not open");
                    assert!(with.allows(&Method::OPTIONS, &path, false), "OPTIONS {base}{tail} is not open");
                    for grant in with.allow.iter().chain(&without.free) {
                        assert_eq!(Grant::parse(&grant.to_string(), |_| true).as_ref(), Ok(grant));
                    }
                    for route in [&with, &without] {
                        let charged = route.charges(&method, &path, method == Method::POST);
                        assert_eq!(charged, is_charged, "{method} {base}{tail}");
                    }
                }
            }
        }
        assert_eq!(tried, 1_581, "calls at {} places", places().count());
    }

    #[test]
    fn what_users_share_upstream_is_closed_and_what_is_posted_is_charged() {
        let (mut tried, mut charged) = (0, 0);
        for (with, without, base) in places() {
            for (method, tail) in SHARED {
                let (method, path) = (method.parse().unwrap(), format!("{base}{tail}"));
                let path = Path::new(&path);
                tried += 1;
                assert!(!with.allows(&method, &path, false), "{method} {base}{tail} is open");
                assert!(without.allows(&method, &path, false), "{method} {base}{tail}, without a credential");
                let is_charged = without.charges(&method, &path, true);
                charged += usize::from(is_charged);
                let makes_work = [Method::POST, Method::PUT, Method::PATCH].contains(&method);
                assert!(is_charged || !makes_work, "{method} {base}{tail} is free");
            }
        }
        assert_eq!(tried, 2_418, "calls at {} places", places().count());
        assert!(charged > tried / 2, "{charged} of {tried}");
    }

    #[test]
    fn a_default_charge_holds_for_every_method_that_may_make_a_model_work() {
        let routes = routes(&["prefix = \"/\"", "prefix = \"/app\"\ndialect = \"plain\""]);
        let charges = |method: &str, path: &str, has_body: bool| {
            routes[0].charges(&method.parse().unwrap(), &Path::new(path), has_body)
        };
        for method in ["POST", "PUT", "PATCH", "post", "QUERY", "FOO"] {
            assert!(
                charges(method, "/v1/chat/completions", true) && charges(method, "/x", false),
                "{method}"
            );
        }
        for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
            assert!(!charges(method, "/v1/chat/completions", false), "{method}");
            assert!(charges(method, "/V1/Chat/completions/", true), "{method} with a body");
            assert!(charges(method, "/v1beta/models/m:generateContent", true), "{method} with a body");
            assert!(!charges(method, "/v1/files/f", true), "{method}");
        }
        for path in ["/v1/Embeddings", "/v1/embeddings.json", "/v1/embeddings/x", "/models/me/embeddings"] {
            assert!(charges("POST", path, true), "{path}");
        }
        let plain = |method: Method| routes[1].charges(&method, &Path::new("/app/v1/chat/completions"), true);
        assert!(
            plain(Method::POST) && !plain(Method::PUT) && !plain(Method::GET),
            "a plain app's own affair"
        );
    }

    #[test]
    fn lists_of_the_file_hold_instead_of_the_usual_ones() {
        let credential = "url = \"http://app/api\"\ncredential = { header = \"x-api-key\", value = \"s\" }";
        let routes = routes_to(
            credential,
            &[
                "prefix = \"/a\"\nfree = [\"POST /a/files\"]",
                "prefix = \"/b\"\ncharge = [\"POST /b/*\"]",
                "prefix = \"/c\"\ncharge = [\"POST /c/ask\", \"POST /c/files/*\"]\nfree = [\"GET /c/about\"]",
                "prefix = \"/d\"\nallow = [\"GET /d/files\"]",
                "prefix = \"/e\"\nallow = [\"*\"]",
                "prefix = \"/f\"\ndialect = \"plain\"",
                "prefix = \"/g\"\nwebsocket = true",
                "prefix = \"/h\"\nallow = []",
            ],
        );
        let charges = |at: usize, path: &str| routes[at].charges(&Method::POST, &Path::new(path), true);
        assert!(!charges(0, "/a/files") && charges(0, "/a/v1/embeddings"), "`free` is the whole list");
        assert!(charges(1, "/b/v1/embeddings"), "a `charge` is not given away by what is usual");
        let allows =
            |at: usize, method: Method, path: &str| routes[at].allows(&method, &Path::new(path), false);
        assert!(
            allows(2, Method::POST, "/c/ask") && allows(2, Method::GET, "/c/about"),
            "what the file names is meant"
        );
        assert!(!allows(2, Method::POST, "/c/files/x") && !allows(2, Method::POST, "/c/Ask"));
        assert!(allows(3, Method::GET, "/d/files") && !allows(3, Method::POST, "/d/v1/chat/completions"));
        assert!(allows(4, Method::DELETE, "/e/v1/files/x") && allows(5, Method::DELETE, "/f/v1/files/x"));
        assert!(
            allows(6, Method::POST, "/g/chat") && allows(6, Method::GET, "/g/tags"),
            "the prefix stands for /api"
        );
        assert!(!allows(7, Method::GET, "/h/v1/models"));
        let upgrade = |at: usize, path: &str| routes[at].allows(&Method::GET, &Path::new(path), true);
        assert!(
            upgrade(6, "/g/v1/realtime") && upgrade(6, "/g/v1/responses") && upgrade(6, "/g/openai/realtime")
        );
        assert!(
            !upgrade(6, "/g/v1/responses/r") && !upgrade(6, "/g/v1/files") && !upgrade(3, "/d/v1/realtime")
        );
        assert!(!allows(6, Method::GET, "/g/v1/responses"));
        assert!(!upgrade(6, "/g/v1/chat/completions"), "a server that ignores the upgrade lists stored ones");
    }

    #[test]
    fn what_an_allow_opens_is_told() {
        let credential = "url = \"http://app\"\ncredential = { header = \"x-api-key\", value = \"s\" }";
        let opened = |keys: &str| routes_to(credential, &[keys])[0].opens_of_the_account();
        for usual in [
            "prefix = \"/\"",
            "prefix = \"/v1\"\nwebsocket = true",
            "prefix = \"/api\"\ndialect = \"ollama\"",
            "prefix = \"/v1\"\nallow = [\"POST /v1/chat/completions\", \"GET /v1/models/*\", \"GET */models\"]",
            "prefix = \"/\"\nallow = [\"POST /v1/chat/*\"]",
            "prefix = \"/app\"\ndialect = \"plain\"\nallow = [\"*\"]",
        ] {
            assert!(opened(usual).is_empty(), "{usual}: {:?}", opened(usual));
        }
        for wide in ["prefix = \"/\"\nallow = [\"*\"]", "prefix = \"/openai\"\nallow = [\"* /openai/*\"]"] {
            assert_eq!(opened(wide).len(), 9, "{wide}");
        }
        for (allow, what) in [
            ("POST /v1/files", "files"),
            ("GET /openai/files", "files"),
            ("GET /azure/openai/file*", "files"),
            ("* */files/*", "files"),
            ("POST /v1/batches", "batches"),
            ("GET /v1/responses/*", "stored answers"),
            ("DELETE /v1/responses/*", "stored answers"),
            ("* /v1/chat/completions", "stored answers"),
            ("POST /v1/fine_tuning/jobs", "fine-tuning"),
            ("DELETE /v1/models/*", "fine-tuning"),
            ("POST /v1/threads/*", "assistants"),
            ("POST /api/pull", "models that all users have"),
            ("GET /model/info", "administration"),
            ("POST /v1/realtime/client_secrets", "tokens"),
            ("GET /slots", "asked"),
        ] {
            let opened = opened(&format!("prefix = \"/\"\nallow = [\"{allow}\"]"));
            assert!(opened.len() == 1 && opened[0].contains(what), "{allow}: {opened:?}");
        }
    }
}
