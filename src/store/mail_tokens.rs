//! Tokens that travel by mail, and what they prove: that somebody reads an address.
//!
//! A token is good once, for a while, for a bounded number of guesses, and only while its user still has the address
//! it was sent to. A guess costs the database the same whether there is such a user, such a token, or
//! neither: where there is none, nobody's is guessed at.

use super::sessions::{self, Owner};
use super::takeover::mark;
use super::{Db, StoreError, Tx, audit, compared};
use crate::clock::Timestamp;
use crate::credential::ticket::TicketDigest;
use crate::ids::UserId;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To show that an address is its user's.
    VerifyEmail,
    /// To choose another password.
    ResetPassword,
}

/// What somebody shows who has read their mail.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The address, in whatever case it is written.
    pub email: &'a str,
    /// The token.
    pub token: &'a TicketDigest,
}

/// Guesses at one token. It has 116 bits, so this many find nothing; fewer would let a stranger use up the
/// token of another.
pub(super) const GUESSES: i64 = 1000;

const KEEP: &str = "INSERT INTO mail_tokens (user_id, purpose, digest, email_key, expires_at, guesses)
    VALUES ($1, $2, $3, $4, $5, 0)
    ON CONFLICT (user_id, purpose) DO UPDATE SET digest = excluded.digest, email_key = excluded.email_key,
        expires_at = excluded.expires_at, guesses = 0";

/// Keeps a token that is about to be sent to `email`, in the stead of the one before.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn keep(
    db: &Db,
    user: UserId,
    purpose: Purpose,
    (email, token): (&str, &TicketDigest),
    expires_at: Timestamp,
) -> Result<(), StoreError> {
    let digest = token.as_bytes().as_slice();
    on!(db, write pool => sqlx::query(KEEP)
        .bind(user).bind(purpose.as_str()).bind(digest).bind(compared(email)).bind(expires_at)
        .execute(pool).await.map(|_| ()))?;
    Ok(())
}

const RESET: &str = "UPDATE users SET password_hash = $2, token_version = token_version + 1, updated_at = $3
    WHERE id = $1";

/// Gives the user of this address another password, and ends their sessions, if the token is theirs; every key
/// ends too where that is wanted, or the account was marked as taken over. `entry` records it, its actor and target
/// filled in. Answers who it is, and how many keys ended.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then nothing was changed.
pub async fn reset_password(
    db: &Db,
    shown: Shown<'_>,
    (password_hash, revoke_keys): (&str, bool),
    entry: &audit::Entry,
) -> Result<Option<(UserId, u64)>, StoreError> {
    let mut tx = db.begin().await?;
    let redeemed = redeem(&mut tx, Purpose::ResetPassword, shown, entry.at).await?;
    let mut done = None;
    if let Some(user) = redeemed {
        on!(&mut tx, within conn => sqlx::query(RESET).bind(user).bind(password_hash).bind(entry.at)
            .execute(conn).await.map(|_| ()))?;
        sessions::delete_all(&mut tx, Owner::user(user), None).await?;
        let revoked = mark::settle(&mut tx, user, revoke_keys, entry.at).await?;
        let mut entry = entry.clone();
        entry.note_revoked(revoked);
        record(&mut tx, user, &entry).await?;
        done = Some((user, revoked));
    }
    tx.commit().await?;
    Ok(done)
}

const VERIFY: &str = "INSERT INTO verified_emails (user_id, email_key, verified_at) VALUES ($1, $2, $3)
    ON CONFLICT (user_id) DO UPDATE SET email_key = excluded.email_key, verified_at = excluded.verified_at";

/// From now on the address is known to be its user's, if the token is theirs. `entry` records it, its
/// actor and target filled in.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then nothing was changed.
pub async fn verify_email(
    db: &Db,
    shown: Shown<'_>,
    entry: &audit::Entry,
) -> Result<Option<UserId>, StoreError> {
    let mut tx = db.begin().await?;
    let redeemed = redeem(&mut tx, Purpose::VerifyEmail, shown, entry.at).await?;
    if let Some(user) = redeemed {
        verify_within(&mut tx, user, shown.email, entry.at).await?;
        record(&mut tx, user, entry).await?;
    }
    tx.commit().await?;
    Ok(redeemed)
}

/// From now on the address is known to be its user's.
pub(super) async fn verify_within(
    tx: &mut Tx,
    user: UserId,
    email: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, within conn => sqlx::query(VERIFY).bind(user).bind(compared(email)).bind(now)
        .execute(conn).await.map(|_| ()))
}

const IS_VERIFIED: &str = "SELECT COUNT(*) FROM users u JOIN verified_emails v
    ON v.user_id = u.id AND v.email_key = u.email_key WHERE u.id = $1";

/// Whether the address that a user has is known to be theirs.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn is_verified(db: &Db, user: UserId) -> Result<bool, StoreError> {
    let found: i64 = on!(db, read pool => sqlx::query_scalar(IS_VERIFIED).bind(user).fetch_one(pool).await)?;
    Ok(found > 0)
}

const GUESS: &str = "UPDATE mail_tokens SET guesses = guesses + 1 WHERE purpose = $2 AND user_id = COALESCE(
        (SELECT t.user_id FROM mail_tokens t JOIN users u ON u.id = t.user_id AND u.email_key = t.email_key
        WHERE u.email_key = $1 AND t.purpose = $2 AND t.expires_at > $3 AND t.guesses < $4), 0)
    RETURNING user_id, digest";
const SPEND: &str = "DELETE FROM mail_tokens WHERE user_id = $1 AND purpose = $2";

/// Whose token this is; then it is spent. A wrong one counts as a guess once `tx` is committed.
async fn redeem(
    tx: &mut Tx,
    purpose: Purpose,
    shown: Shown<'_>,
    now: Timestamp,
) -> Result<Option<UserId>, sqlx::Error> {
    let row: Option<(UserId, Vec<u8>)> = on!(&mut *tx, within conn => sqlx::query_as(GUESS)
        .bind(compared(shown.email)).bind(purpose.as_str()).bind(now).bind(GUESSES)
        .fetch_optional(conn).await)?;
    let theirs = row.filter(|(user, stored)| shown.token.is(stored) && user.0 > 0);
    let Some((user, _)) = theirs else { return Ok(None) };
    on!(tx, within conn => sqlx::query(SPEND).bind(user).bind(purpose.as_str())
        .execute(conn).await.map(|_| ()))?;
    Ok(Some(user))
}

const NAME: &str = "SELECT username FROM users WHERE id = $1";

pub(super) async fn record(tx: &mut Tx, user: UserId, entry: &audit::Entry) -> Result<(), sqlx::Error> {
    let name: String =
        on!(&mut *tx, within conn => sqlx::query_scalar(NAME).bind(user).fetch_one(conn).await)?;
    let actor = audit::Actor::User(user);
    let entry = audit::Entry { actor, actor_name: name.clone(), target: name, ..entry.clone() };
    audit::append(tx, &entry).await
}

// === impl Purpose ===

impl Purpose {
    /// The word in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify-email",
            Self::ResetPassword => "reset-password",
        }
    }
}
