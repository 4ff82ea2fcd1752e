//! One user's day, conversation by conversation.

use std::time::Duration;

use super::page::Page;
use super::trail::{Reach, Trail};
use super::{Difference, StoreError};
use crate::clock::Timestamp;
use crate::ids::{ExchangeId, UserId};
use crate::store::SlowRead;
use crate::store::exchanges::Verdict;

/// Whose day is to be explained.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Whose.
    pub user: UserId,
    /// Which, in days since 1970-01-01.
    pub day: i64,
    /// Its first instant and the first of the next: a call that costs nothing names no day.
    pub between: (Timestamp, Timestamp),
    /// At most so many conversations, after so many earlier ones.
    pub page: (i64, i64),
    /// No statement takes longer; `None`: it may.
    pub patience: Option<Duration>,
    /// What time it is.
    pub now: Timestamp,
}

/// A day of a user, as far as it is in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Day {
    /// Conversations in the order they began, a page of them.
    pub lines: Vec<Line>,
    /// How many there are on all pages.
    pub total: i64,
    /// The balances of the day, the first epoch first.
    pub epochs: Vec<Epoch>,
    /// What of this day does not add up.
    pub differences: Vec<Difference>,
}

/// One conversation, or a call that costs nothing.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Line {
    /// Its row of the log.
    pub id: ExchangeId,
    /// When it began.
    pub time: Timestamp,
    /// The request it came by.
    pub request_id: String,
    /// What kind of call it was.
    pub call: String,
    /// The model that was asked for; empty when none was named.
    pub model: String,
    /// The answer's HTTP status.
    pub status: Option<i64>,
    /// How it ended.
    pub outcome: String,
    /// What became of its unit.
    #[sqlx(try_from = "String")]
    pub verdict: Verdict,
    /// Why that verdict.
    pub reason: String,
    /// The epoch its unit belongs to; `None` when it cost nothing.
    pub epoch: Option<i64>,
    /// Charged conversations of its epoch up to here, this one included.
    pub charged: i64,
}

/// One balance: everything an allowance went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Epoch {
    /// Which; the next begins when somebody sets what is left, or resets all limits.
    pub epoch: i64,
    /// Conversations of the day, as it stands.
    pub allowance: i64,
    /// Of them, given out: charged, held and forfeited.
    pub granted: i64,
    /// Used.
    pub charged: i64,
    /// Given back: conversations that cost nothing in the end.
    pub refunded: i64,
    /// Lost with a run that never came back, or used by a deleted account of the same username or e-mail address.
    pub forfeited: i64,
    /// Held by runs of the gateway: kept ready, in use, or used and still on the way to the database.
    pub held: i64,
    /// Whether it is the user's present epoch.
    pub live: bool,
}

macro_rules! of_user {
    () => {
        "SELECT id, time, request_id, call, model, status, outcome, verdict, reason, quota_epoch \
         FROM exchanges WHERE user_id = $1 AND quota_day "
    };
}

// In two parts: of a condition with OR, SQLite finds all of the user's rows.
macro_rules! of_day {
    () => {
        concat!(
            " FROM (",
            of_user!(),
            "= $2 UNION ALL ",
            of_user!(),
            "IS NULL AND time >= $3 AND time < $4) AS of_day"
        )
    };
}

pub(in crate::store) const LINES: &str = concat!(
    "SELECT id, time, request_id, call, model, status, outcome, verdict, reason, quota_epoch AS epoch, \
     COUNT(CASE WHEN verdict = 'charged' THEN 1 END) OVER (PARTITION BY quota_epoch ORDER BY time, id) AS charged",
    of_day!(),
    " ORDER BY time, id LIMIT $5 OFFSET $6"
);
pub(in crate::store) const COUNT: &str = concat!("SELECT COUNT(*)", of_day!());
const EPOCHS: &str = "SELECT q.epoch, q.allowance, q.granted, q.charged, q.refunded, q.forfeited,
        CAST(COALESCE((SELECT SUM(l.units) FROM leases l
            WHERE l.user_id = q.user_id AND l.day = q.day AND l.epoch = q.epoch), 0) AS BIGINT) AS held,
        q.epoch = u.quota_epoch AS live
    FROM quota q JOIN users u ON u.id = q.user_id WHERE q.user_id = $1 AND q.day = $2 ORDER BY q.epoch";

/// What became of each conversation of a user's day, and of the day, in one snapshot.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn explain(reads: &SlowRead, asked: &Asked) -> Result<Day, StoreError> {
    let Asked { user, day, between: (since, until), page: (limit, offset), patience, now } = *asked;
    let mut snapshot = reads.db().snapshot(patience).await?;
    let tx = &mut snapshot.tx;
    let lines = on!(&mut *tx, within conn => sqlx::query_as(LINES)
        .bind(user).bind(day).bind(since).bind(until).bind(limit).bind(offset).fetch_all(conn).await)?;
    let total = on!(&mut *tx, within conn => sqlx::query_scalar(COUNT)
        .bind(user).bind(day).bind(since).bind(until).fetch_one(conn).await)?;
    let epochs = on!(&mut *tx, within conn => sqlx::query_as(EPOCHS)
        .bind(user).bind(day).fetch_all(conn).await)?;
    let reach = Reach::read(tx, now).await?;
    let page = Page::read(tx, (user.0.saturating_sub(1), user.0), 1).await?;
    let (mut trail, mut differences) = (Trail::default(), Vec::new());
    for difference in page.differences(&reach) {
        let of_day = difference.day.is_none_or(|of| of == day);
        if of_day && !trail.explains(tx, &page, &difference).await? {
            differences.push(difference);
        }
    }
    snapshot.end().await?;
    Ok(Day { lines, total, epochs, differences })
}

// === impl Epoch ===

impl Epoch {
    /// What is left to be given out; below zero after a move to a smaller plan.
    #[must_use]
    pub fn left(&self) -> i64 {
        self.allowance.saturating_sub(self.granted)
    }
}
