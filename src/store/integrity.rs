//! The check of a SQLite file that was not closed properly.
//!
//! `quick_check` reads the whole file: seconds for each gigabyte, or minutes on a slow disk. A start gives it a
//! limited time, in which a small file is checked as a whole; what is left is checked beside the running
//! gateway, table by table, so that no read transaction keeps the write-ahead log from being folded in for
//! long. Opening the file has read its header, its schema and the tables of every start by then.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection, SqlitePool};

use super::StoreError;

/// What of a file is not checked yet.
#[derive(Debug)]
pub struct Unchecked {
    options: SqliteConnectOptions,
    bytes: u64,
}

/// How far a check has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The table that is being read.
    pub table: &'a str,
    /// Which one it is.
    pub number: usize,
    /// Of how many.
    pub of: usize,
    /// Since the check began.
    pub elapsed: Duration,
    /// Size of the whole file.
    pub bytes: u64,
}

/// What a check needs besides the file.
pub struct Watch<'a> {
    /// Called when a table is begun, and every few seconds.
    pub told: &'a (dyn Fn(Progress<'_>) + Send + Sync),
    /// The check ends early, and answers that all is well, once this is set.
    pub stop: Arc<AtomicBool>,
}

/// Pages, or steps of SQLite's program, between two looks at the clock: far less than a second on a slow disk.
const STEPS: i32 = 100;
/// How often a table that takes long is told of.
const EVERY: Duration = Duration::from_secs(5);
// The log of conversations is mostly all of the file, so it comes last.
const TABLES: &str = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'
    ORDER BY name = 'exchanges', name IN ('audit', 'usage_daily'), name";
const CHECK_TABLE: &str = "SELECT * FROM pragma_quick_check($1)";

/// Checks the whole file for as long as `limit`; what is left of it.
///
/// # Errors
/// [`StoreError::Damaged`], with the first thing that is wrong.
pub(super) async fn within(
    limit: Duration,
    writer: &SqlitePool,
    path: &Path,
    options: SqliteConnectOptions,
) -> Result<Option<Unchecked>, StoreError> {
    let mut conn = writer.acquire().await?;
    if let Some(until) = Instant::now().checked_add(limit) {
        conn.lock_handle().await?.set_progress_handler(STEPS, move || Instant::now() < until);
    }
    let found = sqlx::query_scalar::<_, String>("PRAGMA quick_check(1)").fetch_one(&mut *conn).await;
    conn.lock_handle().await?.remove_progress_handler();
    match found {
        Ok(found) => judged(&found).map(|()| None),
        Err(error) if is_interrupt(&error) => {
            let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
            Ok(Some(Unchecked { options: options.read_only(true), bytes }))
        }
        Err(error) => Err(error.into()),
    }
}

fn judged(found: &str) -> Result<(), StoreError> {
    if found == "ok" {
        return Ok(());
    }
    Err(StoreError::Damaged { what: "the database is corrupt, restore a backup", detail: found.to_owned() })
}

fn is_interrupt(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == 9)
}

// === impl Unchecked ===

impl Unchecked {
    /// Size of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Checks every table, on a connection of its own.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], with the first thing that is wrong; [`StoreError::Unavailable`] when the file
    /// cannot be read, so that nothing is known.
    pub async fn check(self, watch: Watch<'_>) -> Result<(), StoreError> {
        let mut conn = SqliteConnection::connect_with(&self.options).await?;
        let stop = Arc::clone(&watch.stop);
        conn.lock_handle().await?.set_progress_handler(STEPS, move || !stop.load(Ordering::Relaxed));
        let begun = Instant::now();
        let tables: Vec<String> = sqlx::query_scalar(TABLES).fetch_all(&mut conn).await?;
        for (position, table) in tables.iter().enumerate() {
            if watch.stop.load(Ordering::Relaxed) {
                break;
            }
            let tell = || {
                let (number, of) = (position + 1, tables.len());
                (watch.told)(Progress { table, number, of, elapsed: begun.elapsed(), bytes: self.bytes });
            };
            tell();
            let checked = sqlx::query_scalar::<_, String>(CHECK_TABLE).bind(table).fetch_one(&mut conn);
            let mut checked = std::pin::pin!(checked);
            let found = loop {
                tokio::select! {
                    found = &mut checked => break found,
                    () = tokio::time::sleep(EVERY) => tell(),
                }
            };
            match found {
                Ok(found) => judged(&found)?,
                Err(error) if is_interrupt(&error) && watch.stop.load(Ordering::Relaxed) => break,
                Err(error) => return Err(error.into()),
            }
        }
        conn.close().await?;
        Ok(())
    }
}
