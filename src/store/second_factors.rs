//! Second factors: one TOTP secret for each who wants one, sealed, and the codes for the day when the
//! phone is gone.

use super::sessions::{self, Owner};
use super::{Db, StoreError, Tx, audit};
use crate::clock::Timestamp;
use crate::credential::ticket::TicketDigest;
use crate::ids::SessionId;

/// A TOTP secret as it is kept.
#[derive(Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SecondFactor {
    /// The secret, sealed.
    pub sealed: String,
    /// The last step that was accepted; no step up to it is again.
    pub last_step: i64,
    /// Since when it is asked for; `None` while nobody has shown that they can read it.
    pub confirmed_at: Option<Timestamp>,
}

/// A second factor about to be confirmed.
pub struct Confirmation<'a> {
    /// The secret that the code was of, sealed.
    pub sealed: &'a str,
    /// The step of the code.
    pub step: i64,
    /// The recovery codes.
    pub recovery: &'a [TicketDigest],
    /// The session that goes on; the owner's others began without a second factor, and end.
    pub kept: SessionId,
}

const OF: &str = "SELECT sealed, last_step, confirmed_at FROM second_factors
    WHERE audience = $1 AND subject = $2";

/// The second factor of `owner`, confirmed or not.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn of(db: &Db, owner: Owner) -> Result<Option<SecondFactor>, StoreError> {
    let (audience, subject) = owner.columns();
    Ok(on!(db, read pool => sqlx::query_as(OF).bind(audience).bind(subject).fetch_optional(pool).await)?)
}

/// What is told of a second factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overview {
    /// When it was begun.
    pub enrolled_at: Timestamp,
    /// Since when it is asked for.
    pub confirmed_at: Option<Timestamp>,
    /// Recovery codes that still work.
    pub recovery_codes: usize,
}

const SHOWN: &str =
    "SELECT enrolled_at, confirmed_at FROM second_factors WHERE audience = $1 AND subject = $2";
const CODES: &str = "SELECT digest FROM recovery_codes WHERE audience = $1 AND subject = $2";

/// What is told of the second factor of `owner`, confirmed or not.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn overview(db: &Db, owner: Owner) -> Result<Option<Overview>, StoreError> {
    let (audience, subject) = owner.columns();
    let found: Option<(Timestamp, Option<Timestamp>)> = on!(db, read pool => sqlx::query_as(SHOWN)
        .bind(audience).bind(subject).fetch_optional(pool).await)?;
    let Some((enrolled_at, confirmed_at)) = found else { return Ok(None) };
    let codes: Vec<Vec<u8>> = on!(db, read pool => sqlx::query_scalar(CODES)
        .bind(audience).bind(subject).fetch_all(pool).await)?;
    Ok(Some(Overview { enrolled_at, confirmed_at, recovery_codes: codes.len() }))
}

const ENROL: &str = "INSERT INTO second_factors (audience, subject, sealed, last_step, enrolled_at)
    VALUES ($1, $2, $3, -1, $4)
    ON CONFLICT (audience, subject) DO UPDATE
    SET sealed = excluded.sealed, last_step = -1, enrolled_at = excluded.enrolled_at
    WHERE second_factors.confirmed_at IS NULL";

/// Begins a second factor, in the stead of one that was begun and not confirmed; `false` when there
/// is a confirmed one, which stays.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn enrol(db: &Db, owner: Owner, sealed: &str, now: Timestamp) -> Result<bool, StoreError> {
    let (audience, subject) = owner.columns();
    let done = on!(db, write pool => sqlx::query(ENROL).bind(audience).bind(subject).bind(sealed).bind(now)
        .execute(pool).await.map(|done| done.rows_affected()))?;
    Ok(done == 1)
}

const CONFIRM: &str = "UPDATE second_factors SET confirmed_at = $4, last_step = $5
    WHERE audience = $1 AND subject = $2 AND sealed = $3 AND confirmed_at IS NULL";
const ADD_CODE: &str = "INSERT INTO recovery_codes (audience, subject, digest) VALUES ($1, $2, $3)";

/// From now on the second factor is asked for. `false` when it is no longer the one that was begun.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then nothing was changed.
pub async fn confirm(
    db: &Db,
    owner: Owner,
    confirmation: &Confirmation<'_>,
    entry: &audit::Entry,
) -> Result<bool, StoreError> {
    let (audience, subject) = owner.columns();
    let mut tx = db.begin().await?;
    let done = on!(&mut tx, within conn => sqlx::query(CONFIRM)
        .bind(audience).bind(subject).bind(confirmation.sealed).bind(entry.at).bind(confirmation.step)
        .execute(conn).await.map(|done| done.rows_affected()))?;
    if done == 0 {
        return Ok(false);
    }
    replace_codes(&mut tx, owner, confirmation.recovery).await?;
    sessions::delete_all(&mut tx, owner, Some(confirmation.kept)).await?;
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(true)
}

const ACCEPT: &str = "UPDATE second_factors SET last_step = $3
    WHERE audience = $1 AND subject = $2 AND confirmed_at IS NOT NULL AND last_step < $3";

/// Accepts a step; `false` when it, or a later one, was accepted before.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn accept_step(db: &Db, owner: Owner, step: i64) -> Result<bool, StoreError> {
    let (audience, subject) = owner.columns();
    let done = on!(db, write pool => sqlx::query(ACCEPT).bind(audience).bind(subject).bind(step)
        .execute(pool).await.map(|done| done.rows_affected()))?;
    Ok(done == 1)
}

const USE_CODE: &str = "DELETE FROM recovery_codes WHERE audience = $1 AND subject = $2 AND digest = $3";

/// Uses a recovery code up and records it; `false` when there is none like it.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn use_code(
    db: &Db,
    owner: Owner,
    code: &TicketDigest,
    entry: &audit::Entry,
) -> Result<bool, StoreError> {
    let (audience, subject) = owner.columns();
    let digest = code.as_bytes().as_slice();
    let mut tx = db.begin().await?;
    let done = on!(&mut tx, within conn => sqlx::query(USE_CODE).bind(audience).bind(subject).bind(digest)
        .execute(conn).await.map(|done| done.rows_affected()))?;
    if done == 0 {
        return Ok(false);
    }
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(true)
}

const LOCK: &str = "UPDATE second_factors SET last_step = last_step
    WHERE audience = $1 AND subject = $2 AND confirmed_at IS NOT NULL";

/// Replaces the recovery codes of a confirmed second factor and records it; `false` when there is none.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then the codes there were stay.
pub async fn renew_codes(
    db: &Db,
    owner: Owner,
    codes: &[TicketDigest],
    entry: &audit::Entry,
) -> Result<bool, StoreError> {
    let (audience, subject) = owner.columns();
    let mut tx = db.begin().await?;
    let found = on!(&mut tx, within conn => sqlx::query(LOCK).bind(audience).bind(subject)
        .execute(conn).await.map(|done| done.rows_affected()))?;
    if found == 0 {
        return Ok(false);
    }
    replace_codes(&mut tx, owner, codes).await?;
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(true)
}

/// Removes the second factor of an owner who has lost it, ends their sessions, and records it; `false` when
/// there is none, confirmed or not.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then nothing was changed.
pub async fn reset(db: &Db, owner: Owner, entry: &audit::Entry) -> Result<bool, StoreError> {
    let (audience, subject) = owner.columns();
    let mut tx = db.begin().await?;
    let found = on!(&mut tx, within conn => sqlx::query(REMOVE).bind(audience).bind(subject)
        .execute(conn).await.map(|done| done.rows_affected()))?;
    if found == 0 {
        return Ok(false);
    }
    delete_codes(&mut tx, owner).await?;
    sessions::end_every(&mut tx, owner).await?;
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(true)
}

const REMOVE: &str = "DELETE FROM second_factors WHERE audience = $1 AND subject = $2";

/// The second factor is no longer asked for; its codes go with it.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn remove(db: &Db, owner: Owner, entry: &audit::Entry) -> Result<(), StoreError> {
    let (audience, subject) = owner.columns();
    let mut tx = db.begin().await?;
    on!(&mut tx, within conn => sqlx::query(REMOVE).bind(audience).bind(subject)
        .execute(conn).await.map(|_| ()))?;
    delete_codes(&mut tx, owner).await?;
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(())
}

async fn replace_codes(tx: &mut Tx, owner: Owner, codes: &[TicketDigest]) -> Result<(), sqlx::Error> {
    let (audience, subject) = owner.columns();
    delete_codes(tx, owner).await?;
    for code in codes {
        let digest = code.as_bytes().as_slice();
        on!(&mut *tx, within conn => sqlx::query(ADD_CODE).bind(audience).bind(subject).bind(digest)
            .execute(conn).await.map(|_| ()))?;
    }
    Ok(())
}

const DELETE_CODES: &str = "DELETE FROM recovery_codes WHERE audience = $1 AND subject = $2";

async fn delete_codes(tx: &mut Tx, owner: Owner) -> Result<(), sqlx::Error> {
    let (audience, subject) = owner.columns();
    on!(tx, within conn => sqlx::query(DELETE_CODES).bind(audience).bind(subject)
        .execute(conn).await.map(|_| ()))
}
