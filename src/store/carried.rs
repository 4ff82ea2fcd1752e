//! What deleted accounts had used of a day, so that a new account of the same username or e-mail address
//! begins with it.
//!
//! Rows name accounts by keyed digests only, and are removed once their day is over.

use super::{Db, StoreError, Tx};
use crate::ids::UserId;

/// The names under which the days of an account are kept when it gives them up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// [`crate::credential::account_digest`] of each.
    pub digests: Vec<String>,
    /// The first day that may not be over: days since 1970-01-01.
    pub since: i64,
}

/// The names and the first day of a new account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// [`crate::credential::account_digest`] of its username and its e-mail address.
    pub digests: [String; 2],
    /// Today, in the zone of its plan.
    pub day: i64,
    /// Conversations a day of its plan.
    pub allowance: i64,
}

// Units that are granted count as used: what is under way must not be free for the next account.
const KEEP: &str = "INSERT INTO carried (digest, day, used)
    SELECT CAST($1 AS TEXT), q.day, q.granted FROM quota q
        JOIN users u ON u.id = q.user_id AND u.quota_epoch = q.epoch
    WHERE q.user_id = $2 AND q.day >= $3 AND q.granted > 0
    ON CONFLICT (digest, day) DO UPDATE SET used =
        CASE WHEN excluded.used > carried.used THEN excluded.used ELSE carried.used END";

/// Keeps what a user has used of the days that are not over, under each of `names`.
pub(super) async fn keep(tx: &mut Tx, user: UserId, names: &Names) -> Result<(), sqlx::Error> {
    for digest in &names.digests {
        on!(&mut *tx, within conn => sqlx::query(KEEP).bind(digest).bind(user).bind(names.since)
            .execute(conn).await.map(|_| ()))?;
    }
    Ok(())
}

// They are forfeited: granted, and never charged to this account.
const BEGIN: &str =
    "INSERT INTO quota (user_id, day, epoch, allowance, granted, charged, refunded, forfeited)
    SELECT CAST($1 AS BIGINT), CAST($2 AS BIGINT), 0, CAST($3 AS BIGINT), c.used, 0, 0, c.used
    FROM (SELECT CASE WHEN MAX(used) > $3 THEN $3 ELSE MAX(used) END AS used
        FROM carried WHERE digest IN ($4, $5) AND day >= $2) AS c
    WHERE c.used > 0";

/// Begins the first day of a new account with what was used under its names, at most the whole of it.
pub(super) async fn begin(tx: &mut Tx, user: UserId, new: &Beginning) -> Result<(), sqlx::Error> {
    let [username, email] = &new.digests;
    on!(tx, within conn => sqlx::query(BEGIN).bind(user).bind(new.day).bind(new.allowance)
        .bind(username).bind(email).execute(conn).await.map(|_| ()))
}

const CLEAR: &str = "DELETE FROM carried";

/// Forgets everything: every account has a whole day again.
pub(super) async fn clear(tx: &mut Tx) -> Result<(), sqlx::Error> {
    on!(tx, within conn => sqlx::query(CLEAR).execute(conn).await.map(|_| ()))
}

const PRUNE: &str = "DELETE FROM carried WHERE day < $1";

/// Forgets days before `day`. Answers how many rows are gone.
///
/// # Errors
/// [`StoreError`], when the database does not do it.
pub async fn prune(db: &Db, day: i64) -> Result<u64, StoreError> {
    let gone = on!(db, write pool => sqlx::query(PRUNE).bind(day).execute(pool).await
        .map(|done| done.rows_affected()))?;
    Ok(gone)
}
