//! What webhooks have still to be told: a bounded queue that outlives the process.
//!
//! An event is put here by the transaction that makes it true, so none is told that did not happen and
//! none is forgotten that did. Which are wanted stands in a table too, written when a gateway starts, so
//! that commands beside it tell as well. Delivery is at least once: the event's id is how a receiver
//! knows one it has seen.

use chrono::{Days, NaiveDate};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::exchanges::Exchange;
use super::text::storable;
use super::{Db, StoreError, Tx, audit, compared};
use crate::clock::Timestamp;
use crate::config::WebhookEvent;
use crate::ids::UserId;

/// Most events that wait; beyond, new ones are not told.
pub const MOST_WAITING: i64 = 10_000;
/// A payload that would be longer goes without what was said.
const MOST_BYTES: usize = 64 << 10;
/// Events of one statement.
const BATCH: usize = 500;

/// One event to be delivered, taken for a while.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Waiting {
    /// Its name towards receivers, the same at every attempt.
    pub id: String,
    /// Which event.
    pub event: String,
    /// The body to be sent: a JSON object.
    pub payload: String,
    /// How often it was taken, this time included.
    pub attempts: i64,
}

/// What a transaction has to tell. Given up with it.
pub(super) struct News {
    wanted: Vec<String>,
    events: Vec<NewEvent>,
}

struct NewEvent {
    event: WebhookEvent,
    user: Option<UserId>,
    at: Timestamp,
    payload: String,
}

/// Of a user, what receivers are told.
#[derive(sqlx::FromRow)]
struct Person {
    id: UserId,
    username: String,
    email: String,
    subscription_plan: String,
    level: String,
}

const FORGET_EVENTS: &str = "DELETE FROM webhook_events";
const ADD_EVENT: &str = "INSERT INTO webhook_events (event) VALUES ($1) ON CONFLICT (event) DO NOTHING";

/// From now on these events are put into the queue, and no others.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn want(db: &Db, events: &[WebhookEvent]) -> Result<(), StoreError> {
    let mut tx = db.begin().await?;
    on!(&mut tx, within conn => sqlx::query(FORGET_EVENTS).execute(conn).await.map(|_| ()))?;
    for event in events {
        on!(&mut tx, within conn => sqlx::query(ADD_EVENT).bind(event.as_str()).execute(conn).await.map(|_| ()))?;
    }
    tx.commit().await?;
    Ok(())
}

const DUE: &str = "SELECT COUNT(CASE WHEN next_at <= $1 THEN 1 END), COUNT(*) FROM webhook_queue";

/// How many events could be delivered now, and how many wait in all ([`MOST_WAITING`] at most).
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn due(db: &Db, now: Timestamp) -> Result<(i64, i64), StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(DUE).bind(now).fetch_one(pool).await)?)
}

const WAITING: &str =
    "SELECT id, event, payload, attempts FROM webhook_queue ORDER BY created_at, id LIMIT $1";

/// Up to `most` events that are not delivered yet, the oldest first.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn waiting(db: &Db, most: i64) -> Result<Vec<Waiting>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(WAITING).bind(most).fetch_all(pool).await)?)
}

const TAKE: &str = "UPDATE webhook_queue SET attempts = attempts + 1, next_at = $2
    WHERE next_at <= $1 AND id IN (SELECT id FROM webhook_queue WHERE next_at <= $1 ORDER BY next_at, id LIMIT $3)
    RETURNING id, event, payload, attempts";

/// Takes up to `most` events that are due at `now`; nobody else is given them before `until`.
///
/// # Errors
/// [`StoreError`], when the database does not answer; then none is taken.
pub async fn take(db: &Db, now: Timestamp, until: Timestamp, most: i64) -> Result<Vec<Waiting>, StoreError> {
    Ok(on!(db, write pool => sqlx::query_as(TAKE).bind(now).bind(until).bind(most).fetch_all(pool).await)?)
}

const REMOVE: &str = "DELETE FROM webhook_queue WHERE id = $1";

/// Forgets an event: delivered, or given up.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then it will be delivered again.
pub async fn remove(db: &Db, id: &str) -> Result<(), StoreError> {
    on!(db, write pool => sqlx::query(REMOVE).bind(id).execute(pool).await.map(|_| ()))?;
    Ok(())
}

const POSTPONE: &str = "UPDATE webhook_queue SET next_at = $2 WHERE id = $1";

/// Leaves an event that was not delivered for later.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then it is due when its taking ends.
pub async fn postpone(db: &Db, id: &str, next_at: Timestamp) -> Result<(), StoreError> {
    on!(db, write pool => sqlx::query(POSTPONE).bind(id).bind(next_at).execute(pool).await.map(|_| ()))?;
    Ok(())
}

const PERSON: &str =
    "SELECT id, username, email, subscription_plan, level FROM users WHERE username_key = $1";

/// Tells of a recorded change, if it is one that is told of.
pub(super) async fn tell_of(tx: &mut Tx, entry: &audit::Entry) -> Result<(), sqlx::Error> {
    let event = match entry.action {
        "user.register" | "user.create" => WebhookEvent::UserCreated,
        "key.regenerate" | "key.rotate" => WebhookEvent::KeyRegenerated,
        _ => return Ok(()),
    };
    let mut news = News::open(tx).await?;
    if !news.wants(event) {
        return Ok(());
    }
    let name = compared(&entry.target);
    let found: Option<Person> =
        on!(&mut *tx, within conn => sqlx::query_as(PERSON).bind(name).fetch_optional(conn).await)?;
    let Some(person) = found else { return Ok(()) };
    let user_id = person.id.to_string();
    let data = match event {
        WebhookEvent::UserCreated => json!({
            "user_id": user_id,
            "username": person.username,
            "email": person.email,
            "subscription_plan": person.subscription_plan,
            "level": person.level,
        }),
        _ => json!({
            "user_id": user_id,
            "username": person.username,
            "email": person.email,
            "key": entry.detail.get("name").and_then(Value::as_str).unwrap_or(super::keys::DEFAULT),
        }),
    };
    news.add(event, Some(person.id), entry.at, &data);
    news.publish(tx).await
}

// === impl News ===

const WANTED: &str = "SELECT event FROM webhook_events";

impl News {
    pub(super) async fn open(tx: &mut Tx) -> Result<Self, sqlx::Error> {
        let wanted = on!(tx, within conn => sqlx::query_scalar(WANTED).fetch_all(conn).await)?;
        Ok(Self { wanted, events: Vec::new() })
    }

    /// A row is in the log.
    pub(super) fn logged(&mut self, row: &Exchange) {
        if !self.wants(WebhookEvent::MessageLogged) {
            return;
        }
        let size = row.messages.as_ref().map_or(0, String::len) + row.answer.as_ref().map_or(0, String::len);
        let fits = size < MOST_BYTES;
        let data = json!({
            "log_id": row.id,
            "request_id": row.request_id,
            "username": row.username,
            "email": row.email,
            "model": row.model,
            // In their place the texts are put below, as they are.
            "messages": null,
            "answer": null,
            "truncated": row.truncated || !fits,
            "research_model": row.research_model,
            "time": row.time,
            "call": row.call,
            "status": row.status,
            "outcome": row.outcome,
            "verdict": row.verdict.as_str(),
            "total_tokens": row.total_tokens,
        });
        self.add(WebhookEvent::MessageLogged, row.user_id, row.time, &data);
        if let Some(event) = self.events.last_mut().filter(|_| fits) {
            for (name, text) in [("messages", &row.messages), ("answer", &row.answer)] {
                let is_json = |text: &&String| serde_json::from_str::<&RawValue>(text).is_ok();
                if let Some(text) = text.as_ref().filter(is_json) {
                    // No string of ours has this: its quotes would be escaped.
                    let nothing = format!("\"{name}\":null");
                    event.payload = event.payload.replacen(&nothing, &format!("\"{name}\":{text}"), 1);
                }
            }
        }
    }

    /// The last conversation of `day` was charged, by the row or one beside it.
    pub(super) fn used_up(&mut self, row: &Exchange, day: i64, allowance: i64) {
        let since_epoch = Days::new(u64::try_from(day).unwrap_or(0));
        let day = NaiveDate::default().checked_add_days(since_epoch).unwrap_or_default();
        let data = json!({
            "user_id": row.user_id.map(|user| user.to_string()),
            "username": row.username,
            "email": row.email,
            "limit": allowance,
            "day": day.to_string(),
        });
        self.add(WebhookEvent::QuotaReached, row.user_id, row.time, &data);
    }

    /// Puts what there is to tell into the queue, as far as there is room.
    pub(super) async fn publish(mut self, tx: &mut Tx) -> Result<(), sqlx::Error> {
        if self.events.is_empty() {
            return Ok(());
        }
        let waiting: i64 = on!(&mut *tx, within conn => sqlx::query_scalar(COUNT).fetch_one(conn).await)?;
        let room = usize::try_from(MOST_WAITING.saturating_sub(waiting)).unwrap_or(0);
        if self.events.len() > room {
            let lost = self.events.len() - room;
            tracing::error!(lost, waiting, "the webhook queue is full; these events are not told");
            self.events.truncate(room);
        }
        for events in self.events.chunks(BATCH) {
            on!(&mut *tx, within conn => {
                let mut query = QueryBuilder::new(INSERT);
                query.push_values(events, |mut values, new| {
                    values
                        .push_bind(format!("msg_{}", Uuid::now_v7().simple()))
                        .push_bind(new.event.as_str())
                        .push_bind(new.user)
                        .push_bind(storable(&new.payload))
                        .push_bind(new.at)
                        .push_bind(0_i64)
                        .push_bind(new.at);
                });
                query.build().persistent(false).execute(conn).await.map(|_| ())
            })?;
        }
        Ok(())
    }

    fn wants(&self, event: WebhookEvent) -> bool {
        self.wanted.iter().any(|wanted| wanted == event.as_str())
    }

    /// The form of Standard Webhooks, and the earlier service's word for the type.
    fn add(&mut self, event: WebhookEvent, user: Option<UserId>, at: Timestamp, data: &Value) {
        if self.wants(event) {
            let name = event.as_str();
            let payload = json!({ "type": name, "event": name, "timestamp": at, "data": data });
            self.events.push(NewEvent { event, user, at, payload: payload.to_string() });
        }
    }
}

const COUNT: &str = "SELECT COUNT(*) FROM webhook_queue";
const INSERT: &str =
    "INSERT INTO webhook_queue (id, event, user_id, payload, created_at, attempts, next_at) ";
