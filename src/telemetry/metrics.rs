//! Every metric by name, in one table.
//!
//! Labels are enums and configured names only: no key, user, model or path that somebody asked for
//! becomes a label, so the number of series is fixed by the configuration.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::output;

/// The gateway's counters. Clones of its fields count into the same series.
pub struct Metrics {
    registry: Registry,
    /// `tollgate_requests_total`
    pub requests: Family<Answer, Counter>,
    /// `tollgate_api_requests_total`: what the control plane answered.
    pub api_requests: Family<ApiAnswer, Counter>,
    /// `tollgate_api_panics_total`: calls whose handler panicked; each is a mistake of ours.
    pub api_panics: Counter,
    /// `tollgate_denied_total`: refusals of the data plane, by code.
    pub denied: Family<Reason, Counter>,
    /// `tollgate_overhead_seconds`: from a request's head to its forwarding.
    pub overhead: Histogram,
    /// `tollgate_upstream_first_byte_seconds`: from forwarding to the answer's head.
    pub first_byte: Histogram,
    /// `tollgate_quota_reserved_total`
    pub reserved: Counter,
    /// `tollgate_quota_refunded_total`, by what ended the conversation.
    pub refunded: Family<Reason, Counter>,
    /// `tollgate_quota_grants_total`: times that units of a user's day were asked for.
    pub grants: Counter,
    /// `tollgate_quota_granted_units_total`
    pub units_granted: Counter,
    /// `tollgate_quota_returned_units_total`: granted, and given back unused.
    pub units_returned: Counter,
    /// `tollgate_quota_forfeited_units_total`: of a run that was lost, so that nobody gets them again.
    pub units_forfeited: Counter,
    /// `tollgate_quota_lease_misses_total`: reservations that waited for the database.
    pub lease_misses: Counter,
    /// `tollgate_quota_lease_wait_seconds`: how long they did.
    pub lease_wait: Histogram,
    /// `tollgate_access_ended_total`: requests ended while they ran, by the right that was lost.
    pub access_ended: Family<Reason, Counter>,
    /// `tollgate_inflight_streams`
    pub in_flight: Gauge,
    /// `tollgate_message_log_queue_depth`
    pub log_queue: Gauge,
    /// `tollgate_message_log_bytes`: request and answer bytes kept in memory.
    pub log_bytes: Gauge,
    /// `tollgate_message_log_dropped_total`: what was not kept, and why.
    pub log_dropped: Family<Reason, Counter>,
    /// `tollgate_message_log_set_aside_total`: conversations that could not become rows.
    pub log_set_aside: Counter,
    /// `tollgate_message_log_late_total`: records whose rows retention may have removed, neither inserted nor
    /// charged.
    pub log_late: Counter,
    /// `tollgate_message_log_oldest_seconds`: how long the oldest conversation without a row has waited.
    pub log_oldest: Gauge,
    /// `tollgate_message_log_written_total`
    pub log_written: Counter,
    /// `tollgate_webhook_queue_depth`: events that wait to be told; at 10,000 no more are taken.
    pub webhook_queue: Gauge,
    /// `tollgate_webhooks_given_up_total`: events that no receiver took in time.
    pub webhooks_given_up: Counter,
    /// `tollgate_spool_bytes`: of all files of the spool.
    pub spool_bytes: Gauge,
    /// `tollgate_spool_records_total`: appended.
    pub spool_records: Counter,
    /// `tollgate_spool_refused_total`: records that were not appended because the spool or the disk
    /// was full.
    pub spool_full: Counter,
    /// `tollgate_spool_sync_errors_total`
    pub spool_sync_errors: Counter,
    /// `tollgate_spool_lost_records_total`: found damaged when they were read.
    pub spool_lost_records: Counter,
    /// `tollgate_spool_lost_bytes_total`
    pub spool_lost_bytes: Counter,
    /// `tollgate_spool_lost_files_total`
    pub spool_lost_files: Counter,
    /// `tollgate_store_errors_total`
    pub store_errors: Counter,
    /// `tollgate_clock_lead_seconds`: of the machine's clock over the database's or the trusted time.
    pub clock_lead: Gauge<f64, AtomicU64>,
    /// `tollgate_clock_trusted`: 0 while the gateway goes by the time it had and not by the machine's clock.
    pub clock_trusted: Gauge,
    /// `tollgate_database_damaged`: 1 once a check has found the SQLite file corrupt.
    pub database_damaged: Gauge,
    /// `tollgate_slow_reads_refused_total`: lists, statistics, exports and verifications that did not get
    /// their turn.
    pub slow_reads_refused: Counter,
    /// `tollgate_upstream_up`: 1 after an answer, 0 after a failure to connect.
    pub upstream_up: Family<UpstreamName, Gauge>,
    /// `tollgate_upstream_credential_refused_total`: the upstream answered 401 or 403 to our own
    /// credential. An operator wants to know at once.
    pub credential_refused: Family<UpstreamName, Counter>,
    /// `tollgate_connections`
    pub connections: Gauge,
    /// `tollgate_connections_refused_total`
    pub connections_refused: Counter<u64, AtomicU64>,
    /// `tollgate_connections_evicted_total`: idle connections closed to make room for new ones.
    pub connections_evicted: Counter<u64, AtomicU64>,
    /// `tollgate_connections_stalled_total`: connections and streams of clients that read too slowly.
    pub connections_stalled: Counter<u64, AtomicU64>,
    /// `tollgate_body_memory_bytes`: request bodies in memory.
    pub body_memory: Gauge,
    /// `tollgate_tls_certificate_expiry_days`: whole ones, negative afterwards; only with TLS.
    pub tls_expiry_days: Family<Setting, Gauge>,
    /// `tollgate_tls_reload_errors_total`: looks at the certificate's files that found nothing of use.
    pub tls_reload_errors: Counter,
    /// `tollgate_log_lines_dropped_total`: standard error did not take them. Of the whole process.
    pub log_lines_dropped: Counter,
}

/// One answered request of the data plane.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Answer {
    /// The route's prefix, or "none".
    pub route: String,
    /// The status sent.
    pub status: u16,
    /// Who chose it.
    pub source: Source,
}

/// One answered request of the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiAnswer {
    /// The method, or "other".
    pub method: &'static str,
    /// The path as it is routed, such as `/api/v1/auth/keys/{id}`, or "none".
    pub route: String,
    /// The status sent.
    pub status: u16,
}

/// Who chose a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// We refused.
    Gateway,
    /// The upstream answered.
    Upstream,
}

/// Why, as the code of a refusal or an ending.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// One of a fixed set of words.
    pub reason: &'static str,
}

/// A configured upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct UpstreamName {
    /// Its `name`.
    pub upstream: String,
}

/// What a setting of the configuration names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Setting {
    /// Its path.
    pub setting: &'static str,
}

// === impl Metrics ===

impl Metrics {
    /// All series at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("tollgate"),
            requests: Family::default(),
            api_requests: Family::default(),
            api_panics: Counter::default(),
            denied: Family::default(),
            overhead: Histogram::new(exponential_buckets(0.000_05, 2.0, 14)),
            first_byte: Histogram::new(exponential_buckets(0.001, 2.5, 14)),
            reserved: Counter::default(),
            refunded: Family::default(),
            grants: Counter::default(),
            units_granted: Counter::default(),
            units_returned: Counter::default(),
            units_forfeited: Counter::default(),
            lease_misses: Counter::default(),
            lease_wait: Histogram::new(exponential_buckets(0.000_25, 2.5, 12)),
            access_ended: Family::default(),
            in_flight: Gauge::default(),
            log_queue: Gauge::default(),
            log_bytes: Gauge::default(),
            log_dropped: Family::default(),
            log_set_aside: Counter::default(),
            log_late: Counter::default(),
            log_oldest: Gauge::default(),
            log_written: Counter::default(),
            webhook_queue: Gauge::default(),
            webhooks_given_up: Counter::default(),
            spool_bytes: Gauge::default(),
            spool_records: Counter::default(),
            spool_full: Counter::default(),
            spool_sync_errors: Counter::default(),
            spool_lost_records: Counter::default(),
            spool_lost_bytes: Counter::default(),
            spool_lost_files: Counter::default(),
            store_errors: Counter::default(),
            clock_lead: Gauge::default(),
            clock_trusted: Gauge::default(),
            slow_reads_refused: Counter::default(),
            database_damaged: Gauge::default(),
            upstream_up: Family::default(),
            credential_refused: Family::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            connections_evicted: Counter::default(),
            connections_stalled: Counter::default(),
            body_memory: Gauge::default(),
            tls_expiry_days: Family::default(),
            tls_reload_errors: Counter::default(),
            log_lines_dropped: output::stderr().dropped().clone(),
        };
        metrics.register_data_plane();
        metrics.register_quota();
        metrics.register_log();
        metrics.register_spool();
        metrics.register_outside();
        metrics
    }

    /// The Prometheus text exposition (OpenMetrics 1.0), as `/metrics` serves it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// One refusal of the data plane.
    pub fn deny(&self, reason: &'static str) {
        self.denied.get_or_create(&Reason { reason }).inc();
    }

    /// One conversation given back.
    pub fn refund(&self, reason: &'static str) {
        self.refunded.get_or_create(&Reason { reason }).inc();
    }

    /// A request that ran lost its right.
    pub fn end_access(&self, reason: &'static str) {
        self.access_ended.get_or_create(&Reason { reason }).inc();
    }

    /// Something the log did not keep.
    pub fn drop_from_log(&self, reason: &'static str) {
        self.log_dropped.get_or_create(&Reason { reason }).inc();
    }

    /// Whether an upstream was reached.
    pub fn reached(&self, upstream: &str, up: bool) {
        self.upstream_up.get_or_create(&UpstreamName { upstream: upstream.to_owned() }).set(i64::from(up));
    }

    /// Days until the certificate that `setting` names expires.
    pub fn set_certificate_days(&self, setting: &'static str, days: i64) {
        self.tls_expiry_days.get_or_create(&Setting { setting }).set(days);
    }

    /// How long something took, into `histogram`.
    pub fn observe(histogram: &Histogram, took: Duration) {
        histogram.observe(took.as_secs_f64());
    }

    fn register_data_plane(&mut self) {
        let r = &mut self.registry;
        r.register("requests", "Requests answered", self.requests.clone());
        r.register("api_requests", "Requests answered by the REST API", self.api_requests.clone());
        r.register("api_panics", "Calls of the REST API that met a mistake of ours", self.api_panics.clone());
        r.register("denied", "Requests refused by the gateway", self.denied.clone());
        let help = "From a request's head to its forwarding";
        r.register_with_unit("overhead", help, Unit::Seconds, self.overhead.clone());
        let help = "From forwarding to the head of the upstream's answer";
        r.register_with_unit("upstream_first_byte", help, Unit::Seconds, self.first_byte.clone());
        r.register("access_ended", "Requests ended while they ran", self.access_ended.clone());
        r.register("inflight_streams", "Answers under way", self.in_flight.clone());
    }

    fn register_quota(&mut self) {
        let r = &mut self.registry;
        r.register("quota_reserved", "Conversations reserved", self.reserved.clone());
        r.register("quota_refunded", "Conversations given back", self.refunded.clone());
        r.register("quota_grants", "Times that a user's conversations were asked for", self.grants.clone());
        r.register("quota_granted_units", "Conversations granted", self.units_granted.clone());
        r.register("quota_returned_units", "Granted and not used", self.units_returned.clone());
        r.register("quota_forfeited_units", "Granted and lost track of", self.units_forfeited.clone());
        r.register("quota_lease_misses", "Reservations that met the database", self.lease_misses.clone());
        let help = "How long those waited";
        r.register_with_unit("quota_lease_wait", help, Unit::Seconds, self.lease_wait.clone());
    }

    fn register_log(&mut self) {
        let r = &mut self.registry;
        r.register("message_log_queue_depth", "Rows waiting to be written", self.log_queue.clone());
        r.register("message_log_bytes", "Bytes of conversations kept in memory", self.log_bytes.clone());
        r.register("message_log_dropped", "What was not kept", self.log_dropped.clone());
        let help = "Conversations that could not become rows and were set aside";
        r.register("message_log_set_aside", help, self.log_set_aside.clone());
        let help = "Records older than what retention removed, neither inserted nor charged";
        r.register("message_log_late", help, self.log_late.clone());
        let help = "How long the oldest conversation without a row has waited";
        r.register_with_unit("message_log_oldest", help, Unit::Seconds, self.log_oldest.clone());
        r.register("message_log_written", "Rows written", self.log_written.clone());
        r.register("store_errors", "Database calls that failed", self.store_errors.clone());
        let help = "Whether a check has found the database corrupt";
        r.register("database_damaged", help, self.database_damaged.clone());
        let help = "Lists, statistics and verifications refused by their full queue";
        r.register("slow_reads_refused", help, self.slow_reads_refused.clone());
    }

    fn register_spool(&mut self) {
        let r = &mut self.registry;
        r.register("spool_bytes", "Bytes of the spool's files", self.spool_bytes.clone());
        r.register("spool_records", "Records appended to the spool", self.spool_records.clone());
        r.register("spool_refused", "Records refused by a full spool", self.spool_full.clone());
        r.register("spool_sync_errors", "Syncs that the disk refused", self.spool_sync_errors.clone());
        r.register("spool_lost_records", "Damaged records", self.spool_lost_records.clone());
        r.register("spool_lost_bytes", "Damaged bytes", self.spool_lost_bytes.clone());
        r.register("spool_lost_files", "Files of which nothing can be read", self.spool_lost_files.clone());
    }

    fn register_outside(&mut self) {
        let r = &mut self.registry;
        r.register("upstream_up", "Whether the upstream was reached last time", self.upstream_up.clone());
        let help = "Our own credential refused by the upstream";
        r.register("upstream_credential_refused", help, self.credential_refused.clone());
        r.register("webhook_queue_depth", "Events waiting to be told", self.webhook_queue.clone());
        r.register("webhooks_given_up", "Events that could not be told", self.webhooks_given_up.clone());
        r.register("connections", "Open client connections", self.connections.clone());
        let help = "Client connections refused at a cap";
        r.register("connections_refused", help, self.connections_refused.clone());
        let help =
            "Lead of this machine's clock over the database's, or over the time it was trusted to show";
        r.register_with_unit("clock_lead", help, Unit::Seconds, self.clock_lead.clone());
        let help = "Whether this machine's clock is trusted";
        r.register("clock_trusted", help, self.clock_trusted.clone());
        let help = "Idle client connections closed to make room for new ones";
        r.register("connections_evicted", help, self.connections_evicted.clone());
        let help = "Client connections and streams closed because the client read too slowly";
        r.register("connections_stalled", help, self.connections_stalled.clone());
        let help = "Request bodies in memory";
        r.register_with_unit("body_memory", help, Unit::Bytes, self.body_memory.clone());
        let help = "Days until the certificate expires";
        r.register("tls_certificate_expiry_days", help, self.tls_expiry_days.clone());
        let help = "Failed attempts to read the certificate again";
        r.register("tls_reload_errors", help, self.tls_reload_errors.clone());
        let help = "Log lines that could not be written to standard error";
        r.register("log_lines_dropped", help, self.log_lines_dropped.clone());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Source ===

impl EncodeLabelValue for Source {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let word = match self {
            Self::Gateway => "gateway",
            Self::Upstream => "upstream",
        };
        word.encode(encoder)
    }
}
