//! Admins: those who run the gateway.

use super::accounts::InsertAccount;
use super::text::storable;
use super::{Db, Page, SlowRead, StoreError, Tx, audit, compared, sessions};
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
    /// `admin`, or `auditor`: reads all and changes nothing.
    pub role: String,
    /// Whether they may log in.
    pub is_active: bool,
}

/// What is to be changed of an admin; `None` leaves a field as it is.
#[derive(Clone, Default)]
pub struct AdminChange {
    /// bcrypt.
    pub password_hash: Option<String>,
    /// See [`Admin::role`].
    pub role: Option<String>,
    /// See [`Admin::is_active`].
    pub is_active: Option<bool>,
}

/// Why an admin was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeAdmin {
    /// There is no such admin.
    #[error("no such admin")]
    NotFound,
    /// They are the only active one with the role `admin`.
    #[error("the last active admin stays: make another one first")]
    Last,
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The role that may do everything.
pub const FULL: &str = "admin";
/// Every role.
pub const ROLES: [&str; 2] = [FULL, "auditor"];

macro_rules! admin {
    ($rest:literal) => {
        concat!(
            "SELECT id, username, password_hash, time_created, token_version, role, is_active FROM admins ",
            $rest
        )
    };
}

const BY_ID: &str = admin!("WHERE id = $1");

/// The admin of this row.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn by_id(db: &Db, id: AdminId) -> Result<Option<Admin>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(BY_ID).bind(id).fetch_optional(pool).await)?)
}

const BY_USERNAME: &str = admin!("WHERE username_key = $1");

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

const LIST: &str = admin!("ORDER BY id LIMIT $1 OFFSET $2");

/// Admins in the order in which they were made.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn list(reads: &SlowRead, limit: i64, offset: i64) -> Result<Page<Admin>, StoreError> {
    let rows =
        on!(reads.db(), read pool => sqlx::query_as(LIST).bind(limit).bind(offset).fetch_all(pool).await)?;
    let total = on!(reads.db(), read pool => sqlx::query_scalar(COUNT).fetch_one(pool).await)?;
    Ok(Page { rows, total })
}

const INSERT: &str =
    "INSERT INTO admins (username, username_key, password_hash, time_created, role, is_active)
    VALUES ($1, $2, $3, $4, $5, TRUE) RETURNING id";

/// Inserts an admin of this name, password hash and role, and the record of it.
///
/// # Errors
/// [`InsertAccount`]; then nothing was inserted.
pub async fn insert(
    db: &Db,
    (username, password_hash, role): (&str, &str, &str),
    entry: &audit::Entry,
) -> Result<AdminId, InsertAccount> {
    let mut tx = db.begin().await?;
    let id = on!(&mut tx, within conn => sqlx::query_scalar(INSERT)
        .bind(storable(username)).bind(compared(username)).bind(password_hash).bind(entry.at).bind(role)
        .fetch_one(conn).await)?;
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(id)
}

const CHANGE: &str =
    "UPDATE admins SET password_hash = COALESCE($2, password_hash), role = COALESCE($3, role),
        is_active = COALESCE($4, is_active), token_version = token_version + 1
    WHERE id = $1";

/// Changes what `change` names, ends their sessions, and records it.
///
/// # Errors
/// [`ChangeAdmin`]; then nothing was changed.
pub async fn change(
    db: &Db,
    id: AdminId,
    change: &AdminChange,
    entry: &audit::Entry,
) -> Result<(), ChangeAdmin> {
    let mut tx = db.begin().await?;
    hold_all(&mut tx).await?;
    let found = on!(&mut tx, within conn => sqlx::query(CHANGE)
        .bind(id).bind(&change.password_hash).bind(&change.role).bind(change.is_active)
        .execute(conn).await.map(|done| done.rows_affected()))?;
    finish(tx, found, entry).await
}

const DELETE: &str = "DELETE FROM admins WHERE id = $1";

/// Deletes an admin with their sessions, and records it.
///
/// # Errors
/// [`ChangeAdmin`]; then nothing was deleted.
pub async fn delete(db: &Db, id: AdminId, entry: &audit::Entry) -> Result<(), ChangeAdmin> {
    let mut tx = db.begin().await?;
    hold_all(&mut tx).await?;
    let found = on!(&mut tx, within conn => sqlx::query(DELETE).bind(id)
        .execute(conn).await.map(|done| done.rows_affected()))?;
    sessions::forget(&mut tx, sessions::Owner::admin(id)).await?;
    finish(tx, found, entry).await
}

const HOLD: &str = "SELECT id FROM admins ORDER BY id FOR UPDATE";
const FULL_ONES: &str = "SELECT COUNT(*) FROM admins WHERE role = $1 AND is_active";

/// Keeps other changes of admins waiting, lest two of them end each other. With SQLite the transaction does.
async fn hold_all(tx: &mut Tx) -> Result<(), sqlx::Error> {
    if let Tx::Postgres(conn) = tx {
        sqlx::query(HOLD).execute(&mut **conn).await?;
    }
    Ok(())
}

async fn finish(mut tx: Tx, found: u64, entry: &audit::Entry) -> Result<(), ChangeAdmin> {
    if found == 0 {
        return Err(ChangeAdmin::NotFound);
    }
    let left: i64 =
        on!(&mut tx, within conn => sqlx::query_scalar(FULL_ONES).bind(FULL).fetch_one(conn).await)?;
    if left == 0 {
        return Err(ChangeAdmin::Last);
    }
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(())
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

// === impl ChangeAdmin ===

impl From<sqlx::Error> for ChangeAdmin {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
