//! Runs of the gateway: who may hold units of a day, and what is left when a run was not ended.
//!
//! A run's row stands from its start to its orderly end. A row of the same node that is found at the
//! next start is of a run that was killed; a row that was silent for days is of a node that is gone.

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
}

/// What becomes of the units of a run that was not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody used them: they go back.
    Returned,
    /// Somebody may have used them: nobody gets them again.
    Forfeited,
}

const BEAT: &str = "INSERT INTO runs (id, node, boot, started_at, beat_at) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (id) DO UPDATE SET beat_at = excluded.beat_at";
const SWEEP: &str = "DELETE FROM leases WHERE run_id = $1 AND units = 0";

/// Enters a run.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn begin(db: &Db, run: &Run) -> Result<(), StoreError> {
    on!(db, write pool => sqlx::query(BEAT).bind(run.id).bind(&run.node).bind(&run.boot)
        .bind(run.started_at).bind(run.started_at).execute(pool).await.map(|_| ()))?;
    Ok(())
}

/// Says that a run is alive, enters it again if it was taken for dead, and forgets the leases that it
/// has used up.
///
/// # Errors
/// [`StoreError`], when the database does not do it; the next time will do.
pub async fn beat(db: &Db, run: &Run, now: Timestamp) -> Result<(), StoreError> {
    on!(db, write pool => sqlx::query(BEAT).bind(run.id).bind(&run.node).bind(&run.boot)
        .bind(run.started_at).bind(now).execute(pool).await.map(|_| ()))?;
    on!(db, write pool => sqlx::query(SWEEP).bind(run.id).execute(pool).await.map(|_| ()))?;
    Ok(())
}

const EARLIER: &str =
    "SELECT id, node, boot, started_at FROM runs WHERE node = $1 AND id <> $2 ORDER BY started_at";

/// Runs of the same node that were not ended, the oldest first.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn earlier(db: &Db, run: &Run) -> Result<Vec<Run>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(EARLIER).bind(&run.node).bind(run.id).fetch_all(pool).await)?)
}

const SILENT: &str =
    "SELECT id, node, boot, started_at FROM runs WHERE beat_at < $1 AND node <> $2 ORDER BY started_at";

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
// One statement each: a run that is not dead after all might be granted more between two.
const RETURN_POSTGRES: &str =
    "WITH gone AS (DELETE FROM leases WHERE run_id = $1 RETURNING user_id, day, epoch, units)
    UPDATE quota q SET granted = q.granted - g.units FROM gone g
    WHERE q.user_id = g.user_id AND q.day = g.day AND q.epoch = g.epoch";
const FORFEIT_POSTGRES: &str =
    "WITH gone AS (DELETE FROM leases WHERE run_id = $1 RETURNING user_id, day, epoch, units)
    UPDATE quota q SET forfeited = q.forfeited + g.units FROM gone g
    WHERE q.user_id = g.user_id AND q.day = g.day AND q.epoch = g.epoch";
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
