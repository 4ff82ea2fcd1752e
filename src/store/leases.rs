//! Units of a day in the hands of runs: granted several at a time, charged as their rows are written,
//! given back or forfeited where nobody used them.
//!
//! Of every row of `quota`, at every moment: `granted` is `charged` and what runs hold and
//! `forfeited`. Each function here moves both sides in one transaction. Rows of `quota` are locked
//! before those of `leases`, both in the order of their keys, so that two nodes never wait for each
//! other.

use std::collections::BTreeMap;

use sqlx::{PgPool, Postgres, Sqlite, Transaction};

use super::{Db, StoreError, Tx};
use crate::ids::{RunId, UserId};

mod charge;

pub(super) use charge::{Used, charge};

/// What a run asks for one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Whose day.
    pub user: UserId,
    /// Today, in the zone of their allowance.
    pub day: i64,
    /// What they have a day without a limit of their own.
    pub plan_limit: i64,
    /// Units that somebody waits for; 0 asks only how the day stands.
    pub need: i64,
    /// Units to have in hand, where an eighth of what is left is as many.
    pub most: i64,
}

/// How a user's day stands after an [`Ask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Granted {
    /// Whose day.
    pub user_id: UserId,
    /// Which day: that of the ask, or a later one when the user has begun a later one already.
    pub day: i64,
    /// The epoch of the user.
    pub epoch: i64,
    /// What the next day begins with.
    pub reset: i64,
    /// Conversations of the day.
    pub allowance: i64,
    /// How many of them are given out, these included.
    pub granted: i64,
    /// Rows that say that one was given back; caps on refunds look here.
    pub refunded: i64,
    /// How many were given out now: as many as were needed, or all that were left.
    pub units: i64,
}

/// Units of one row of `quota`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, sqlx::FromRow)]
pub struct Held {
    /// Whose.
    #[sqlx(rename = "user_id")]
    pub user: UserId,
    /// The day they were granted for.
    pub day: i64,
    /// The epoch they were granted in.
    pub epoch: i64,
    /// How many, 1 and more.
    pub units: i64,
}

/// Why units were not given back.
#[derive(Debug, thiserror::Error)]
pub enum GiveBackError {
    /// Nothing was given back; it may be tried again.
    #[error("units were not given back: {0}")]
    NotDone(#[source] StoreError),
    /// Nobody knows. To try again might give back what is in use, so it must be left: what was not
    /// given back is found when the run is ended.
    #[error("units may not have been given back: {0}")]
    Unknown(#[source] StoreError),
}

#[derive(sqlx::FromRow)]
struct DayRow {
    user_id: UserId,
    day: i64,
    epoch: i64,
    reset: i64,
    allowance: Option<i64>,
    granted: Option<i64>,
    refunded: Option<i64>,
}

/// How often a statement is tried that met the deletion of a user, or a deadlock that should not be.
const TRIES: usize = 4;

/// Grants units of many users' days to a run, in one transaction. `asks` names no user twice. Users
/// that are not there have no answer.
///
/// # Errors
/// [`StoreError`], when the database does not answer: then nothing is granted, unless the connection
/// broke between doing and answering; what was granted then is found when the run is ended.
pub async fn grant(db: &Db, run: RunId, asks: &[Ask]) -> Result<Vec<Granted>, StoreError> {
    let mut asks = asks.to_vec();
    asks.sort_unstable_by_key(|ask| ask.user);
    if asks.is_empty() {
        return Ok(Vec::new());
    }
    match db {
        Db::Sqlite { writer, .. } => {
            let tx = writer.begin_with("BEGIN IMMEDIATE").await?;
            Ok(grant_sqlite(tx, run, &asks).await?)
        }
        Db::Postgres(pool) => grant_postgres(pool, run, &asks).await,
    }
}

/// How many of `left` an ask gets: what is needed, and more only far from the end.
fn share(left: i64, ask: &Ask) -> i64 {
    if ask.need == 0 {
        return 0;
    }
    ask.need.max((left / 8).max(1).min(ask.most)).min(left.max(0))
}

// The writer is alone, so what was read first is still so when it is raised. Lists travel as JSON.
const STANDING_SQLITE: &str = "WITH asked AS (
        SELECT u.id AS user_id, u.quota_epoch AS epoch, COALESCE(u.quota_reset, a.value ->> 2) AS reset,
            COALESCE((SELECT MAX(x.day) FROM quota x
                WHERE x.user_id = u.id AND x.epoch = u.quota_epoch AND x.day > a.value ->> 1),
                a.value ->> 1) AS day
        FROM json_each($1) a CROSS JOIN users u ON u.id = a.value ->> 0)
    SELECT a.user_id, a.day, a.epoch, a.reset, q.allowance, q.granted, q.refunded
    FROM asked a LEFT JOIN quota q ON q.user_id = a.user_id AND q.day = a.day AND q.epoch = a.epoch";
const RAISE_SQLITE: &str = "INSERT INTO quota (user_id, day, epoch, allowance, granted, charged, refunded)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 4, value ->> 3, 0, 0 FROM json_each($1) WHERE true
    ON CONFLICT (user_id, day, epoch) DO UPDATE SET granted = quota.granted + excluded.granted";
const HOLD_SQLITE: &str = "INSERT INTO leases (run_id, user_id, day, epoch, units)
    SELECT $1, value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each($2) WHERE true
    ON CONFLICT (run_id, user_id, day, epoch) DO UPDATE SET units = leases.units + excluded.units";

async fn grant_sqlite(
    mut tx: Transaction<'static, Sqlite>,
    run: RunId,
    asks: &[Ask],
) -> Result<Vec<Granted>, sqlx::Error> {
    let by_user: BTreeMap<UserId, &Ask> = asks.iter().map(|ask| (ask.user, ask)).collect();
    let list = json(asks.iter().map(|ask| [ask.user.0, ask.day, ask.plan_limit]));
    let rows: Vec<DayRow> = sqlx::query_as(STANDING_SQLITE).bind(list).fetch_all(&mut *tx).await?;
    let standing = rows.into_iter().filter_map(|row| Some(row.after(by_user.get(&row.user_id)?)));
    let standing: Vec<Granted> = standing.collect();
    let taken = standing.iter().filter(|row| row.units > 0);
    let list = json(taken.map(|row| [row.user_id.0, row.day, row.epoch, row.units, row.allowance]));
    if list != "[]" {
        sqlx::query(RAISE_SQLITE).bind(&list).execute(&mut *tx).await?;
        sqlx::query(HOLD_SQLITE).bind(run).bind(&list).execute(&mut *tx).await?;
        tx.commit().await?;
    }
    Ok(standing)
}

// One statement: rows that are there are locked in order, which shows them as they are then, and
// raised by what that leaves; days that have not begun are begun. `ON CONFLICT DO NOTHING` is met when
// another node has begun a day meanwhile: that user has no answer, and is asked for again.
const GRANT_POSTGRES: &str = "WITH asked AS (
        SELECT u.id AS user_id, u.quota_epoch AS epoch, COALESCE(u.quota_reset, a.plan_limit) AS reset,
            GREATEST(a.day, (SELECT MAX(x.day) FROM quota x
                WHERE x.user_id = u.id AND x.epoch = u.quota_epoch)) AS day, a.need, a.most
        FROM UNNEST($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
            AS a (user_id, day, plan_limit, need, most)
        JOIN users u ON u.id = a.user_id ORDER BY u.id FOR KEY SHARE OF u
    ), begun AS (
        SELECT a.reset, q.user_id, q.day, q.epoch, q.allowance, q.granted, q.refunded,
            CASE WHEN a.need = 0 THEN 0 ELSE LEAST(GREATEST(q.allowance - q.granted, 0), GREATEST(a.need,
                LEAST(a.most, GREATEST((q.allowance - q.granted) / 8, 1)))) END AS units
        FROM asked a JOIN quota q ON q.user_id = a.user_id AND q.day = a.day AND q.epoch = a.epoch
        ORDER BY q.user_id FOR UPDATE OF q
    ), raised AS (
        UPDATE quota q SET granted = q.granted + b.units FROM begun b
        WHERE b.units > 0 AND q.user_id = b.user_id AND q.day = b.day AND q.epoch = b.epoch
    ), unbegun AS (
        SELECT a.user_id, a.day, a.epoch, a.reset, CASE WHEN a.need = 0 THEN 0 ELSE
            LEAST(GREATEST(a.reset, 0), GREATEST(a.need, LEAST(a.most, GREATEST(a.reset / 8, 1)))) END AS units
        FROM asked a WHERE NOT EXISTS (SELECT 1 FROM begun b WHERE b.user_id = a.user_id)
    ), fresh AS (
        INSERT INTO quota (user_id, day, epoch, allowance, granted, charged, refunded)
        SELECT user_id, day, epoch, reset, units, 0, 0 FROM unbegun WHERE units > 0 ORDER BY user_id
        ON CONFLICT (user_id, day, epoch) DO NOTHING
        RETURNING user_id, day, epoch, allowance, granted
    ), taken AS (
        SELECT user_id, day, epoch, reset, allowance, granted + units AS granted, refunded, units FROM begun
        UNION ALL SELECT user_id, day, epoch, allowance, allowance, granted, 0, granted FROM fresh
        UNION ALL SELECT user_id, day, epoch, reset, reset, 0, 0, 0 FROM unbegun WHERE units = 0
    ), held AS (
        INSERT INTO leases (run_id, user_id, day, epoch, units)
        SELECT $1, user_id, day, epoch, units FROM taken WHERE units > 0
        ON CONFLICT (run_id, user_id, day, epoch) DO UPDATE SET units = leases.units + excluded.units
    )
    SELECT user_id, day, epoch, reset, allowance, granted, refunded, units FROM taken";

async fn grant_postgres(pool: &PgPool, run: RunId, asks: &[Ask]) -> Result<Vec<Granted>, StoreError> {
    let mut answers: Vec<Granted> = Vec::with_capacity(asks.len());
    let mut open = asks.to_vec();
    for attempt in 1..=TRIES {
        let column = |of: fn(&Ask) -> i64| open.iter().map(of).collect::<Vec<i64>>();
        let asked: Result<Vec<Granted>, sqlx::Error> = sqlx::query_as(GRANT_POSTGRES)
            .bind(run)
            .bind(column(|ask| ask.user.0))
            .bind(column(|ask| ask.day))
            .bind(column(|ask| ask.plan_limit))
            .bind(column(|ask| ask.need))
            .bind(column(|ask| ask.most))
            .fetch_all(pool)
            .await;
        match asked {
            Ok(found) => answers.extend(found),
            Err(error) if attempt < TRIES && is_passing(&error) => continue,
            Err(error) => return Err(error.into()),
        }
        open.retain(|ask| answers.iter().all(|answer| answer.user_id != ask.user));
        if open.is_empty() {
            break;
        }
    }
    Ok(answers)
}

/// A deadlock, or a user who was deleted meanwhile: it will be otherwise the next time, and nothing
/// was done.
fn is_passing(error: &sqlx::Error) -> bool {
    let Some(cause) = error.as_database_error() else { return false };
    cause.is_foreign_key_violation() || cause.code().as_deref() == Some("40P01")
}

const HELD_SQLITE: &str = "SELECT l.user_id, l.day, l.epoch, MIN(l.units, g.value ->> 3) AS units
    FROM json_each($2) g CROSS JOIN leases l ON l.run_id = $1 AND l.user_id = g.value ->> 0
        AND l.day = g.value ->> 1 AND l.epoch = g.value ->> 2
    WHERE l.units > 0";
const LOWER_SQLITE: &str = "UPDATE quota SET granted = granted - (g.value ->> 3) FROM json_each($1) g
    WHERE user_id = g.value ->> 0 AND day = g.value ->> 1 AND epoch = g.value ->> 2";
const RELEASE_SQLITE: &str = "UPDATE leases SET units = units - (g.value ->> 3) FROM json_each($2) g
    WHERE run_id = $1 AND user_id = g.value ->> 0 AND day = g.value ->> 1 AND epoch = g.value ->> 2";
const RETURN_POSTGRES: &str = "WITH days AS (
        SELECT q.user_id, q.day, q.epoch, g.units
        FROM UNNEST($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]) AS g (user_id, day, epoch, units)
        JOIN quota q ON q.user_id = g.user_id AND q.day = g.day AND q.epoch = g.epoch
        ORDER BY q.user_id, q.day, q.epoch FOR UPDATE OF q
    ), held AS (
        SELECT l.user_id, l.day, l.epoch, LEAST(l.units, d.units) AS units FROM days d
        JOIN leases l ON l.run_id = $1 AND l.user_id = d.user_id AND l.day = d.day AND l.epoch = d.epoch
        WHERE l.units > 0 ORDER BY l.user_id, l.day, l.epoch FOR UPDATE OF l
    ), lowered AS (
        UPDATE quota q SET granted = q.granted - h.units FROM held h
        WHERE q.user_id = h.user_id AND q.day = h.day AND q.epoch = h.epoch
    ), released AS (
        UPDATE leases l SET units = l.units - h.units FROM held h
        WHERE l.run_id = $1 AND l.user_id = h.user_id AND l.day = h.day AND l.epoch = h.epoch
    )
    SELECT user_id, day, epoch, units FROM held";

/// Gives units of a run back, all in one transaction, and never more than it holds. Answers how many.
///
/// # Errors
/// [`GiveBackError`], which says whether it may be tried again.
pub async fn give_back(db: &Db, run: RunId, units: &[Held]) -> Result<i64, GiveBackError> {
    let mut merged: BTreeMap<(UserId, i64, i64), i64> = BTreeMap::new();
    for one in units.iter().filter(|one| one.units > 0) {
        *merged.entry((one.user, one.day, one.epoch)).or_default() += one.units;
    }
    let units = merged.into_iter().map(|((user, day, epoch), units)| Held { user, day, epoch, units });
    let units: Vec<Held> = units.collect();
    if units.is_empty() {
        return Ok(0);
    }
    let mut tx = db.begin().await.map_err(|error| GiveBackError::NotDone(error.into()))?;
    let given = match &mut tx {
        Tx::Sqlite(tx) => give_back_sqlite(tx, run, &units).await,
        Tx::Postgres(tx) => give_back_postgres(tx, run, &units).await,
    };
    // What was not committed is undone; only a commit without an answer leaves a doubt, and SQLite
    // always answers.
    let given = given.map_err(|error| GiveBackError::NotDone(error.into()))?;
    let answers = matches!(db, Db::Sqlite { .. });
    tx.commit().await.map_err(|error| {
        let is_refusal = answers || error.as_database_error().is_some();
        if is_refusal { GiveBackError::NotDone(error.into()) } else { GiveBackError::Unknown(error.into()) }
    })?;
    Ok(given.iter().map(|one| one.units).sum())
}

async fn give_back_sqlite(
    tx: &mut Transaction<'static, Sqlite>,
    run: RunId,
    units: &[Held],
) -> Result<Vec<Held>, sqlx::Error> {
    let list = |units: &[Held]| json(units.iter().map(|one| [one.user.0, one.day, one.epoch, one.units]));
    let held: Vec<Held> =
        sqlx::query_as(HELD_SQLITE).bind(run).bind(list(units)).fetch_all(&mut **tx).await?;
    sqlx::query(LOWER_SQLITE).bind(list(&held)).execute(&mut **tx).await?;
    sqlx::query(RELEASE_SQLITE).bind(run).bind(list(&held)).execute(&mut **tx).await?;
    Ok(held)
}

async fn give_back_postgres(
    tx: &mut Transaction<'static, Postgres>,
    run: RunId,
    units: &[Held],
) -> Result<Vec<Held>, sqlx::Error> {
    let column = |of: fn(&Held) -> i64| units.iter().map(of).collect::<Vec<i64>>();
    let given = sqlx::query_as(RETURN_POSTGRES).bind(run).bind(column(|one| one.user.0));
    let given = given.bind(column(|one| one.day)).bind(column(|one| one.epoch));
    given.bind(column(|one| one.units)).fetch_all(&mut **tx).await
}

/// Rows of numbers, as JSON.
fn json<const N: usize>(rows: impl Iterator<Item = [i64; N]>) -> String {
    let rows: Vec<Vec<i64>> = rows.map(|row| row.to_vec()).collect();
    serde_json::Value::from(rows).to_string()
}

// === impl DayRow ===

impl DayRow {
    fn after(&self, ask: &Ask) -> Granted {
        let allowance = self.allowance.unwrap_or(self.reset);
        let granted = self.granted.unwrap_or(0);
        let units = share(allowance - granted, ask);
        Granted {
            user_id: self.user_id,
            day: self.day,
            epoch: self.epoch,
            reset: self.reset,
            allowance,
            granted: granted + units,
            refunded: self.refunded.unwrap_or(0),
            units,
        }
    }
}
