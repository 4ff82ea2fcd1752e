//! The day's conversations: one row for each user, day and epoch, made by the first reservation.
//!
//! Nothing resets a quota: another day, or another epoch, is another row. What is left is the
//! allowance less what was granted; `charged` trails `granted` and catches up when exchanges are
//! written ([`super::exchanges`]). Every step is one conditional statement, so no schedule of
//! callers, nodes included, grants more than the allowance.

use std::collections::HashMap;

use sqlx::QueryBuilder;

use super::users::QuotaChange;
use super::{Db, StoreError, Tx, audit};
use crate::ids::UserId;

/// A reservation that was made, and the day's row after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Granted {
    /// The epoch it belongs to; a refund names it.
    pub epoch: i64,
    /// Conversations of the day.
    pub allowance: i64,
    /// How many of them are given out, these included.
    pub granted: i64,
    /// How many were given back so far; caps on refunds look here.
    pub refunded: i64,
}

/// Units to be given back to the day they came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refund {
    /// Whose.
    pub user: UserId,
    /// The day they were reserved for.
    pub day: i64,
    /// The epoch they were reserved in.
    pub epoch: i64,
    /// How many, 1 and more.
    pub units: i64,
}

/// What a user has left of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Conversations left, 0 and more.
    pub left: i64,
    /// Conversations of the day.
    pub allowance: i64,
    /// What the next day begins with.
    pub reset: i64,
}

/// A question of [`left_many`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Whose.
    pub user: UserId,
    /// Today, in the zone of their allowance.
    pub day: i64,
    /// What they have a day without a limit of their own.
    pub plan_limit: i64,
}

#[derive(sqlx::FromRow)]
struct DayRow {
    user_id: UserId,
    quota_reset: Option<i64>,
    day: Option<i64>,
    allowance: Option<i64>,
    granted: Option<i64>,
}

// The day's row is offered with the default allowance and wins or meets the one that is there; only
// the latter's own allowance counts then, hence EXISTS.
const RESERVE: &str = "INSERT INTO quota (user_id, day, epoch, allowance, granted, charged, refunded)
    SELECT u.id, $2, u.quota_epoch, COALESCE(u.quota_reset, $3), $4, 0, 0 FROM users u
    WHERE u.id = $1 AND (COALESCE(u.quota_reset, $3) >= $4 OR EXISTS
        (SELECT 1 FROM quota q WHERE q.user_id = u.id AND q.day = $2 AND q.epoch = u.quota_epoch))
    ON CONFLICT (user_id, day, epoch) DO UPDATE SET granted = quota.granted + $4
    WHERE quota.granted + $4 <= quota.allowance
    RETURNING epoch, allowance, granted, refunded";

/// Takes `units` (1 and more) of the user's day, all or none. `plan_limit` is what they have a day
/// without a limit of their own. `None`: not that many are left, or there is no such user.
///
/// # Errors
/// [`StoreError`], when the database does not answer: then nothing is taken, unless the connection
/// broke between doing and answering; what was taken then is lost to the user, never gained.
pub async fn reserve(
    db: &Db,
    user: UserId,
    day: i64,
    plan_limit: i64,
    units: i64,
) -> Result<Option<Granted>, StoreError> {
    Ok(on!(db, write pool => sqlx::query_as(RESERVE)
        .bind(user).bind(day).bind(plan_limit).bind(units).fetch_optional(pool).await)?)
}

const REFUND: &str = "UPDATE quota SET refunded = refunded + $4,
        granted = CASE WHEN granted - $4 < charged THEN charged ELSE granted - $4 END
    WHERE user_id = $1 AND day = $2 AND epoch = $3";

/// Gives units back, all in one transaction. What was charged is never given back.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then nothing is given back.
pub async fn refund(db: &Db, refunds: &[Refund]) -> Result<(), StoreError> {
    if refunds.is_empty() {
        return Ok(());
    }
    // In one order everywhere, so that two nodes never wait for each other.
    let mut refunds = refunds.to_vec();
    refunds.sort_unstable();
    let mut tx = db.begin().await?;
    for Refund { user, day, epoch, units } in refunds {
        on!(&mut tx, within conn => sqlx::query(REFUND)
            .bind(user).bind(day).bind(epoch).bind(units).execute(conn).await.map(|_| ()))?;
    }
    tx.commit().await?;
    Ok(())
}

const LEFT: &str = "SELECT u.id AS user_id, u.quota_reset, q.day, q.allowance, q.granted
    FROM users u LEFT JOIN quota q ON q.user_id = u.id AND q.epoch = u.quota_epoch AND q.day = $2
    WHERE u.id = $1";

/// What the user has left of `day`. `None`: there is no such user.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn left(db: &Db, user: UserId, day: i64, plan_limit: i64) -> Result<Option<Left>, StoreError> {
    let row: Option<DayRow> =
        on!(db, read pool => sqlx::query_as(LEFT).bind(user).bind(day).fetch_optional(pool).await)?;
    Ok(row.map(|row| row.left(plan_limit)))
}

const LEFT_MANY: &str = "SELECT u.id AS user_id, u.quota_reset, q.day, q.allowance, q.granted
    FROM users u LEFT JOIN quota q ON q.user_id = u.id AND q.epoch = u.quota_epoch AND q.day IN (";

/// [`left`] for a page of users (1,000 at most) in one statement. Users who are not there have no
/// answer.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn left_many(db: &Db, asked: &[Asked]) -> Result<HashMap<UserId, Left>, StoreError> {
    if asked.is_empty() {
        return Ok(HashMap::new());
    }
    // Zones differ by 26 hours at most, so a page has few days.
    let mut days: Vec<i64> = asked.iter().map(|one| one.day).collect();
    days.sort_unstable();
    days.dedup();
    let rows: Vec<DayRow> = on!(db, read pool => {
        let mut query = QueryBuilder::new(LEFT_MANY);
        let mut list = query.separated(", ");
        for day in &days {
            list.push_bind(*day);
        }
        list.push_unseparated(") WHERE u.id IN (");
        let mut list = query.separated(", ");
        for one in asked {
            list.push_bind(one.user);
        }
        list.push_unseparated(")");
        query.build_query_as().persistent(false).fetch_all(pool).await
    })?;
    let asked: HashMap<UserId, &Asked> = asked.iter().map(|one| (one.user, one)).collect();
    let mut answers = HashMap::with_capacity(asked.len());
    for mut row in rows {
        let Some(one) = asked.get(&row.user_id) else { continue };
        if row.day == Some(one.day) {
            answers.insert(row.user_id, row.left(one.plan_limit));
            continue;
        }
        // A row of some other zone's day: this user's has not begun.
        (row.allowance, row.granted) = (None, None);
        answers.entry(row.user_id).or_insert_with(|| row.left(one.plan_limit));
    }
    Ok(answers)
}

/// How much was used of one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Used {
    /// Days since 1970-01-01.
    pub day: i64,
    /// Conversations given out and not given back, whatever the epoch.
    pub units: i64,
}

const USED_SINCE: &str = "SELECT day, CAST(SUM(granted) AS BIGINT) AS units FROM quota
    WHERE user_id = $1 AND day >= $2 GROUP BY day";

/// What the user used of each day from `day` on; days without a row used nothing.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn used_since(db: &Db, user: UserId, day: i64) -> Result<Vec<Used>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(USED_SINCE).bind(user).bind(day).fetch_all(pool).await)?)
}

const RESET_ALL: &str = "UPDATE users SET quota_epoch = quota_epoch + 1, updated_at = $1";

/// Begins a new epoch for every user: each has their whole daily limit again, today included.
/// Answers for how many.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then nothing is reset.
pub async fn reset_all(db: &Db, entry: &audit::Entry) -> Result<u64, StoreError> {
    let mut tx = db.begin().await?;
    let users = on!(&mut tx, within conn => sqlx::query(RESET_ALL).bind(entry.at)
        .execute(conn).await.map(|done| done.rows_affected()))?;
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(users)
}

/// Days of quota that are kept: what a user is told of their month, and some.
pub const KEPT_DAYS: i64 = 100;

const PRUNE: &str = "DELETE FROM quota WHERE (user_id, day, epoch) IN
    (SELECT user_id, day, epoch FROM quota WHERE day < $1 LIMIT 1000)";

/// Forgets days before `day`, a thousand rows in one statement, so that nobody waits long. Answers how
/// many rows are gone.
///
/// # Errors
/// [`StoreError`]: some may be gone, the rest is there for the next time.
pub async fn prune(db: &Db, day: i64) -> Result<u64, StoreError> {
    let mut gone = 0;
    loop {
        let done = on!(db, write pool => sqlx::query(PRUNE).bind(day).execute(pool).await?.rows_affected());
        gone += done;
        if done == 0 {
            return Ok(gone);
        }
    }
}

const KEEP_TODAY: &str = "INSERT INTO quota (user_id, day, epoch, allowance, granted, charged, refunded)
    SELECT id, $2, quota_epoch, COALESCE(quota_reset, $3), 0, 0, 0 FROM users WHERE id = $1
    ON CONFLICT (user_id, day, epoch) DO NOTHING";
const PLAN_TODAY: &str = "INSERT INTO quota (user_id, day, epoch, allowance, granted, charged, refunded)
    SELECT id, $2, quota_epoch, $3, 0, 0, 0 FROM users WHERE id = $1 AND quota_reset IS NULL
    ON CONFLICT (user_id, day, epoch) DO UPDATE SET allowance = excluded.allowance";

/// Fixes what today's allowance is before the user's limit or plan changes: a limit of their own
/// holds from tomorrow on, a plan's from today on. The row is made even when the day has not begun,
/// so that a node which still knows the old plan cannot begin it by the old limit.
pub(super) async fn settle_day(
    tx: &mut Tx,
    user: UserId,
    change: &QuotaChange,
    plan_changes: bool,
) -> Result<(), sqlx::Error> {
    let texts: &[&'static str] = match (change.left, change.reset, plan_changes) {
        // A new epoch makes what went before irrelevant.
        (Some(_), ..) | (None, None, false) => &[],
        (None, Some(_), false) => &[KEEP_TODAY],
        // The first does nothing for a user with a limit of their own; then the second keeps it.
        (None, _, true) => &[PLAN_TODAY, KEEP_TODAY],
    };
    for text in texts {
        on!(&mut *tx, within conn => sqlx::query(*text)
            .bind(user).bind(change.day).bind(change.plan_limit).execute(conn).await.map(|_| ()))?;
    }
    Ok(())
}

const NEXT_EPOCH: &str = "UPDATE users SET quota_epoch = quota_epoch + 1 WHERE id = $1";
const BEGIN_EPOCH: &str = "INSERT INTO quota (user_id, day, epoch, allowance, granted, charged, refunded)
    SELECT id, $2, quota_epoch, $3, 0, 0, 0 FROM users WHERE id = $1";

/// From now on `left` conversations are left of `day`, whatever was granted before.
pub(super) async fn begin_epoch(tx: &mut Tx, user: UserId, day: i64, left: i64) -> Result<(), sqlx::Error> {
    on!(&mut *tx, within conn => sqlx::query(NEXT_EPOCH).bind(user).execute(conn).await.map(|_| ()))?;
    on!(tx, within conn => sqlx::query(BEGIN_EPOCH).bind(user).bind(day).bind(left)
        .execute(conn).await.map(|_| ()))
}

// === impl DayRow ===

impl DayRow {
    fn left(&self, plan_limit: i64) -> Left {
        let reset = self.quota_reset.unwrap_or(plan_limit);
        let allowance = self.allowance.unwrap_or(reset);
        let left = allowance.saturating_sub(self.granted.unwrap_or(0)).max(0);
        Left { left, allowance, reset }
    }
}
