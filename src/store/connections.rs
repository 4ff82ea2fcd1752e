//! Which connections stay in a pool: those whose transactions have certainly ended, and which write.
//!
//! A connection of which that is not certain is closed, and the pool opens another one. After an error
//! of the disk SQLite rolls a transaction back by itself, so that the driver's own ROLLBACK fails and it
//! goes on counting a transaction that is not there: every later BEGIN on that connection would fail.
//! A PostgreSQL connection whose BEGIN was cancelled is within a transaction that the driver does not
//! count: what is written on it would be lost.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Row};

/// How long a PostgreSQL server may take to end what a connection was doing when it was given back.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How long a PostgreSQL server may say nothing to who grants, or gives back. What is asked again
/// afterwards is never done twice.
pub(super) const SILENCE: Duration = Duration::from_secs(5);
/// The same for a batch of the log, which is several statements.
pub(super) const SILENCE_OF_BATCH: Duration = Duration::from_secs(20);

/// Gives `work` up after `limit`: a server that is silent, behind a connection that is never closed, would be
/// waited for without end. Its connection is then closed.
pub(super) async fn within<T, E: From<sqlx::Error>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(silent().into()),
    }
}

/// `after_release` of SQLite's pools: whether driver and database agree that no transaction is open.
pub(super) async fn is_idle(conn: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // What the driver has queued, such as a ROLLBACK, runs before this is answered.
    conn.ping().await?;
    if conn.is_in_transaction() {
        tracing::warn!("database connection replaced: a transaction did not end");
        return Ok(false);
    }
    // Fails within a transaction, and touches no file.
    sqlx::raw_sql("BEGIN; ROLLBACK").execute(conn).await?;
    Ok(true)
}

/// `after_connect` of SQLite's writer: that the file was opened for writing. SQLite opens it for reading
/// only where that fails, such as on a file system that is read-only for now.
pub(super) async fn require_writable(conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    // Another process may hold the lock; that is no reason to wait here.
    sqlx::raw_sql("PRAGMA busy_timeout = 0").execute(&mut *conn).await?;
    let tried = sqlx::raw_sql("BEGIN; PRAGMA user_version = 0").execute(&mut *conn).await;
    let undone = sqlx::raw_sql("ROLLBACK").execute(&mut *conn).await;
    let restore = format!("PRAGMA busy_timeout = {}", super::open::BUSY_TIMEOUT.as_millis());
    sqlx::raw_sql(sqlx::AssertSqlSafe(restore)).execute(&mut *conn).await?;
    match tried {
        Err(error) if is_read_only(&error) => Err(error),
        Err(_) => Ok(()),
        Ok(_) => undone.map(|_| ()),
    }
}

/// `before_acquire` of PostgreSQL's pool: whether the server takes writes, and the connection is not within
/// a transaction: there, `now()` is the time at which it began. A server that was demoted to a standby still
/// answers pings.
pub(super) async fn is_fresh(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    // A simple query: with the extended protocol a statement begins after its transaction.
    const FRESH: &str =
        "SELECT current_setting('transaction_read_only') = 'off' AND now() = statement_timestamp()";
    sqlx::raw_sql(FRESH).fetch_one(conn).await?.try_get(0)
}

/// `after_release` of PostgreSQL's pool: that the server has answered everything, in time. A connection that
/// is silent would be waited for without end, and its place in the pool with it.
pub(super) async fn has_ended(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    match tokio::time::timeout(END_PATIENCE, conn.ping()).await {
        Ok(answered) => answered.map(|()| !conn.is_in_transaction()),
        Err(_) => Err(silent()),
    }
}

fn silent() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the database says nothing"))
}

/// SQLITE_READONLY with its extended codes.
fn is_read_only(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == 8)
}
