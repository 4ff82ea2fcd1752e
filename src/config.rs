//! One file, checked: what the operator wrote, typed and ready. Nothing is parsed again later.
//!
//! `load` finds and reads it; `file` names every key with its form (`forms`, `units`) and default, `plans`
//! those of plans, `routes` those of routes (`calls` what they open and charge where they do not say); `tree` walks the TOML by them and gathers every mistake; `env` lays the environment over
//! it; `check` holds the keys against each other; `secrets` makes the keys a first start lacks.
//!
//! Relative paths, of the file and of the environment, count from the working directory.

mod calls;
mod check;
mod database;
mod env;
mod file;
mod forms;
mod grants;
mod load;
mod mail;
mod matching;
mod metrics;
mod plans;
mod routes;
mod secrets;
mod security;
mod shared;
mod spelling;
mod tree;
mod units;
mod webhooks;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chrono_tz::Tz;
use http::header::{HeaderName, HeaderValue};
use http::uri::{Authority, Scheme};
use ipnet::IpNet;

pub use self::database::{Database, DatabaseLocation};
pub use self::env::Vars;
pub use self::grants::Grant;
pub use self::load::{ConfigError, Options, locate};
pub use self::mail::{Delivery, Mail, Smtp, SmtpEncryption};
pub use self::matching::{Target, Unrouted, route_for};
pub use self::metrics::MetricsAccess;
pub use self::secrets::{MissingSecret, RequireTotp, Secrets, Security};
pub use self::webhooks::{AskedIn, Authz, WebhookEvent, Webhooks};
use crate::dialect::Dialect;
use crate::plan::{AddressRules, Plans};
pub use routes::{LeftOut, SocketCharge};

/// Everything the gateway was told, checked. Durations and sizes are positive unless a field says
/// that 0 means "none".
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that was read; `None` for defaults and environment alone, or a text.
    pub file: Option<PathBuf>,
    /// `[server]`
    pub server: Server,
    /// `[database]`
    pub database: Database,
    /// `[security]`
    pub security: Security,
    /// `[metrics]`
    pub metrics: MetricsAccess,
    /// `[access]`: who may use keys at all; `Anywhere` while the switch is off.
    pub access: AddressRules,
    /// `[limits]`
    pub limits: Limits,
    /// `[plans.*]`
    pub plans: Plans,
    /// `[message_log]`
    pub message_log: MessageLog,
    /// `[webhooks]`, when it has a URL.
    pub webhooks: Option<Webhooks>,
    /// `[authz]`
    pub authz: Authz,
    /// `[mail]`
    pub mail: Mail,
    /// `[[upstreams]]`, at least one when there are routes.
    pub upstreams: Vec<Upstream>,
    /// `[[routes]]`; every `upstream` is an index into `upstreams`.
    pub routes: Vec<Route>,
    /// Weak settings that `development` forgives, each with its configuration path and the way out.
    pub warnings: Vec<Finding>,
    /// What the next start will do by itself, such as making a missing secret; empty after a start.
    pub notes: Vec<Finding>,
}

/// Sockets, threads and the limits of a connection.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where clients come in; at least one.
    pub listen: Vec<SocketAddr>,
    /// When set, the admin and staff API, and metrics, are served only there.
    pub admin_listen: Vec<SocketAddr>,
    /// Data-plane threads, at least 1 (0 in the file is one per core, resolved here).
    pub workers: usize,
    /// Where SQLite, secrets and the spool live.
    pub data_dir: PathBuf,
    /// Peers whose `X-Forwarded-For` and `X-Request-Id` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How long everything goes on after SIGTERM, with readiness red, before the drain begins; where it is
    /// not set, that depends on whether the readiness was asked for.
    pub shutdown_delay: Option<Duration>,
    /// How long running streams may go on once the drain has begun.
    pub drain_timeout: Duration,
    /// Whether the API's documentation is served: `/docs`, `/redoc` and `/openapi.json`.
    pub docs: bool,
    /// How strictly weak settings are judged.
    pub environment: Environment,
    /// TLS on `listen`, when configured.
    pub tls: Option<Tls>,
    /// What one connection may take.
    pub connections: Connections,
    /// `DEBUG` of the seed: more detail in our own log, never in an answer.
    pub debug: bool,
}

/// Certificate and key in PEM; read again when the files change.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Private key.
    pub private_key: PathBuf,
}

/// `[server.connections]`: what one client connection may take, in time and space.
#[derive(Clone, Debug)]
pub struct Connections {
    /// Most connections at a time, over all workers.
    pub max: usize,
    /// Most connections of one address (an IPv6 /64 counts as one).
    pub max_per_address: usize,
    /// Time for a TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// Time from the first byte of a request head to its end.
    pub head_timeout: Duration,
    /// How long an idle connection is kept.
    pub keep_alive_timeout: Duration,
    /// Longest silence inside a request body.
    pub body_idle_timeout: Duration,
    /// Slowest acceptable request body in bytes per second, over any 20 seconds.
    pub body_min_rate: u64,
    /// Longest time for a request body that is read whole before it is forwarded.
    pub body_timeout: Duration,
    /// Longest time for a request body that streams through.
    pub upload_timeout: Duration,
    /// How long a client may refuse to read before it is cut.
    pub write_stall_timeout: Duration,
    /// Slowest acceptable reader in bytes per second, over any 20 seconds in which bytes wait for it.
    pub write_min_rate: u64,
    /// Largest request head in bytes.
    pub max_head_size: usize,
    /// Most header fields in a request.
    pub max_headers: usize,
    /// Longest request target in bytes.
    pub max_uri_length: usize,
    /// Most concurrent streams of one HTTP/2 connection.
    pub h2_max_streams: u32,
}

/// How strictly weak settings are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// Warned about.
    Development,
    /// Refused.
    Production,
}

/// `[limits]`
#[derive(Clone, Debug)]
pub struct Limits {
    /// Sustained requests a minute of one client address; 0 for no limit.
    pub rate_limit_per_minute: u32,
    /// Requests at once of one client address.
    pub burst: u32,
    /// Requests of all keys in flight at a time; more are answered 503.
    pub max_parallel: usize,
    /// Requests of one user at a time, with all keys together, those whose body is still on its way
    /// included; 0 for no limit.
    pub max_parallel_per_user: u32,
    /// Most bytes of request bodies in memory; beyond, requests are answered 503.
    pub max_body_memory: u64,
    /// Most bytes of one user's request bodies in memory; beyond, their requests are answered 429.
    pub max_body_memory_per_user: u64,
    /// Most conversations that a node has in hand for one user, 1 and more.
    pub max_lease: u16,
    /// When a day begins.
    pub time_zone: Tz,
    /// Largest JSON request body in bytes.
    pub max_body_size: u64,
    /// Largest request body that streams through unread, in bytes.
    pub max_upload_size: u64,
    /// Most keys kept in memory.
    pub max_cached_keys: usize,
    /// Most client addresses whose rate is remembered.
    pub max_tracked_addresses: usize,
}

/// `[message_log]`
#[derive(Clone, Debug)]
pub struct MessageLog {
    /// Longest wait of a row for its batch.
    pub batch_interval: Duration,
    /// Rows that make a batch.
    pub batch_size: usize,
    /// Bytes waiting that force a batch, and bytes of the whole process, looked at each two minutes
    /// (`MEMORY_THRESHOLD_MB` of the seed).
    pub memory_threshold: u64,
    /// Whether the last byte of an answer waits for the disk.
    pub sync: Sync,
    /// How long what was said is kept.
    pub content_retention: Duration,
    /// How long the rest of a row is kept.
    pub metadata_retention: Duration,
    /// What is kept where a route does not say.
    pub capture: Capture,
    /// Most bytes of one answer kept; what is beyond is cut and marked.
    pub max_answer_size: u64,
    /// Most bytes kept over all conversations at a time; beyond, rows are metadata only.
    pub max_memory: u64,
    /// Most bytes kept of one user's calls that cost nothing, on one UTC day and on one node; beyond, rows say
    /// that they are cut.
    pub max_free_per_user: u64,
    /// Most bytes of the spool; beyond, new conversations are answered 503.
    pub max_spool: u64,
    /// Bytes of the disk that the spool leaves free, or a twentieth of it where that is less.
    pub min_free_space: u64,
    /// Longest time that a record of the spool is not yet durable.
    pub sync_interval: Duration,
}

/// When a row counts as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Within the batch.
    Interval,
    /// Before the client's last byte.
    Strict,
}

/// How much of a conversation is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// What was asked and answered.
    Full,
    /// Who, when, how long, how many tokens.
    Metadata,
    /// Only what the ledger needs.
    Off,
}

/// One `[[upstreams]]`.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// How routes and logs call it.
    pub name: String,
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host, with the port where one was given.
    pub authority: Authority,
    /// Path that comes before every request's own: "" or `/base`, without a slash at the end.
    pub base_path: String,
    /// What is sent in the client's credential's stead.
    pub credential: Option<Credential>,
    /// A PEM bundle that replaces the system's roots.
    pub ca_file: Option<PathBuf>,
    /// Whether the client address is told (`X-Forwarded-For`, `-Proto`, `-Host`).
    pub forward_client_address: bool,
    /// Time for TCP, and for TLS.
    pub connect_timeout: Duration,
    /// Time from the end of the request to the answer's head.
    pub first_byte_timeout: Duration,
    /// Longest silence inside an answer.
    pub idle_timeout: Duration,
    /// Longest answer in time.
    pub total_timeout: Duration,
    /// How long an unused connection is kept.
    pub pool_idle_timeout: Duration,
    /// Most unused connections kept by one worker.
    pub pool_max_idle: usize,
}

/// A header with a secret in it.
#[derive(Clone)]
pub struct Credential {
    /// Which header.
    pub header: HeaderName,
    /// Its value, marked sensitive.
    pub value: HeaderValue,
}

/// One `[[routes]]`.
#[derive(Clone, Debug)]
pub struct Route {
    /// Path prefix, without a slash at the end; "" matches every path.
    pub prefix: String,
    /// Only requests for this host, in lower case without the port.
    pub host: Option<String>,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    /// Given, or guessed from each request's path.
    pub dialect: Option<Dialect>,
    /// What plans open it by; the upstream's name when not given.
    pub scope: String,
    /// What costs a conversation.
    pub charge: Vec<Charge>,
    /// What costs nothing although `charge` covers it.
    pub free: Vec<Grant>,
    /// What is forwarded; all else is refused.
    pub allow: Vec<Grant>,
    /// Which of these lists the file does not have.
    pub left_out: LeftOut,
    /// Whether `prefix` is removed before forwarding.
    pub strip_prefix: bool,
    /// How much of a conversation is kept.
    pub capture: Capture,
    /// Whether WebSocket upgrades pass.
    pub websocket: bool,
    /// What one conversation on a WebSocket is; where nothing is said it goes by dialect and path.
    pub websocket_charge: Option<SocketCharge>,
    /// The `r_type` of every request here.
    pub r_type: Option<String>,
    /// Models whose rows are marked `research_model`; `*` at either end.
    pub research_models: Vec<String>,
    /// Whether `x-tollgate-user`, `-plan`, `-level`, `-remaining` are sent upstream.
    pub identity_headers: bool,
    /// JSON pointer (RFC 6901) to the answer's text in a plain app's JSON, such as `/reply`.
    pub answer: Option<String>,
    /// Whether a conversation that the upstream answers 400, 404, 422 or with a redirect is given back.
    pub refund_client_errors: bool,
    /// Whether the upstream's own `x-ratelimit-*`, `set-cookie`, `server` … reach the client.
    pub keep_upstream_headers: bool,
}

/// One entry of `charge`: a method and a path, compared whole and in canonical form; `*` at the path's end
/// matches the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Method.
    pub method: http::Method,
    /// Path as the client sends it, before `strip_prefix`.
    pub path: String,
}

/// A mistake or a weakness in the configuration: where, what, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// TOML path, such as `plans.free.conversation_limit` or `routes[0].upstream`; or the environment
    /// variable, where one set the key.
    pub path: String,
    /// What is wrong, and what to write instead. Never the value of a secret.
    pub message: String,
}

// === impl Credential ===

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("header", &self.header).finish_non_exhaustive()
    }
}

// === impl Charge ===

impl fmt::Display for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

// === impl Finding ===

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}
