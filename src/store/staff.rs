//! Staff: those who look after users.

use super::accounts::{InsertAccount, UpdateAccount};
use super::text::storable;
use super::{Db, Page, SlowRead, StoreError, audit, compared, sessions};
use crate::clock::Timestamp;
use crate::ids::StaffId;

/// One member of staff. The password hash keeps this from being `Debug`.
#[derive(Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Staff {
    /// Their row.
    pub id: StaffId,
    /// What they are called.
    pub name: String,
    /// As given; unique among staff when compared in lower case.
    pub username: String,
    /// As given; unique among staff when compared in lower case.
    pub email: String,
    /// bcrypt.
    pub password_hash: String,
    /// `new`, `support` or `advanced`.
    pub staff_level: String,
    /// Since when.
    pub time_created: Timestamp,
    /// Whether they may log in.
    pub is_active: bool,
    /// Sessions of earlier versions are void.
    pub token_version: i64,
}

/// A member of staff about to be inserted, active.
#[derive(Clone)]
pub struct NewStaff {
    /// What they are called.
    pub name: String,
    /// Unique among staff when compared in lower case.
    pub username: String,
    /// Unique among staff when compared in lower case.
    pub email: String,
    /// bcrypt.
    pub password_hash: String,
    /// `new`, `support` or `advanced`.
    pub staff_level: String,
}

/// What is to be changed of a member of staff; `None` leaves a field as it is.
#[derive(Clone, Default)]
pub struct StaffChange {
    /// See [`Staff::name`].
    pub name: Option<String>,
    /// See [`Staff::email`].
    pub email: Option<String>,
    /// See [`Staff::password_hash`].
    pub password_hash: Option<String>,
    /// See [`Staff::staff_level`].
    pub staff_level: Option<String>,
    /// See [`Staff::is_active`].
    pub is_active: Option<bool>,
}

const BY_ID: &str = "SELECT id, name, username, email, password_hash, staff_level, time_created, is_active,
    token_version FROM staff WHERE id = $1";

/// The member of staff of this row.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn by_id(db: &Db, id: StaffId) -> Result<Option<Staff>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(BY_ID).bind(id).fetch_optional(pool).await)?)
}

const BY_USERNAME: &str =
    "SELECT id, name, username, email, password_hash, staff_level, time_created, is_active,
    token_version FROM staff WHERE username_key = $1";

/// The member of staff of this name, in whatever case it is written.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn by_username(db: &Db, username: &str) -> Result<Option<Staff>, StoreError> {
    let key = compared(username);
    Ok(on!(db, read pool => sqlx::query_as(BY_USERNAME).bind(key).fetch_optional(pool).await)?)
}

const LIST: &str = "SELECT id, name, username, email, password_hash, staff_level, time_created, is_active,
    token_version FROM staff ORDER BY id LIMIT $1 OFFSET $2";
const COUNT: &str = "SELECT COUNT(*) FROM staff";

/// Staff in the order they were taken on.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn list(reads: &SlowRead, limit: i64, offset: i64) -> Result<Page<Staff>, StoreError> {
    let rows =
        on!(reads.db(), read pool => sqlx::query_as(LIST).bind(limit).bind(offset).fetch_all(pool).await)?;
    let total = on!(reads.db(), read pool => sqlx::query_scalar(COUNT).fetch_one(pool).await)?;
    Ok(Page { rows, total })
}

const INSERT: &str = "INSERT INTO staff
        (name, username, username_key, email, email_key, password_hash, staff_level, time_created, is_active)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id";

/// Inserts a member of staff and the record of it, or nothing.
///
/// # Errors
/// [`InsertAccount`]. When both name and address are taken, either may be named.
pub async fn insert(
    db: &Db,
    new: &NewStaff,
    now: Timestamp,
    entry: &audit::Entry,
) -> Result<StaffId, InsertAccount> {
    let mut tx = db.begin().await?;
    let id = on!(&mut tx, within conn => sqlx::query_scalar(INSERT)
        .bind(storable(&new.name))
        .bind(storable(&new.username))
        .bind(compared(&new.username))
        .bind(storable(&new.email))
        .bind(compared(&new.email))
        .bind(&new.password_hash)
        .bind(&new.staff_level)
        .bind(now)
        .bind(true)
        .fetch_one(conn)
        .await)?;
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(id)
}

const SET: &str = "UPDATE staff SET
        name = COALESCE($2, name), email = COALESCE($3, email), email_key = COALESCE($4, email_key),
        password_hash = COALESCE($5, password_hash), staff_level = COALESCE($6, staff_level),
        is_active = COALESCE($7, is_active), token_version = token_version + $8
    WHERE id = $1";

/// Changes what `change` names and nothing else, and records it. A new address, password, level or
/// state ends the sessions there are.
///
/// # Errors
/// [`UpdateAccount`]; then nothing was changed.
pub async fn update(
    db: &Db,
    id: StaffId,
    change: &StaffChange,
    entry: &audit::Entry,
) -> Result<(), UpdateAccount> {
    let mut tx = db.begin().await?;
    let found = on!(&mut tx, within conn => sqlx::query(SET)
        .bind(id)
        .bind(change.name.as_deref().map(storable))
        .bind(change.email.as_deref().map(storable))
        .bind(change.email.as_deref().map(compared))
        .bind(&change.password_hash)
        .bind(&change.staff_level)
        .bind(change.is_active)
        .bind(i64::from(change.ends_sessions()))
        .execute(conn)
        .await
        .map(|done| done.rows_affected()))?;
    if found == 0 {
        return Err(UpdateAccount::NotFound("staff member"));
    }
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(())
}

const DELETE: &str = "DELETE FROM staff WHERE id = $1";

/// Takes somebody from the staff, and records it. `false`: there is no such member.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then nothing was deleted.
pub async fn delete(db: &Db, id: StaffId, entry: &audit::Entry) -> Result<bool, StoreError> {
    let mut tx = db.begin().await?;
    let found = on!(&mut tx, within conn => sqlx::query(DELETE).bind(id)
        .execute(conn).await.map(|done| done.rows_affected()))?;
    if found == 0 {
        return Ok(false);
    }
    sessions::forget(&mut tx, sessions::Owner::staff(id)).await?;
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(true)
}

// === impl StaffChange ===

impl StaffChange {
    /// Whether whoever is logged in must do so again.
    fn ends_sessions(&self) -> bool {
        self.email.is_some()
            || self.password_hash.is_some()
            || self.staff_level.is_some()
            || self.is_active.is_some()
    }
}
