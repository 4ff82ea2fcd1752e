//! Sessions: each login and what is renewed from it, so that one of them can be ended alone.
//!
//! A session has one live refresh token at a time. A used one that is shown again has been copied,
//! by its owner's mistake or by a thief, and nobody can tell which of the two holds the live one: the
//! whole session ends.

use std::net::IpAddr;

use super::takeover::mark;
use super::text::storable;
use super::{Db, StoreError, Tx, audit, registrations};
use crate::clock::Timestamp;
use crate::credential::ticket::TicketDigest;
use crate::credential::token::Audience;
use crate::ids::{AdminId, SessionId, StaffId, UserId};

pub mod seen;

/// Whose a session or a second factor is: a role and the row of that kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Which table.
    pub audience: Audience,
    /// Which row.
    pub subject: i64,
}

/// A session about to begin.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Its name.
    pub id: SessionId,
    /// Whose.
    pub owner: Owner,
    /// The owner's `token_version`.
    pub version: i64,
    /// Its first refresh token.
    pub refresh: TicketDigest,
    /// Now.
    pub began_at: Timestamp,
    /// The end of it, however often it is renewed.
    pub expires_at: Timestamp,
    /// Where the login comes from.
    pub client_ip: Option<IpAddr>,
    /// What its client calls itself.
    pub user_agent: Option<String>,
}

/// A session that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub id: SessionId,
    /// Whose.
    pub owner: Owner,
    /// The owner's `token_version` when it began; the session is void when it is another now.
    pub version: i64,
    /// When they logged in.
    pub began_at: Timestamp,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
}

/// What became of a refresh token that was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It was the live one; the next one is live now.
    Renewed(Standing),
    /// It had been used before; its session is over.
    Reused(Owner),
    /// Nobody's, or of a session that is over.
    Unknown,
}

/// Most sessions of one owner; the oldest make room.
const MOST: i64 = 100;
/// Most refresh tokens of one session that are remembered: twice as many as an hour's session renewed
/// in time needs in thirty days. One that is forgotten is unknown.
const FAMILY: i64 = 2000;

type Row = (SessionId, String, i64, i64, Timestamp, Option<Timestamp>);

const BEGIN: &str = "INSERT INTO sessions (id, audience, subject, version, began_at, expires_at, client_ip,
        user_agent, last_used_at, last_ip)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $5, $7)";
const MAKE_ROOM: &str = "DELETE FROM sessions WHERE audience = $1 AND subject = $2 AND (expires_at <= $3
    OR id NOT IN (SELECT id FROM sessions WHERE audience = $1 AND subject = $2
        ORDER BY began_at DESC LIMIT $4))";

/// Begins a session. What is over of its owner's goes, and the oldest of those beyond a hundred.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn begin(db: &Db, new: &NewSession) -> Result<(), StoreError> {
    let mut tx = db.begin().await?;
    let (audience, subject) = new.owner.columns();
    on!(&mut tx, within conn => sqlx::query(MAKE_ROOM)
        .bind(audience).bind(subject).bind(new.began_at).bind(MOST - 1)
        .execute(conn).await.map(|_| ()))?;
    let ip = new.client_ip.map(|ip| ip.to_canonical().to_string());
    on!(&mut tx, within conn => sqlx::query(BEGIN)
        .bind(new.id).bind(audience).bind(subject).bind(new.version).bind(new.began_at).bind(new.expires_at)
        .bind(ip).bind(new.user_agent.as_deref().map(storable))
        .execute(conn).await.map(|_| ()))?;
    add_token(&mut tx, new.id, &new.refresh, new.began_at).await?;
    tx.commit().await?;
    Ok(())
}

const STANDING: &str = "SELECT id, audience, subject, version, began_at, last_used_at FROM sessions
    WHERE id = $1 AND expires_at > $2";

/// The session of this name, unless it is over at `now`.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn standing(db: &Db, id: SessionId, now: Timestamp) -> Result<Option<Standing>, StoreError> {
    let row: Option<Row> =
        on!(db, read pool => sqlx::query_as(STANDING).bind(id).bind(now).fetch_optional(pool).await)?;
    row.map(Standing::of).transpose()
}

const OF_TOKEN: &str = "SELECT s.id, s.audience, s.subject, s.version, s.began_at, s.last_used_at
    FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id
    WHERE t.digest = $1 AND s.audience = $2 AND s.expires_at > $3";
const USE: &str = "UPDATE refresh_tokens SET used_at = $2 WHERE digest = $1 AND used_at IS NULL";
const RENEWED: &str = "UPDATE sessions SET last_used_at = $2, last_ip = $3 WHERE id = $1";
const PRUNE: &str = "DELETE FROM refresh_tokens WHERE session_id = $1 AND digest NOT IN
    (SELECT digest FROM refresh_tokens WHERE session_id = $1 ORDER BY issued_at DESC, used_at IS NULL DESC
        LIMIT $2)";

/// Puts `next` in the stead of the refresh token `shown` to `audience`. Of several who show the same one at once,
/// one gets through, and the others end the session. `entry` records that; its target is filled in.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then nothing was changed.
pub async fn renew(
    db: &Db,
    audience: Audience,
    shown: &TicketDigest,
    next: &TicketDigest,
    entry: &audit::Entry,
) -> Result<Renewal, StoreError> {
    let digest = shown.as_bytes().as_slice();
    let known: Option<Row> = on!(db, read pool => sqlx::query_as(OF_TOKEN)
        .bind(digest).bind(audience.as_str()).bind(entry.at).fetch_optional(pool).await)?;
    if known.is_none() {
        return Ok(Renewal::Unknown);
    }
    let mut tx = db.begin().await?;
    let row: Option<Row> = on!(&mut tx, within conn => sqlx::query_as(OF_TOKEN)
        .bind(digest).bind(audience.as_str()).bind(entry.at).fetch_optional(conn).await)?;
    let Some(session) = row.map(Standing::of).transpose()? else { return Ok(Renewal::Unknown) };
    let fresh = on!(&mut tx, within conn => sqlx::query(USE).bind(digest).bind(entry.at)
        .execute(conn).await.map(|done| done.rows_affected()))?;
    let renewal = if fresh == 1 {
        add_token(&mut tx, session.id, next, entry.at).await?;
        let ip = entry.client_ip.map(|ip| ip.to_canonical().to_string());
        on!(&mut tx, within conn => sqlx::query(RENEWED).bind(session.id).bind(entry.at).bind(ip)
            .execute(conn).await.map(|_| ()))?;
        on!(&mut tx, within conn => sqlx::query(PRUNE).bind(session.id).bind(FAMILY)
            .execute(conn).await.map(|_| ()))?;
        Renewal::Renewed(session)
    } else {
        delete(&mut tx, session.id).await?;
        if session.owner.audience == Audience::User {
            let user = UserId(session.owner.subject);
            mark::set(&mut tx, user, mark::Reason::RefreshTokenReused, entry.at).await?;
        }
        let target = session.owner.to_string();
        audit::append(&mut tx, &audit::Entry { target, ..entry.clone() }).await?;
        Renewal::Reused(session.owner)
    };
    tx.commit().await?;
    Ok(renewal)
}

/// Ends one session. One that is over already is no error.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn end(db: &Db, id: SessionId) -> Result<(), StoreError> {
    let mut tx = db.begin().await?;
    delete(&mut tx, id).await?;
    tx.commit().await?;
    Ok(())
}

/// Ends every session of `owner`, also those that tokens alone still remember, and records it.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn end_all(db: &Db, owner: Owner, entry: &audit::Entry) -> Result<(), StoreError> {
    let mut tx = db.begin().await?;
    end_every(&mut tx, owner).await?;
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(())
}

/// [`end_all`] within a transaction that records it.
pub(super) async fn end_every(tx: &mut Tx, owner: Owner) -> Result<(), sqlx::Error> {
    const USER: &str = "UPDATE users SET token_version = token_version + 1 WHERE id = $1";
    const STAFF: &str = "UPDATE staff SET token_version = token_version + 1 WHERE id = $1";
    const ADMIN: &str = "UPDATE admins SET token_version = token_version + 1 WHERE id = $1";
    let bump = match owner.audience {
        Audience::User => USER,
        Audience::Staff => STAFF,
        Audience::Admin => ADMIN,
    };
    on!(&mut *tx, within conn => sqlx::query(bump).bind(owner.subject).execute(conn).await.map(|_| ()))?;
    delete_all(tx, owner, None).await
}

const DELETE_ALL: &str =
    "DELETE FROM sessions WHERE audience = $1 AND subject = $2 AND ($3 IS NULL OR id <> $3)";

/// Ends the sessions of `owner`, all but `kept`.
pub(super) async fn delete_all(
    tx: &mut Tx,
    owner: Owner,
    kept: Option<SessionId>,
) -> Result<(), sqlx::Error> {
    let (audience, subject) = owner.columns();
    on!(tx, within conn => sqlx::query(DELETE_ALL).bind(audience).bind(subject).bind(kept)
        .execute(conn).await.map(|_| ()))
}

const FORGET: [&str; 3] = [
    "DELETE FROM sessions WHERE audience = $1 AND subject = $2",
    "DELETE FROM second_factors WHERE audience = $1 AND subject = $2",
    "DELETE FROM recovery_codes WHERE audience = $1 AND subject = $2",
];

/// Removes whatever sessions and second factors keep of `owner`, who is gone.
pub(super) async fn forget(tx: &mut Tx, owner: Owner) -> Result<(), sqlx::Error> {
    let (audience, subject) = owner.columns();
    for table in FORGET {
        on!(&mut *tx, within conn => sqlx::query(table).bind(audience).bind(subject)
            .execute(conn).await.map(|_| ()))?;
    }
    Ok(())
}

const OVER: &str = "DELETE FROM sessions WHERE expires_at <= $1";
const STALE: &str = "DELETE FROM mail_tokens WHERE expires_at <= $1 AND user_id > 0";

/// Removes sessions and mailed tokens whose time is over. Nothing depends on it: they are refused
/// without it too. Answers how many went.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then they are there for the next time.
pub async fn sweep(db: &Db, now: Timestamp) -> Result<u64, StoreError> {
    let mut gone = 0;
    for table in [OVER, STALE] {
        gone += on!(db, write pool => sqlx::query(table).bind(now)
            .execute(pool).await.map(|done| done.rows_affected()))?;
    }
    gone += registrations::sweep(db, now).await?;
    Ok(gone)
}

const DELETE: &str = "DELETE FROM sessions WHERE id = $1";

async fn delete(tx: &mut Tx, id: SessionId) -> Result<(), sqlx::Error> {
    on!(tx, within conn => sqlx::query(DELETE).bind(id).execute(conn).await.map(|_| ()))
}

const ADD_TOKEN: &str = "INSERT INTO refresh_tokens (digest, session_id, issued_at) VALUES ($1, $2, $3)";

async fn add_token(
    tx: &mut Tx,
    session: SessionId,
    token: &TicketDigest,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let digest = token.as_bytes().as_slice();
    on!(tx, within conn => sqlx::query(ADD_TOKEN).bind(digest).bind(session).bind(now)
        .execute(conn).await.map(|_| ()))
}

// === impl Owner ===

impl Owner {
    /// A user.
    #[must_use]
    pub fn user(id: UserId) -> Self {
        Self { audience: Audience::User, subject: id.0 }
    }

    /// A member of staff.
    #[must_use]
    pub fn staff(id: StaffId) -> Self {
        Self { audience: Audience::Staff, subject: id.0 }
    }

    /// An admin.
    #[must_use]
    pub fn admin(id: AdminId) -> Self {
        Self { audience: Audience::Admin, subject: id.0 }
    }

    pub(super) fn columns(self) -> (&'static str, i64) {
        (self.audience.as_str(), self.subject)
    }
}

/// `staff 7`
impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.audience, self.subject)
    }
}

// === impl Standing ===

impl Standing {
    fn of((id, audience, subject, version, began_at, last_used_at): Row) -> Result<Self, StoreError> {
        let all = [Audience::User, Audience::Staff, Audience::Admin];
        let known = all.into_iter().find(|known| known.as_str() == audience);
        let what = "a stored row cannot be read";
        let unknown = || StoreError::Damaged { what, detail: format!("sessions.audience {audience:?}") };
        let audience = known.ok_or_else(unknown)?;
        Ok(Self { id, owner: Owner { audience, subject }, version, began_at, last_used_at })
    }
}
