//! Fingerprints of the secrets that belong to a database, and what in it can be held against a secret.

use super::{Db, StoreError, audit};
use crate::clock::Timestamp;

/// A fingerprint that is valid. A secret has one, and two while one replaces another.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Known {
    /// `secret_key` or `encryption_key`.
    pub secret: String,
    /// See [`crate::credential::fingerprint`].
    pub fingerprint: String,
}

/// A sealed copy of a key, and the digest it is found by.
#[derive(Clone, sqlx::FromRow)]
pub struct SealedKey {
    /// The digest.
    pub digest: Vec<u8>,
    /// The key, sealed.
    pub sealed: String,
}

/// What was made with secrets, some of it.
#[derive(Clone, Default)]
pub struct Evidence {
    /// Live keys: the newest and the oldest.
    pub keys: Vec<SealedKey>,
    /// Sealed secrets of second factors.
    pub factors: Vec<String>,
    /// Whether there is a session.
    pub has_sessions: bool,
}

/// How much depends on the secrets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Stakes {
    /// Live keys.
    pub keys: i64,
    /// Second factors.
    pub factors: i64,
    /// Sessions.
    pub sessions: i64,
}

const KNOWN: &str = "SELECT secret, fingerprint FROM secret_fingerprints ORDER BY secret, slot";

/// Every valid fingerprint; none in a database that was never started on, or is of an earlier version.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn known(db: &Db) -> Result<Vec<Known>, StoreError> {
    unless_absent(on!(db, read pool => sqlx::query_as(KNOWN).fetch_all(pool).await))
}

const ENTER: &str = "INSERT INTO secret_fingerprints (secret, slot, fingerprint, made_at)
    SELECT CAST($1 AS TEXT), 1, CAST($2 AS TEXT), CAST($3 AS BIGINT)
    WHERE NOT EXISTS (SELECT 1 FROM secret_fingerprints WHERE secret = $1)
    ON CONFLICT (secret, slot) DO NOTHING";

/// Enters the fingerprints of secrets, of those that have none yet: of several nodes that start at once, one
/// is first. `(secret, fingerprint)`, in the same order for every caller. What is known afterwards.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then nothing was entered.
pub async fn enter(
    db: &Db,
    fingerprints: &[(&str, String)],
    now: Timestamp,
) -> Result<Vec<Known>, StoreError> {
    let mut tx = db.begin().await?;
    for (secret, fingerprint) in fingerprints {
        on!(&mut tx, within conn => sqlx::query(ENTER).bind(*secret).bind(fingerprint).bind(now)
            .execute(conn).await.map(|_| ()))?;
    }
    let known = on!(&mut tx, within conn => sqlx::query_as(KNOWN).fetch_all(conn).await)?;
    tx.commit().await?;
    Ok(known)
}

const FORGET: &str = "DELETE FROM secret_fingerprints WHERE secret = $1";

/// Forgets what was known of these secrets and enters their present fingerprints, recorded.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then nothing was changed.
pub async fn replace(
    db: &Db,
    fingerprints: &[(&str, String)],
    entry: &audit::Entry,
) -> Result<(), StoreError> {
    let mut tx = db.begin().await?;
    for (secret, fingerprint) in fingerprints {
        on!(&mut tx, within conn => sqlx::query(FORGET).bind(*secret).execute(conn).await.map(|_| ()))?;
        on!(&mut tx, within conn => sqlx::query(ENTER).bind(*secret).bind(fingerprint).bind(entry.at)
            .execute(conn).await.map(|_| ()))?;
    }
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(())
}

const NEWEST_KEYS: &str = "SELECT digest, sealed FROM keys WHERE revoked_at IS NULL AND sealed <> ''
    ORDER BY id DESC LIMIT 100";
const OLDEST_KEYS: &str = "SELECT digest, sealed FROM keys WHERE revoked_at IS NULL AND sealed <> ''
    ORDER BY id LIMIT 100";
const FACTORS: &str = "SELECT sealed FROM second_factors ORDER BY enrolled_at DESC LIMIT 100";
const A_SESSION: &str = "SELECT subject FROM sessions LIMIT 1";

/// Some of what was made with the secrets; nothing in a database without tables.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn evidence(db: &Db) -> Result<Evidence, StoreError> {
    let mut keys: Vec<SealedKey> =
        unless_absent(on!(db, read pool => sqlx::query_as(NEWEST_KEYS).fetch_all(pool).await))?;
    let oldest = on!(db, read pool => sqlx::query_as(OLDEST_KEYS).fetch_all(pool).await);
    keys.extend(unless_absent::<SealedKey>(oldest)?);
    let factors: Vec<(String,)> =
        unless_absent(on!(db, read pool => sqlx::query_as(FACTORS).fetch_all(pool).await))?;
    let sessions: Vec<(i64,)> =
        unless_absent(on!(db, read pool => sqlx::query_as(A_SESSION).fetch_all(pool).await))?;
    let factors = factors.into_iter().map(|(sealed,)| sealed).collect();
    Ok(Evidence { keys, factors, has_sessions: !sessions.is_empty() })
}

const STAKES: &str = "SELECT (SELECT COUNT(*) FROM keys WHERE revoked_at IS NULL) AS keys,
    (SELECT COUNT(*) FROM second_factors) AS factors, (SELECT COUNT(*) FROM sessions) AS sessions";

/// How much depends on the secrets, for a start that accepts their loss.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn stakes(db: &Db) -> Result<Stakes, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(STAKES).fetch_one(pool).await)?)
}

/// No rows where there is no table.
fn unless_absent<T>(found: Result<Vec<T>, sqlx::Error>) -> Result<Vec<T>, StoreError> {
    match found {
        Err(sqlx::Error::Database(cause))
            if cause.code().as_deref() == Some("42P01") || cause.message().starts_with("no such table") =>
        {
            Ok(Vec::new())
        }
        other => Ok(other?),
    }
}
