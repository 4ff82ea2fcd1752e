//! What waits for a letter to be confirmed where registration does not tell whose e-mail address is known: accounts
//! about to be opened, and other addresses of accounts there are.
//!
//! Both are kept alike for an address that an account has and for one that none has; for the former no letter holds
//! the token. A token is good once, for a while, and for a bounded number of guesses.

use super::accounts::{InsertAccount, UpdateAccount};
use super::keys::NewKey;
use super::mail_tokens::{GUESSES, Shown, verify_within};
use super::text::storable;
use super::users::{self, NewUser, UserChange};
use super::{Db, StoreError, audit, carried, compared};
use crate::clock::Timestamp;
use crate::credential::ticket::TicketDigest;
use crate::ids::UserId;

/// An account about to be opened, as its owner described it.
#[derive(Clone)]
pub struct Pending {
    /// As given.
    pub username: String,
    /// What they are called.
    pub name: String,
    /// As given.
    pub email: String,
    /// bcrypt.
    pub password_hash: String,
    /// Free text.
    pub about_me: String,
    /// Free text.
    pub hobbies: String,
    /// `Personal` or `Business`.
    pub kind: String,
}

/// Why a registration is not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepPending {
    /// As many wait as may.
    #[error("{MOST} registrations wait to be confirmed already")]
    TooMany,
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Most registrations that wait at a time.
const MOST: i64 = 10_000;

const OVER: &str = "DELETE FROM registrations WHERE expires_at <= $1";
const COUNT: &str = "SELECT COUNT(*) FROM registrations";
const KEEP: &str = "INSERT INTO registrations (email_key, email, username, name, about_me, hobbies, kind, password_hash,
        digest, expires_at, guesses)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0)
    ON CONFLICT (email_key) DO UPDATE SET email = excluded.email, username = excluded.username, name = excluded.name,
        about_me = excluded.about_me, hobbies = excluded.hobbies, kind = excluded.kind,
        password_hash = excluded.password_hash, digest = excluded.digest, expires_at = excluded.expires_at, guesses = 0";

/// Keeps a registration until its letter is confirmed, in the stead of an earlier one of the same address.
///
/// # Errors
/// [`KeepPending`]; then it is not kept.
pub async fn keep(
    db: &Db,
    new: &Pending,
    token: &TicketDigest,
    (now, expires_at): (Timestamp, Timestamp),
) -> Result<(), KeepPending> {
    let mut tx = db.begin().await?;
    on!(&mut tx, within conn => sqlx::query(OVER).bind(now).execute(conn).await.map(|_| ()))?;
    let waiting: i64 = on!(&mut tx, within conn => sqlx::query_scalar(COUNT).fetch_one(conn).await)?;
    if waiting >= MOST {
        return Err(KeepPending::TooMany);
    }
    on!(&mut tx, within conn => sqlx::query(KEEP)
        .bind(compared(&new.email))
        .bind(storable(&new.email))
        .bind(storable(&new.username))
        .bind(storable(&new.name))
        .bind(storable(&new.about_me))
        .bind(storable(&new.hobbies))
        .bind(&new.kind)
        .bind(&new.password_hash)
        .bind(token.as_bytes().as_slice())
        .bind(expires_at)
        .execute(conn)
        .await
        .map(|_| ()))?;
    tx.commit().await?;
    Ok(())
}

type Row = (String, String, String, String, String, String, String, Vec<u8>);

const GUESS: &str = "UPDATE registrations SET guesses = guesses + 1
    WHERE email_key = $1 AND expires_at > $2 AND guesses < $3
    RETURNING username, name, email, password_hash, about_me, hobbies, kind, digest";
const SPEND: &str = "DELETE FROM registrations WHERE email_key = $1";

/// Opens the account of the registration that this token confirms, its address verified, and records it with the
/// target filled in; `None` when there is none like it.
///
/// # Errors
/// [`InsertAccount`], when the name or the address was taken meanwhile; then nothing was changed.
pub async fn open(
    db: &Db,
    shown: Shown<'_>,
    complete: impl FnOnce(Pending) -> (NewUser, NewKey),
    entry: &audit::Entry,
) -> Result<Option<UserId>, InsertAccount> {
    let mut tx = db.begin().await?;
    let row: Option<Row> = on!(&mut tx, within conn => sqlx::query_as(GUESS)
        .bind(compared(shown.email)).bind(entry.at).bind(GUESSES).fetch_optional(conn).await)?;
    let Some((username, name, email, password_hash, about_me, hobbies, kind, _)) =
        row.filter(|row| shown.token.is(&row.7))
    else {
        tx.commit().await?;
        return Ok(None);
    };
    on!(&mut tx, within conn => sqlx::query(SPEND).bind(compared(shown.email)).execute(conn).await.map(|_| ()))?;
    let pending = Pending { username, name, email, password_hash, about_me, hobbies, kind };
    let (user, key) = complete(pending);
    let id = users::insert_within(&mut tx, &user, &key, entry.at).await?;
    verify_within(&mut tx, id, shown.email, entry.at).await?;
    let name = user.username;
    let entry = audit::Entry { actor_name: name.clone(), target: name, ..entry.clone() };
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(Some(id))
}

const KEEP_CHANGE: &str = "INSERT INTO email_changes (user_id, email, email_key, digest, expires_at, guesses)
    VALUES ($1, $2, $3, $4, $5, 0)
    ON CONFLICT (user_id) DO UPDATE SET email = excluded.email, email_key = excluded.email_key,
        digest = excluded.digest, expires_at = excluded.expires_at, guesses = 0";

/// Keeps another address of a user until its letter is confirmed, in the stead of an earlier one.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn keep_change(
    db: &Db,
    user: UserId,
    (email, token): (&str, &TicketDigest),
    expires_at: Timestamp,
) -> Result<(), StoreError> {
    let digest = token.as_bytes().as_slice();
    on!(db, write pool => sqlx::query(KEEP_CHANGE).bind(user).bind(storable(email)).bind(compared(email))
        .bind(digest).bind(expires_at).execute(pool).await.map(|_| ()))?;
    Ok(())
}

const GUESS_CHANGE: &str = "UPDATE email_changes SET guesses = guesses + 1
    WHERE email_key = $1 AND expires_at > $2 AND guesses < $3 RETURNING user_id, email, digest";
const EMAIL: &str = "SELECT email FROM users WHERE id = $1";
const SPEND_CHANGE: &str = "DELETE FROM email_changes WHERE user_id = $1";

/// Gives a user the address that this token confirms, verified, ends their sessions, keeps their day under what
/// `given_up` names for the address they had, and records it with actor and target filled in; `None` when there is
/// none like it.
///
/// # Errors
/// [`UpdateAccount`], when the address was taken meanwhile; then nothing was changed.
pub async fn change_email(
    db: &Db,
    shown: Shown<'_>,
    given_up: impl FnOnce(&str) -> carried::Names,
    entry: &audit::Entry,
) -> Result<Option<UserId>, UpdateAccount> {
    let mut tx = db.begin().await?;
    let rows: Vec<(UserId, String, Vec<u8>)> = on!(&mut tx, within conn => sqlx::query_as(GUESS_CHANGE)
        .bind(compared(shown.email)).bind(entry.at).bind(GUESSES).fetch_all(conn).await)?;
    let Some((user, email, _)) = rows.into_iter().find(|(_, _, digest)| shown.token.is(digest)) else {
        tx.commit().await?;
        return Ok(None);
    };
    on!(&mut tx, within conn => sqlx::query(SPEND_CHANGE).bind(user).execute(conn).await.map(|_| ()))?;
    let before: Option<String> = on!(&mut tx, within conn => sqlx::query_scalar(EMAIL).bind(user)
        .fetch_optional(conn).await)?;
    let given_up = before.as_deref().map(given_up);
    let change =
        UserChange { email: Some(email), bump_token_version: true, given_up, ..UserChange::default() };
    users::apply(&mut tx, user, &change, entry.at).await?;
    verify_within(&mut tx, user, shown.email, entry.at).await?;
    super::mail_tokens::record(&mut tx, user, entry).await?;
    tx.commit().await?;
    Ok(Some(user))
}

/// Forgets what was not confirmed in time. Answers how much.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then it is there for the next time.
pub async fn sweep(db: &Db, now: Timestamp) -> Result<u64, StoreError> {
    const OVER_CHANGES: &str = "DELETE FROM email_changes WHERE expires_at <= $1";
    let mut gone = 0;
    for table in [OVER, OVER_CHANGES] {
        gone += on!(db, write pool => sqlx::query(table).bind(now)
            .execute(pool).await.map(|done| done.rows_affected()))?;
    }
    Ok(gone)
}

// === impl KeepPending ===

impl From<sqlx::Error> for KeepPending {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
