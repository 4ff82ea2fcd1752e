//! The mark of an account that somebody else has had in hand.
//!
//! Staff and admins set it, and so does a refresh token that is shown twice. The next change of the password ends
//! every key of the account and clears the mark, whoever makes the change.

use crate::clock::Timestamp;
use crate::ids::UserId;
use crate::store::users::UserChange;
use crate::store::{Tx, keys};

/// Why an account is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Staff or an admin said so; nobody logs in until the password is another.
    Marked,
    /// A used refresh token was shown again.
    RefreshTokenReused,
}

const MARK: &str = "INSERT INTO takeovers (user_id, marked_at, reason) VALUES ($1, $2, $3)
    ON CONFLICT (user_id) DO UPDATE SET marked_at = excluded.marked_at, reason = excluded.reason
    WHERE takeovers.reason <> 'marked'";

/// Marks a user; a mark of staff or an admin is not replaced by a weaker one.
pub(in crate::store) async fn set(
    tx: &mut Tx,
    user: UserId,
    reason: Reason,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    on!(tx, within conn => sqlx::query(MARK).bind(user).bind(now).bind(reason.as_str())
        .execute(conn).await.map(|_| ()))
}

const CLEAR: &str = "DELETE FROM takeovers WHERE user_id = $1";

/// Clears the mark; whether there was one.
pub(in crate::store) async fn clear(tx: &mut Tx, user: UserId) -> Result<bool, sqlx::Error> {
    let gone = on!(tx, within conn => sqlx::query(CLEAR).bind(user)
        .execute(conn).await.map(|done| done.rows_affected()))?;
    Ok(gone > 0)
}

/// What a change of the password does to keys: all end where that is wanted, and where the account was marked.
/// Answers how many ended.
pub(in crate::store) async fn settle(
    tx: &mut Tx,
    user: UserId,
    wanted: bool,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    let was_marked = clear(tx, user).await?;
    if wanted || was_marked { keys::revoke_all(tx, user, now).await } else { Ok(0) }
}

/// Does what a change says of keys and of the mark, and answers how many keys ended. A password that comes with the mark clears it at once.
pub(in crate::store) async fn apply(
    tx: &mut Tx,
    id: UserId,
    change: &UserChange,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    let is_marked = change.taken_over == Some(true);
    if change.password_hash.is_some() {
        return settle(tx, id, change.revoke_keys || is_marked, now).await;
    }
    match change.taken_over {
        Some(true) => set(tx, id, Reason::Marked, now).await?,
        Some(false) => drop(clear(tx, id).await?),
        None => {}
    }
    if is_marked || change.revoke_keys { keys::revoke_all(tx, id, now).await } else { Ok(0) }
}

// === impl Reason ===

impl Reason {
    /// The word in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Marked => "marked",
            Self::RefreshTokenReused => "refresh_token_reused",
        }
    }
}
