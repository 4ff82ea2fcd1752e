//! Who changed what, when, from where. Rows are appended in the transaction of the change itself,
//! never altered, and linked into a [`chain`], so that altering one shows.

use std::net::IpAddr;

use serde_json::Value;

use super::text::{Json, storable};
use super::{Db, Page, SlowRead, StoreError, Tx, webhooks};
use crate::clock::Timestamp;
use crate::ids::{AdminId, StaffId, UserId};

pub mod chain;
pub mod changes;

use chain::Content;

/// Whose doing a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Somebody who has not said who they are: a registration, a failed login.
    Nobody,
    /// A user, of their own account.
    User(UserId),
    /// A member of staff.
    Staff(StaffId),
    /// An admin.
    Admin(AdminId),
    /// The gateway itself, or a command of the operator.
    System,
}

/// What is to be recorded of one change. Never holds a password, a key or a token.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Whose doing.
    pub actor: Actor,
    /// Their name at the time.
    pub actor_name: String,
    /// What was done, such as `user.update`.
    pub action: &'static str,
    /// To whom or what.
    pub target: String,
    /// The particulars, as a JSON object.
    pub detail: Value,
    /// The request it came by; empty when there was none.
    pub request_id: String,
    /// The address it came from.
    pub client_ip: Option<IpAddr>,
    /// When.
    pub at: Timestamp,
}

/// One recorded change.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct AuditRow {
    /// Ascending in the order of recording.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// `nobody`, `user`, `staff`, `admin` or `system`.
    pub actor_kind: String,
    /// The row of that kind.
    pub actor_id: Option<i64>,
    /// Their name at the time.
    pub actor_name: String,
    /// What was done.
    pub action: String,
    /// To whom or what.
    pub target: String,
    /// The particulars.
    #[sqlx(try_from = "Json<Value>")]
    pub detail: Value,
    /// The request it came by; empty when there was none.
    pub request_id: String,
    /// The address it came from.
    pub client_ip: Option<String>,
}

const LIST: &str =
    "SELECT id, at, actor_kind, actor_id, actor_name, action, target, detail, request_id, client_ip
    FROM audit ORDER BY id DESC LIMIT $1 OFFSET $2";
const COUNT: &str = "SELECT COUNT(*) FROM audit";

/// Recorded changes, newest first.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn list(reads: &SlowRead, limit: i64, offset: i64) -> Result<Page<AuditRow>, StoreError> {
    let rows =
        on!(reads.db(), read pool => sqlx::query_as(LIST).bind(limit).bind(offset).fetch_all(pool).await)?;
    let total = on!(reads.db(), read pool => sqlx::query_scalar(COUNT).fetch_one(pool).await)?;
    Ok(Page { rows, total })
}

/// Records what changes nothing: a failed login, a look at what was said.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then what was to be recorded must not go on.
pub async fn record(db: &Db, entry: &Entry) -> Result<(), StoreError> {
    let mut tx = db.begin().await?;
    append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(())
}

const APPEND: &str = "INSERT INTO audit
    (at, actor_kind, actor_id, actor_name, action, target, detail, request_id, client_ip, seq, hash)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

/// Records `entry` if, and only if, `tx` is committed; so are those told who want to know of it. It
/// takes a lock that every writer needs, so it stands at a transaction's end.
pub(crate) async fn append(tx: &mut Tx, entry: &Entry) -> Result<(), sqlx::Error> {
    webhooks::tell_of(tx, entry).await?;
    let content = entry.content();
    let link = chain::next(tx, &content).await?;
    on!(&mut *tx, within conn => sqlx::query(APPEND)
        .bind(content.at)
        .bind(&content.actor_kind)
        .bind(content.actor_id)
        .bind(&content.actor_name)
        .bind(&content.action)
        .bind(&content.target)
        .bind(&content.detail)
        .bind(&content.request_id)
        .bind(&content.client_ip)
        .bind(link.seq)
        .bind(&link.hash)
        .execute(conn)
        .await
        .map(|_| ()))?;
    chain::close(tx, &link).await
}

// === impl Entry ===

impl Entry {
    /// Adds to the particulars how many keys the change ended, if any.
    pub(super) fn note_revoked(&mut self, keys: u64) {
        if keys > 0
            && let Value::Object(detail) = &mut self.detail
        {
            detail.insert("keys_revoked".to_owned(), keys.into());
        }
    }

    /// The columns of its row.
    fn content(&self) -> Content {
        let (kind, actor_id) = self.actor.columns();
        Content {
            at: self.at,
            actor_kind: kind.to_owned(),
            actor_id,
            actor_name: storable(&self.actor_name).into_owned(),
            action: self.action.to_owned(),
            target: storable(&self.target).into_owned(),
            detail: storable(&self.detail.to_string()).into_owned(),
            request_id: storable(&self.request_id).into_owned(),
            client_ip: self.client_ip.map(|ip| ip.to_canonical().to_string()),
        }
    }
}

// === impl Actor ===

impl Actor {
    /// The word for who they are: `nobody`, `user`, `staff`, `admin` or `system`.
    #[must_use]
    pub fn kind(self) -> &'static str {
        self.columns().0
    }

    pub(super) fn columns(self) -> (&'static str, Option<i64>) {
        match self {
            Self::Nobody => ("nobody", None),
            Self::User(id) => ("user", Some(id.0)),
            Self::Staff(id) => ("staff", Some(id.0)),
            Self::Admin(id) => ("admin", Some(id.0)),
            Self::System => ("system", None),
        }
    }
}
