//! What the database knows of the time: its own clock, when a node's was trusted last, and its newest entry.

use super::{Db, StoreError, audit};
use crate::clock::Timestamp;

/// When the clock was trusted last.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Mark {
    /// The machine's boot; empty where it is not known.
    pub boot: String,
    /// Milliseconds since that boot.
    pub uptime: i64,
    /// What time it was then.
    pub trusted_at: Timestamp,
    /// Since when the time is provisional, if it is.
    pub doubted_since: Option<Timestamp>,
    /// How often an operator has said that the clock is right.
    pub accepted: i64,
}

const DATABASE_TIME: &str = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

/// What the clock of the database's server shows; `None` with SQLite, which has no other clock than ours.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn database_time(db: &Db) -> Result<Option<Timestamp>, StoreError> {
    let Db::Postgres(pool) = db else { return Ok(None) };
    Ok(Some(sqlx::query_scalar(DATABASE_TIME).fetch_one(pool).await?))
}

const MARK: &str = "SELECT boot, uptime, trusted_at, doubted_since, accepted FROM clock_mark WHERE id = 1";

/// The latest mark; `None` before the first start that made one.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn mark(db: &Db) -> Result<Option<Mark>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(MARK).fetch_optional(pool).await)?)
}

const NOTE: &str = "INSERT INTO clock_mark (id, boot, uptime, trusted_at, doubted_since, accepted)
    VALUES (1, $1, $2, $3, $4, 0)
    ON CONFLICT (id) DO UPDATE SET boot = excluded.boot, uptime = excluded.uptime,
        trusted_at = excluded.trusted_at, doubted_since = excluded.doubted_since";

/// Replaces the mark, but for [`Mark::accepted`].
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn note(db: &Db, mark: &Mark) -> Result<(), StoreError> {
    on!(db, write pool => sqlx::query(NOTE).bind(&mark.boot).bind(mark.uptime).bind(mark.trusted_at)
        .bind(mark.doubted_since).execute(pool).await.map(|_| ()))?;
    Ok(())
}

const ACCEPT: &str = "INSERT INTO clock_mark (id, boot, uptime, trusted_at, doubted_since, accepted)
    VALUES (1, $1, $2, $3, NULL, 1)
    ON CONFLICT (id) DO UPDATE SET boot = excluded.boot, uptime = excluded.uptime,
        trusted_at = excluded.trusted_at, doubted_since = NULL, accepted = clock_mark.accepted + 1";

/// Notes that an operator says that the clock is right, with `mark` for what it shows.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn accept(db: &Db, mark: &Mark, entry: &audit::Entry) -> Result<(), StoreError> {
    let mut tx = db.begin().await?;
    on!(&mut tx, within conn => sqlx::query(ACCEPT).bind(&mark.boot).bind(mark.uptime)
        .bind(mark.trusted_at).execute(conn).await.map(|_| ()))?;
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(())
}

const NEWEST: &str = "SELECT MAX(latest) FROM (SELECT MAX(time) AS latest FROM exchanges
    UNION ALL SELECT MAX(beat_at) FROM runs) AS entries";

/// The time of the newest entry of the log, or of the last sign of life of a run.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn newest_entry(db: &Db) -> Result<Option<Timestamp>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_scalar(NEWEST).fetch_one(pool).await)?)
}
