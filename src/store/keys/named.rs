//! Several keys of one user: made, changed, rotated and revoked one by one.

use super::{DEFAULT, Key, NewKey, lock_user, select_key};
use crate::clock::Timestamp;
use crate::ids::{KeyId, UserId};
use crate::store::text::{Json, storable};
use crate::store::{Db, StoreError, Tx, audit, taken};

/// Most live keys of one user.
pub const MOST: i64 = 100;

/// What a key is called and narrowed by.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Unique among the user's live keys.
    pub name: String,
    /// Free text.
    pub label: String,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// Networks it may be used from; none is no rule.
    pub allowed_ips: Vec<String>,
    /// Name of the plan that narrows it.
    pub plan: Option<String>,
}

/// What is to become of a field that may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Setting<T> {
    /// Nothing.
    #[default]
    Keep,
    /// It is emptied.
    Clear,
    /// This.
    To(T),
}

/// What is to be changed of a key; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// See [`Rules::name`].
    pub name: Option<String>,
    /// See [`Rules::label`].
    pub label: Option<String>,
    /// See [`Rules::expires_at`].
    pub expires_at: Setting<Timestamp>,
    /// See [`Rules::allowed_ips`].
    pub allowed_ips: Option<Vec<String>>,
    /// See [`Rules::plan`].
    pub plan: Setting<String>,
}

/// Why a key was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A live key of the user has this name.
    #[error("the name is taken")]
    NameTaken,
    /// The user has as many live keys as there may be.
    #[error("there are {MOST} keys already")]
    TooMany,
    /// The user has no such live key.
    #[error("no such key")]
    NotFound,
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

// === impl Change ===

impl Change {
    /// Whether it can let the key do more than before.
    #[must_use]
    pub fn reaches(&self) -> bool {
        self.expires_at.is_change() || self.allowed_ips.is_some() || self.plan.is_change()
    }
}

const LIST: &str = select_key!("WHERE user_id = $1 AND revoked_at IS NULL ORDER BY id");

/// The user's live keys in the order they were made, those that have expired among them.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn list(db: &Db, user: UserId) -> Result<Vec<Key>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(LIST).bind(user).fetch_all(pool).await)?)
}

const BY_ID: &str = select_key!("WHERE user_id = $1 AND id = $2 AND revoked_at IS NULL");

/// One live key of the user.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn by_id(db: &Db, user: UserId, id: KeyId) -> Result<Option<Key>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(BY_ID).bind(user).bind(id).fetch_optional(pool).await)?)
}

const COUNT: &str = "SELECT COUNT(*) FROM keys WHERE user_id = $1 AND revoked_at IS NULL";
const CREATE: &str = "INSERT INTO keys (user_id, name, digest, sealed, prefix, format, created_at,
        label, expires_at, allowed_ips, plan)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING id";

/// Gives the user one more key.
///
/// # Errors
/// [`KeyError`]; then there is none.
pub async fn create(
    db: &Db,
    user: UserId,
    (new, rules): (&NewKey, &Rules),
    now: Timestamp,
    entry: &audit::Entry,
) -> Result<KeyId, KeyError> {
    let mut tx = db.begin().await?;
    lock_user(&mut tx, user, now).await?;
    let live: i64 = on!(&mut tx, within conn => sqlx::query_scalar(COUNT).bind(user).fetch_one(conn).await)?;
    if live >= MOST {
        return Err(KeyError::TooMany);
    }
    let id = on!(&mut tx, within conn => sqlx::query_scalar(CREATE)
        .bind(user)
        .bind(storable(&rules.name))
        .bind(new.digest.as_bytes().as_slice())
        .bind(&new.sealed)
        .bind(&new.prefix)
        .bind(new.format)
        .bind(now)
        .bind(storable(&rules.label))
        .bind(rules.expires_at)
        .bind(Json(rules.allowed_ips.as_slice()))
        .bind(&rules.plan)
        .fetch_one(conn)
        .await)?;
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(id)
}

const UPDATE: &str = "UPDATE keys SET name = COALESCE($3, name), label = COALESCE($4, label),
        expires_at = CASE WHEN $5 THEN $6 ELSE expires_at END, allowed_ips = COALESCE($7, allowed_ips),
        plan = CASE WHEN $8 THEN $9 ELSE plan END
    WHERE user_id = $1 AND id = $2 AND revoked_at IS NULL";

/// Changes what `change` names of a live key and nothing else. The default key keeps its name.
///
/// # Errors
/// [`KeyError`]; then nothing was changed.
pub async fn update(
    db: &Db,
    (user, id): (UserId, KeyId),
    change: &Change,
    entry: &audit::Entry,
) -> Result<(), KeyError> {
    let mut tx = db.begin().await?;
    let done = on!(&mut tx, within conn => sqlx::query(UPDATE)
        .bind(user)
        .bind(id)
        .bind(change.name.as_deref().map(storable))
        .bind(change.label.as_deref().map(storable))
        .bind(change.expires_at.is_change())
        .bind(change.expires_at.value())
        .bind(change.allowed_ips.as_deref().map(Json))
        .bind(change.plan.is_change())
        .bind(change.plan.value())
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))?;
    finish(tx, done, entry).await
}

const ROTATE: &str = "UPDATE keys SET former_until = $3,
        former_digest = CASE WHEN CAST($3 AS BIGINT) IS NULL THEN NULL ELSE digest END,
        digest = $4, sealed = $5, prefix = $6, format = $7
    WHERE user_id = $1 AND id = $2 AND revoked_at IS NULL";

/// Gives a live key a new secret at once. The present one works as well until `former_until`, and ends
/// at once without; the one before it ends in any case.
///
/// # Errors
/// [`KeyError`]; then the old secret lives on.
pub async fn rotate(
    db: &Db,
    (user, id): (UserId, KeyId),
    new: &NewKey,
    former_until: Option<Timestamp>,
    entry: &audit::Entry,
) -> Result<(), KeyError> {
    let mut tx = db.begin().await?;
    let done = on!(&mut tx, within conn => sqlx::query(ROTATE)
        .bind(user)
        .bind(id)
        .bind(former_until)
        .bind(new.digest.as_bytes().as_slice())
        .bind(&new.sealed)
        .bind(&new.prefix)
        .bind(new.format)
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))?;
    finish(tx, done, entry).await
}

const REVOKE: &str = "UPDATE keys SET revoked_at = $3, sealed = ''
    WHERE user_id = $1 AND id = $2 AND revoked_at IS NULL";

/// Ends a live key, for good and at once for every reader that asks from now on.
///
/// # Errors
/// [`KeyError`]; then it lives on.
pub async fn revoke(
    db: &Db,
    (user, id): (UserId, KeyId),
    now: Timestamp,
    entry: &audit::Entry,
) -> Result<(), KeyError> {
    let mut tx = db.begin().await?;
    let done = on!(&mut tx, within conn => sqlx::query(REVOKE).bind(user).bind(id).bind(now)
        .execute(conn).await.map(|done| done.rows_affected()))?;
    finish(tx, done, entry).await
}

async fn finish(mut tx: Tx, done: u64, entry: &audit::Entry) -> Result<(), KeyError> {
    if done == 0 {
        return Err(KeyError::NotFound);
    }
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(())
}

// === impl Setting ===

impl<T> Setting<T> {
    /// Whether the field is touched at all.
    pub fn is_change(&self) -> bool {
        !matches!(self, Self::Keep)
    }

    fn value(&self) -> Option<&T> {
        match self {
            Self::To(value) => Some(value),
            Self::Keep | Self::Clear => None,
        }
    }
}

// === impl Key ===

impl Key {
    /// Whether it is the one that every user begins with, and old clients know.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.name == DEFAULT
    }
}

// === impl KeyError ===

impl From<sqlx::Error> for KeyError {
    fn from(error: sqlx::Error) -> Self {
        // SQLite names the columns, PostgreSQL the index.
        if taken(&error, "keys.name") || taken(&error, "keys_live") {
            Self::NameTaken
        } else {
            Self::Store(error.into())
        }
    }
}
