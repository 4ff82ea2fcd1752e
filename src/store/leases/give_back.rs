//! Giving units back that nobody used.

use std::collections::BTreeMap;

use sqlx::{PgPool, SqlitePool};

use super::errand::{Errand, errand};
use super::{Held, LeaseError, json};
use crate::ids::{RunId, UserId};
use crate::store::connections::{SILENCE, within};
use crate::store::{Db, StoreError};

const HELD_SQLITE: &str = "SELECT l.user_id, l.day, l.epoch, MIN(l.units, g.value ->> 3) AS units
    FROM json_each($2) g CROSS JOIN leases l ON l.run_id = $1 AND l.user_id = g.value ->> 0
        AND l.day = g.value ->> 1 AND l.epoch = g.value ->> 2
    WHERE l.units > 0";
const LOWER_SQLITE: &str = "UPDATE quota SET granted = granted - (g.value ->> 3) FROM json_each($1) g
    WHERE user_id = g.value ->> 0 AND day = g.value ->> 1 AND epoch = g.value ->> 2";
const RELEASE_SQLITE: &str = "UPDATE leases SET units = units - (g.value ->> 3) FROM json_each($2) g
    WHERE run_id = $1 AND user_id = g.value ->> 0 AND day = g.value ->> 1 AND epoch = g.value ->> 2";
const RETURN_POSTGRES: &str = concat!(
    "WITH errand AS (",
    errand!(),
    "), days AS (
        SELECT q.user_id, q.day, q.epoch, g.units
        FROM UNNEST($3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[]) AS g (user_id, day, epoch, units)
        JOIN quota q ON q.user_id = g.user_id AND q.day = g.day AND q.epoch = g.epoch
        WHERE EXISTS (SELECT 1 FROM errand) ORDER BY q.user_id, q.day, q.epoch FOR UPDATE OF q
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
    SELECT user_id, day, epoch, units FROM held"
);

/// Gives units of a run back, all in one transaction, and never more than it holds. Answers how many.
///
/// # Errors
/// [`LeaseError`], which says whether it may be tried again.
pub async fn give_back(db: &Db, run: RunId, units: &[Held]) -> Result<i64, LeaseError> {
    let mut merged: BTreeMap<(UserId, i64, i64), i64> = BTreeMap::new();
    for one in units.iter().filter(|one| one.units > 0) {
        *merged.entry((one.user, one.day, one.epoch)).or_default() += one.units;
    }
    let units = merged.into_iter().map(|((user, day, epoch), units)| Held { user, day, epoch, units });
    let units: Vec<Held> = units.collect();
    if units.is_empty() {
        return Ok(0);
    }
    let given = match db {
        Db::Sqlite { writer, .. } => give_back_sqlite(writer, run, &units).await.map_err(StoreError::from)?,
        Db::Postgres(pool) => {
            let errand = Errand::new();
            let given = within(SILENCE, give_back_postgres(pool, (run, errand), &units)).await;
            given.map_err(|error| Errand::failed(vec![errand], error))?
        }
    };
    Ok(given.iter().map(|one| one.units).sum())
}

async fn give_back_sqlite(writer: &SqlitePool, run: RunId, units: &[Held]) -> Result<Vec<Held>, sqlx::Error> {
    let list = |units: &[Held]| json(units.iter().map(|one| [one.user.0, one.day, one.epoch, one.units]));
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
    let held: Vec<Held> = sqlx::query_as(HELD_SQLITE).bind(run).bind(list(units)).fetch_all(&mut *tx).await?;
    sqlx::query(LOWER_SQLITE).bind(list(&held)).execute(&mut *tx).await?;
    sqlx::query(RELEASE_SQLITE).bind(run).bind(list(&held)).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(held)
}

pub(super) async fn give_back_postgres(
    pool: &PgPool,
    (run, errand): (RunId, Errand),
    units: &[Held],
) -> Result<Vec<Held>, sqlx::Error> {
    let column = |of: fn(&Held) -> i64| units.iter().map(of).collect::<Vec<i64>>();
    let given = sqlx::query_as(RETURN_POSTGRES).bind(run).bind(errand).bind(column(|one| one.user.0));
    let given = given.bind(column(|one| one.day)).bind(column(|one| one.epoch));
    given.bind(column(|one| one.units)).fetch_all(pool).await
}
