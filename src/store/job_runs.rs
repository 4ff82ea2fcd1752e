//! Which job ran when, where, and what came of it: one row for each time it was due.
//!
//! A run is claimed by inserting its row. Two unique indexes decide: a due time is run once, and a
//! job is never run twice at a time, on however many nodes.

use super::text::storable;
use super::{Db, StoreError};
use crate::clock::Timestamp;

/// One run of a job.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct JobRun {
    /// The job's name.
    pub job: String,
    /// What it was due for; of a run by hand, when it was asked for.
    pub due_at: Timestamp,
    /// The process that runs it.
    pub node: String,
    /// Whether an admin asked for it.
    pub by_hand: bool,
    /// When it began.
    pub started_at: Timestamp,
    /// When its node last said that it is still at it.
    pub beat_at: Timestamp,
    /// When it ended; `None` while it runs, or when its node died.
    pub finished_at: Option<Timestamp>,
    /// Whether it did what it should; `None` until it has ended.
    pub ok: Option<bool>,
    /// What came of it, for people.
    pub result: Option<String>,
}

/// A run about to begin.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'c> {
    /// The job's name.
    pub job: &'c str,
    /// What it is due for.
    pub due_at: Timestamp,
    /// The process that would run it.
    pub node: &'c str,
    /// Whether an admin asked for it.
    pub by_hand: bool,
    /// Now.
    pub now: Timestamp,
    /// A run that was silent since before this instant is dead and makes room.
    pub alive_since: Timestamp,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The run is the claimant's.
    Ours,
    /// Somebody ran it for this due time already.
    Done,
    /// The job is being run now, for this due time or another.
    Running,
}

const BURY: &str = "DELETE FROM job_runs WHERE job = $1 AND finished_at IS NULL AND beat_at < $2";
const CLAIM: &str = "INSERT INTO job_runs (job, due_at, node, by_hand, started_at, beat_at)
    VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT DO NOTHING";
const RUNNING: &str = "SELECT COUNT(*) FROM job_runs WHERE job = $1 AND finished_at IS NULL";

/// Takes a run, if nobody has.
///
/// # Errors
/// [`StoreError`], when the database does not answer; then nothing is taken.
pub async fn claim(db: &Db, claim: Claim<'_>) -> Result<Claimed, StoreError> {
    let Claim { job, due_at, node, by_hand, now, alive_since } = claim;
    let mut tx = db.begin().await?;
    let dead = on!(&mut tx, within conn => sqlx::query(BURY).bind(job).bind(alive_since)
        .execute(conn).await.map(|done| done.rows_affected()))?;
    if dead > 0 {
        tracing::warn!(job, "a run was left behind by a process that is gone");
    }
    let taken = on!(&mut tx, within conn => sqlx::query(CLAIM)
        .bind(job).bind(due_at).bind(node).bind(by_hand).bind(now)
        .execute(conn).await.map(|done| done.rows_affected()))?;
    let running: i64 =
        on!(&mut tx, within conn => sqlx::query_scalar(RUNNING).bind(job).fetch_one(conn).await)?;
    tx.commit().await?;
    Ok(match (taken, running) {
        (1.., _) => Claimed::Ours,
        (0, 0) => Claimed::Done,
        (0, _) => Claimed::Running,
    })
}

const BEAT: &str = "UPDATE job_runs SET beat_at = $4
    WHERE job = $1 AND due_at = $2 AND node = $3 AND finished_at IS NULL";

/// Says that a run goes on.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn beat(
    db: &Db,
    job: &str,
    due_at: Timestamp,
    node: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    on!(db, write pool => sqlx::query(BEAT).bind(job).bind(due_at).bind(node).bind(now)
        .execute(pool).await.map(|_| ()))?;
    Ok(())
}

const FINISH: &str = "UPDATE job_runs SET finished_at = $4, ok = $5, result = $6
    WHERE job = $1 AND due_at = $2 AND node = $3 AND finished_at IS NULL";

/// Notes the end of a run: that of the row, whose `finished_at`, `ok` and `result` are written.
///
/// # Errors
/// [`StoreError`], when the database does not do it; the run then counts as left behind.
pub async fn finish(db: &Db, run: &JobRun) -> Result<(), StoreError> {
    on!(db, write pool => sqlx::query(FINISH)
        .bind(&run.job)
        .bind(run.due_at)
        .bind(&run.node)
        .bind(run.finished_at)
        .bind(run.ok)
        .bind(run.result.as_deref().map(storable))
        .execute(pool)
        .await
        .map(|_| ()))?;
    Ok(())
}

const RELEASE: &str =
    "DELETE FROM job_runs WHERE job = $1 AND due_at = $2 AND node = $3 AND finished_at IS NULL";

/// Gives a run back that was not brought to its end, for whoever starts next.
///
/// # Errors
/// [`StoreError`], when the database does not do it; the run then counts as left behind.
pub async fn release(db: &Db, job: &str, due_at: Timestamp, node: &str) -> Result<(), StoreError> {
    on!(db, write pool => sqlx::query(RELEASE).bind(job).bind(due_at).bind(node)
        .execute(pool).await.map(|_| ()))?;
    Ok(())
}

const LATEST: &str = "SELECT job, due_at, node, by_hand, started_at, beat_at, finished_at, ok, result
    FROM job_runs r WHERE due_at = (SELECT MAX(due_at) FROM job_runs l WHERE l.job = r.job)
    ORDER BY job";

/// The latest run of each job that ever ran.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn latest(db: &Db) -> Result<Vec<JobRun>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(LATEST).fetch_all(pool).await)?)
}

const SINCE: &str = "SELECT COUNT(*) FROM job_runs
    WHERE job = $1 AND due_at >= $2 AND due_at <= $3 AND finished_at IS NOT NULL";

/// Whether a run that was due at `since`, or later, has been brought to its end. One that is due later than
/// `now` was planned by a clock that was ahead, and does not count.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn ended_since(
    db: &Db,
    job: &str,
    (since, now): (Timestamp, Timestamp),
) -> Result<bool, StoreError> {
    let ended: i64 = on!(db, read pool => sqlx::query_scalar(SINCE).bind(job).bind(since).bind(now)
        .fetch_one(pool).await)?;
    Ok(ended > 0)
}

const FORGET: &str = "DELETE FROM job_runs WHERE due_at < $1 AND finished_at IS NOT NULL";

/// Forgets runs that were due before `before`. Answers how many.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn forget(db: &Db, before: Timestamp) -> Result<u64, StoreError> {
    Ok(on!(db, write pool => sqlx::query(FORGET).bind(before).execute(pool).await?.rows_affected()))
}
