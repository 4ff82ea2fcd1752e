//! Conversations: each row is what was said and the ledger entry for it at once.
//!
//! Rows are named by their maker (UUIDv7), so a batch that is written twice is inserted once, and
//! `quota.charged` moves once, in the same transaction.

use std::pin::pin;

use futures_util::{Stream, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::text::storable;
use super::{Db, Page, SlowRead, StoreError};
use crate::clock::Timestamp;
use crate::ids::{ExchangeId, KeyId, UserId};

mod append;
mod retention;

pub use append::{Appended, append};
pub use retention::forget;
pub(super) use retention::{Lock, read_mark};

/// The outcome of a conversation whose end nobody saw, because the gateway was killed.
pub const UNSEEN: &str = "gateway_stopped";

/// What became of the conversation's unit. Spool files hold it by position: new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// It was used.
    Charged,
    /// It was given back.
    Refunded,
    /// There was none: the call costs nothing.
    Free,
}

/// One conversation. Tokens are `None` when nobody reported them. Spool files hold it field by field, in
/// this order: a change of its fields is a new format of theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Exchange {
    /// Its name, given by whoever made it.
    pub id: ExchangeId,
    /// Whose.
    pub user_id: Option<UserId>,
    /// By which key.
    pub key_id: Option<KeyId>,
    /// The user's name at the time.
    pub username: String,
    /// The user's address at the time.
    pub email: String,
    /// The request it came by.
    pub request_id: String,
    /// The route's prefix.
    pub route: String,
    /// What kind of call it was, such as `chat`.
    pub call: String,
    /// The model that was asked for; empty when none was named.
    pub model: String,
    /// What was asked: the text of a JSON array. `None`: not kept, or kept no longer.
    pub messages: Option<String>,
    /// What was answered: the text of a JSON value. `None`: not kept, or kept no longer.
    pub answer: Option<String>,
    /// Whether it was marked as research.
    pub research_model: bool,
    /// When it began.
    pub time: Timestamp,
    /// The answer's HTTP status; `None` when there was no answer.
    pub status: Option<i64>,
    /// Whether the answer was a stream.
    pub stream: bool,
    /// How it ended.
    pub outcome: String,
    /// What became of its unit. Of charged ones, `user_id`, `quota_day` and `quota_epoch` say whose.
    #[sqlx(try_from = "String")]
    pub verdict: Verdict,
    /// Why that verdict.
    pub reason: String,
    /// The day its unit was reserved for.
    pub quota_day: Option<i64>,
    /// The epoch its unit was reserved in.
    pub quota_epoch: Option<i64>,
    /// From the request to the first byte of the answer, in milliseconds.
    pub first_byte_ms: Option<i64>,
    /// From the request to the end, in milliseconds.
    pub latency_ms: i64,
    /// Bytes of the request's body.
    pub bytes_in: i64,
    /// Bytes of the answer's body that reached us.
    pub bytes_out: i64,
    /// Tokens of the question.
    pub prompt_tokens: Option<i64>,
    /// Tokens of the answer.
    pub completion_tokens: Option<i64>,
    /// Both.
    pub total_tokens: Option<i64>,
    /// Tokens of the question that the upstream had in its cache.
    pub cached_tokens: Option<i64>,
    /// Tokens of the answer that were thoughts.
    pub reasoning_tokens: Option<i64>,
    /// Who counted the tokens.
    pub usage_source: String,
    /// Why the model stopped, in its own words.
    pub finish_reason: Option<String>,
    /// Whether what was said is kept only in part.
    pub truncated: bool,
    /// Where the client was; empty when that is not known.
    pub client_ip: String,
}

/// Which exchanges are listed; `None` is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this user, named as in the row.
    pub username: Option<String>,
    /// Of this model.
    pub model: Option<String>,
    /// Begun then or later.
    pub since: Option<Timestamp>,
    /// Begun earlier than that.
    pub until: Option<Timestamp>,
    /// At most so many.
    pub limit: i64,
    /// After so many newer ones.
    pub offset: i64,
}

/// A stored verdict that is none of the three.
#[derive(Debug, thiserror::Error)]
#[error("a verdict is charged, refunded or free")]
pub struct UnknownVerdict;

macro_rules! columns {
    () => {
        "id, user_id, key_id, username, email, request_id, route, call, model, messages, answer, \
         research_model, time, status, stream, outcome, verdict, reason, quota_day, quota_epoch, first_byte_ms, \
         latency_ms, bytes_in, bytes_out, prompt_tokens, completion_tokens, total_tokens, cached_tokens, \
         reasoning_tokens, usage_source, finish_reason, truncated, client_ip"
    };
}

use columns;

const BY_ID: &str = concat!("SELECT ", columns!(), " FROM exchanges WHERE id = $1");

/// The exchange of this name, once it has been written.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn by_id(db: &Db, id: ExchangeId) -> Result<Option<Exchange>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(BY_ID).bind(id).fetch_optional(pool).await)?)
}

macro_rules! matching {
    () => {
        " FROM exchanges WHERE (CAST($1 AS TEXT) IS NULL OR username = $1) \
          AND (CAST($2 AS TEXT) IS NULL OR model = $2) \
          AND (CAST($3 AS BIGINT) IS NULL OR time >= $3) \
          AND (CAST($4 AS BIGINT) IS NULL OR time < $4)"
    };
}

const LIST: &str =
    concat!("SELECT ", columns!(), matching!(), " ORDER BY time DESC, id DESC LIMIT $5 OFFSET $6");
const COUNT: &str = concat!("SELECT COUNT(*)", matching!());

/// Most bytes of messages and answers that one page has, but for its first row.
const PAGE_BYTES: usize = 8 << 20;

/// Exchanges that match, newest first: as many as were asked for, or fewer where they are long. One page
/// has 8 MiB of messages and answers, and one row at least, while there are any.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn list(reads: &SlowRead, filter: &Filter) -> Result<Page<Exchange>, StoreError> {
    let rows = on!(reads.db(), read pool => {
        let found = sqlx::query_as(LIST)
            .bind(filter.username.as_deref().map(storable))
            .bind(filter.model.as_deref().map(storable))
            .bind(filter.since)
            .bind(filter.until)
            .bind(filter.limit)
            .bind(filter.offset)
            .fetch(pool);
        page_of(found).await
    })?;
    let total = on!(reads.db(), read pool => sqlx::query_scalar(COUNT)
        .bind(filter.username.as_deref().map(storable))
        .bind(filter.model.as_deref().map(storable))
        .bind(filter.since)
        .bind(filter.until)
        .fetch_one(pool)
        .await)?;
    Ok(Page { rows, total })
}

async fn page_of(
    found: impl Stream<Item = Result<Exchange, sqlx::Error>>,
) -> Result<Vec<Exchange>, sqlx::Error> {
    let mut found = pin!(found);
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = found.try_next().await? {
        bytes += said(&row);
        if bytes > PAGE_BYTES && !rows.is_empty() {
            break;
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Bytes of messages and answer.
fn said(row: &Exchange) -> usize {
    row.messages.as_ref().map_or(0, String::len) + row.answer.as_ref().map_or(0, String::len)
}

// === impl Verdict ===

impl Verdict {
    /// As the column has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Charged => "charged",
            Self::Refunded => "refunded",
            Self::Free => "free",
        }
    }
}

impl TryFrom<String> for Verdict {
    type Error = UnknownVerdict;

    fn try_from(text: String) -> Result<Self, UnknownVerdict> {
        [Self::Charged, Self::Refunded, Self::Free]
            .into_iter()
            .find(|verdict| verdict.as_str() == text)
            .ok_or(UnknownVerdict)
    }
}

// === impl Exchange ===

impl Exchange {
    /// The row without what was said; only that is not copied.
    #[must_use]
    pub fn without_texts(&self) -> Self {
        Self {
            messages: None,
            answer: None,
            username: self.username.clone(),
            email: self.email.clone(),
            request_id: self.request_id.clone(),
            route: self.route.clone(),
            call: self.call.clone(),
            model: self.model.clone(),
            outcome: self.outcome.clone(),
            reason: self.reason.clone(),
            usage_source: self.usage_source.clone(),
            finish_reason: self.finish_reason.clone(),
            client_ip: self.client_ip.clone(),
            ..*self
        }
    }

    /// Whose day, and which, its unit was of.
    fn day(&self) -> Option<(UserId, i64, i64)> {
        let (user, day, epoch) = (self.user_id?, self.quota_day?, self.quota_epoch?);
        (self.verdict != Verdict::Free).then_some((user, day, epoch))
    }

    fn is_unseen(&self) -> bool {
        self.outcome == UNSEEN
    }

    fn charges(&self, day: (UserId, i64, i64)) -> bool {
        self.verdict == Verdict::Charged && self.day() == Some(day)
    }
}
