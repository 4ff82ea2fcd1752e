//! From the queue to SQL: batches by size, by time, by memory, and when somebody asks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Budget, Exchange, row};
use crate::ids::RunId;
use crate::store::{self, Db, StoreError};
use crate::telemetry::Metrics;

/// What the drain needs.
pub(super) struct Drain {
    pub(super) db: Db,
    pub(super) run: RunId,
    pub(super) metrics: Arc<Metrics>,
    pub(super) hurry: Arc<Notify>,
    pub(super) budget: Budget,
    pub(super) batch_size: usize,
    pub(super) linger: Duration,
    pub(super) memory_threshold: u64,
}

/// Rows live in memory until they are written, so none waits longer than this, whatever the
/// configuration allows.
pub(super) const LONGEST_LINGER: Duration = Duration::from_secs(1);
/// A database that does not answer is asked again after this long.
const RETRY: Duration = Duration::from_millis(500);

// === impl Drain ===

impl Drain {
    /// Ends when nobody can record any more and the last row is written.
    pub(super) async fn run(self, mut exchanges: mpsc::Receiver<Exchange>, written: watch::Sender<u64>) {
        let mut batch = Vec::new();
        loop {
            self.gather(&mut exchanges, &mut batch).await;
            if batch.is_empty() {
                return;
            }
            let taken = batch.len();
            let rows = self.read(&mut batch).await;
            self.append(&rows).await;
            written.send_modify(|written| *written += taken as u64);
            self.metrics.log_queue.set(i64::try_from(exchanges.len()).unwrap_or(i64::MAX));
            self.metrics.log_bytes.set(i64::try_from(self.budget.used()).unwrap_or(i64::MAX));
        }
    }

    /// Waits for a first row, then for as many as a batch holds or the time allows.
    async fn gather(&self, exchanges: &mut mpsc::Receiver<Exchange>, batch: &mut Vec<Exchange>) {
        if exchanges.recv_many(batch, self.batch_size).await == 0 {
            return;
        }
        let deadline = Instant::now() + self.linger;
        while batch.len() < self.batch_size && self.budget.used() < self.memory_threshold {
            let room = self.batch_size - batch.len();
            tokio::select! {
                biased;
                more = exchanges.recv_many(batch, room) => if more == 0 { return },
                () = self.hurry.notified() => return,
                () = sleep_until(deadline) => return,
            }
        }
    }

    /// Turns kept bytes into rows and lets go of the bytes.
    async fn read(&self, batch: &mut Vec<Exchange>) -> Vec<store::exchanges::Exchange> {
        let mut rows = Vec::with_capacity(batch.len());
        for exchange in batch.drain(..) {
            rows.push(row::of(exchange));
            tokio::task::yield_now().await;
        }
        rows
    }

    async fn append(&self, rows: &[store::exchanges::Exchange]) {
        loop {
            match store::exchanges::append(&self.db, self.run, rows).await {
                Ok(inserted) => {
                    self.metrics.log_written.inc_by(inserted);
                    return;
                }
                Err(StoreError::Unavailable(error)) => {
                    self.metrics.store_errors.inc();
                    tracing::error!(%error, waiting = rows.len(), "the message log cannot be written; trying again");
                    sleep(RETRY).await;
                }
                Err(error) => return self.append_one_by_one(rows, &error).await,
            }
        }
    }

    /// One row the database will not take must not hold up the rest.
    async fn append_one_by_one(&self, rows: &[store::exchanges::Exchange], error: &StoreError) {
        tracing::error!(%error, rows = rows.len(), "a batch was refused; writing its rows one by one");
        for row in rows {
            match store::exchanges::append(&self.db, self.run, std::slice::from_ref(row)).await {
                Ok(inserted) => drop(self.metrics.log_written.inc_by(inserted)),
                Err(error) => {
                    self.metrics.drop_from_log("poison");
                    tracing::error!(%error, id = %row.id, "a row was refused and is set aside");
                }
            }
        }
    }
}
