//! Hours of which rows came to the log long after they were over.

use std::collections::BTreeSet;

use crate::clock::Timestamp;
use crate::store::{Db, StoreError};

const HOUR: i64 = 60 * 60 * 1000;

const NOTE: &str = "INSERT INTO usage_late (hour, times) VALUES ($1, 1)
    ON CONFLICT (hour) DO UPDATE SET times = usage_late.times + 1";

/// The hour that an instant is in, by its first.
#[must_use]
pub fn hour(of: Timestamp) -> Timestamp {
    Timestamp(of.0 - of.0.rem_euclid(HOUR))
}

/// Notes that rows of these hours came to the log so late that their days may have been summed up without
/// them. The rows are there already.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then none is noted.
pub async fn note_late(db: &Db, hours: &BTreeSet<Timestamp>) -> Result<(), StoreError> {
    let mut tx = db.begin().await?;
    for hour in hours {
        on!(&mut tx, within conn => sqlx::query(NOTE).bind(*hour).execute(conn).await.map(|_| ()))?;
    }
    tx.commit().await?;
    Ok(())
}

const NOTED: &str = "SELECT hour, times FROM usage_late ORDER BY hour";

/// Hours of which rows came late and were not summed up since, each with how often they did.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn late(db: &Db) -> Result<Vec<(Timestamp, i64)>, StoreError> {
    Ok(on!(db, read pool => sqlx::query_as(NOTED).fetch_all(pool).await)?)
}

const SETTLE: &str = "DELETE FROM usage_late WHERE hour = $1 AND times = $2";

/// Days with these hours were summed up since they were read; what came late meanwhile stays noted.
///
/// # Errors
/// [`StoreError`], when the database does not do it all: then some days are summed up once more.
pub async fn settle_late(db: &Db, hours: &[(Timestamp, i64)]) -> Result<(), StoreError> {
    let mut tx = db.begin().await?;
    for (hour, times) in hours {
        on!(&mut tx, within conn => sqlx::query(SETTLE).bind(*hour).bind(*times).execute(conn).await.map(|_| ()))?;
    }
    tx.commit().await?;
    Ok(())
}
