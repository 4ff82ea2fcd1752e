//! `pe-` keys: a digest to find them by, a sealed copy to show their owner, what narrows them, and when
//! they died.
//!
//! A user has at most one live key of a name, and one named `default` from the start. A revoked row
//! stays, for the log that refers to it, but loses its sealed copy, and its digest is never matched
//! again. What an owner does with several keys stands in [`named`].

use super::text::Json;
use super::{Db, SlowRead, StoreError, Tx, audit};
use crate::clock::Timestamp;
use crate::credential::key::KeyDigest;
use crate::ids::{KeyId, UserId};

pub mod named;

/// The name of the one key every user begins with.
pub const DEFAULT: &str = "default";

/// A key about to be stored.
#[derive(Clone)]
pub struct NewKey {
    /// What it is looked up by.
    pub digest: KeyDigest,
    /// The key itself as a Fernet token.
    pub sealed: String,
    /// Its first characters, by which its owner recognises it.
    pub prefix: String,
    /// 1 without a checksum (the seed's), 2 with one.
    pub format: i64,
}

/// A live key, as its owner sees it.
#[derive(Clone, sqlx::FromRow)]
pub struct Key {
    /// Its row.
    pub id: KeyId,
    /// Whose.
    pub user_id: UserId,
    /// Unique among the user's live keys.
    pub name: String,
    /// Free text.
    pub label: String,
    /// The key itself as a Fernet token.
    pub sealed: String,
    /// Its first characters.
    pub prefix: String,
    /// 1 without a checksum, 2 with one.
    pub format: i64,
    /// Since when.
    pub created_at: Timestamp,
    /// Last seen; written now and then, so up to minutes late.
    pub last_used_at: Option<Timestamp>,
    /// Until when.
    pub expires_at: Option<Timestamp>,
    /// Networks it may be used from, besides what the user's own rules say; none is no rule.
    #[sqlx(try_from = "Json<Vec<String>>")]
    pub allowed_ips: Vec<String>,
    /// Name of the plan that narrows it.
    pub plan: Option<String>,
    /// Until when the secret before the last rotation works as well.
    pub former_until: Option<Timestamp>,
}

/// Who holds a key, with everything a request is judged by.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Holder {
    /// The key.
    pub key: KeyId,
    /// Its user.
    pub user: UserId,
    /// Their name, as given.
    pub username: String,
    /// Their address, as given.
    pub email: String,
    /// Whether they may use the gateway at all.
    pub is_active: bool,
    /// Name of their plan.
    pub subscription_plan: String,
    /// Their level within it.
    pub level: String,
    /// The `r_type`s they may ask for.
    #[sqlx(try_from = "Json<Vec<String>>")]
    pub access_rtype: Vec<String>,
    /// Networks they may come from; none is no rule.
    #[sqlx(try_from = "Json<Vec<String>>")]
    pub allowed_ips: Vec<String>,
    /// Their own daily limit, in the plan's stead.
    pub quota_reset: Option<i64>,
    /// The key's name.
    pub key_name: String,
    /// What its owner calls it, or nothing.
    pub key_label: String,
    /// Networks the key may be used from; none is no rule.
    #[sqlx(try_from = "Json<Vec<String>>")]
    pub key_allowed_ips: Vec<String>,
    /// Name of the plan that narrows the key.
    pub key_plan: Option<String>,
    /// When the key ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When the secret that was asked for ends: it is the one before the last rotation.
    pub former_until: Option<Timestamp>,
    /// When it was last noted that the key is used.
    pub last_used_at: Option<Timestamp>,
}

macro_rules! select_holder {
    ($former_until:literal, $which:literal) => {
        concat!(
            r#"SELECT k.id AS "key", u.id AS "user", u.username, u.email, u.is_active, u.subscription_plan,"#,
            " u.level, u.access_rtype, u.allowed_ips, u.quota_reset, k.name AS key_name, k.label AS key_label,",
            " k.allowed_ips AS key_allowed_ips, k.plan AS key_plan, k.expires_at, ",
            $former_until,
            " AS former_until, k.last_used_at FROM keys k JOIN users u ON u.id = k.user_id",
            " WHERE k.revoked_at IS NULL AND ",
            $which
        )
    };
}

const HOLDER: &str = select_holder!(
    "CASE WHEN k.digest = $1 THEN NULL ELSE k.former_until END",
    "(k.digest = $1 OR k.former_digest = $1)"
);

/// Who holds the key of this digest, if it is live. Whether they are active, and the key or its former
/// secret has not expired, is for the caller to judge.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn holder(db: &Db, digest: &KeyDigest) -> Result<Option<Holder>, StoreError> {
    let digest = digest.as_bytes().as_slice();
    Ok(on!(db, read pool => sqlx::query_as(HOLDER).bind(digest).fetch_optional(pool).await)?)
}

const HOLDER_NAMED: &str = select_holder!("CAST(NULL AS BIGINT)", "k.user_id = $1 AND k.name = $2");

/// [`holder`] of a user's key by its name.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn holder_named(db: &Db, user: UserId, name: &str) -> Result<Option<Holder>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(HOLDER_NAMED).bind(user).bind(name).fetch_optional(pool).await)?)
}

macro_rules! select_key {
    ($rest:literal) => {
        concat!(
            "SELECT id, user_id, name, label, sealed, prefix, format, created_at, last_used_at, expires_at,",
            " allowed_ips, plan, former_until FROM keys ",
            $rest
        )
    };
}
use select_key;

const CURRENT: &str = select_key!("WHERE user_id = $1 AND name = $2 AND revoked_at IS NULL");

/// The user's live key, the one that is named `default`.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn current(db: &Db, user: UserId) -> Result<Option<Key>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(CURRENT).bind(user).bind(DEFAULT).fetch_optional(pool).await)?)
}

const LOCK_USER: &str = "UPDATE users SET updated_at = $2 WHERE id = $1";
const REVOKE: &str = "UPDATE keys SET revoked_at = $3, sealed = ''
    WHERE user_id = $1 AND name = $2 AND revoked_at IS NULL";

/// Revokes the user's key and gives them `new`, at once for every reader that asks from now on.
///
/// # Errors
/// [`StoreError`], when the database does not do it, or there is no such user; then the old key
/// lives on.
pub async fn replace(
    db: &Db,
    user: UserId,
    new: &NewKey,
    now: Timestamp,
    entry: &audit::Entry,
) -> Result<KeyId, StoreError> {
    let mut tx = db.begin().await?;
    lock_user(&mut tx, user, now).await?;
    on!(&mut tx, within conn => sqlx::query(REVOKE).bind(user).bind(DEFAULT).bind(now)
        .execute(conn).await.map(|_| ()))?;
    let id = insert(&mut tx, user, new, now).await?;
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(id)
}

const REVOKE_ALL: &str =
    "UPDATE keys SET revoked_at = $2, sealed = '' WHERE user_id = $1 AND revoked_at IS NULL";

/// Revokes every key of the user; how many there were.
pub(super) async fn revoke_all(tx: &mut Tx, user: UserId, now: Timestamp) -> Result<u64, sqlx::Error> {
    on!(tx, within conn => sqlx::query(REVOKE_ALL).bind(user).bind(now)
        .execute(conn).await.map(|done| done.rows_affected()))
}

/// Changes of one user's keys take turns at the user's row, or two of them would insert.
async fn lock_user(tx: &mut Tx, user: UserId, now: Timestamp) -> Result<(), sqlx::Error> {
    let locked = on!(tx, within conn => sqlx::query(LOCK_USER).bind(user).bind(now)
        .execute(conn).await.map(|done| done.rows_affected()))?;
    if locked == 0 { Err(sqlx::Error::RowNotFound) } else { Ok(()) }
}

const INSERT: &str = "INSERT INTO keys (user_id, name, digest, sealed, prefix, format, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id";

pub(super) async fn insert(
    tx: &mut Tx,
    user: UserId,
    new: &NewKey,
    now: Timestamp,
) -> Result<KeyId, sqlx::Error> {
    on!(tx, within conn => sqlx::query_scalar(INSERT)
        .bind(user)
        .bind(DEFAULT)
        .bind(new.digest.as_bytes().as_slice())
        .bind(&new.sealed)
        .bind(&new.prefix)
        .bind(new.format)
        .bind(now)
        .fetch_one(conn)
        .await)
}

const TOUCH: &str = "UPDATE keys SET last_used_at = $2
    WHERE id = $1 AND (last_used_at IS NULL OR last_used_at <= $2 - 60000)";

/// Notes when keys were last used, all in one transaction. What is not a minute later than the instant
/// already noted changes nothing, so nodes may tell in any order, and no key is written more often.
///
/// # Errors
/// [`StoreError`], when the database does not answer; then nothing is noted.
pub async fn touch(db: &Db, used: &[(KeyId, Timestamp)]) -> Result<(), StoreError> {
    if used.is_empty() {
        return Ok(());
    }
    // In one order everywhere, so that two nodes never wait for each other.
    let mut used = used.to_vec();
    used.sort_unstable();
    let mut tx = db.begin().await?;
    for (key, at) in used {
        on!(&mut tx, within conn => sqlx::query(TOUCH).bind(key).bind(at).execute(conn).await.map(|_| ()))?;
    }
    tx.commit().await?;
    Ok(())
}

const HOLDS_V1: &str =
    "SELECT id FROM keys WHERE revoked_at IS NULL AND (format = 1 OR former_until > $1) LIMIT 1";

/// Whether there is a live key without a checksum, or a key that was rotated and whose former secret, which may
/// have none, still works.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn holds_v1(db: &Db, now: Timestamp) -> Result<bool, StoreError> {
    let found: Option<KeyId> =
        on!(db, read pool => sqlx::query_scalar(HOLDS_V1).bind(now).fetch_optional(pool).await)?;
    Ok(found.is_some())
}

const COUNT_V1: &str = "SELECT COUNT(*) FROM keys WHERE revoked_at IS NULL AND format = 1";

/// How many live keys have no checksum.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn count_v1(reads: &SlowRead) -> Result<i64, StoreError> {
    Ok(on!(reads.db(), read pool => sqlx::query_scalar(COUNT_V1).fetch_one(pool).await)?)
}

const FORGET_REVOKED: &str = "DELETE FROM keys WHERE revoked_at < $1";

/// Forgets keys that were revoked before `before`, by when no row of the log refers to them any more.
/// Answers how many.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn forget_revoked(db: &Db, before: Timestamp) -> Result<u64, StoreError> {
    Ok(on!(db, write pool => sqlx::query(FORGET_REVOKED).bind(before).execute(pool).await?.rows_affected()))
}
