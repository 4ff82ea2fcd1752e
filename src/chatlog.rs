//! What was said: one row for each conversation, written behind, bounded in number and bytes.
//!
//! A request takes its [`Place`] in the queue before it is forwarded, so that its row cannot be
//! refused later. The drain turns kept bytes into messages and writes rows in batches; the same
//! transaction moves the ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Notify, mpsc, watch};

use crate::background::Background;
use crate::config;
use crate::ids::RunId;
use crate::store::{self, Db, StoreError};
use crate::telemetry::Metrics;

mod budget;
mod drain;
mod exchange;
mod row;

pub use budget::{Budget, Share};
pub use exchange::{Answer, Asked, Ending, Exchange, Waited};

/// The way to the log. Clones lead to the same one.
#[derive(Clone)]
pub struct Chatlog {
    queue: mpsc::Sender<Exchange>,
    backlog: Backlog,
    db: Db,
    run: RunId,
    background: Background,
}

/// What is on its way to the database. Unlike a [`Chatlog`] it does not keep the drain running: who
/// looks after the log may outlive those who write to it.
#[derive(Clone)]
pub struct Backlog {
    recorded: Arc<AtomicU64>,
    written: watch::Receiver<u64>,
    hurry: Arc<Notify>,
    budget: Budget,
}

/// Room for one row. With it, recording cannot fail and need not wait.
pub struct Place {
    room: mpsc::OwnedPermit<Exchange>,
    recorded: Arc<AtomicU64>,
}

/// As many rows wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the message log is full")]
pub struct LogFull;

/// Longest wait of an admin's read for the rows on their way.
const PATIENCE: Duration = Duration::from_secs(5);

// === impl Chatlog ===

impl Chatlog {
    /// Starts the drain on `background`; its rows are of `run`.
    #[must_use]
    pub fn start(
        config: &config::MessageLog,
        db: Db,
        run: RunId,
        background: &Background,
        metrics: Arc<Metrics>,
    ) -> Self {
        if config.sync == config::Sync::Strict {
            tracing::warn!(
                "message_log.sync: rows are in the database within a second, not before an answer's end"
            );
        }
        let (queue, exchanges) = mpsc::channel(config.max_queue.max(1));
        let (done, written) = watch::channel(0);
        let hurry = Arc::new(Notify::new());
        let budget = Budget::new(config.max_memory, Arc::clone(&metrics));
        let drain = drain::Drain {
            db: db.clone(),
            run,
            metrics,
            hurry: Arc::clone(&hurry),
            budget: budget.clone(),
            batch_size: config.batch_size.max(1),
            linger: config.batch_interval.min(drain::LONGEST_LINGER),
            memory_threshold: config.memory_threshold,
        };
        background.spawn(drain.run(exchanges, done));
        let backlog = Backlog { recorded: Arc::default(), written, hurry, budget };
        Self { queue, backlog, db, run, background: background.clone() }
    }

    /// Room for the row of a request that is about to be forwarded.
    ///
    /// # Errors
    ///
    /// [`LogFull`]: no row may be lost, so a request without room is refused.
    pub fn place(&self) -> Result<Place, LogFull> {
        let room = self.queue.clone().try_reserve_owned().map_err(|_| LogFull)?;
        Ok(Place { room, recorded: Arc::clone(&self.backlog.recorded) })
    }

    /// The bytes that may be kept, over all conversations.
    pub fn budget(&self) -> &Budget {
        &self.backlog.budget
    }

    /// What is on its way to the database.
    pub fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// Rows on their way to the database.
    pub fn waiting(&self) -> u64 {
        self.backlog.rows()
    }

    /// Writes rows now, not through the queue; they are in the database when this returns.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: nothing was written.
    pub async fn write(&self, rows: Vec<store::exchanges::Exchange>) -> Result<(), StoreError> {
        let (db, run) = (self.db.clone(), self.run);
        let append = async move { store::exchanges::append(&db, run, &rows).await };
        self.background.run(append).await.map_err(|_| StoreError::closed())?.map(drop)
    }

    /// See [`Backlog::flush`].
    pub async fn flush(&self) {
        self.backlog.flush().await;
    }
}

// === impl Backlog ===

impl Backlog {
    /// Rows on their way to the database.
    pub fn rows(&self) -> u64 {
        self.recorded.load(Ordering::Acquire).saturating_sub(*self.written.borrow())
    }

    /// Bytes that all conversations keep in memory.
    pub fn bytes(&self) -> u64 {
        self.budget.used()
    }

    /// Writes what waits, and returns when everything recorded until now is in the database, or
    /// after five seconds: a reader then sees what there is.
    pub async fn flush(&self) {
        let recorded = self.recorded.load(Ordering::Acquire);
        let mut written = self.written.clone();
        self.hurry.notify_one();
        let all = written.wait_for(|written| *written >= recorded);
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            tracing::warn!("rows of the message log are still on their way");
        }
    }
}

// === impl Place ===

impl Place {
    /// Hands the row over.
    pub fn record(self, exchange: Exchange) {
        self.recorded.fetch_add(1, Ordering::AcqRel);
        self.room.send(exchange);
    }
}
