//! The trail as a feed: what changed after a number, in the order of commits. A writer holds the trail's head
//! until it commits, so no number appears after a higher one.

use super::chain;
use crate::store::{Db, StoreError};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Change {
    /// Its number.
    pub seq: i64,
    /// What was done.
    pub action: String,
    /// To whom or what.
    pub target: String,
}

/// The number of the last change.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn end(db: &Db) -> Result<i64, StoreError> {
    chain::head(db).await.map(|head| head.seq)
}

const SINCE: &str = "SELECT seq, action, target FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2";

/// Changes after `seq`, the earliest first.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn since(db: &Db, seq: i64, limit: i64) -> Result<Vec<Change>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(SINCE).bind(seq).bind(limit).fetch_all(pool).await)?)
}

// === impl Change ===

impl Change {
    /// Whether it may have changed what the user may do whom `target` names.
    #[must_use]
    pub fn is_of_a_user(&self) -> bool {
        ["user.", "key."].iter().any(|kind| self.action.starts_with(kind))
    }
}
