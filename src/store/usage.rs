//! What was used, by day: sums of the log's rows, which outlive them.
//!
//! A day's sums are computed from its rows and put in the stead of what was there, so computing them
//! twice changes nothing. Days that are still moving are summed from the log itself, in the same form.

use std::collections::BTreeMap;

use sqlx::QueryBuilder;

use super::text::storable;
use super::{Db, SlowRead, StoreError, Tx};
use crate::clock::Timestamp;
use crate::ids::UserId;

mod late;

pub use late::{hour, late, note_late, settle_late};

/// Sums of some group of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Usage {
    /// Of which day, user, model, route or outcome, as was asked; a day is days since 1970-01-01.
    pub name: String,
    /// Requests, whatever they cost.
    pub requests: i64,
    /// Those that cost a conversation.
    pub conversations: i64,
    /// Those whose conversation was given back.
    pub refunded: i64,
    /// Tokens of the questions, as far as anybody counted.
    pub prompt_tokens: i64,
    /// Tokens of the answers.
    pub completion_tokens: i64,
    /// Both.
    pub total_tokens: i64,
    /// Tokens of the questions that upstreams had in their cache.
    pub cached_tokens: i64,
    /// Tokens of the answers that were thoughts.
    pub reasoning_tokens: i64,
    /// Bytes of the requests' bodies.
    pub bytes_in: i64,
    /// Bytes of the answers' bodies.
    pub bytes_out: i64,
    /// How long all requests took together, in milliseconds.
    pub latency_ms: i64,
}

/// One calendar day: which, from when, until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    /// Days since 1970-01-01.
    pub day: i64,
    /// Its first instant.
    pub since: Timestamp,
    /// The first instant of the next.
    pub until: Timestamp,
}

/// By what usage is grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Calendar days.
    Day,
    /// Models, as they were asked for.
    Model,
    /// Users, by their names at the time.
    User,
    /// Routes, by their prefixes.
    Route,
    /// How requests ended.
    Outcome,
}

/// Which usage is summed.
#[derive(Clone, Debug)]
pub struct Question {
    /// By what.
    pub by: By,
    /// From this day on.
    pub from: i64,
    /// Up to this day, itself included.
    pub to: i64,
    /// Only of this user, as named in the log.
    pub username: Option<String>,
    /// Only of this model.
    pub model: Option<String>,
    /// Days that are summed from the log itself, in the stead of what is kept of them.
    pub live: Vec<Day>,
}

/// How many accounts there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Accounts {
    /// Users.
    pub users: i64,
    /// Users who may use the gateway.
    pub active_users: i64,
    /// Members of staff.
    pub staff: i64,
    /// Admins.
    pub admins: i64,
    /// Keys that work, as far as they were not given an end.
    pub keys: i64,
}

/// What is kept apart within a day.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, sqlx::FromRow)]
struct Group {
    user_id: i64,
    username: String,
    model: String,
    route: String,
    outcome: String,
}

#[derive(sqlx::FromRow)]
struct Part {
    #[sqlx(flatten)]
    group: Group,
    #[sqlx(flatten)]
    usage: Usage,
}

/// A day is read in so many parts, each short, so that no reader holds back the database for long.
const PARTS: i64 = 24;
/// Groups of one statement: 17 values each.
const BATCH: usize = 500;

macro_rules! sums {
    () => {
        "COUNT(*) AS requests, \
         CAST(SUM(CASE WHEN verdict = 'charged' THEN 1 ELSE 0 END) AS BIGINT) AS conversations, \
         CAST(SUM(CASE WHEN verdict = 'refunded' THEN 1 ELSE 0 END) AS BIGINT) AS refunded, \
         CAST(SUM(COALESCE(prompt_tokens, 0)) AS BIGINT) AS prompt_tokens, \
         CAST(SUM(COALESCE(completion_tokens, 0)) AS BIGINT) AS completion_tokens, \
         CAST(SUM(COALESCE(total_tokens, 0)) AS BIGINT) AS total_tokens, \
         CAST(SUM(COALESCE(cached_tokens, 0)) AS BIGINT) AS cached_tokens, \
         CAST(SUM(COALESCE(reasoning_tokens, 0)) AS BIGINT) AS reasoning_tokens, \
         CAST(SUM(bytes_in) AS BIGINT) AS bytes_in, CAST(SUM(bytes_out) AS BIGINT) AS bytes_out, \
         CAST(SUM(latency_ms) AS BIGINT) AS latency_ms FROM exchanges"
    };
}

const PART: &str = concat!(
    "SELECT COALESCE(user_id, 0) AS user_id, username, model, route, outcome, '' AS name, ",
    sums!(),
    " WHERE time >= $1 AND time < $2 GROUP BY COALESCE(user_id, 0), username, model, route, outcome"
);

const CLEAR: &str = "DELETE FROM usage_daily WHERE day = $1";
const KEEP: &str = "INSERT INTO usage_daily (day, user_id, username, model, route, outcome, requests, \
     conversations, refunded, prompt_tokens, completion_tokens, total_tokens, cached_tokens, \
     reasoning_tokens, bytes_in, bytes_out, latency_ms) ";

/// Sums a day up from the log's rows, in the stead of what was kept of it. The rows are read without
/// keeping writers waiting. Answers how many groups there are.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then what was kept is as it was.
pub async fn sum_up(db: &Db, day: Day) -> Result<usize, StoreError> {
    let mut groups: BTreeMap<Group, Usage> = BTreeMap::new();
    let at = |part: i64| Timestamp(day.since.0 + (day.until.0 - day.since.0) * part / PARTS);
    for part in 0..PARTS {
        let parts: Vec<Part> = on!(db, read pool => sqlx::query_as(PART)
            .bind(at(part)).bind(at(part + 1)).fetch_all(pool).await)?;
        for Part { group, usage } in parts {
            let sum = groups.entry(group).or_default();
            *sum = std::mem::take(sum).plus(&usage);
        }
    }
    let groups: Vec<_> = groups.into_iter().collect();
    let mut tx = db.begin().await?;
    on!(&mut tx, within conn => sqlx::query(CLEAR).bind(day.day).execute(conn).await.map(|_| ()))?;
    for batch in groups.chunks(BATCH) {
        keep(&mut tx, day.day, batch).await?;
    }
    tx.commit().await?;
    Ok(groups.len())
}

/// Of two who sum up a day at once, one finds the other's groups and leaves them.
async fn keep(tx: &mut Tx, day: i64, groups: &[(Group, Usage)]) -> Result<(), sqlx::Error> {
    on!(tx, within conn => {
        let mut query = QueryBuilder::new(KEEP);
        query.push_values(groups, |mut values, (group, usage)| {
            values.push_bind(day).push_bind(group.user_id);
            for name in [&group.username, &group.model, &group.route, &group.outcome] {
                values.push_bind(storable(name));
            }
            let sums = [
                usage.requests, usage.conversations, usage.refunded, usage.prompt_tokens,
                usage.completion_tokens, usage.total_tokens, usage.cached_tokens, usage.reasoning_tokens,
                usage.bytes_in, usage.bytes_out, usage.latency_ms,
            ];
            for sum in sums {
                values.push_bind(sum);
            }
        });
        query.push(" ON CONFLICT (day, user_id, username, model, route, outcome) DO NOTHING");
        query.build().persistent(false).execute(conn).await.map(|_| ())
    })
}

const LAST_DAY: &str = "SELECT MAX(day) FROM usage_daily";

/// The last day anything is kept of.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn last_day(db: &Db) -> Result<Option<i64>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_scalar(LAST_DAY).fetch_one(pool).await)?)
}

const OLDEST: &str = "SELECT MIN(time) FROM exchanges";

/// When the oldest row of the log began.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn oldest_row(db: &Db) -> Result<Option<Timestamp>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_scalar(OLDEST).fetch_one(pool).await)?)
}

/// Sums that answer `question`: of days in their order, of others the most used first.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn sums(reads: &SlowRead, question: &Question) -> Result<Vec<Usage>, StoreError> {
    Ok(on!(reads.db(), read pool => {
        let mut query = QueryBuilder::new(question.by.heading());
        query.push(" FROM (SELECT day, username, model, route, outcome, requests, conversations, refunded, \
            prompt_tokens, completion_tokens, total_tokens, cached_tokens, reasoning_tokens, bytes_in, \
            bytes_out, latency_ms FROM usage_daily WHERE day >= ");
        query.push_bind(question.from).push(" AND day <= ").push_bind(question.to);
        for live in &question.live {
            query.push(" AND day <> ").push_bind(live.day);
        }
        for live in &question.live {
            query.push(" UNION ALL SELECT CAST(").push_bind(live.day);
            query.push(concat!(" AS BIGINT), username, model, route, outcome, ", sums!(), " WHERE time >= "));
            query.push_bind(live.since).push(" AND time < ").push_bind(live.until);
            query.push(" GROUP BY username, model, route, outcome");
        }
        query.push(") AS u WHERE 1 = 1");
        if let Some(username) = &question.username {
            query.push(" AND username = ").push_bind(storable(username));
        }
        if let Some(model) = &question.model {
            query.push(" AND model = ").push_bind(storable(model));
        }
        query.push(question.by.grouping());
        query.build_query_as().persistent(false).fetch_all(pool).await
    })?)
}

// A day's groups of one user become one of everybody who was erased.
const TO_NOBODY: &str = "INSERT INTO usage_daily (day, user_id, username, model, route, outcome, requests,
        conversations, refunded, prompt_tokens, completion_tokens, total_tokens, cached_tokens,
        reasoning_tokens, bytes_in, bytes_out, latency_ms)
    SELECT day, 0, 'erased', model, route, outcome, CAST(SUM(requests) AS BIGINT),
        CAST(SUM(conversations) AS BIGINT), CAST(SUM(refunded) AS BIGINT), CAST(SUM(prompt_tokens) AS BIGINT),
        CAST(SUM(completion_tokens) AS BIGINT), CAST(SUM(total_tokens) AS BIGINT),
        CAST(SUM(cached_tokens) AS BIGINT), CAST(SUM(reasoning_tokens) AS BIGINT),
        CAST(SUM(bytes_in) AS BIGINT), CAST(SUM(bytes_out) AS BIGINT), CAST(SUM(latency_ms) AS BIGINT)
    FROM usage_daily WHERE user_id = $1 GROUP BY day, model, route, outcome
    ON CONFLICT (day, user_id, username, model, route, outcome) DO UPDATE SET
        requests = usage_daily.requests + excluded.requests,
        conversations = usage_daily.conversations + excluded.conversations,
        refunded = usage_daily.refunded + excluded.refunded,
        prompt_tokens = usage_daily.prompt_tokens + excluded.prompt_tokens,
        completion_tokens = usage_daily.completion_tokens + excluded.completion_tokens,
        total_tokens = usage_daily.total_tokens + excluded.total_tokens,
        cached_tokens = usage_daily.cached_tokens + excluded.cached_tokens,
        reasoning_tokens = usage_daily.reasoning_tokens + excluded.reasoning_tokens,
        bytes_in = usage_daily.bytes_in + excluded.bytes_in,
        bytes_out = usage_daily.bytes_out + excluded.bytes_out,
        latency_ms = usage_daily.latency_ms + excluded.latency_ms";
const NO_LONGER: &str = "DELETE FROM usage_daily WHERE user_id = $1";

/// Takes a person from the sums, which stay as large as they were.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then nothing was changed.
pub async fn forget_person(db: &Db, user: UserId) -> Result<(), StoreError> {
    let mut tx = db.begin().await?;
    for sql in [TO_NOBODY, NO_LONGER] {
        on!(&mut tx, within conn => sqlx::query(sql).bind(user).execute(conn).await.map(|_| ()))?;
    }
    tx.commit().await?;
    Ok(())
}

const ACCOUNTS: &str = "SELECT (SELECT COUNT(*) FROM users) AS users,
    (SELECT COUNT(*) FROM users WHERE is_active) AS active_users, (SELECT COUNT(*) FROM staff) AS staff,
    (SELECT COUNT(*) FROM admins) AS admins,
    (SELECT COUNT(*) FROM keys WHERE revoked_at IS NULL) AS keys";

/// How many accounts there are.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn accounts(reads: &SlowRead) -> Result<Accounts, StoreError> {
    Ok(on!(reads.db(), read pool => sqlx::query_as(ACCOUNTS).fetch_one(pool).await)?)
}

// === impl Usage ===

impl Usage {
    /// The sums of both, under the name of the first.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self {
            name: self.name,
            requests: self.requests + other.requests,
            conversations: self.conversations + other.conversations,
            refunded: self.refunded + other.refunded,
            prompt_tokens: self.prompt_tokens + other.prompt_tokens,
            completion_tokens: self.completion_tokens + other.completion_tokens,
            total_tokens: self.total_tokens + other.total_tokens,
            cached_tokens: self.cached_tokens + other.cached_tokens,
            reasoning_tokens: self.reasoning_tokens + other.reasoning_tokens,
            bytes_in: self.bytes_in + other.bytes_in,
            bytes_out: self.bytes_out + other.bytes_out,
            latency_ms: self.latency_ms + other.latency_ms,
        }
    }
}

// === impl By ===

macro_rules! heading {
    ($name:literal) => {
        concat!(
            "SELECT ",
            $name,
            " AS name, CAST(SUM(requests) AS BIGINT) AS requests, \
             CAST(SUM(conversations) AS BIGINT) AS conversations, CAST(SUM(refunded) AS BIGINT) AS refunded, \
             CAST(SUM(prompt_tokens) AS BIGINT) AS prompt_tokens, \
             CAST(SUM(completion_tokens) AS BIGINT) AS completion_tokens, \
             CAST(SUM(total_tokens) AS BIGINT) AS total_tokens, \
             CAST(SUM(cached_tokens) AS BIGINT) AS cached_tokens, \
             CAST(SUM(reasoning_tokens) AS BIGINT) AS reasoning_tokens, \
             CAST(SUM(bytes_in) AS BIGINT) AS bytes_in, CAST(SUM(bytes_out) AS BIGINT) AS bytes_out, \
             CAST(SUM(latency_ms) AS BIGINT) AS latency_ms"
        )
    };
}

macro_rules! grouping {
    ($name:literal) => {
        concat!(" GROUP BY ", $name, " ORDER BY 2 DESC, 1 LIMIT 10000")
    };
}

impl By {
    fn heading(self) -> &'static str {
        match self {
            Self::Day => heading!("CAST(day AS TEXT)"),
            Self::Model => heading!("model"),
            Self::User => heading!("username"),
            Self::Route => heading!("route"),
            Self::Outcome => heading!("outcome"),
        }
    }

    fn grouping(self) -> &'static str {
        match self {
            Self::Day => " GROUP BY day ORDER BY day",
            Self::Model => grouping!("model"),
            Self::User => grouping!("username"),
            Self::Route => grouping!("route"),
            Self::Outcome => grouping!("outcome"),
        }
    }
}
