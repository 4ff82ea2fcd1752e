//! A write for the sake of writing: whether conversations could be granted now.

use std::time::Duration;

use super::{Db, StoreError};
use crate::clock::Timestamp;

/// How long it waits for a lock that another session holds. Nothing that grants waits for it meanwhile.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

const PROBE_SQLITE: &str = "UPDATE write_probe SET at = $1";
// Takes the locks of tables that a grant takes, and none of its rows: there is no user 0.
const PROBE_POSTGRES: &str = "WITH
        person AS (SELECT id FROM users WHERE id = 0 FOR KEY SHARE),
        day AS (UPDATE quota SET granted = granted WHERE user_id = 0),
        lease AS (UPDATE leases SET units = units WHERE user_id = 0),
        errand AS (UPDATE errands SET name = name WHERE run_id IS NULL)
    UPDATE write_probe SET at = $1";
const WAIT: &str = "SELECT set_config('lock_timeout', $1, true)";

/// Writes one row, durably.
///
/// # Errors
/// [`StoreError`], when that cannot be done now.
pub async fn write(db: &Db, now: Timestamp) -> Result<(), StoreError> {
    match db {
        Db::Sqlite { writer, .. } => {
            sqlx::query(PROBE_SQLITE).bind(now).execute(writer).await?;
        }
        Db::Postgres(pool) => {
            let mut tx = pool.begin().await?;
            sqlx::query(WAIT).bind(LOCK_PATIENCE.as_millis().to_string()).execute(&mut *tx).await?;
            sqlx::query(PROBE_POSTGRES).bind(now).execute(&mut *tx).await?;
            tx.commit().await?;
        }
    }
    Ok(())
}
