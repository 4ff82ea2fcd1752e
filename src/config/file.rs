//! Every key of the file: its name, its form, and what holds when it is left out. `gateway.toml.example`
//! documents the same keys; a test holds the two against each other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono_tz::Tz;
use http::header::HeaderName;
use ipnet::IpNet;
use secrecy::SecretString;

use super::mail::{self, MailDraft};
use super::metrics::{self, MetricsDraft};
use super::security::{self, SecurityDraft};
use super::tree::{Section, Tree};
use super::{
    Authz, Capture, Connections, Environment, Limits, MessageLog, Server, Sync, Tls, Upstream, forms, plans,
    routes, webhooks,
};
use crate::plan::Plans;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
pub(super) const DAY: Duration = Duration::from_hours(24);
/// The most that a count of things kept in memory may be.
pub(super) const MANY: i64 = 100_000_000;

/// What the file and the variables say, each key for itself; `check` and `secrets` make a
/// [`Config`](super::Config) of it.
pub(super) struct Draft {
    pub(super) server: Server,
    pub(super) database: DatabaseDraft,
    pub(super) security: SecurityDraft,
    pub(super) metrics: MetricsDraft,
    pub(super) access: AccessDraft,
    pub(super) limits: Limits,
    pub(super) plans: Plans,
    pub(super) message_log: MessageLog,
    pub(super) webhooks: webhooks::WebhooksDraft,
    pub(super) authz: Authz,
    pub(super) mail: MailDraft,
    pub(super) upstreams: Vec<UpstreamDraft>,
    pub(super) routes: Vec<routes::RouteDraft>,
}

/// `[database]` before its URL is read.
pub(super) struct DatabaseDraft {
    pub(super) url: SecretSource,
    pub(super) max_connections: u32,
    pub(super) acquire_timeout: Duration,
    pub(super) statement_timeout: Duration,
    pub(super) max_slow_reads: u32,
    pub(super) slow_read_timeout: Duration,
}

/// `[access]`
pub(super) struct AccessDraft {
    pub(super) enabled: bool,
    pub(super) networks: Vec<IpNet>,
}

/// One upstream before its credential is read.
pub(super) struct UpstreamDraft {
    pub(super) path: String,
    pub(super) name: Option<String>,
    pub(super) credential: Option<(Option<HeaderName>, SecretSource)>,
    /// Without its credential; `None` when name or URL are not sound.
    pub(super) ready: Option<Upstream>,
}

/// A secret: its value, or the file that holds it, or neither.
pub(super) struct SecretSource {
    /// Where the value is, or would be.
    pub(super) value_path: String,
    /// Where the file's name is, or would be.
    pub(super) file_path: String,
    pub(super) value: Option<SecretString>,
    pub(super) file: Option<PathBuf>,
}

/// Reads the whole file; mistakes go to the tree. Relative paths are joined to `base`.
pub(super) fn read(mut root: Section<'_>, tree: &Tree<'_>, base: &Path) -> Draft {
    let server = server(root.section("server"), base);
    let (limits, parallel_per_key) = limits(root.section("limits"));
    let message_log = message_log(root.section("message_log"));
    let capture = message_log.capture;
    if root.has("redis") {
        tree.mistake("redis", "this version keeps rate limits per node; remove the section");
        drop(root.section("redis"));
    }
    let draft = Draft {
        database: database(root.section("database"), base),
        security: security::read(root.section("security"), base),
        metrics: metrics::read(root.section("metrics"), base),
        access: access(root.section("access")),
        mail: mail::read(root.section("mail"), base),
        plans: plans::read(root.named("plans"), limits.time_zone, parallel_per_key),
        webhooks: webhooks::read(root.section("webhooks"), base),
        authz: webhooks::read_authz(root.section("authz")),
        upstreams: root.sections("upstreams").into_iter().map(|section| upstream(section, base)).collect(),
        routes: root.sections("routes").into_iter().map(|section| routes::read(section, capture)).collect(),
        server,
        limits,
        message_log,
    };
    root.finish();
    draft
}

fn server(mut s: Section<'_>, base: &Path) -> Server {
    let workers = match s.value_or("workers", forms::whole(0..=1024), 0) {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        given => given,
    };
    let environments = [("development", Environment::Development), ("production", Environment::Production)];
    let listen = s.list("listen", forms::listen_address);
    let server = Server {
        listen: listen.unwrap_or_else(|| vec![([0, 0, 0, 0], 8080).into()]),
        admin_listen: s.list("admin_listen", forms::listen_address).unwrap_or_default(),
        workers,
        data_dir: base.join(s.value_or("data_dir", forms::text, "data".into())),
        trusted_proxies: s.list("trusted_proxies", forms::networks).unwrap_or_default().concat(),
        shutdown_delay: s.value("shutdown_delay", forms::duration_or_zero),
        drain_timeout: s.value_or("drain_timeout", forms::duration, seconds(120)),
        docs: s.value_or("docs", forms::switch, true),
        environment: s.value_or("environment", forms::choice(environments), Environment::Development),
        tls: s.section_if_set("tls").and_then(|section| tls(section, base)),
        connections: connections(s.section("connections")),
        debug: s.value_or("debug", forms::switch, false),
    };
    s.finish();
    server
}

fn tls(mut s: Section<'_>, base: &Path) -> Option<Tls> {
    let certificate = s.required("certificate", forms::text);
    let private_key = s.required("private_key", forms::text);
    s.finish();
    Some(Tls { certificate: base.join(certificate?), private_key: base.join(private_key?) })
}

fn connections(mut s: Section<'_>) -> Connections {
    let max = s.value_or("max", forms::whole(1..=MANY), 20_000);
    let per_address = (max / 4).clamp(1, 1024);
    let connections = Connections {
        max,
        max_per_address: s.value_or("max_per_address", forms::whole(1..=MANY), per_address),
        tls_handshake_timeout: s.value_or("tls_handshake_timeout", forms::duration, seconds(10)),
        head_timeout: s.value_or("head_timeout", forms::duration, seconds(10)),
        keep_alive_timeout: s.value_or("keep_alive_timeout", forms::duration, seconds(60)),
        body_idle_timeout: s.value_or("body_idle_timeout", forms::duration, seconds(15)),
        body_min_rate: s.value_or("body_min_rate", forms::size, KIB),
        body_timeout: s.value_or("body_timeout", forms::duration, seconds(5 * 60)),
        upload_timeout: s.value_or("upload_timeout", forms::duration, seconds(60 * 60)),
        write_stall_timeout: s.value_or("write_stall_timeout", forms::duration, seconds(20)),
        write_min_rate: s.value_or("write_min_rate", forms::size, KIB),
        max_head_size: s.value_or("max_head_size", forms::memory_size, 32 << 10),
        max_headers: s.value_or("max_headers", forms::whole(1..=1_000), 64),
        max_uri_length: s.value_or("max_uri_length", forms::memory_size, 8 << 10),
        h2_max_streams: s.value_or("h2_max_streams", forms::whole(1..=10_000), 100),
    };
    s.finish();
    connections
}

fn database(mut s: Section<'_>, base: &Path) -> DatabaseDraft {
    let database = DatabaseDraft {
        url: secret(&mut s, "url", "url_file", base),
        max_connections: s.value_or("max_connections", forms::whole(1..=1_000), 8),
        acquire_timeout: s.value_or("acquire_timeout", forms::duration, seconds(1)),
        statement_timeout: s.value_or("statement_timeout", forms::duration, seconds(3)),
        max_slow_reads: s.value_or("max_slow_reads", forms::whole(1..=1_000), 2),
        slow_read_timeout: s.value_or("slow_read_timeout", forms::duration, seconds(20)),
    };
    s.finish();
    database
}

fn access(mut s: Section<'_>) -> AccessDraft {
    let access = AccessDraft {
        enabled: s.value_or("enable_ip_whitelist", forms::switch, false),
        networks: s
            .list("whitelisted_ips", forms::networks)
            .map_or_else(forms::loopback, |lists| lists.concat()),
    };
    s.finish();
    access
}

/// The limits, and what plans take as `max_parallel_per_key` when they do not say.
fn limits(mut s: Section<'_>) -> (Limits, u32) {
    let rate_limit_per_minute = s.value_or("rate_limit_per_minute", forms::whole(0..=MANY), 60);
    let max_body_size = s.value_or("max_body_size", forms::size, 10 * MIB);
    let max_body_memory = s.value_or("max_body_memory", forms::size, max_body_size.max(128 * MIB));
    let per_user = max_body_size.max(max_body_memory / 4);
    let limits = Limits {
        rate_limit_per_minute,
        burst: match s.value_or("burst", forms::whole(0..=MANY), 0) {
            0 => rate_limit_per_minute,
            given => given,
        },
        max_parallel: s.value_or("max_parallel", forms::whole(1..=MANY), 1024),
        max_parallel_per_user: s.value_or("max_parallel_per_user", forms::whole(0..=MANY), 64),
        max_body_memory,
        max_body_memory_per_user: s.value_or("max_body_memory_per_user", forms::size, per_user),
        max_lease: s.value_or("max_lease", forms::whole(1..=1000), 32),
        time_zone: s.value_or("time_zone", forms::zone, Tz::UTC),
        max_body_size,
        max_upload_size: s.value_or("max_upload_size", forms::size, 512 * MIB),
        max_cached_keys: s.value_or("max_cached_keys", forms::whole(1..=MANY), 100_000),
        max_tracked_addresses: s.value_or("max_tracked_addresses", forms::whole(1..=MANY), 100_000),
    };
    let parallel_per_key = s.value_or("max_parallel_per_key", forms::whole(0..=MANY), 0);
    s.finish();
    (limits, parallel_per_key)
}

fn message_log(mut s: Section<'_>) -> MessageLog {
    let memory_threshold = s.value_or("memory_threshold", forms::size, 100 * MIB);
    let metadata_retention = s.value_or("metadata_retention", forms::duration, 90 * DAY);
    let syncs = [("interval", Sync::Interval), ("strict", Sync::Strict)];
    let message_log = MessageLog {
        batch_interval: s.value_or("batch_interval", forms::duration, seconds(600)),
        batch_size: s.value_or("batch_size", forms::whole(1..=100_000), 500),
        memory_threshold,
        sync: s.value_or("sync", forms::choice(syncs), Sync::Interval),
        content_retention: s.value_or("content_retention", forms::duration, metadata_retention.min(90 * DAY)),
        metadata_retention,
        capture: s.value_or("capture", forms::choice(CAPTURES), Capture::Full),
        max_answer_size: s.value_or("max_answer_size", forms::size, 8 * MIB),
        max_memory: s.value_or("max_memory", forms::size, memory_threshold.max(256 * MIB)),
        max_free_per_user: s.value_or("max_free_per_user", forms::size, 64 * MIB),
        max_spool: s.value_or("max_spool", forms::size, 2048 * MIB),
        min_free_space: s.value_or("min_free_space", forms::size, 1024 * MIB),
        sync_interval: s.value_or("sync_interval", forms::duration, Duration::from_millis(50)),
    };
    s.finish();
    message_log
}

pub(super) const CAPTURES: [(&str, Capture); 3] =
    [("full", Capture::Full), ("metadata", Capture::Metadata), ("off", Capture::Off)];

fn upstream(mut s: Section<'_>, base: &Path) -> UpstreamDraft {
    let name = s.required("name", forms::name);
    let origin = s.required("url", forms::origin);
    let credential = s.section_if_set("credential").map(|mut section| {
        let header = section.required("header", forms::credential_header);
        let value = secret(&mut section, "value", "value_file", base);
        section.finish();
        (header, value)
    });
    let ca_file = s.value("ca_file", forms::text).map(|file| base.join(file));
    let forward_client_address = s.value_or("forward_client_address", forms::switch, false);
    let connect_timeout = s.value_or("connect_timeout", forms::duration, seconds(3));
    let first_byte_timeout = s.value_or("first_byte_timeout", forms::duration, seconds(300));
    let idle_timeout = s.value_or("idle_timeout", forms::duration, seconds(90));
    let total_timeout = s.value_or("total_timeout", forms::duration, seconds(30 * 60));
    let pool_idle_timeout = s.value_or("pool_idle_timeout", forms::duration, seconds(4));
    let pool_max_idle = s.value_or("pool_max_idle", forms::whole(0..=10_000), 64);
    let ready = name.clone().zip(origin).map(|(name, origin)| Upstream {
        name,
        scheme: origin.scheme,
        authority: origin.authority,
        base_path: origin.base_path,
        credential: None,
        ca_file,
        forward_client_address,
        connect_timeout,
        first_byte_timeout,
        idle_timeout,
        total_timeout,
        pool_idle_timeout,
        pool_max_idle,
    });
    let path = s.path().to_owned();
    s.finish();
    UpstreamDraft { path, name, credential, ready }
}

/// A key and its `*_file` twin. A variable goes before the file; two in the same place are a mistake.
pub(super) fn secret(
    s: &mut Section<'_>,
    key: &'static str,
    file_key: &'static str,
    base: &Path,
) -> SecretSource {
    let by_variable = (s.is_set_by_variable(key), s.is_set_by_variable(file_key));
    let mut value = s.value(key, forms::any_text).map(SecretString::from);
    let mut file = s.value(file_key, forms::text).map(|file| base.join(file));
    match by_variable {
        (true, false) => file = None,
        (false, true) => value = None,
        _ if value.is_some() && file.is_some() => {
            s.mistake(key, format!("stands beside {file_key}: remove one of the two"));
        }
        _ => {}
    }
    SecretSource { value_path: s.path_of(key), file_path: s.path_of(file_key), value, file }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
