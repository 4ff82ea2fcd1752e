//! The day's conversations: one row for each user, day and epoch, made by the first that is granted.
//!
//! Nothing resets a quota: another day, or another epoch, is another row. What is left is the
//! allowance less what was granted. A user's day never goes back within an epoch: once a day has begun, a
//! clock that is set back, or a zone to the west, stays in it. Of the two ways to begin an epoch, setting
//! what is left stays in the day too, and [`reset_all`] does not. [`super::leases`] moves what is granted.

use std::collections::HashMap;

use sqlx::QueryBuilder;

use super::users::QuotaChange;
use super::{Db, StoreError, Tx, audit, carried};
use crate::ids::UserId;

/// What nobody was granted yet of a user's day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Which day: the one asked for, or a later one when the user has begun a later one already.
    pub day: i64,
    /// The user's epoch.
    pub epoch: i64,
    /// Conversations left, 0 and more.
    pub left: i64,
    /// Conversations of the day.
    pub allowance: i64,
    /// How many of them are given out; more than the allowance when that was lowered.
    pub granted: i64,
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
    epoch: i64,
    quota_reset: Option<i64>,
    /// The latest day that the user has begun in this epoch.
    latest: Option<i64>,
    allowance: Option<i64>,
    granted: Option<i64>,
}

/// What the user has left of `day`. `None`: there is no such user.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn left(db: &Db, user: UserId, day: i64, plan_limit: i64) -> Result<Option<Left>, StoreError> {
    let found = left_many(db, &[Asked { user, day, plan_limit }]).await?;
    Ok(found.get(&user).copied())
}

const LEFT: &str = "SELECT l.user_id, l.epoch, l.quota_reset, l.latest, q.allowance, q.granted
    FROM (SELECT u.id AS user_id, u.quota_epoch AS epoch, u.quota_reset,
            (SELECT MAX(x.day) FROM quota x WHERE x.user_id = u.id AND x.epoch = u.quota_epoch) AS latest
        FROM users u WHERE u.id IN (";
const LEFT_REST: &str = ")) AS l
    LEFT JOIN quota q ON q.user_id = l.user_id AND q.epoch = l.epoch AND q.day = l.latest";

/// [`left`] for a page of users (1,000 at most) in one statement. Users who are not there have no
/// answer.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn left_many(db: &Db, asked: &[Asked]) -> Result<HashMap<UserId, Left>, StoreError> {
    if asked.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<DayRow> = on!(db, read pool => {
        let mut query = QueryBuilder::new(LEFT);
        let mut list = query.separated(", ");
        for one in asked {
            list.push_bind(one.user);
        }
        query.push(LEFT_REST);
        query.build_query_as().persistent(asked.len() == 1).fetch_all(pool).await
    })?;
    let asked: HashMap<UserId, &Asked> = asked.iter().map(|one| (one.user, one)).collect();
    let answers = rows.iter().filter_map(|row| Some((row.user_id, row.left(asked.get(&row.user_id)?))));
    Ok(answers.collect())
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

/// Begins a new epoch for every user: each has their whole daily limit again, today included. Their day is
/// computed from the clock again, so that it goes back where a clock had run ahead.
/// Answers for how many.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then nothing is reset.
pub async fn reset_all(db: &Db, entry: &audit::Entry) -> Result<u64, StoreError> {
    let mut tx = db.begin().await?;
    let users = on!(&mut tx, within conn => sqlx::query(RESET_ALL).bind(entry.at)
        .execute(conn).await.map(|done| done.rows_affected()))?;
    carried::clear(&mut tx).await?;
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(users)
}

/// Days of quota that are kept: what a user is told of their month, and some.
pub const KEPT_DAYS: i64 = 100;

/// A thousand rows of days before `$1`. The last two days of each user stay, however late the clock says it
/// is: one that has jumped must not make a day that is not over begin anew.
macro_rules! old_days {
    () => {
        "(SELECT q.user_id, q.day, q.epoch FROM quota q WHERE q.day < $1 AND EXISTS
            (SELECT 1 FROM quota x WHERE x.user_id = q.user_id AND x.day > q.day + 1)
        ORDER BY q.user_id, q.day, q.epoch LIMIT 1000)"
    };
}

const LET_GO: &str = concat!("DELETE FROM leases WHERE (user_id, day, epoch) IN ", old_days!());
const PRUNE: &str = concat!("DELETE FROM quota WHERE (user_id, day, epoch) IN ", old_days!());

/// Forgets days before `day`, but the last two of each user, a thousand rows in one transaction, so that nobody waits long. Answers how
/// many rows are gone.
///
/// # Errors
/// [`StoreError`]: some may be gone, the rest is there for the next time.
pub async fn prune(db: &Db, day: i64) -> Result<u64, StoreError> {
    let mut gone = 0;
    loop {
        let mut tx = db.begin().await?;
        on!(&mut tx, within conn => sqlx::query(LET_GO).bind(day).execute(conn).await.map(|_| ()))?;
        let done = on!(&mut tx, within conn => sqlx::query(PRUNE).bind(day)
            .execute(conn).await.map(|done| done.rows_affected()))?;
        tx.commit().await?;
        gone += done;
        if done == 0 {
            return Ok(gone);
        }
    }
}

/// The day of a statement's `$2`, or a later one that the user of its row has begun already in an epoch.
macro_rules! their_day {
    ($epoch:literal) => {
        concat!(
            "COALESCE((SELECT MAX(x.day) FROM quota x WHERE x.user_id = users.id AND x.epoch = ",
            $epoch,
            " AND x.day > $2), $2)"
        )
    };
}

const KEEP_TODAY: &str = concat!(
    "INSERT INTO quota (user_id, day, epoch, allowance, granted, charged, refunded) SELECT id, ",
    their_day!("users.quota_epoch"),
    ", quota_epoch, COALESCE(quota_reset, $3), 0, 0, 0 FROM users WHERE id = $1
    ON CONFLICT (user_id, day, epoch) DO NOTHING"
);
const PLAN_TODAY: &str = concat!(
    "INSERT INTO quota (user_id, day, epoch, allowance, granted, charged, refunded) SELECT id, ",
    their_day!("users.quota_epoch"),
    ", quota_epoch, $3, 0, 0, 0 FROM users WHERE id = $1 AND quota_reset IS NULL
    ON CONFLICT (user_id, day, epoch) DO UPDATE SET allowance = excluded.allowance"
);

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
const BEGIN_EPOCH: &str = concat!(
    "INSERT INTO quota (user_id, day, epoch, allowance, granted, charged, refunded) SELECT id, ",
    their_day!("users.quota_epoch - 1"),
    ", quota_epoch, $3, 0, 0, 0 FROM users WHERE id = $1"
);

/// From now on `left` conversations are left of `day`, whatever was granted before.
pub(super) async fn begin_epoch(tx: &mut Tx, user: UserId, day: i64, left: i64) -> Result<(), sqlx::Error> {
    on!(&mut *tx, within conn => sqlx::query(NEXT_EPOCH).bind(user).execute(conn).await.map(|_| ()))?;
    on!(tx, within conn => sqlx::query(BEGIN_EPOCH).bind(user).bind(day).bind(left)
        .execute(conn).await.map(|_| ()))
}

// === impl DayRow ===

impl DayRow {
    fn left(&self, asked: &Asked) -> Left {
        let reset = self.quota_reset.unwrap_or(asked.plan_limit);
        // A row of an earlier day: today has not begun.
        let latest = self.latest.filter(|latest| *latest >= asked.day);
        let begun = latest.and(self.allowance.zip(self.granted));
        let (allowance, granted) = begun.unwrap_or((reset, 0));
        let left = allowance.saturating_sub(granted).max(0);
        Left { day: latest.unwrap_or(asked.day), epoch: self.epoch, left, allowance, granted, reset }
    }
}
