//! Users: who they are, what they were given, and how much of it.
//!
//! Names and e-mail addresses are kept as given and compared in lower case.

use super::accounts::{InsertAccount, UpdateAccount};
use super::takeover::mark;
use super::text::{Json, storable};
use super::{Db, Page, SlowRead, StoreError, Tx, audit, carried, compared, keys, quota};
use crate::clock::Timestamp;
use crate::ids::UserId;

/// One user. The password hash keeps this from being `Debug`.
#[derive(Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct User {
    /// Their row.
    pub id: UserId,
    /// As given; unique when compared in lower case.
    pub username: String,
    /// What they are called.
    pub name: String,
    /// As given; unique when compared in lower case.
    pub email: String,
    /// bcrypt.
    pub password_hash: String,
    /// Free text.
    pub about_me: String,
    /// Free text.
    pub hobbies: String,
    /// `Personal` or `Business`.
    pub kind: String,
    /// When they registered.
    pub time_created: Timestamp,
    /// Name of their plan, which the configuration may have no longer.
    pub subscription_plan: String,
    /// `credits.main`
    pub credits_main: i64,
    /// `credits.reset`
    pub credits_reset: i64,
    /// Their own conversations per day; `None` for the plan's.
    pub quota_reset: Option<i64>,
    /// Counts the quotas they were given by hand; only rows of this epoch count.
    pub quota_epoch: i64,
    /// The `r_type`s they may ask for.
    #[sqlx(try_from = "Json<Vec<String>>")]
    pub access_rtype: Vec<String>,
    /// Their level within the plan.
    pub level: String,
    /// What staff noted of them.
    pub additional_notes: String,
    /// Whether they may use the gateway at all.
    pub is_active: bool,
    /// Networks their keys may be used from; none is no rule.
    #[sqlx(try_from = "Json<Vec<String>>")]
    pub allowed_ips: Vec<String>,
    /// Sessions of earlier versions are void.
    pub token_version: i64,
    /// But one of the version before, which its owner kept when they ended the others.
    pub kept_session: Option<String>,
    /// Why the account is marked as taken over, if it is: see [`mark`].
    pub takeover: Option<String>,
}

/// A user about to be inserted: active, without notes, from anywhere, with the plan's daily limit.
#[derive(Clone)]
pub struct NewUser {
    /// Unique when compared in lower case.
    pub username: String,
    /// What they are called.
    pub name: String,
    /// Unique when compared in lower case.
    pub email: String,
    /// bcrypt.
    pub password_hash: String,
    /// Free text.
    pub about_me: String,
    /// Free text.
    pub hobbies: String,
    /// `Personal` or `Business`; nothing else is accepted by the database.
    pub kind: String,
    /// Name of their plan.
    pub subscription_plan: String,
    /// Both `credits.main` and `credits.reset`.
    pub credits: i64,
    /// The `r_type`s they may ask for.
    pub access_rtype: Vec<String>,
    /// Their level within the plan.
    pub level: String,
    /// What was used under their names today counts; `None` begins with a whole day.
    pub beginning: Option<carried::Beginning>,
}

/// What is to be changed of a user; `None` leaves a field as it is.
#[derive(Clone, Default)]
pub struct UserChange {
    /// See [`User::name`].
    pub name: Option<String>,
    /// See [`User::email`].
    pub email: Option<String>,
    /// See [`User::about_me`].
    pub about_me: Option<String>,
    /// See [`User::hobbies`].
    pub hobbies: Option<String>,
    /// See [`User::kind`].
    pub kind: Option<String>,
    /// See [`User::subscription_plan`]. Give `quota` too, or today goes on with the old plan's limit
    /// if it has begun.
    pub subscription_plan: Option<String>,
    /// See [`User::credits_main`].
    pub credits_main: Option<i64>,
    /// See [`User::credits_reset`].
    pub credits_reset: Option<i64>,
    /// What becomes of the day's conversations.
    pub quota: Option<QuotaChange>,
    /// See [`User::access_rtype`].
    pub access_rtype: Option<Vec<String>>,
    /// See [`User::level`].
    pub level: Option<String>,
    /// See [`User::additional_notes`].
    pub additional_notes: Option<String>,
    /// See [`User::is_active`].
    pub is_active: Option<bool>,
    /// See [`User::allowed_ips`].
    pub allowed_ips: Option<Vec<String>>,
    /// See [`User::password_hash`].
    pub password_hash: Option<String>,
    /// Ends every session of the user.
    pub bump_token_version: bool,
    /// But this one.
    pub kept_session: Option<String>,
    /// Ends every key of the user.
    pub revoke_keys: bool,
    /// Marks the account as taken over, which ends every key, or clears the mark.
    pub taken_over: Option<bool>,
    /// Names the user gives up, under which their days are kept.
    pub given_up: Option<carried::Names>,
}

/// A change of the day's conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaChange {
    /// Today, in the zone of the user's allowance.
    pub day: i64,
    /// What is left from now on, 0 and more: begins a new epoch, in which nothing was used yet.
    pub left: Option<i64>,
    /// Their own daily limit from tomorrow on, 0 and more; what is left today stays.
    pub reset: Option<i64>,
    /// The daily limit of the plan the user has after this change. When the plan changes, and
    /// neither `left` nor a limit of their own says otherwise, it holds for today already.
    pub plan_limit: i64,
}

macro_rules! select_user {
    ($rest:literal) => {
        concat!(
            "SELECT id, username, name, email, password_hash, about_me, hobbies, kind, time_created, ",
            "subscription_plan, credits_main, credits_reset, quota_reset, quota_epoch, access_rtype, level, ",
            "additional_notes, is_active, allowed_ips, token_version, kept_session, ",
            "(SELECT reason FROM takeovers t WHERE t.user_id = users.id) AS takeover FROM users ",
            $rest
        )
    };
}

const BY_ID: &str = select_user!("WHERE id = $1");

/// The user of this row.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn by_id(db: &Db, id: UserId) -> Result<Option<User>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(BY_ID).bind(id).fetch_optional(pool).await)?)
}

const BY_USERNAME: &str = select_user!("WHERE username_key = $1");

/// The user of this name, in whatever case it is written.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn by_username(db: &Db, username: &str) -> Result<Option<User>, StoreError> {
    let key = compared(username);
    Ok(on!(db, read pool => sqlx::query_as(BY_USERNAME).bind(key).fetch_optional(pool).await)?)
}

const BY_EMAIL: &str = select_user!("WHERE email_key = $1");

/// The user of this address, in whatever case it is written.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn by_email(db: &Db, email: &str) -> Result<Option<User>, StoreError> {
    let key = compared(email);
    Ok(on!(db, read pool => sqlx::query_as(BY_EMAIL).bind(key).fetch_optional(pool).await)?)
}

const LIST: &str = select_user!("ORDER BY id LIMIT $1 OFFSET $2");
const COUNT: &str = "SELECT COUNT(*) FROM users";

/// Users in the order they registered.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn list(reads: &SlowRead, limit: i64, offset: i64) -> Result<Page<User>, StoreError> {
    let rows =
        on!(reads.db(), read pool => sqlx::query_as(LIST).bind(limit).bind(offset).fetch_all(pool).await)?;
    let total = on!(reads.db(), read pool => sqlx::query_scalar(COUNT).fetch_one(pool).await)?;
    Ok(Page { rows, total })
}

const INSERT: &str = "INSERT INTO users (username, username_key, name, email, email_key, password_hash,
        about_me, hobbies, kind, time_created, subscription_plan, credits_main, credits_reset, access_rtype,
        level, additional_notes, is_active, allowed_ips, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13, $14, '', $15, '[]', $10) RETURNING id";

/// Inserts a user together with their key, the beginning of their day and the record of it, or nothing.
///
/// # Errors
/// [`InsertAccount`]. When both name and address are taken, either may be named.
pub async fn insert(
    db: &Db,
    new: &NewUser,
    key: &keys::NewKey,
    now: Timestamp,
    entry: &audit::Entry,
) -> Result<UserId, InsertAccount> {
    let mut tx = db.begin().await?;
    let id = insert_within(&mut tx, new, key, now).await?;
    audit::append(&mut tx, entry).await?;
    tx.commit().await?;
    Ok(id)
}

/// [`insert`] within a transaction that records it.
pub(super) async fn insert_within(
    tx: &mut Tx,
    new: &NewUser,
    key: &keys::NewKey,
    now: Timestamp,
) -> Result<UserId, sqlx::Error> {
    let id = on!(&mut *tx, within conn => sqlx::query_scalar(INSERT)
        .bind(storable(&new.username))
        .bind(compared(&new.username))
        .bind(storable(&new.name))
        .bind(storable(&new.email))
        .bind(compared(&new.email))
        .bind(&new.password_hash)
        .bind(storable(&new.about_me))
        .bind(storable(&new.hobbies))
        .bind(&new.kind)
        .bind(now)
        .bind(storable(&new.subscription_plan))
        .bind(new.credits)
        .bind(Json(new.access_rtype.as_slice()))
        .bind(storable(&new.level))
        .bind(true)
        .fetch_one(conn)
        .await)?;
    keys::insert(tx, id, key, now).await?;
    if let Some(beginning) = &new.beginning {
        carried::begin(tx, id, beginning).await?;
    }
    Ok(id)
}

const TAKEN: &str = "SELECT (SELECT COUNT(*) FROM users WHERE username_key = $1),
    (SELECT COUNT(*) FROM users WHERE email_key = $2)";

/// Whether nobody has this name and this address now. Only [`insert`] says so for good.
///
/// # Errors
/// [`InsertAccount`]: what is taken, or that the database does not answer.
pub async fn are_free(db: &Db, username: &str, email: &str) -> Result<(), InsertAccount> {
    let (names, addresses): (i64, i64) = on!(db, read pool => sqlx::query_as(TAKEN)
        .bind(compared(username)).bind(compared(email)).fetch_one(pool).await)?;
    match (names, addresses) {
        (0, 0) => Ok(()),
        (0, _) => Err(InsertAccount::EmailTaken),
        _ => Err(InsertAccount::UsernameTaken),
    }
}

const TOUCH: &str = "UPDATE users SET updated_at = $2 WHERE id = $1";

/// Changes what `change` names and nothing else, and records it, in one transaction. Answers how many keys that
/// ended.
///
/// # Errors
/// [`UpdateAccount`]; then nothing was changed.
pub async fn update(
    db: &Db,
    id: UserId,
    change: &UserChange,
    now: Timestamp,
    entry: &audit::Entry,
) -> Result<u64, UpdateAccount> {
    let mut tx = db.begin().await?;
    let revoked = apply(&mut tx, id, change, now).await?;
    let mut entry = entry.clone();
    entry.note_revoked(revoked);
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(revoked)
}

/// The change itself, within a transaction that records it. Answers how many keys it ended.
pub(super) async fn apply(
    tx: &mut Tx,
    id: UserId,
    change: &UserChange,
    now: Timestamp,
) -> Result<u64, UpdateAccount> {
    // Changes of one user take turns from here on, so that the day is settled by what it was.
    let found = on!(&mut *tx, within conn => sqlx::query(TOUCH).bind(id).bind(now)
        .execute(conn).await.map(|done| done.rows_affected()))?;
    if found == 0 {
        return Err(UpdateAccount::NotFound("user"));
    }
    if let Some(names) = &change.given_up {
        carried::keep(tx, id, names).await?;
    }
    if let Some(quota) = &change.quota {
        quota::settle_day(tx, id, quota, change.subscription_plan.is_some()).await?;
    }
    set(tx, id, change).await?;
    if let Some(QuotaChange { day, left: Some(left), .. }) = change.quota {
        quota::begin_epoch(tx, id, day, left).await?;
    }
    Ok(mark::apply(tx, id, change, now).await?)
}

const SET: &str = "UPDATE users SET
        name = COALESCE($2, name), email = COALESCE($3, email), email_key = COALESCE($4, email_key),
        about_me = COALESCE($5, about_me), hobbies = COALESCE($6, hobbies), kind = COALESCE($7, kind),
        subscription_plan = COALESCE($8, subscription_plan), credits_main = COALESCE($9, credits_main),
        credits_reset = COALESCE($10, credits_reset), quota_reset = COALESCE($11, quota_reset),
        access_rtype = COALESCE($12, access_rtype), level = COALESCE($13, level),
        additional_notes = COALESCE($14, additional_notes), is_active = COALESCE($15, is_active),
        allowed_ips = COALESCE($16, allowed_ips), password_hash = COALESCE($17, password_hash),
        token_version = token_version + $18,
        kept_session = CASE WHEN $18 = 0 THEN kept_session ELSE $19 END
    WHERE id = $1";

async fn set(tx: &mut Tx, id: UserId, change: &UserChange) -> Result<(), sqlx::Error> {
    on!(tx, within conn => sqlx::query(SET)
        .bind(id)
        .bind(change.name.as_deref().map(storable))
        .bind(change.email.as_deref().map(storable))
        .bind(change.email.as_deref().map(compared))
        .bind(change.about_me.as_deref().map(storable))
        .bind(change.hobbies.as_deref().map(storable))
        .bind(&change.kind)
        .bind(change.subscription_plan.as_deref().map(storable))
        .bind(change.credits_main)
        .bind(change.credits_reset)
        .bind(change.quota.and_then(|quota| quota.reset))
        .bind(change.access_rtype.as_deref().map(Json))
        .bind(change.level.as_deref().map(storable))
        .bind(change.additional_notes.as_deref().map(storable))
        .bind(change.is_active)
        .bind(change.allowed_ips.as_deref().map(Json))
        .bind(&change.password_hash)
        .bind(i64::from(change.bump_token_version))
        .bind(&change.kept_session)
        .execute(conn)
        .await
        .map(|_| ()))
}

const REHASH: &str =
    "UPDATE users SET password_hash = $3, updated_at = $4 WHERE id = $1 AND password_hash = $2";

/// Puts `new` in the stead of `old`, two hashes of the same password, when its cost has been raised.
/// Does nothing when the password has been changed meanwhile. A change of password is [`update`].
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn update_password_hash(
    db: &Db,
    id: UserId,
    old: &str,
    new: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    on!(db, write pool => sqlx::query(REHASH).bind(id).bind(old).bind(new).bind(now)
        .execute(pool).await.map(|_| ()))?;
    Ok(())
}

// === impl User ===

impl User {
    /// Whether a session that began at `version` still stands.
    #[must_use]
    pub fn keeps(&self, session: &str, version: i64) -> bool {
        let kept = self.kept_session.as_deref() == Some(session);
        version == self.token_version || (kept && version.checked_add(1) == Some(self.token_version))
    }
}
