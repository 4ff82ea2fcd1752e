//! `/api/v1/admin/jobs`: the clockwork, as the admin sees it and sets it going.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::Control;
use super::caller::{AdminSession, Origin};
use super::openapi::refused;
use super::paths::Path;
use super::problem::Problem;
use crate::clock::Timestamp;
use crate::schedule::{NotRun, Reach, Standing};
use crate::store::audit::{self, Actor};
use crate::store::job_runs::JobRun;

/// A job as it stands.
#[derive(Serialize, ToSchema)]
#[schema(as = Job, example = json!({
    "name": "statistics", "description": "Sums up the day that is over", "schedule": "0 1 * * *", "time_zone": "UTC",
    "scope": "fleet", "last_run": null, "next_run": "2026-10-02T01:00:00Z",
}))]
pub(super) struct ShownJob {
    /// By which it is run.
    name: &'static str,
    /// What it does.
    description: &'static str,
    /// `0 1 * * *`, or `every 120s`.
    schedule: String,
    /// Of the schedule.
    time_zone: &'static str,
    /// `fleet`: one node runs it for all. `node`: each runs its own.
    scope: &'static str,
    /// `null` before the first.
    #[schema(required = true)]
    last_run: Option<ShownRun>,
    next_run: Timestamp,
}

/// A run of a job.
#[derive(Serialize, ToSchema)]
#[schema(as = JobRun, example = json!({
    "due_at": "2026-10-01T09:30:00Z", "started_at": "2026-10-01T09:30:00Z", "finished_at": "2026-10-01T09:30:01Z",
    "state": "done", "result": "1 day summed", "by_hand": true, "node": "gate-1",
}))]
pub(super) struct ShownRun {
    due_at: Timestamp,
    started_at: Timestamp,
    /// `null` while it runs.
    #[schema(required = true)]
    finished_at: Option<Timestamp>,
    /// `running`, `done` or `failed`.
    state: &'static str,
    /// What came of it, in words.
    #[schema(required = true)]
    result: Option<String>,
    /// Whether an admin set it going.
    by_hand: bool,
    /// Which process ran it.
    node: String,
}

/// A run that takes its time.
#[derive(Serialize, ToSchema)]
#[schema(as = JobBegun, example = json!({"message": "Job started; it is listed when it ends", "name": "statistics"}))]
struct Begun {
    /// For people.
    message: &'static str,
    /// Of the job.
    name: &'static str,
}

/// How long an admin waits for the end of a run before it is left to itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// Lists the background jobs.
///
/// When each ran last, how it ended, and when it is due.
#[utoipa::path(
    get,
    path = "/api/v1/admin/jobs",
    tag = "Admin: operation",
    responses((status = 200, description = "All of them.", body = Vec<ShownJob>)),
)]
pub(super) async fn list_jobs(
    State(control): State<Arc<Control>>,
    _: AdminSession,
) -> Result<Json<Vec<ShownJob>>, Problem> {
    let standing = control.schedule.standing().await?;
    Ok(Json(standing.into_iter().map(ShownJob::from).collect()))
}

/// Runs a job now, besides its hour.
///
/// Waits twenty seconds for its end.
#[utoipa::path(
    post,
    path = "/api/v1/admin/jobs/{name}/run",
    tag = "Admin: operation",
    params(("name" = String, Path, description = "The `name` of the job.", example = "statistics")),
    responses(
        (status = 200, description = "What came of it.", body = ShownRun),
        (status = 202, description = "It takes longer; `GET /api/v1/admin/jobs` shows its end.", body = Begun),
        refused::NotFound, refused::AlreadyRunning,
    ),
)]
pub(super) async fn run_job(
    State(control): State<Arc<Control>>,
    AdminSession(admin): AdminSession,
    origin: Origin,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let jobs = control.schedule.standing().await?;
    let job = jobs.into_iter().find(|job| job.name == name).ok_or(Problem::NotFound("job"))?;
    let actor = (Actor::Admin(admin.id), admin.username.as_str());
    audit::record(&control.db, &origin.entry(actor, "job.run", job.name, json!({}))).await?;
    let run = control.schedule.run_by_hand(job.name);
    if let Ok(run) = tokio::time::timeout(PATIENCE, run).await {
        return Ok(Json(ShownRun::from(run?)).into_response());
    }
    let begun = Begun { message: "Job started; it is listed when it ends", name: job.name };
    Ok((StatusCode::ACCEPTED, Json(begun)).into_response())
}

// === impl ShownJob ===

impl From<Standing> for ShownJob {
    fn from(job: Standing) -> Self {
        Self {
            name: job.name,
            description: job.about,
            schedule: job.when,
            time_zone: job.zone.name(),
            scope: match job.reach {
                Reach::Fleet => "fleet",
                Reach::Node => "node",
            },
            last_run: job.last_run.map(ShownRun::from),
            next_run: job.next_run,
        }
    }
}

// === impl ShownRun ===

impl From<JobRun> for ShownRun {
    fn from(run: JobRun) -> Self {
        Self {
            due_at: run.due_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
            state: match run.ok {
                None => "running",
                Some(true) => "done",
                Some(false) => "failed",
            },
            result: run.result,
            by_hand: run.by_hand,
            node: run.node,
        }
    }
}

// === what the schedule could not do ===

impl From<NotRun> for Problem {
    fn from(error: NotRun) -> Self {
        match error {
            NotRun::Unknown => Self::NotFound("job"),
            NotRun::Running => Self::AlreadyRunning,
            NotRun::Store(error) => error.into(),
        }
    }
}
