//! Staff: those who look after users.

use super::text::storable;
use super::{Db, StoreError, audit, compared, taken};
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

/// Why a member of staff was not inserted.
#[derive(Debug, thiserror::Error)]
pub enum InsertStaff {
    /// One of them has this name.
    #[error("the username is taken")]
    UsernameTaken,
    /// One of them has this address.
    #[error("the e-mail address is taken")]
    EmailTaken,
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
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

const INSERT: &str = "INSERT INTO staff
        (name, username, username_key, email, email_key, password_hash, staff_level, time_created, is_active)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id";

/// Inserts a member of staff and the record of it, or nothing.
///
/// # Errors
/// [`InsertStaff`]. When both name and address are taken, either may be named.
pub async fn insert(
    db: &Db,
    new: &NewStaff,
    now: Timestamp,
    entry: &audit::Entry,
) -> Result<StaffId, InsertStaff> {
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

// === impl InsertStaff ===

impl From<sqlx::Error> for InsertStaff {
    fn from(error: sqlx::Error) -> Self {
        match error {
            error if taken(&error, "username_key") => Self::UsernameTaken,
            error if taken(&error, "email_key") => Self::EmailTaken,
            error => Self::Store(error.into()),
        }
    }
}
