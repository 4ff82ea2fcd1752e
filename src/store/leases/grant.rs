//! Granting units: as many as are waited for, and some ahead.

use std::collections::BTreeMap;

use sqlx::{PgPool, Sqlite, Transaction};

use super::errand::{Errand, errand};
use super::{Ask, Granted, LeaseError, json};
use crate::ids::{RunId, UserId};
use crate::store::{Db, StoreError};

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
/// that are not there have no answer. A run without a row in `runs`, or with a fenced one, is granted nothing.
///
/// # Errors
/// [`LeaseError`], which says whether something may have been granted.
pub async fn grant(db: &Db, run: RunId, asks: &[Ask]) -> Result<Vec<Granted>, LeaseError> {
    let mut asks = asks.to_vec();
    asks.sort_unstable_by_key(|ask| ask.user);
    if asks.is_empty() {
        return Ok(Vec::new());
    }
    match db {
        Db::Sqlite { writer, .. } => {
            let tx = writer.begin_with("BEGIN IMMEDIATE").await.map_err(StoreError::from)?;
            grant_sqlite(tx, run, &asks).await.map_err(StoreError::from)?.ok_or(LeaseError::Fenced)
        }
        Db::Postgres(pool) => grant_postgres(pool, run, &asks).await,
    }
}

/// How many of `left` an ask gets: what is needed, and more only far from the end. However many wait,
/// there are some ahead for who comes next.
fn share(left: i64, ask: &Ask) -> i64 {
    if ask.need == 0 {
        return 0;
    }
    let ahead = ask.most.min((left - ask.need + 1) / 8).max(1) - 1;
    (ask.need + ahead).min(left.max(0))
}

const ALIVE: &str = "SELECT CAST(1 AS BIGINT) FROM runs WHERE id = $1 AND fenced_at IS NULL";

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
) -> Result<Option<Vec<Granted>>, sqlx::Error> {
    let alive: Option<i64> = sqlx::query_scalar(ALIVE).bind(run).fetch_optional(&mut *tx).await?;
    if alive.is_none() {
        return Ok(None);
    }
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
    Ok(Some(standing))
}

// One statement: the run's row is held, so that it is not fenced before this is done; rows that are there are locked in order, which shows them as they are then, and
// raised by what that leaves; days that have not begun are begun. `ON CONFLICT DO NOTHING` is met when
// another node has begun a day meanwhile: that user has no answer, and is asked for again.
const GRANT_POSTGRES: &str = concat!(
    "WITH alive AS (SELECT id FROM runs WHERE id = $1 AND fenced_at IS NULL FOR SHARE), errand AS (",
    errand!("SELECT id, $2::uuid FROM alive"),
    "), asked AS (
        SELECT u.id AS user_id, u.quota_epoch AS epoch, COALESCE(u.quota_reset, a.plan_limit) AS reset,
            GREATEST(a.day, (SELECT MAX(x.day) FROM quota x
                WHERE x.user_id = u.id AND x.epoch = u.quota_epoch)) AS day, a.need, a.most
        FROM UNNEST($3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
            AS a (user_id, day, plan_limit, need, most)
        JOIN users u ON u.id = a.user_id WHERE EXISTS (SELECT 1 FROM errand) ORDER BY u.id FOR KEY SHARE OF u
    ), begun AS (
        SELECT a.reset, q.user_id, q.day, q.epoch, q.allowance, q.granted, q.refunded,
            CASE WHEN a.need = 0 THEN 0 ELSE LEAST(GREATEST(q.allowance - q.granted, 0), a.need - 1
                + GREATEST(LEAST(a.most, (q.allowance - q.granted - a.need + 1) / 8), 1)) END AS units
        FROM asked a JOIN quota q ON q.user_id = a.user_id AND q.day = a.day AND q.epoch = a.epoch
        ORDER BY q.user_id FOR UPDATE OF q
    ), raised AS (
        UPDATE quota q SET granted = q.granted + b.units FROM begun b
        WHERE b.units > 0 AND q.user_id = b.user_id AND q.day = b.day AND q.epoch = b.epoch
    ), unbegun AS (
        SELECT a.user_id, a.day, a.epoch, a.reset, CASE WHEN a.need = 0 THEN 0 ELSE LEAST(GREATEST(a.reset, 0),
            a.need - 1 + GREATEST(LEAST(a.most, (a.reset - a.need + 1) / 8), 1)) END AS units
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
        INSERT INTO leases (run_id, user_id, day, epoch, units, errand, brought)
        SELECT $1, user_id, day, epoch, units, $2, units FROM taken WHERE units > 0
        ON CONFLICT (run_id, user_id, day, epoch) DO UPDATE
            SET units = leases.units + excluded.units, errand = excluded.errand, brought = excluded.brought
    )
    SELECT user_id, day, epoch, reset, allowance, granted, refunded, units FROM taken"
);

async fn grant_postgres(pool: &PgPool, run: RunId, asks: &[Ask]) -> Result<Vec<Granted>, LeaseError> {
    let mut answers: Vec<Granted> = Vec::with_capacity(asks.len());
    let mut open = asks.to_vec();
    let mut errands = Vec::new();
    let mut is_alive = false;
    for attempt in 1..=TRIES {
        let errand = Errand::new();
        errands.push(errand);
        match grant_once(pool, (run, errand), &open).await {
            Ok(found) => {
                is_alive |= !found.is_empty();
                answers.extend(found);
            }
            Err(error) if attempt < TRIES && is_passing(&error) => continue,
            Err(error) => return Err(Errand::failed(errands, error)),
        }
        open.retain(|ask| answers.iter().all(|answer| answer.user_id != ask.user));
        if open.is_empty() {
            return Ok(answers);
        }
        if !is_alive && !alive(pool, run).await {
            return Err(LeaseError::Fenced);
        }
    }
    Ok(answers)
}

/// Whether a run may be granted units. Asked only where a statement had no answers at all, so that nothing of
/// it was done; a database that does not answer now leaves that as it is.
async fn alive(pool: &PgPool, run: RunId) -> bool {
    let found = sqlx::query_scalar::<_, i64>(ALIVE).bind(run).fetch_optional(pool).await;
    !matches!(found, Ok(None))
}

pub(super) async fn grant_once(
    pool: &PgPool,
    (run, errand): (RunId, Errand),
    asks: &[Ask],
) -> Result<Vec<Granted>, sqlx::Error> {
    let column = |of: fn(&Ask) -> i64| asks.iter().map(of).collect::<Vec<i64>>();
    sqlx::query_as(GRANT_POSTGRES)
        .bind(run)
        .bind(errand)
        .bind(column(|ask| ask.user.0))
        .bind(column(|ask| ask.day))
        .bind(column(|ask| ask.plan_limit))
        .bind(column(|ask| ask.need))
        .bind(column(|ask| ask.most))
        .fetch_all(pool)
        .await
}

/// A deadlock, or a user who was deleted meanwhile: it will be otherwise the next time, and nothing
/// was done.
fn is_passing(error: &sqlx::Error) -> bool {
    let Some(cause) = error.as_database_error() else { return false };
    cause.is_foreign_key_violation() || cause.code().as_deref() == Some("40P01")
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
