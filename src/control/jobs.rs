//! `/api/v1/admin/jobs`: the clockwork, as the admin sees it and sets it going.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::json;

use super::Control;
use super::caller::{AdminSession, Origin};
use super::problem::Problem;
use crate::clock::Timestamp;
use crate::schedule::{NotRun, Reach, Standing};
use crate::store::audit::{self, Actor};
use crate::store::job_runs::JobRun;

/// A job as it stands.
#[derive(Serialize)]
pub(super) struct ShownJob {
    name: &'static str,
    description: &'static str,
    /// `0 1 * * *`, or `every 120s`.
    schedule: String,
    time_zone: &'static str,
    /// `fleet`: one node runs it for all. `node`: each runs its own.
    scope: &'static str,
    last_run: Option<ShownRun>,
    next_run: Timestamp,
}

/// A run of a job.
#[derive(Serialize)]
pub(super) struct ShownRun {
    due_at: Timestamp,
    started_at: Timestamp,
    finished_at: Option<Timestamp>,
    /// `running`, `done` or `failed`.
    state: &'static str,
    result: Option<String>,
    by_hand: bool,
    node: String,
}

/// How long an admin waits for the end of a run before it is left to itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// Every job, in the order of the table.
pub(super) async fn list_jobs(
    State(control): State<Arc<Control>>,
    _: AdminSession,
) -> Result<Json<Vec<ShownJob>>, Problem> {
    let standing = control.schedule.standing().await?;
    Ok(Json(standing.into_iter().map(ShownJob::from).collect()))
}

/// Runs a job now: 200 with what came of it, 202 when it takes longer than twenty seconds, 409 while
/// it runs already.
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
    let message = json!({"message": "Job started; it is listed when it ends", "name": job.name});
    Ok((StatusCode::ACCEPTED, Json(message)).into_response())
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
