//! Admins: those who run the gateway.

use super::{Db, StoreError, audit, compared};
use crate::clock::Timestamp;
use crate::ids::AdminId;

/// One admin. The password hash keeps this from being `Debug`.
#[derive(Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Admin {
    /// Their row.
    pub id: AdminId,
    /// As given; unique among admins when compared in lower case.
    pub username: String,
    /// bcrypt.
    pub password_hash: String,
    /// Since when.
    pub time_created: Timestamp,
    /// Sessions of earlier versions are void.
    pub token_version: i64,
}

const BY_ID: &str =
    "SELECT id, username, password_hash, time_created, token_version FROM admins WHERE id = $1";

/// The admin of this row.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn by_id(db: &Db, id: AdminId) -> Result<Option<Admin>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(BY_ID).bind(id).fetch_optional(pool).await)?)
}

const BY_USERNAME: &str =
    "SELECT id, username, password_hash, time_created, token_version FROM admins WHERE username_key = $1";

/// The admin of this name, in whatever case it is written.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn by_username(db: &Db, username: &str) -> Result<Option<Admin>, StoreError> {
    let key = compared(username);
    Ok(on!(db, read pool => sqlx::query_as(BY_USERNAME).bind(key).fetch_optional(pool).await)?)
}

const COUNT: &str = "SELECT COUNT(*) FROM admins";

/// How many admins there are; 0 means that this is the first start.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn count(db: &Db) -> Result<i64, StoreError> {
    Ok(on!(db, read pool => sqlx::query_scalar(COUNT).fetch_one(pool).await)?)
}

const UPSERT: &str = "INSERT INTO admins (username, username_key, password_hash, time_created)
    VALUES ($1, $2, $3, $4)
    ON CONFLICT (username_key) DO UPDATE
    SET password_hash = excluded.password_hash, token_version = admins.token_version + 1
    RETURNING id";

/// Makes the admin of this name, or gives the one there is this password and ends their sessions.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn upsert(
    db: &Db,
    username: &str,
    password_hash: &str,
    now: Timestamp,
) -> Result<AdminId, StoreError> {
    let key = compared(username);
    let id = on!(db, write pool => sqlx::query_scalar(UPSERT)
        .bind(username).bind(key).bind(password_hash).bind(now).fetch_one(pool).await)?;
    Ok(id)
}

const SET_PASSWORD: &str =
    "UPDATE admins SET password_hash = $2, token_version = token_version + 1 WHERE id = $1";

/// Gives an admin another password and ends their sessions. Nobody is told when there is no such
/// admin.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn set_password(db: &Db, id: AdminId, password_hash: &str) -> Result<(), StoreError> {
    on!(db, write pool => sqlx::query(SET_PASSWORD).bind(id).bind(password_hash)
        .execute(pool).await.map(|_| ()))?;
    Ok(())
}

/// [`set_password`], recorded.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then nothing was changed.
pub async fn reset_password(
    db: &Db,
    id: AdminId,
    password_hash: &str,
    entry: &audit::Entry,
) -> Result<(), StoreError> {
    let mut tx = db.begin().await?;
    on!(&mut tx, within conn => sqlx::query(SET_PASSWORD).bind(id).bind(password_hash)
        .execute(conn).await.map(|_| ()))?;
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(())
}
