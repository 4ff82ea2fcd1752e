//! From the spool to SQL: by time, by number, by bytes, and when somebody asks.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use super::Backlog;
use super::budget::Level;
use super::gather::{Batch, Gatherer};
use crate::clock::Clock;
use crate::ids::RunId;
use crate::spool::Spool;
use crate::store::{self, Db, StoreError};
use crate::telemetry::Metrics;

/// What the drain needs.
pub(super) struct Drain {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) backlog: Backlog,
    pub(super) spool: Spool,
    /// `None` only while it works, on a thread that may block.
    pub(super) gatherer: Option<Gatherer>,
    /// Longest wait of a row.
    pub(super) linger: Duration,
    /// How often files are ended, so that they can be removed.
    pub(super) seal_every: Duration,
    pub(super) recovered: watch::Sender<bool>,
    /// Closed when nobody can record any more.
    pub(super) open: mpsc::Receiver<Infallible>,
}

/// The drain goes on no longer: its work panicked, or the runtime is gone, or the database is away and
/// the gateway stops. What is in the spool stays there.
pub(super) struct Ended;

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);
/// A database that does not answer is asked again after this long.
const RETRY: Duration = Duration::from_millis(500);
/// Rows that are older have missed the nights on which their day is summed up, or may have: the last two
/// days are, each night.
const LATE: Duration = Duration::from_hours(23);
/// So often, once the gateway stops.
const LAST_TRIES: u32 = 2;

// === impl Drain ===

impl Drain {
    /// Ends when nobody can record any more and the last row is written, or cannot be.
    pub(super) async fn run(mut self, alive: oneshot::Receiver<Vec<RunId>>) {
        let alive = self.learn(alive).await;
        let spared = self.blocking(move |gatherer| gatherer.reader.spare(alive.as_deref())).await;
        if let Ok(files @ 1..) = spared {
            tracing::warn!(
                files,
                "spool files of runs that are alive, or may be, are left for the next start"
            );
        }
        let mut sealed = Instant::now();
        loop {
            // What is recorded until here is read below.
            let is_last = self.open.is_closed();
            let began = Instant::now();
            if self.pass().await.is_err() || is_last {
                break;
            }
            // Where there is no room, what is written must go at once.
            if sealed.elapsed() >= self.seal_every || !self.spool.has_room() {
                sealed = Instant::now();
                if self.seal().await.is_err() {
                    break;
                }
            }
            self.wait(began).await;
        }
        self.finish().await;
    }

    /// Which earlier runs are alive; `None`: it is not known, and the gateway stops.
    async fn learn(&mut self, mut alive: oneshot::Receiver<Vec<RunId>>) -> Option<Vec<RunId>> {
        loop {
            tokio::select! {
                biased;
                alive = &mut alive => return alive.ok(),
                _ = self.open.recv() => return None,
                () = sleep(TICK) => self.look(),
            }
        }
    }

    /// Until rows are due again, the last pass having begun then, or nobody can record any more.
    async fn wait(&mut self, began: Instant) {
        let backlog = self.backlog.clone();
        loop {
            tokio::select! {
                biased;
                _ = self.open.recv() => return,
                () = backlog.0.hurry.notified() => return,
                () = sleep(TICK.min(self.linger)) => {}
            }
            self.look();
            let is_tight = backlog.0.budget.level() >= Level::Tight && backlog.rows() > 0;
            if began.elapsed() >= self.linger || is_tight || backlog.is_due() || !self.spool.has_room() {
                return;
            }
        }
    }

    /// Writes what ended before now.
    async fn pass(&mut self) -> Result<(), Ended> {
        let pass = self.backlog.begin_pass();
        self.backlog.write_kept();
        self.write_all().await?;
        if !*self.recovered.borrow() && self.blocking(|gatherer| gatherer.has_recovered()).await? {
            self.recovered.send_replace(true);
        }
        self.backlog.end_pass(&pass);
        self.look();
        self.erase().await
    }

    pub(super) async fn write_all(&mut self) -> Result<(), Ended> {
        loop {
            let has_more = self.blocking(Gatherer::scan).await?;
            while let Some(batch) = self.blocking(Gatherer::batch).await? {
                self.write(&batch).await?;
                self.blocking(move |gatherer| gatherer.done(&batch)).await?;
            }
            if !has_more {
                return Ok(());
            }
        }
    }

    async fn write(&mut self, batch: &Batch) -> Result<(), Ended> {
        match self.append(batch, &batch.rows).await? {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::error!(%error, rows = batch.rows.len(), "a batch was refused; writing its rows one by one");
                self.write_one_by_one(batch).await
            }
        }
    }

    /// One row the database will not take must not hold up the rest.
    async fn write_one_by_one(&mut self, batch: &Batch) -> Result<(), Ended> {
        for row in &batch.rows {
            if let Err(error) = self.append(batch, std::slice::from_ref(row)).await? {
                tracing::error!(%error, id = %row.id, "a row was refused and is set aside");
                let row = row.clone();
                self.blocking(move |gatherer| gatherer.set_aside(&row)).await?;
            }
        }
        Ok(())
    }

    /// Writes rows, however long the database is away; the inner error is its refusal.
    async fn append(
        &mut self,
        batch: &Batch,
        rows: &[store::exchanges::Exchange],
    ) -> Result<Result<(), StoreError>, Ended> {
        let mut last_tries = 0;
        loop {
            match self.append_once(batch, rows).await {
                Ok(inserted) => {
                    self.metrics.log_written.inc_by(inserted);
                    return Ok(Ok(()));
                }
                Err(error @ StoreError::Refused(_)) => return Ok(Err(error)),
                Err(error) => {
                    self.metrics.store_errors.inc();
                    tracing::error!(%error, waiting = self.backlog.rows(), "the message log cannot be written; trying again");
                    last_tries += u32::from(self.open.is_closed());
                    if last_tries >= LAST_TRIES {
                        return Err(Ended);
                    }
                    self.backlog.write_kept();
                    self.look();
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Late ones are noted after they are there: who is told of them finds them. Without that note their
    /// records stay, and all of this is done again.
    async fn append_once(
        &self,
        batch: &Batch,
        rows: &[store::exchanges::Exchange],
    ) -> Result<u64, StoreError> {
        let inserted = store::exchanges::append(&self.db, batch.run, rows).await?;
        let late = self.clock.now().minus(LATE);
        let hours: BTreeSet<_> =
            rows.iter().filter(|row| row.time < late).map(|row| store::usage::hour(row.time)).collect();
        if !hours.is_empty() {
            store::usage::note_late(&self.db, &hours).await?;
        }
        Ok(inserted)
    }

    /// Ends the files, so that those go of which everything is written.
    pub(super) async fn seal(&mut self) -> Result<(), Ended> {
        self.spool.seal();
        self.blocking(Gatherer::scan).await.map(drop)
    }

    /// Lets go of the spool; what it still holds is for the next start.
    async fn finish(mut self) {
        let _ = self.seal().await;
        let lost = self.backlog.give_up_kept();
        if lost > 0 {
            tracing::error!(
                conversations = lost,
                "the disk did not take their end; the next start calls them unfinished"
            );
        }
        let waiting = self.backlog.rows();
        if waiting > 0 {
            tracing::error!(waiting, "rows stay in the spool; the next start writes them");
        }
    }

    /// Brings the gauges up to date, and tries the disk again where it refused.
    fn look(&self) {
        self.backlog.write_kept();
        let shown = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.log_queue.set(shown(self.backlog.rows()));
        self.metrics.log_oldest.set(shown(self.backlog.oldest().as_secs()));
    }

    /// Work that waits for the disk, on a thread that may.
    pub(super) async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Gatherer) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let mut gatherer = self.gatherer.take().ok_or(Ended)?;
        let worked = tokio::task::spawn_blocking(move || {
            let result = work(&mut gatherer);
            (gatherer, result)
        });
        let (gatherer, result) = worked.await.map_err(|error| {
            tracing::error!(%error, "the message log is drained no longer; restart the gateway");
            Ended
        })?;
        self.gatherer = Some(gatherer);
        Ok(result)
    }
}
