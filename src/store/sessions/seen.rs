//! What owners and admins are told of sessions: where from, since when, and when they were last used.

use std::net::IpAddr;

use super::{Owner, Standing};
use crate::clock::Timestamp;
use crate::ids::SessionId;
use crate::store::{Db, StoreError, audit};

/// A session, and what is known of its use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whose, and since when. Whether it stands is for its owner's row to say.
    pub standing: Standing,
    /// The end of it, however often it is renewed.
    pub expires_at: Timestamp,
    /// Where the login came from.
    pub client_ip: Option<String>,
    /// What the client of the login calls itself.
    pub user_agent: Option<String>,
    /// To the minute.
    pub last_used_at: Option<Timestamp>,
    /// Where it was last used from.
    pub last_ip: Option<String>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: SessionId,
    version: i64,
    began_at: Timestamp,
    expires_at: Timestamp,
    client_ip: Option<String>,
    user_agent: Option<String>,
    last_used_at: Option<Timestamp>,
    last_ip: Option<String>,
}

/// A use within this time of the one already noted is not written again.
pub const EVERY: i64 = 60_000;

const LIST: &str = "SELECT id, version, began_at, expires_at, client_ip, user_agent, last_used_at, last_ip
    FROM sessions WHERE audience = $1 AND subject = $2 AND expires_at > $3 ORDER BY began_at DESC, id";

/// The sessions of `owner` that have not come to their end at `now`, the newest first: a hundred at most.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn list(db: &Db, owner: Owner, now: Timestamp) -> Result<Vec<Seen>, StoreError> {
    let (audience, subject) = owner.columns();
    let rows: Vec<Row> = on!(db, read pool => sqlx::query_as(LIST)
        .bind(audience).bind(subject).bind(now).fetch_all(pool).await)?;
    Ok(rows.into_iter().map(|row| row.of(owner)).collect())
}

const END: &str = "DELETE FROM sessions WHERE id = $1 AND audience = $2 AND subject = $3";

/// Ends one session of `owner` and records it; `false` when it is not theirs, or over.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn end(db: &Db, owner: Owner, id: SessionId, entry: &audit::Entry) -> Result<bool, StoreError> {
    let (audience, subject) = owner.columns();
    let mut tx = db.begin().await?;
    let done = on!(&mut tx, within conn => sqlx::query(END).bind(id).bind(audience).bind(subject)
        .execute(conn).await.map(|done| done.rows_affected()))?;
    if done == 0 {
        return Ok(false);
    }
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(true)
}

const TOUCH: &str = "UPDATE sessions SET last_used_at = $2, last_ip = $3
    WHERE id = $1 AND (last_used_at IS NULL OR last_used_at <= $2 - 60000)";

/// Notes that a session is used. What is not a minute later than the instant already noted changes nothing.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then nothing is noted.
pub async fn touch(db: &Db, id: SessionId, ip: IpAddr, now: Timestamp) -> Result<(), StoreError> {
    let ip = ip.to_canonical().to_string();
    on!(db, write pool => sqlx::query(TOUCH).bind(id).bind(now).bind(ip).execute(pool).await.map(|_| ()))?;
    Ok(())
}

// === impl Row ===

impl Row {
    fn of(self, owner: Owner) -> Seen {
        let Self { id, version, began_at, expires_at, client_ip, user_agent, last_used_at, last_ip } = self;
        let standing = Standing { id, owner, version, began_at, last_used_at };
        Seen { standing, expires_at, client_ip, user_agent, last_used_at, last_ip }
    }
}
