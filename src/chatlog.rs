//! What was said: one row for each conversation. It is on its way to the disk before the request goes
//! upstream and again before the client has its last byte, and in SQL some time later.
//!
//! A request takes its [`Place`] before it is forwarded. Its beginning is appended to the spool before
//! the upstream is asked, long answers in parts, its end before the answer's last byte is passed on; so
//! a killed process loses no conversation that it had an answer for. The drain puts the records of a
//! conversation together and writes rows in batches; the same transaction moves the ledger.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::background::Background;
use crate::clock::Clock;
use crate::config;
use crate::ids::RunId;
use crate::spool::{Reader, Spool};
use crate::store::Db;
use crate::store::exchanges::Exchange;
use crate::telemetry::Metrics;

mod aside;
mod backlog;
mod budget;
mod build;
mod drain;
mod erase;
mod exchange;
mod free;
mod gather;
mod handling;
mod place;
mod record;
mod row;
mod unwritten;

pub use backlog::Backlog;
pub use budget::{Budget, Level, Share};
pub use erase::StillThere;
pub use exchange::{Access, Answer, Asked, Ending, Waited};
pub use place::{LogFull, Place, Scribe, Synced};
pub use record::{Begin, End};

/// The way to the log, with a writer of its own. Clones lead to the same one.
#[derive(Clone)]
pub struct Chatlog {
    scribe: Scribe,
    recovered: watch::Receiver<bool>,
}

/// What the log is made of.
pub struct Sources {
    /// Where rows go.
    pub db: Db,
    /// Where they wait.
    pub spool: Spool,
    /// What is read of it.
    pub reader: Reader,
    /// Says which earlier runs are alive, once it is known: nothing of any earlier run is read before, and
    /// nothing of these at all.
    pub alive: oneshot::Receiver<Vec<RunId>>,
    /// Where records go that cannot become rows.
    pub poison: PathBuf,
    /// Whether somebody wants to be told of rows: then they wait a second at most.
    pub is_told: bool,
}

/// Longest wait of a row that a webhook tells of.
const TOLD_WITHIN: Duration = Duration::from_secs(1);
/// Files are not ended more often than this, however often rows are written.
const LEAST_BETWEEN_SEALS: Duration = Duration::from_secs(10);

// === impl Chatlog ===

impl Chatlog {
    /// Starts the drain on `background`. It begins with what earlier runs left.
    #[must_use]
    pub fn start(
        config: &config::MessageLog,
        sources: Sources,
        background: &Background,
        clock: &Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        let Sources { db, spool, reader, alive, poison, is_told } = sources;
        let budget = Budget::new(config.max_memory, Arc::clone(&metrics));
        let backlog = Backlog::new(config.batch_size, config.memory_threshold, budget, Arc::clone(&metrics));
        let (open, nobody_writes) = mpsc::channel(1);
        let (recovers, recovered) = watch::channel(false);
        let free = poison.with_file_name("free");
        let free = Arc::new(free::FreeBytes::open(config.max_free_per_user, free, Arc::clone(&metrics)));
        let interval = config.batch_interval;
        let drain = drain::Drain {
            db,
            clock: clock.clone(),
            metrics,
            backlog: backlog.clone(),
            spool: spool.clone(),
            gatherer: Some(gather::Gatherer::new(reader, backlog.clone(), poison)),
            linger: if is_told { interval.min(TOLD_WITHIN) } else { interval },
            seal_every: interval.max(LEAST_BETWEEN_SEALS),
            free: Arc::clone(&free),
            recovered: recovers,
            open: nobody_writes,
        };
        background.keep("message log drain", drain.run(alive));
        let writer = spool.writer();
        let strict = config.sync == config::Sync::Strict;
        let desk = Arc::new(place::Desk { backlog, spool, strict, clock: clock.clone(), free, _open: open });
        Self { scribe: Scribe { desk, writer }, recovered }
    }

    /// Somebody to write with, into a file of their own.
    #[must_use]
    pub fn scribe(&self) -> Scribe {
        Scribe { desk: Arc::clone(&self.scribe.desk), writer: self.scribe.desk.spool.writer() }
    }

    /// Done when everything that earlier runs left is in the database; `false`: the log stopped before.
    pub fn recovered(&self) -> impl Future<Output = bool> + Send + use<> {
        let mut recovered = self.recovered.clone();
        async move { recovered.wait_for(|recovered| *recovered).await.is_ok() }
    }

    /// What is on its way to the database.
    pub fn backlog(&self) -> &Backlog {
        &self.scribe.desk.backlog
    }

    /// Conversations that ended and have no row yet.
    pub fn waiting(&self) -> u64 {
        self.backlog().rows()
    }

    /// See [`Scribe::record`].
    ///
    /// # Errors
    ///
    /// [`LogFull`]: nothing was recorded.
    pub fn record(&self, row: &Exchange) -> Result<Option<Synced>, LogFull> {
        self.scribe.record(row)
    }

    /// Records a call that ends here, as the row it will be. When this returns it survives the end of
    /// this process, and in strict mode that of the machine.
    ///
    /// # Errors
    ///
    /// [`LogFull`]: nothing was recorded.
    pub async fn log(&self, row: &Exchange) -> Result<(), LogFull> {
        if let Some(synced) = self.record(row)? {
            synced.await;
        }
        Ok(())
    }

    /// Bytes of the spool on the disk.
    pub fn spool_bytes(&self) -> u64 {
        self.scribe.desk.spool.bytes()
    }

    /// Whether a conversation could be recorded now.
    pub fn has_room(&self) -> bool {
        self.scribe.has_room()
    }

    /// See [`Backlog::flush`].
    pub async fn flush(&self) {
        self.backlog().flush().await;
    }

    /// See [`Backlog::freshen`].
    pub async fn freshen(&self) {
        self.backlog().freshen().await;
    }
}

#[cfg(test)]
pub(crate) mod tests;
