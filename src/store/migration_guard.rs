//! Whether another process uses a database that is about to be migrated.
//!
//! A SQLite file is migrated only while no other process has it open: a gateway of another version would go on
//! with tables that it does not know. On a PostgreSQL server nodes of two versions may run side by side, but for
//! the steps of [`ALONE`].

use std::path::Path;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteLockingMode};
use sqlx::{Connection, SqliteConnection};

use super::StoreError;

/// What a process is waited for that has just begun to stop.
const STOPPING: Duration = Duration::from_secs(5);
/// Steps that assume that no node of the version before is running. Step 6 forfeits what looks unused.
const ALONE: [i64; 1] = [6];

const OUR_TABLE: &str =
    "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name = '_sqlx_migrations'";
/// The last step that was run.
pub(super) const LATEST_STEP: &str = "SELECT MAX(version) FROM _sqlx_migrations";

/// Refuses a file that has to be migrated to step `to` while another process has it open. The file is not
/// changed.
///
/// # Errors
/// [`StoreError::Damaged`] when another process has it; [`StoreError`] when it cannot be read.
pub(super) async fn require_file(path: &Path, to: i64) -> Result<(), StoreError> {
    let Some(from) = latest_step(path).await?.filter(|from| *from < to) else { return Ok(()) };
    // Every connection of a process shares a lock of the file, as long as it is open.
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(STOPPING);
    let mut conn =
        SqliteConnection::connect_with(&options.locking_mode(SqliteLockingMode::Exclusive)).await?;
    let locked: Result<i64, sqlx::Error> = sqlx::query_scalar(OUR_TABLE).fetch_one(&mut conn).await;
    conn.close().await?;
    match locked {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(cause)) if is_busy(cause.code().as_deref()) => Err(in_use((from, to), "")),
        Err(error) => Err(error.into()),
    }
}

/// The last step that was run on a file, which is not changed; `None` where none was, or there is no file.
///
/// # Errors
/// [`StoreError`] when it cannot be read.
pub(super) async fn latest_step(path: &Path) -> Result<Option<i64>, StoreError> {
    if !std::fs::metadata(path).is_ok_and(|file| file.len() > 0) {
        return Ok(None);
    }
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(STOPPING);
    let mut conn = SqliteConnection::connect_with(&options).await?;
    let tables: i64 = sqlx::query_scalar(OUR_TABLE).fetch_one(&mut conn).await?;
    let latest = match tables {
        0 => None,
        _ => sqlx::query_scalar(LATEST_STEP).fetch_one(&mut conn).await?,
    };
    conn.close().await?;
    Ok(latest)
}

/// `SQLITE_BUSY`, whatever the particulars.
fn is_busy(code: Option<&str>) -> bool {
    code.and_then(|code| code.parse::<i32>().ok()).is_some_and(|code| code & 0xff == 5)
}

/// One at a time, so that of several nodes that start together only the first finds what is to be done.
const TURN: &str = "SELECT pg_advisory_lock(7237417)";
const OTHERS: &str = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()
    AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND query <> $1";

/// Waits for the turn of this connection to migrate, which it keeps until it is closed.
pub(super) async fn take_turn(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(TURN).execute(conn).await.map(|_| ())
}

/// Refuses a PostgreSQL database that is to be migrated by a step of [`ALONE`] while others are connected to it.
///
/// # Errors
/// [`StoreError::Damaged`] when others are; [`StoreError`] when the server does not answer.
pub(super) async fn require_server(
    conn: &mut PgConnection,
    (from, to): (Option<i64>, i64),
) -> Result<(), StoreError> {
    let Some(from) = from else { return Ok(()) };
    if !ALONE.iter().any(|step| (from + 1..=to).contains(step)) {
        return Ok(());
    }
    let others: i64 = sqlx::query_scalar(OTHERS).bind(TURN).fetch_one(conn).await?;
    if others == 0 { Ok(()) } else { Err(in_use((from, to), &format!(" ({others} connections)"))) }
}

fn in_use((from, to): (i64, i64), how: &str) -> StoreError {
    StoreError::Damaged {
        what: "the database has to be migrated and another process uses it",
        detail: format!(
            "it goes from step {from} to step {to} only while no other gateway or command is connected{how}: \
             stop them first"
        ),
    }
}
