//! Runs of the gateway: which process may hold units of a day, and what is left when a run was not ended.
//!
//! A run's row stands from its start to its orderly end, and is its licence: [`grant`](super::leases::grant)
//! and [`beat`] refuse a run whose row is absent or fenced, and nothing enters it again. A run takes over
//! the leases of another in three steps: [`fence`] its row, write what its spool still holds, [`close`] it.

use uuid::Uuid;

use super::{Db, StoreError, Tx};
use crate::clock::Timestamp;
use crate::ids::RunId;

/// A run of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Run {
    /// Its name.
    pub id: RunId,
    /// The data folder's name for itself.
    pub node: String,
    /// Of the machine; as long as it is the same, what was written to a file is there.
    pub boot: String,
    /// When it began.
    pub started_at: Timestamp,
    /// Device and inode of its data folder and of the lock file that it holds as long as it lives. `None`: a
    /// version before 0.2 entered it, or the file system does not tell.
    pub folder: Option<String>,
}

/// A sign of life of a run: two that differ were taken while it was alive.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Pulse {
    /// The run.
    pub id: RunId,
    beats: i64,
    beat_at: Timestamp,
    /// Its last transaction on leases.
    errand: Option<Uuid>,
    /// Whether another run takes over its leases.
    pub is_fenced: bool,
}

/// What becomes of the units of a run that was not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody used them: they go back.
    Returned,
    /// Somebody may have used them: nobody gets them again.
    Forfeited,
}

const BEGIN: &str =
    "INSERT INTO runs (id, node, boot, started_at, beat_at, folder) VALUES ($1, $2, $3, $4, $4, $5)";

/// Enters a run.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn begin(db: &Db, run: &Run) -> Result<(), StoreError> {
    on!(db, write pool => sqlx::query(BEGIN).bind(run.id).bind(&run.node).bind(&run.boot)
        .bind(run.started_at).bind(&run.folder).execute(pool).await.map(|_| ()))?;
    Ok(())
}

const BEAT: &str = "UPDATE runs SET beat_at = $2, beats = beats + 1 WHERE id = $1 AND fenced_at IS NULL";
const SWEEP: &str = "DELETE FROM leases WHERE run_id = $1 AND units = 0";

/// Records that a run is alive. Whether it still may hold units: `false` when another run has fenced or
/// closed it, which is final.
///
/// # Errors
/// [`StoreError`], when the database does not do it; the next time will do.
pub async fn beat(db: &Db, run: RunId, now: Timestamp) -> Result<bool, StoreError> {
    let found =
        on!(db, write pool => sqlx::query(BEAT).bind(run).bind(now).execute(pool).await?.rows_affected());
    Ok(found > 0)
}

/// Forgets the leases that a run has used up.
///
/// # Errors
/// [`StoreError`], when the database does not do it; the next time will do.
pub async fn sweep(db: &Db, run: RunId) -> Result<(), StoreError> {
    on!(db, write pool => sqlx::query(SWEEP).bind(run).execute(pool).await.map(|_| ()))?;
    Ok(())
}

const RENAME: &str = "UPDATE runs SET node = $2 WHERE id = $1";

/// Gives a run another node name.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn rename(db: &Db, run: RunId, node: &str) -> Result<(), StoreError> {
    on!(db, write pool => sqlx::query(RENAME).bind(run).bind(node).execute(pool).await.map(|_| ()))?;
    Ok(())
}

const PULSES: &str = "SELECT r.id, r.beats, r.beat_at, e.name AS errand, r.fenced_at IS NOT NULL AS is_fenced
    FROM runs r LEFT JOIN errands e ON e.run_id = r.id";

/// The signs of life of every run.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn pulses(db: &Db) -> Result<Vec<Pulse>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(PULSES).fetch_all(pool).await)?)
}

const FENCE: &str = "UPDATE runs SET fenced_at = $4
    WHERE id = $1 AND beats = $2 AND beat_at = $3 AND fenced_at IS NULL";

/// From the moment this returns `true`, a run is granted nothing and its heartbeat is refused. What it holds
/// stays its own until [`close`], so that rows that its spool still has are charged to it. `false`: it has
/// given a sign of life since that pulse, or is gone, and nothing was done.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn fence(db: &Db, pulse: &Pulse, now: Timestamp) -> Result<bool, StoreError> {
    let found = on!(db, write pool => sqlx::query(FENCE).bind(pulse.id).bind(pulse.beats).bind(pulse.beat_at)
        .bind(now).execute(pool).await?.rows_affected());
    Ok(found > 0)
}

const EARLIER: &str = "SELECT id, node, boot, started_at, folder FROM runs
    WHERE id <> $1 AND (node = $2 OR (boot = $3 AND folder = $4)) ORDER BY started_at";

/// Runs of the same node, or on the same folder of this machine, that were not ended, the oldest first.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn earlier(db: &Db, run: &Run) -> Result<Vec<Run>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(EARLIER).bind(run.id).bind(&run.node)
        .bind(&run.boot).bind(&run.folder).fetch_all(pool).await)?)
}

const SILENT: &str = "SELECT id, node, boot, started_at, folder FROM runs
    WHERE beat_at < $1 AND node <> $2 ORDER BY started_at";

/// Runs of other nodes than `node` that were last heard of before `since`.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn silent(db: &Db, since: Timestamp, node: &str) -> Result<Vec<Run>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(SILENT).bind(since).bind(node).fetch_all(pool).await)?)
}

const END: &str =
    "DELETE FROM runs WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.run_id = runs.id)";

/// Ends a run in order. Whether it is gone: a run that still holds something stays, for the next start
/// of its node to look into.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then it stays as well.
pub async fn end(db: &Db, run: RunId) -> Result<bool, StoreError> {
    on!(db, write pool => sqlx::query(SWEEP).bind(run).execute(pool).await.map(|_| ()))?;
    let gone = on!(db, write pool => sqlx::query(END).bind(run).execute(pool).await?.rows_affected());
    if gone > 0 {
        on!(db, write pool => sqlx::query(FORGET_ERRAND).bind(run).execute(pool).await.map(|_| ()))?;
    }
    Ok(gone > 0)
}

const HELD: &str = "SELECT CAST(COALESCE(SUM(units), 0) AS BIGINT) FROM leases WHERE run_id = $1";
const RETURN_SQLITE: &str = "UPDATE quota SET granted = granted - l.units FROM leases l
    WHERE l.run_id = $1 AND l.user_id = quota.user_id AND l.day = quota.day AND l.epoch = quota.epoch";
const FORFEIT_SQLITE: &str = "UPDATE quota SET forfeited = forfeited + l.units FROM leases l
    WHERE l.run_id = $1 AND l.user_id = quota.user_id AND l.day = quota.day AND l.epoch = quota.epoch";
// One statement each: a run that is alive may give units back between two.
const RETURN_POSTGRES: &str =
    "WITH gone AS (DELETE FROM leases WHERE run_id = $1 RETURNING user_id, day, epoch, units)
    UPDATE quota q SET granted = q.granted - g.units FROM gone g
    WHERE q.user_id = g.user_id AND q.day = g.day AND q.epoch = g.epoch";
const FORFEIT_POSTGRES: &str =
    "WITH gone AS (DELETE FROM leases WHERE run_id = $1 RETURNING user_id, day, epoch, units)
    UPDATE quota q SET forfeited = q.forfeited + g.units FROM gone g
    WHERE q.user_id = g.user_id AND q.day = g.day AND q.epoch = g.epoch";
const HOLD: &str = "UPDATE runs SET fenced_at = COALESCE(fenced_at, 0) WHERE id = $1";
const LET_GO: &str = "DELETE FROM leases WHERE run_id = $1";
const FORGET: &str = "DELETE FROM runs WHERE id = $1";
const FORGET_ERRAND: &str = "DELETE FROM errands WHERE run_id = $1";

/// Ends a run that was not ended in order, when all its rows are in the database: what it still holds
/// meets its fate. Answers how many units that were.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then nothing was done.
pub async fn close(db: &Db, run: RunId, fate: Fate) -> Result<i64, StoreError> {
    let mut tx = db.begin().await?;
    // Holds the row, so that no grant under way adds to what is counted here.
    on!(&mut tx, within conn => sqlx::query(HOLD).bind(run).execute(conn).await.map(|_| ()))?;
    let units: i64 = on!(&mut tx, within conn => sqlx::query_scalar(HELD).bind(run).fetch_one(conn).await)?;
    let text = match (&tx, fate) {
        (Tx::Sqlite(_), Fate::Returned) => RETURN_SQLITE,
        (Tx::Sqlite(_), Fate::Forfeited) => FORFEIT_SQLITE,
        (Tx::Postgres(_), Fate::Returned) => RETURN_POSTGRES,
        (Tx::Postgres(_), Fate::Forfeited) => FORFEIT_POSTGRES,
    };
    on!(&mut tx, within conn => sqlx::query(text).bind(run).execute(conn).await.map(|_| ()))?;
    let let_go = matches!(tx, Tx::Sqlite(_)).then_some(LET_GO);
    for text in let_go.into_iter().chain([FORGET_ERRAND, FORGET]) {
        on!(&mut tx, within conn => sqlx::query(text).bind(run).execute(conn).await.map(|_| ()))?;
    }
    tx.commit().await?;
    Ok(units)
}
