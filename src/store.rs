//! The only place that knows SQL: SQLite for one node, PostgreSQL for several, one code for both.
//!
//! Functions are named after the question they answer and take the [`Db`] first. SQL is a `const`
//! above its function, `$1` placeholders, the same text for both engines; values are always bound.
//! A write over several tables is one function that owns its transaction and appends its own
//! [`audit`] row, so that nothing changes unrecorded. Instants come from the caller.
//!
//! SQLite has one writing connection (`synchronous = FULL`: what was charged survives a power cut)
//! and a pool of read-only ones. Its write transactions begin `IMMEDIATE`, because one that turns
//! from reading to writing is refused at once when another process writes, whatever the busy timeout.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::{PgPool, Postgres, Sqlite, SqlitePool, Transaction};

/// Runs one body on whichever engine this is; the body is compiled once for each.
///
/// - `on!(db, read pool => …)` and `on!(db, write pool => …)`: `pool` is an executor of `&Db`.
/// - `on!(tx, within conn => …)`: `conn` is the connection of `&mut Tx`, for one statement.
macro_rules! on {
    ($db:expr, read $pool:ident => $body:expr) => {
        match $db {
            $crate::store::Db::Sqlite { readers: $pool, .. } => $body,
            $crate::store::Db::Postgres($pool) => $body,
        }
    };
    ($db:expr, write $pool:ident => $body:expr) => {
        match $db {
            $crate::store::Db::Sqlite { writer: $pool, .. } => $body,
            $crate::store::Db::Postgres($pool) => $body,
        }
    };
    ($tx:expr, within $conn:ident => $body:expr) => {
        match $tx {
            $crate::store::Tx::Sqlite(open) => {
                let $conn = &mut **open;
                $body
            }
            $crate::store::Tx::Postgres(open) => {
                let $conn = &mut **open;
                $body
            }
        }
    };
}

pub mod accounts;
pub mod admins;
pub mod audit;
pub mod carried;
pub mod clock_marks;
mod connections;
pub mod deleted;
pub mod exchanges;
mod integrity;
pub mod job_runs;
pub mod keys;
pub mod leases;
pub mod ledger;
pub mod mail_tokens;
mod migration_guard;
mod open;
mod postgres;
pub mod presence;
pub mod quota;
pub mod registrations;
pub mod runs;
pub mod second_factors;
pub mod secrets;
pub mod sessions;
mod slow_reads;
pub mod staff;
pub mod takeover;
mod text;
pub mod usage;
pub mod users;
pub mod webhooks;
pub mod write_probe;

#[cfg(test)]
pub(crate) mod tests;

pub use integrity::{Progress as CheckProgress, Unchecked, Watch as CheckWatch};
pub use open::{A_WHILE, Opening};
pub use slow_reads::{NoTurn, SlowRead, SlowReads};

/// The database. Clones share its connections.
#[derive(Clone, Debug)]
pub enum Db {
    /// A file of this machine.
    Sqlite {
        /// Exactly one connection, so that writers queue here and not at the file's lock.
        writer: SqlitePool,
        /// Read-only connections.
        readers: SqlitePool,
    },
    /// A server, shared by several nodes.
    Postgres(PgPool),
}

/// Why a question was not answered. What the data itself forbids (a name that is taken) is never
/// one of these, but a variant of its function's own error.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not now: no free connection in time, the server gone, the disk full. Worth trying again.
    #[error("the database cannot answer: {}", told(.0))]
    Unavailable(#[source] sqlx::Error),
    /// Not now: the server takes no connection, for this reason of its own.
    #[error("{0}")]
    NoConnection(String),
    /// Never, until somebody mends it: the file, the schema or a row is not as it was written.
    #[error("{what}: {detail}")]
    Damaged {
        /// What is damaged.
        what: &'static str,
        /// How, for the log.
        detail: String,
    },
    /// Never: what was to be written is against a rule of the schema, or not of a form it can hold.
    #[error("the database refuses what was to be written: {0}")]
    Refused(#[source] sqlx::Error),
}

/// Part of a list, and how long the list is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// At most as many rows as were asked for.
    pub rows: Vec<T>,
    /// How many there are, on all pages.
    pub total: i64,
}

/// A transaction, mostly one that writes. Dropped without [`Tx::commit`], it never happened.
pub(crate) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// A transaction that reads everything as it is at one moment.
pub(crate) struct Snapshot {
    over: Over,
    pub(crate) tx: Tx,
}

/// Lets the connection go on without a limit, once dropped.
struct Over(Arc<AtomicBool>);

/// Steps of SQLite between two looks at the clock: a few milliseconds.
const STEPS: i32 = 100_000;

// === impl StoreError ===

impl StoreError {
    /// What is left to say when the runtime that asks the database is gone.
    #[must_use]
    pub fn closed() -> Self {
        Self::Unavailable(sqlx::Error::PoolClosed)
    }
}

/// sqlx knows a pool, and the operator its settings.
fn told(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::PoolTimedOut => "no connection was free within database.acquire_timeout: all that \
             database.max_connections allows were in use, or the server took no more"
            .to_owned(),
        other => other.to_string(),
    }
}

// === impl Db ===

impl Db {
    /// Whether a question is answered at all.
    ///
    /// # Errors
    /// [`StoreError`], when it is not; where PostgreSQL takes no connection, with its own reason.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let asked = on!(self, read pool => sqlx::query("SELECT 1").execute(pool).await.map(|_| ()));
        match (self, asked) {
            (Self::Postgres(pool), Err(sqlx::Error::PoolTimedOut)) => {
                Err(postgres::why_no_connection(pool).await)
            }
            (_, asked) => Ok(asked?),
        }
    }

    /// Lets running statements end, then closes every connection. SQLite folds its log into the
    /// file, which is why the writer goes last.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }

    /// Begins to write.
    pub(crate) async fn begin(&self) -> Result<Tx, sqlx::Error> {
        Ok(match self {
            Self::Sqlite { writer, .. } => Tx::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres(pool) => Tx::Postgres(pool.begin().await?),
        })
    }

    /// Begins to read everything as it is at one moment, without keeping anybody from writing. With
    /// PostgreSQL a statement may take as long as `patience` (a second at least), whatever is usual, with SQLite
    /// all of them together twice as long; `None`: as it takes. With SQLite the log beside the file grows
    /// until it ends.
    pub(crate) async fn snapshot(&self, patience: Option<Duration>) -> Result<Snapshot, sqlx::Error> {
        let over = Over(Arc::new(AtomicBool::new(false)));
        let pool = match self {
            Self::Sqlite { readers, .. } => {
                let mut open = readers.begin().await?;
                if let Some(until) = patience.and_then(deadline) {
                    let is_over = Arc::clone(&over.0);
                    let goes_on = move || is_over.load(Ordering::Relaxed) || Instant::now() < until;
                    open.lock_handle().await?.set_progress_handler(STEPS, goes_on);
                }
                return Ok(Snapshot { over, tx: Tx::Sqlite(open) });
            }
            Self::Postgres(pool) => pool,
        };
        let mut open = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let limit = patience.map_or(0, |patience| patience.as_millis().max(1000)).to_string();
        let set = "SELECT set_config('statement_timeout', $1, true)";
        sqlx::query(set).bind(limit).execute(&mut *open).await?;
        Ok(Snapshot { over, tx: Tx::Postgres(open) })
    }
}

/// Of all statements together, where one alone may not take longer than `patience`.
fn deadline(patience: Duration) -> Option<Instant> {
    Instant::now().checked_add(patience.max(Duration::from_secs(1)).saturating_mul(2))
}

// === impl Tx ===

impl Tx {
    /// Makes everything done within it true, and durable.
    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(open) => open.commit().await,
            Self::Postgres(open) => open.commit().await,
        }
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// Ends it.
    pub(crate) async fn end(self) -> Result<(), sqlx::Error> {
        drop(self.over);
        self.tx.commit().await
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// === impl StoreError ===

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let what = match &error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => "a stored row cannot be read",
            sqlx::Error::ColumnNotFound(_) | sqlx::Error::TypeNotFound { .. } => "the schema is not ours",
            sqlx::Error::Database(cause) if is_corruption(cause.as_ref()) => "the database is corrupt",
            sqlx::Error::Database(cause) if is_refusal(cause.as_ref()) => return Self::Refused(error),
            _ => return Self::Unavailable(error),
        };
        Self::Damaged { what, detail: error.to_string() }
    }
}

/// SQLITE_CORRUPT and SQLITE_NOTADB with their extended codes; PostgreSQL's class XX00n.
fn is_corruption(error: &dyn sqlx::error::DatabaseError) -> bool {
    let code = error.code().unwrap_or_default();
    if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        return code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 11 | 26));
    }
    matches!(code.as_ref(), "XX001" | "XX002")
}

/// SQLITE_TOOBIG, SQLITE_CONSTRAINT and SQLITE_MISMATCH with their extended codes; PostgreSQL's classes
/// 22 (data exception) and 23 (integrity constraint violation), and 54000 (a limit is exceeded).
fn is_refusal(error: &dyn sqlx::error::DatabaseError) -> bool {
    let code = error.code().unwrap_or_default();
    if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        return code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 18..=20));
    }
    code.starts_with("22") || code.starts_with("23") || code == "54000"
}

/// Whether `error` says that another row has the same value in `column`. Constraint names (PostgreSQL)
/// and messages (SQLite) both carry the column's name, and neither carries the value.
fn taken(error: &sqlx::Error, column: &str) -> bool {
    error
        .as_database_error()
        .is_some_and(|cause| cause.is_unique_violation() && cause.message().contains(column))
}

/// The form in which user names and e-mail addresses are compared.
fn compared(name: &str) -> String {
    text::storable(name).to_lowercase()
}
