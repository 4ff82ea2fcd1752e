//! What a run used moves from what it holds to what is charged, with the rows that say so.

use super::Held;
use crate::ids::{RunId, UserId};
use crate::store::Tx;

/// What new rows of a run say of one day.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Used {
    /// Conversations that count.
    pub(in crate::store) charged: i64,
    /// Conversations whose end nobody saw. They count where the run has a unit for them.
    pub(in crate::store) unseen: i64,
    /// Conversations that were given back.
    pub(in crate::store) refunded: i64,
}

/// How a day stands after that.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Charged {
    pub(in crate::store) allowance: i64,
    /// Whether the day was not used up before, and is now.
    pub(in crate::store) is_used_up: bool,
    /// How many of the unseen ones count.
    pub(in crate::store) unseen: i64,
}

const CHARGE: &str = "UPDATE quota SET charged = charged + $4, refunded = refunded + $5
    WHERE user_id = $1 AND day = $2 AND epoch = $3 RETURNING charged, allowance, forfeited";
const USE: &str = "UPDATE leases SET units = units - $5
    WHERE run_id = $1 AND user_id = $2 AND day = $3 AND epoch = $4 AND units >= $5";
const STILL_HELD: &str =
    "SELECT units FROM leases WHERE run_id = $1 AND user_id = $2 AND day = $3 AND epoch = $4";
const USE_ALL: &str =
    "UPDATE leases SET units = 0 WHERE run_id = $1 AND user_id = $2 AND day = $3 AND epoch = $4";
const MAKE_GOOD: &str = "UPDATE quota SET forfeited = forfeited - $4, granted = granted + $5
    WHERE user_id = $1 AND day = $2 AND epoch = $3";

/// Charges what a run used of a day, and counts the rows that say that one was given back. `None`: the day
/// is forgotten.
pub(in crate::store) async fn charge(
    tx: &mut Tx,
    run: RunId,
    (user, day, epoch): (UserId, i64, i64),
    rows: Used,
) -> Result<Option<Charged>, sqlx::Error> {
    let known = Held { user, day, epoch, units: rows.charged };
    let Some(mut row) = count(tx, known, rows.refunded).await? else { return Ok(None) };
    let mut unseen = 0;
    if rows.unseen > 0 {
        let (_, _, forfeited) = row;
        let held = held(tx, run, known).await?.unwrap_or(0);
        unseen = rows.unseen.min((held + forfeited - rows.charged).max(0));
        row = count(tx, Held { units: unseen, ..known }, rows.unseen - unseen).await?.unwrap_or(row);
    }
    let (charged, allowance, forfeited) = row;
    let units = rows.charged + unseen;
    if units > 0 {
        take(tx, run, Held { units, ..known }, forfeited).await?;
    }
    let is_used_up = charged >= allowance && charged - units < allowance;
    Ok(Some(Charged { allowance, is_used_up, unseen }))
}

/// What is charged then, of how many, and what is forfeited.
async fn count(tx: &mut Tx, of: Held, refunded: i64) -> Result<Option<(i64, i64, i64)>, sqlx::Error> {
    let Held { user, day, epoch, units } = of;
    on!(tx, within conn => sqlx::query_as(CHARGE)
        .bind(user).bind(day).bind(epoch).bind(units).bind(refunded).fetch_optional(conn).await)
}

async fn held(tx: &mut Tx, run: RunId, of: Held) -> Result<Option<i64>, sqlx::Error> {
    on!(tx, within conn => sqlx::query_scalar(STILL_HELD)
        .bind(run).bind(of.user).bind(of.day).bind(of.epoch).fetch_optional(conn).await)
}

async fn take(tx: &mut Tx, run: RunId, of: Held, forfeited: i64) -> Result<(), sqlx::Error> {
    let Held { user, day, epoch, units } = of;
    let found = on!(&mut *tx, within conn => sqlx::query(USE).bind(run).bind(user).bind(day).bind(epoch)
        .bind(units).execute(conn).await.map(|done| done.rows_affected()))?;
    if found > 0 {
        return Ok(());
    }
    // Taken for lost meanwhile, because the run was silent for days: found again. What nobody ever
    // granted has happened all the same, so that it is granted now.
    let missing = units - held(tx, run, of).await?.unwrap_or(0);
    on!(&mut *tx, within conn => sqlx::query(USE_ALL)
        .bind(run).bind(user).bind(day).bind(epoch).execute(conn).await.map(|_| ()))?;
    let found = missing.min(forfeited);
    on!(tx, within conn => sqlx::query(MAKE_GOOD)
        .bind(user).bind(day).bind(epoch).bind(found).bind(missing - found).execute(conn).await.map(|_| ()))?;
    Ok(())
}
