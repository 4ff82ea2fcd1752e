//! Whether the gateway is well, and whether it should be sent work.
//!
//! These paths are never limited, so what they read is read at most once a second, whoever asks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use sysinfo::{Disks, MemoryRefreshKind, RefreshKind, System};
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::Control;
use super::openapi::refused;
use super::problem::Problem;
use crate::clock::{Timestamp, Trust};

pub(super) mod readiness;

pub(super) use readiness::Readiness;

use readiness::Reason;

/// The machine and the database, looked at now and then.
pub struct Vitals {
    data_dir: PathBuf,
    latest: Mutex<Option<(Instant, Reading)>>,
}

/// One look.
#[derive(Clone, Copy, Debug)]
struct Reading {
    database_answers: bool,
    memory: Memory,
    disk: Disk,
}

/// The machine's memory, with one digit.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
struct Memory {
    /// Of all there is.
    used_percent: f64,
    /// In MiB.
    used_mb: f64,
    /// In MiB.
    available_mb: f64,
}

/// The disk under the data folder, with one digit.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
struct Disk {
    /// Of all there is.
    used_percent: f64,
    /// In GiB.
    free_gb: f64,
}

/// How the gateway is.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "status": "healthy", "timestamp": "2026-10-01T09:30:00Z", "database": "healthy",
    "memory": {"used_percent": 41.5, "used_mb": 3320.0, "available_mb": 4680.0},
    "disk": {"used_percent": 12.0, "free_gb": 88.4}, "message_buffer_size": 3, "scheduler_running": true,
}))]
pub(super) struct Health {
    /// `healthy`, `degraded` or `unhealthy`.
    status: &'static str,
    /// When.
    timestamp: Timestamp,
    /// `healthy` or `unhealthy`.
    database: &'static str,
    memory: Memory,
    disk: Disk,
    /// Rows of the log that wait to be written.
    message_buffer_size: u64,
    /// Whether the background jobs run.
    scheduler_running: bool,
}

/// A sign of life.
#[derive(Serialize, ToSchema)]
#[schema(as = SignOfLife, example = json!({"status": "alive"}))]
pub(super) struct Sign {
    /// Always `alive`.
    status: &'static str,
}

/// Ready for work.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "status": "ready",
    "message_log": {"rows_waiting": 0, "oldest_seconds": 0, "spool_bytes": 0, "set_aside": 0, "lost_records": 0},
}))]
pub(super) struct Ready {
    /// Always `ready`.
    status: &'static str,
    message_log: MessageLogStanding,
}

/// How the message log stands.
#[derive(Serialize, ToSchema)]
struct MessageLogStanding {
    /// Rows on their way to the database.
    rows_waiting: u64,
    /// How long the oldest of them has waited.
    oldest_seconds: u64,
    /// What they take on disk.
    spool_bytes: u64,
    /// Records that the database would not take, kept aside.
    set_aside: u64,
    /// Records that could not be read again.
    lost_records: u64,
}

const FRESH_FOR: Duration = Duration::from_secs(1);
/// Longest wait for the database's answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// From here on memory or disk is short.
const SHORT_PERCENT: f64 = 95.0;

/// Says how the gateway is.
///
/// Looks at the database, memory and disk, at most once a second whoever asks.
#[utoipa::path(
    get,
    path = "/health",
    tag = "Health",
    responses(
        (status = 200, description = "`healthy`; or `degraded`, when memory or disk is short or the jobs do not run.", body = Health),
        (status = 503, description = "`unhealthy`: the database does not answer.", body = Health),
    ),
)]
pub(super) async fn health(State(control): State<Arc<Control>>) -> Response {
    let reading = control.vitals.look(&control).await;
    let scheduler_running = control.scheduler_running.load(Ordering::Acquire);
    let short = reading.memory.used_percent > SHORT_PERCENT || reading.disk.used_percent > SHORT_PERCENT;
    let (code, status) = match (reading.database_answers, short || !scheduler_running) {
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
        (true, true) => (StatusCode::OK, "degraded"),
        (true, false) => (StatusCode::OK, "healthy"),
    };
    let health = Health {
        status,
        timestamp: control.clock.now(),
        database: if reading.database_answers { "healthy" } else { "unhealthy" },
        memory: reading.memory,
        disk: reading.disk,
        message_buffer_size: control.chatlog.waiting(),
        scheduler_running,
    };
    (code, Json(health)).into_response()
}

/// Says how the gateway is, under the name that some platforms ask for.
///
/// As `GET /health`.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "Health",
    responses(
        (status = 200, description = "`healthy`; or `degraded`, when memory or disk is short or the jobs do not run.", body = Health),
        (status = 503, description = "`unhealthy`: the database does not answer.", body = Health),
    ),
)]
pub(super) async fn healthz(control: State<Arc<Control>>) -> Response {
    health(control).await
}

/// Says that the process answers.
///
/// For orchestrators: restart it when this is not answered.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "Health",
    responses((status = 200, description = "It does.", body = Sign)),
)]
pub(super) async fn alive() -> Json<Sign> {
    Json(Sign { status: "alive" })
}

/// Says whether to send work here.
///
/// For orchestrators and load balancers. Tells how the message log stands or, as `reasons`, why no work should be
/// sent here.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "Health",
    responses((status = 200, description = "Send work here.", body = Ready), refused::NotReady),
)]
pub(super) async fn ready(State(control): State<Arc<Control>>) -> Result<Json<Ready>, Problem> {
    let log = &control.chatlog;
    let reading = control.vitals.look(&control).await;
    control.readiness.set(Reason::DatabaseCannotWrite, !reading.database_answers);
    control.readiness.set(Reason::MessageLogFull, !log.has_room());
    control.readiness.set(Reason::ClockNotTrusted, control.clock.trust() == Trust::Held);
    let reasons = control.readiness.reasons();
    if !reasons.is_empty() {
        return Err(Problem::NotReady(reasons));
    }
    let message_log = MessageLogStanding {
        rows_waiting: log.waiting(),
        oldest_seconds: log.backlog().oldest().as_secs(),
        spool_bytes: log.spool_bytes(),
        set_aside: control.metrics.log_set_aside.get(),
        lost_records: control.metrics.spool_lost_records.get(),
    };
    Ok(Json(Ready { status: "ready", message_log }))
}

// === impl Vitals ===

impl Vitals {
    /// Watches the disk that holds `data_dir`.
    #[must_use]
    pub fn new(data_dir: PathBuf) -> Self {
        Self { data_dir, latest: Mutex::new(None) }
    }

    /// The latest reading. Whoever finds it old takes a new one, and the others wait for it.
    async fn look(&self, control: &Control) -> Reading {
        let mut latest = self.latest.lock().await;
        if let Some((taken, reading)) = *latest
            && taken.elapsed() < FRESH_FOR
        {
            return reading;
        }
        let data_dir = self.data_dir.clone();
        let machine = tokio::task::spawn_blocking(move || (memory(), disk(&data_dir)));
        let answer = tokio::time::timeout(PATIENCE, control.db.ping()).await;
        let (memory, disk) = machine.await.unwrap_or_default();
        let reading = Reading { database_answers: matches!(answer, Ok(Ok(()))), memory, disk };
        *latest = Some((Instant::now(), reading));
        reading
    }
}

fn memory() -> Memory {
    let wanted = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let Ok(system) = System::new_with_specifics(wanted) else { return Memory::default() };
    let (total, available) = (system.total_memory(), system.available_memory());
    let used = total.saturating_sub(available);
    Memory {
        used_percent: percent(used, total),
        used_mb: in_units(used, 1 << 20),
        available_mb: in_units(available, 1 << 20),
    }
}

/// The disk whose mount point is nearest above `data_dir`.
fn disk(data_dir: &Path) -> Disk {
    let data_dir = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
    let Ok(disks) = Disks::new_with_refreshed_list() else { return Disk::default() };
    let above = disks.iter().filter(|disk| data_dir.starts_with(disk.mount_point()));
    let nearest = above.max_by_key(|disk| disk.mount_point().components().count());
    nearest.map_or_else(Disk::default, |disk| {
        let (total, free) = (disk.total_space(), disk.available_space());
        Disk { used_percent: percent(total.saturating_sub(free), total), free_gb: in_units(free, 1 << 30) }
    })
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { one_digit(as_f64(part) * 100.0 / as_f64(whole)) }
}

fn in_units(bytes: u64, unit: u64) -> f64 {
    one_digit(as_f64(bytes) / as_f64(unit))
}

fn one_digit(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{disk, in_units, memory, percent};

    #[test]
    fn numbers_are_shown_with_one_digit() {
        assert!((percent(1, 3) - 33.3).abs() < 1e-9);
        assert!((percent(1, 0)).abs() < 1e-9);
        assert!((in_units(1_610_612_736, 1 << 30) - 1.5).abs() < 1e-9);
    }

    #[test]
    fn this_machine_has_memory_and_a_disk() {
        let memory = memory();
        assert!(memory.used_mb > 0.0 && memory.available_mb > 0.0, "{memory:?}");
        assert!(disk(Path::new(".")).used_percent <= 100.0);
    }
}
