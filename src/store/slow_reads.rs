//! Lists, sums and walks: reads whose cost grows with the tables.
//!
//! They run on connections of their own, a few at a time, behind a queue with a bound, so that a grant, a
//! login or a readiness check never waits behind one. A function of the store that makes such a read takes a
//! [`SlowRead`] instead of a [`Db`], and a gateway gets one only from [`SlowReads::turn`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::SqliteConnection;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::SqlitePoolOptions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Db, STEPS, StoreError};
use crate::config::{Database, DatabaseLocation};

/// The connections of slow reads, and the queue before them. Clones share both.
#[derive(Clone, Debug)]
pub struct SlowReads {
    db: Db,
    /// Places of those that run and those that wait.
    places: Arc<Semaphore>,
    /// Permits of those that run, one for each connection.
    running: Arc<Semaphore>,
    patience: Duration,
}

/// Permission to make slow reads, one after the other. Dropping it lets the next caller in.
#[derive(Debug)]
pub struct SlowRead {
    db: Db,
    _place: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

/// Why a slow read does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTurn {
    /// As many wait as may.
    #[error("the queue of slow reads is full")]
    QueueFull,
    /// Those ahead took too long.
    #[error("slow reads ahead in the queue took too long")]
    TooLate,
}

/// Most callers that wait at a time, beside those whose reads run.
const MOST_WAITING: usize = 8;
/// Longest wait in the queue.
const PATIENCE: Duration = Duration::from_secs(5);

// === impl SlowReads ===

impl SlowReads {
    /// Connections to the database that `db` is open on, made when they are needed.
    ///
    /// # Errors
    /// [`StoreError`], when `database` names no place to connect to.
    pub fn open(db: &Db, database: &Database) -> Result<Self, StoreError> {
        let connections = database.max_slow_reads.max(1);
        let own = match (db, &database.location) {
            (Db::Sqlite { writer, .. }, DatabaseLocation::Sqlite(path)) => {
                let options = super::open::sqlite_options(path).read_only(true);
                let pool = sqlite_pool(database, connections).connect_lazy_with(options);
                Db::Sqlite { writer: writer.clone(), readers: pool }
            }
            (_, DatabaseLocation::Postgres(url)) => {
                let timeout = database.slow_read_timeout;
                let pool: PgPoolOptions = super::postgres::pool_of(database, connections, timeout);
                Db::Postgres(pool.connect_lazy_with(super::postgres::options_of(url)?))
            }
            (Db::Postgres(_), DatabaseLocation::Sqlite(_)) => db.clone(),
        };
        let running = usize::try_from(connections).unwrap_or(1);
        Ok(Self {
            db: own,
            places: Arc::new(Semaphore::new(running.saturating_add(MOST_WAITING))),
            running: Arc::new(Semaphore::new(running)),
            patience: PATIENCE,
        })
    }

    /// Waits in the queue, first come, first served.
    ///
    /// # Errors
    /// [`NoTurn::QueueFull`] at once, [`NoTurn::TooLate`] after five seconds.
    pub async fn turn(&self) -> Result<SlowRead, NoTurn> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| NoTurn::QueueFull)?;
        let waited = tokio::time::timeout(self.patience, Arc::clone(&self.running).acquire_owned());
        let running = waited.await.map_err(|_| NoTurn::TooLate)?.map_err(|_| NoTurn::TooLate)?;
        Ok(SlowRead { db: self.db.clone(), _place: Some((place, running)) })
    }

    /// Closes its connections. Before [`Db::close`]: SQLite folds its log into the file with the last one.
    pub async fn close(&self) {
        match &self.db {
            Db::Sqlite { readers, .. } => readers.close().await,
            Db::Postgres(pool) => pool.close().await,
        }
    }
}

/// Each connection's statements end after `slow_read_timeout`, counted from when it was taken from the pool:
/// SQLite has no such setting of its own.
fn sqlite_pool(database: &Database, connections: u32) -> SqlitePoolOptions {
    let timeout = database.slow_read_timeout;
    super::open::sqlite_pool(database)
        .max_connections(connections)
        .after_connect(move |conn, _| Box::pin(limit(conn, timeout)))
        .before_acquire(move |conn, _| {
            Box::pin(async move {
                limit(conn, timeout).await?;
                Ok(true)
            })
        })
}

async fn limit(conn: &mut SqliteConnection, timeout: Duration) -> Result<(), sqlx::Error> {
    if let Some(until) = Instant::now().checked_add(timeout) {
        conn.lock_handle().await?.set_progress_handler(STEPS, move || Instant::now() < until);
    }
    Ok(())
}

// === impl SlowRead ===

impl SlowRead {
    /// For a command, whose connections serve nothing else.
    #[must_use]
    pub fn alone(db: &Db) -> Self {
        Self { db: db.clone(), _place: None }
    }

    pub(super) fn db(&self) -> &Db {
        &self.db
    }
}
