//! Users who were deleted: kept for a while, restored, or erased.
//!
//! Deleting moves the profile here and everything else away: key, password, sessions and quota are
//! gone at once, and the name and the address are free for somebody else. Erasing takes the profile,
//! and the person out of the log, whose rows go on to tell what was charged.

use std::time::Duration;

use serde_json::json;

use super::text::storable;
use super::{Db, Page, SlowRead, StoreError, Tx, audit, carried, compared, keys, taken, usage};
use crate::clock::Timestamp;
use crate::ids::UserId;

/// How long a deleted user can be restored.
pub const KEPT_FOR: Duration = Duration::from_hours(30 * 24);

/// A deleted user.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct DeletedUser {
    /// The row they had.
    pub user_id: UserId,
    /// Their name then; somebody else may have it now.
    pub username: String,
    /// What they are called.
    pub name: String,
    /// Their address then; somebody else may have it now.
    pub email: String,
    /// `Personal` or `Business`.
    pub kind: String,
    /// When they registered.
    pub time_created: Timestamp,
    /// Name of their plan.
    pub subscription_plan: String,
    /// When they were deleted.
    pub deleted_at: Timestamp,
    /// Whose doing: `user` for themselves, `staff:NAME` or `admin:NAME`.
    pub deleted_by: String,
}

/// What a user who comes back is given.
#[derive(Clone)]
pub struct Return {
    /// Another name than they had.
    pub username: Option<String>,
    /// Another address than they had.
    pub email: Option<String>,
    /// bcrypt of their new password.
    pub password_hash: String,
    /// Their new key.
    pub key: keys::NewKey,
}

/// Why a user was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreUser {
    /// No such user was deleted, or they are kept no longer.
    #[error("no such deleted user")]
    NotFound,
    /// Somebody else has the name now.
    #[error("the username is taken")]
    UsernameTaken,
    /// Somebody else has the address now.
    #[error("the e-mail address is taken")]
    EmailTaken,
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The tables that hold something of a user besides the user, in the order they are emptied. A test
/// finds the ones that are missing.
pub(super) const BELONGINGS: [&str; 10] = [
    "DELETE FROM leases WHERE user_id = $1",
    "DELETE FROM quota WHERE user_id = $1",
    "DELETE FROM keys WHERE user_id = $1",
    "DELETE FROM sessions WHERE audience = 'user' AND subject = $1",
    "DELETE FROM second_factors WHERE audience = 'user' AND subject = $1",
    "DELETE FROM recovery_codes WHERE audience = 'user' AND subject = $1",
    "DELETE FROM mail_tokens WHERE user_id = $1",
    "DELETE FROM verified_emails WHERE user_id = $1",
    "DELETE FROM takeovers WHERE user_id = $1",
    "DELETE FROM email_changes WHERE user_id = $1",
];

/// Everything of a profile that is kept, in `users` and in `deleted_users`.
macro_rules! kept {
    () => {
        "username, name, email, about_me, hobbies, kind, time_created, subscription_plan, credits_main, \
         credits_reset, quota_reset, access_rtype, level, additional_notes, is_active, allowed_ips"
    };
}

const KEEP: &str = concat!(
    "INSERT INTO deleted_users (user_id, quota_epoch, token_version, deleted_at, deleted_by, ",
    kept!(),
    ") SELECT id, quota_epoch, token_version, $2, $3, ",
    kept!(),
    " FROM users WHERE id = $1"
);
const LEAVE: &str = "DELETE FROM users WHERE id = $1";

/// Deletes a user, keeps what they used of days that are not over under their `names`, and records it. `false`:
/// there is no such user.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then nothing was deleted.
pub async fn delete(
    db: &Db,
    user: UserId,
    names: &carried::Names,
    entry: &audit::Entry,
) -> Result<bool, StoreError> {
    let mut tx = db.begin().await?;
    if !lock(&mut tx, user).await? {
        return Ok(false);
    }
    let by = match entry.actor {
        audit::Actor::User(_) => "user".to_owned(),
        other => format!("{}:{}", other.kind(), entry.actor_name),
    };
    on!(&mut tx, within conn => sqlx::query(KEEP).bind(user).bind(entry.at).bind(storable(&by))
        .execute(conn).await.map(|_| ()))?;
    carried::keep(&mut tx, user, names).await?;
    for belongings in BELONGINGS.into_iter().chain([LEAVE]) {
        on!(&mut tx, within conn => sqlx::query(belongings).bind(user).execute(conn).await.map(|_| ()))?;
    }
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(true)
}

const LOCK_SQLITE: &str = "SELECT id FROM users WHERE id = $1";
const LOCK_POSTGRES: &str = "SELECT id FROM users WHERE id = $1 FOR UPDATE";

/// Keeps others from adding to what belongs to the user until `tx` ends; whether there is one.
async fn lock(tx: &mut Tx, user: UserId) -> Result<bool, sqlx::Error> {
    let text = match tx {
        Tx::Sqlite(_) => LOCK_SQLITE,
        Tx::Postgres(_) => LOCK_POSTGRES,
    };
    let found: Option<i64> =
        on!(tx, within conn => sqlx::query_scalar(text).bind(user).fetch_optional(conn).await)?;
    Ok(found.is_some())
}

macro_rules! select_deleted {
    ($rest:literal) => {
        concat!(
            "SELECT user_id, username, name, email, kind, time_created, subscription_plan, deleted_at, \
             deleted_by FROM deleted_users ",
            $rest
        )
    };
}

const LIST: &str = select_deleted!("ORDER BY deleted_at DESC, user_id DESC LIMIT $1 OFFSET $2");
const COUNT: &str = "SELECT COUNT(*) FROM deleted_users";

/// Deleted users, the latest first.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn list(reads: &SlowRead, limit: i64, offset: i64) -> Result<Page<DeletedUser>, StoreError> {
    let rows =
        on!(reads.db(), read pool => sqlx::query_as(LIST).bind(limit).bind(offset).fetch_all(pool).await)?;
    let total = on!(reads.db(), read pool => sqlx::query_scalar(COUNT).fetch_one(pool).await)?;
    Ok(Page { rows, total })
}

const BY_ID: &str = select_deleted!("WHERE user_id = $1");

/// The deleted user who had this row.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn by_id(db: &Db, user: UserId) -> Result<Option<DeletedUser>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(BY_ID).bind(user).fetch_optional(pool).await)?)
}

const TAKE: &str = "UPDATE deleted_users SET username = $2, email = $3 WHERE user_id = $1";
// Sessions from before are of an earlier version, and what was granted before is of an earlier epoch.
const RETURN: &str = concat!(
    "INSERT INTO users (id, username_key, email_key, password_hash, updated_at, quota_epoch, token_version, ",
    kept!(),
    ") SELECT user_id, $2, $3, $4, $5, quota_epoch + 1, token_version + 1, ",
    kept!(),
    " FROM deleted_users WHERE user_id = $1 RETURNING quota_epoch"
);
const FORGET: &str = "DELETE FROM deleted_users WHERE user_id = $1";

/// Brings a deleted user back to the row they had, with a new key, a new password and a whole day,
/// and records it.
///
/// # Errors
/// [`RestoreUser`]; then nothing was restored. When both name and address are taken, either may be
/// named.
pub async fn restore(
    db: &Db,
    deleted: &DeletedUser,
    given: &Return,
    entry: &audit::Entry,
) -> Result<(), RestoreUser> {
    let user = deleted.user_id;
    let username = given.username.as_deref().unwrap_or(&deleted.username);
    let email = given.email.as_deref().unwrap_or(&deleted.email);
    let mut tx = db.begin().await?;
    // Who comes second finds the row gone, and inserts nothing.
    let found = on!(&mut tx, within conn => sqlx::query(TAKE).bind(user).bind(storable(username))
        .bind(storable(email)).execute(conn).await.map(|done| done.rows_affected()))?;
    if found == 0 {
        return Err(RestoreUser::NotFound);
    }
    let epoch: i64 = on!(&mut tx, within conn => sqlx::query_scalar(RETURN).bind(user)
        .bind(compared(username)).bind(compared(email)).bind(&given.password_hash).bind(entry.at)
        .fetch_one(conn).await)?;
    on!(&mut tx, within conn => sqlx::query(FORGET).bind(user).execute(conn).await.map(|_| ()))?;
    keys::insert(&mut tx, user, &given.key, entry.at).await?;
    // The ledger looks here: balances of earlier epochs went when the user was deleted.
    let mut entry = entry.clone();
    if let Some(detail) = entry.detail.as_object_mut() {
        detail.insert("quota_epoch".to_owned(), epoch.into());
    }
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(())
}

const LIVES: &str = "SELECT COUNT(*) FROM users WHERE id = $1";
const SPOKE: &str = "SELECT COUNT(*) FROM (SELECT id FROM exchanges WHERE user_id = $1 LIMIT 1) AS first_row";
const ANONYMISE: &str = "UPDATE exchanges SET user_id = NULL, key_id = NULL, username = 'erased', email = '',
        messages = NULL, answer = NULL, client_ip = ''
    WHERE id IN (SELECT id FROM exchanges WHERE user_id = $1 LIMIT 1000)";
const UNTELL: &str = "DELETE FROM webhook_queue WHERE user_id = $1";
const PROVE: &str = "INSERT INTO erasures (proof, erased_at, exchanges, files) VALUES ($1, $2, $3, $4)
    ON CONFLICT (proof) DO UPDATE SET exchanges = erasures.exchanges + excluded.exchanges,
        files = erasures.files + excluded.files";
const NAMES: &str = "SELECT username, email FROM deleted_users WHERE user_id = $1
    UNION SELECT username, email FROM exchanges WHERE user_id = $1";

/// Whether somebody is a user now, and so can not be erased.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn is_here(db: &Db, user: UserId) -> Result<bool, StoreError> {
    let lives: i64 = on!(db, read pool => sqlx::query_scalar(LIVES).bind(user).fetch_one(pool).await)?;
    Ok(lives > 0)
}

/// Every name and address that somebody was deleted or logged with.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn names(db: &Db, user: UserId) -> Result<Vec<String>, StoreError> {
    let pairs: Vec<(String, String)> =
        on!(db, read pool => sqlx::query_as(NAMES).bind(user).fetch_all(pool).await)?;
    let names = pairs.into_iter().flat_map(|(username, email)| [username, email]);
    Ok(names.filter(|name| !name.is_empty()).collect())
}

/// Erases a deleted user: first what is kept of them, recorded, then their person from the log, a
/// thousand rows at a time, and from what webhooks have still to be told, and last, when nothing is left,
/// a proof is written. `files` of theirs were removed before, outside of the database. Answers how many rows
/// of the log lost their person; `None` when there is nothing to erase, or the user is not deleted.
///
/// # Errors
/// [`StoreError`], when the database does not do it all; asked again, it goes on where it stopped.
pub async fn erase(
    db: &Db,
    user: UserId,
    files: u64,
    proof: &str,
    entry: &audit::Entry,
) -> Result<Option<u64>, StoreError> {
    let mut tx = db.begin().await?;
    let kept = on!(&mut tx, within conn => sqlx::query(FORGET).bind(user)
        .execute(conn).await.map(|done| done.rows_affected()))?;
    let lives: i64 = on!(&mut tx, within conn => sqlx::query_scalar(LIVES).bind(user).fetch_one(conn).await)?;
    let spoke: i64 = on!(&mut tx, within conn => sqlx::query_scalar(SPOKE).bind(user).fetch_one(conn).await)?;
    if lives > 0 || (kept == 0 && spoke == 0 && files == 0) {
        return Ok(None);
    }
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    let mut erased = 0;
    loop {
        let done = on!(db, write pool => sqlx::query(ANONYMISE).bind(user)
            .execute(pool).await.map(|done| done.rows_affected()))?;
        if done == 0 {
            break;
        }
        erased += done;
    }
    on!(db, write pool => sqlx::query(UNTELL).bind(user).execute(pool).await.map(|_| ()))?;
    usage::forget_person(db, user).await?;
    let rows = i64::try_from(erased).unwrap_or(i64::MAX);
    let files = i64::try_from(files).unwrap_or(i64::MAX);
    on!(db, write pool => sqlx::query(PROVE).bind(proof).bind(entry.at).bind(rows).bind(files)
        .execute(pool).await.map(|_| ()))?;
    Ok(Some(erased))
}

const PURGE: &str = "DELETE FROM deleted_users WHERE deleted_at < $1";

/// Forgets the profiles of users deleted before `before`, who can be restored no longer, and records
/// how many. Their rows of the log end with the log's own time. Answers how many.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then they are there for the next time.
pub async fn purge(db: &Db, before: Timestamp, now: Timestamp) -> Result<u64, StoreError> {
    let mut tx = db.begin().await?;
    let gone = on!(&mut tx, within conn => sqlx::query(PURGE).bind(before)
        .execute(conn).await.map(|done| done.rows_affected()))?;
    if gone == 0 {
        return Ok(0);
    }
    let entry = audit::Entry {
        actor: audit::Actor::System,
        actor_name: "tollgate".to_owned(),
        action: "user.purge",
        target: "deleted users".to_owned(),
        detail: json!({ "users": gone }),
        request_id: String::new(),
        client_ip: None,
        at: now,
    };
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(gone)
}

// === impl RestoreUser ===

impl From<sqlx::Error> for RestoreUser {
    fn from(error: sqlx::Error) -> Self {
        match error {
            error if taken(&error, "username_key") => Self::UsernameTaken,
            error if taken(&error, "email_key") => Self::EmailTaken,
            error => Self::Store(error.into()),
        }
    }
}
