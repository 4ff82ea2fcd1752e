//! How much: conversations per day, and never one too many.
//!
//! The truth is one row of SQL for each user, day and epoch. A run of the gateway is granted units of
//! it, a few at a time, and spends them in memory: [`Reservation`]s take them and bring them back. Near
//! the end of a day units are granted one by one, so that small limits are exact on any number of nodes.
//! A day is computed from the clock and the allowance's zone at each request; no job resets anything,
//! so nothing can be missed or run twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono_tz::Tz;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::background::Background;
use crate::clock::{Clock, Timestamp};
use crate::ids::{RunId, UserId};
use crate::plan::Allowance;
use crate::store::quota::Used;
use crate::store::runs::{self, Fate, Run};
use crate::store::{Db, StoreError};
use crate::telemetry::Metrics;

mod account;
mod current;
mod heartbeat;
mod holdings;
mod keeper;
mod lease;
mod peek;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod rehearsal;
mod reservation;
mod standing;
mod takeover;
mod teller;
#[cfg(test)]
mod tests;
mod window;

pub use current::Renamed;
pub use reservation::{Reservation, Verdict};
pub use takeover::Watched;
pub use window::Window;

use current::Current;
use heartbeat::Heartbeat;
use holdings::{Holdings, Tried};
use teller::Teller;

/// The daily quota. Clones are the same quota. Dropped without [`Quota::close`], what it holds stays
/// granted, as after a crash.
#[derive(Clone)]
pub struct Quota {
    holdings: Arc<Holdings>,
    db: Db,
    background: Background,
    clock: Clock,
    metrics: Arc<Metrics>,
    current: Arc<Current>,
    /// Runs of this node that were not ended.
    earlier: Arc<[Run]>,
    /// Of them, those that turned out to be alive.
    spared: Arc<Mutex<Vec<RunId>>>,
    alone: bool,
    heartbeat: Duration,
    recovered: watch::Sender<bool>,
    /// Counts what the teller has done.
    rounds: watch::Receiver<u64>,
    closing: CancellationToken,
    closed: CancellationToken,
}

/// What a quota works with.
pub struct Sources {
    /// The truth.
    pub db: Db,
    /// Where it is asked.
    pub background: Background,
    /// What day it is.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who is granted units; entered already.
    pub run: Run,
    /// Runs of the same node that were not ended: [`Quota::look_at_earlier`] looks whether they are alive, and
    /// [`Quota::recover`] ends those that are not.
    pub earlier: Vec<Run>,
    /// Whether it is certain that no other process uses the database.
    pub alone: bool,
    /// How often the run says that it is alive.
    pub heartbeat: Duration,
    /// Called with the name of a new run, before it is granted anything, when another process has ended this one.
    pub renamed: Renamed,
    /// Most units in hand of one user, 1 and more.
    pub max_lease: i64,
}

/// What a user has of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Which day, since 1970-01-01: today in the allowance's zone, or a later one that the user has begun
    /// already, by a clock that was set back since, or in another zone.
    pub day: i64,
    /// Conversations left now.
    pub left: i64,
    /// Conversations of this day altogether.
    pub allowance: i64,
    /// What the next day will give.
    pub reset: i64,
    /// When the next day begins.
    pub resets_at: Timestamp,
}

/// No conversation was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QuotaError {
    /// The day's conversations are used up.
    #[error("daily limit of {limit} conversations reached")]
    UsedUp {
        /// Of the day.
        limit: i64,
        /// When the next day begins.
        resets_at: Timestamp,
        /// In whose day.
        zone: Tz,
    },
    /// There is no such user any more.
    #[error("the user is gone")]
    NoSuchUser,
    /// The database does not answer.
    #[error("the quota cannot be read")]
    StoreDown,
}

/// How long anybody waits for what an earlier run held, before being told that nothing is left.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(10);
/// How long a request waits for a unit, before it is told that nobody can tell.
const GRANT_PATIENCE: Duration = Duration::from_secs(3);
/// A database that does not answer is asked again after this long.
const RETRY: Duration = Duration::from_millis(250);

// === impl Quota ===

impl Quota {
    /// Starts granting on the background.
    #[must_use]
    pub fn start(sources: Sources) -> Self {
        let Sources { db, background, clock, metrics, run, earlier, alone, heartbeat, renamed, max_lease } =
            sources;
        let (bell, calls) = mpsc::unbounded_channel();
        let holdings = Arc::new(Holdings::new(clock.clone(), max_lease.max(1), bell));
        let current = Arc::new(Current::new(run, renamed));
        let (done, rounds) = watch::channel(0);
        let (closing, closed) = (CancellationToken::new(), CancellationToken::new());
        let teller = Teller {
            db: db.clone(),
            current: Arc::clone(&current),
            metrics: Arc::clone(&metrics),
            rounds: done,
            unclear: None,
        };
        background.keep(
            "lease worker",
            teller.work(Arc::downgrade(&holdings), calls, (closing.clone(), closed.clone())),
        );
        background.keep("return of idle leases", keeper::work(Arc::downgrade(&holdings), closing.clone()));
        let heart = Heartbeat {
            db: db.clone(),
            current: Arc::clone(&current),
            clock: clock.clone(),
            every: heartbeat,
        };
        background.keep("heartbeat", heart.work(Arc::downgrade(&holdings), closing.clone()));
        let recovered = watch::Sender::new(earlier.is_empty());
        Self {
            holdings,
            db,
            background,
            clock,
            metrics,
            current,
            earlier: earlier.into(),
            spared: Arc::default(),
            alone,
            heartbeat,
            recovered,
            rounds,
            closing,
            closed,
        }
    }

    /// The day it is now in `zone`.
    #[must_use]
    pub fn today(&self, zone: Tz) -> Window {
        Window::at(self.clock.now(), zone)
    }

    /// Reserves one conversation of today. Without I/O while units are in hand; else one question to the
    /// database serves all who ask meanwhile, in the order they came.
    ///
    /// # Errors
    ///
    /// [`QuotaError::UsedUp`] when none is left, [`QuotaError::StoreDown`] when nobody can tell.
    pub async fn reserve(&self, user: UserId, allowance: &Allowance) -> Result<Reservation, QuotaError> {
        let mut reserved = self.take(user, allowance).await;
        if matches!(reserved, Err(QuotaError::UsedUp { .. })) && self.awaits_recovery().await {
            reserved = self.take(user, allowance).await;
        }
        if reserved.is_ok() {
            self.metrics.reserved.inc();
        }
        reserved
    }

    async fn take(&self, user: UserId, allowance: &Allowance) -> Result<Reservation, QuotaError> {
        match self.holdings.take(user, allowance) {
            Tried::Taken(reservation) => Ok(reservation),
            Tried::Waiting(word) => {
                self.metrics.lease_misses.inc();
                let since = self.clock.elapsed();
                // Several questions before this one may each wait for a lock of SQLite.
                let word = tokio::time::timeout(GRANT_PATIENCE, word).await;
                let word = word.ok().and_then(Result::ok).unwrap_or(Err(QuotaError::StoreDown));
                Metrics::observe(&self.metrics.lease_wait, self.clock.elapsed().saturating_sub(since));
                word
            }
        }
    }

    /// What a user has today, exact: units that are granted and in nobody's use are left.
    ///
    /// # Errors
    ///
    /// [`QuotaError::NoSuchUser`], [`QuotaError::StoreDown`].
    pub async fn left(&self, user: UserId, allowance: &Allowance) -> Result<Left, QuotaError> {
        let found = self.left_many(&[(user, allowance.clone())]).await?;
        found.get(&user).copied().ok_or(QuotaError::NoSuchUser)
    }

    /// [`Quota::left`] for a page of users (1,000 at most); who is not there has no answer.
    ///
    /// # Errors
    ///
    /// [`QuotaError::StoreDown`].
    pub async fn left_many(
        &self,
        asked: &[(UserId, Allowance)],
    ) -> Result<HashMap<UserId, Left>, QuotaError> {
        let found = self.standings(asked).await?;
        if found.values().any(|left| left.left == 0) && self.awaits_recovery().await {
            return self.standings(asked).await;
        }
        Ok(found)
    }

    /// What a user used of each day from `day` on; days without a row used nothing.
    ///
    /// # Errors
    ///
    /// [`QuotaError::StoreDown`].
    pub async fn used_since(&self, user: UserId, day: i64) -> Result<Vec<Used>, QuotaError> {
        self.usage(user, day).await
    }

    /// To be called when a user's limit, plan or epoch was changed, and the change is committed: the next
    /// reservation is made by what holds now.
    pub fn forget(&self, user: UserId) {
        self.holdings.forget(user);
    }

    /// [`Quota::forget`] of everybody.
    pub fn forget_all(&self) {
        self.holdings.forget_all();
    }

    /// To be called once, when every row of the earlier runs of this node is in the database: what they
    /// still held goes back, or is forfeited where they may have used it (the machine was started since, or
    /// they kept their records in another folder). Tries until the database answers.
    pub async fn recover(&self) {
        let spared = self.spared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for run in self.earlier.iter().filter(|run| !spared.contains(&run.id)) {
            let fate = self.fate(run);
            while let Err(error) = self.close_run(run, fate).await {
                self.metrics.store_errors.inc();
                tracing::error!(%error, run = %run.id, "an earlier run cannot be ended; trying again");
                if matches!(error, StoreError::Damaged { .. }) || self.closing.is_cancelled() {
                    break;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
        self.holdings.forget_all();
        self.recovered.send_replace(true);
    }

    async fn close_run(&self, run: &Run, fate: Fate) -> Result<(), StoreError> {
        let (db, id) = (self.db.clone(), run.id);
        let closed = self.background.run(async move { runs::close(&db, id, fate).await }).await;
        let units = closed.map_err(|_| StoreError::closed())??;
        let counted = u64::try_from(units).unwrap_or(0);
        match fate {
            Fate::Returned => self.metrics.units_returned.inc_by(counted),
            Fate::Forfeited => self.metrics.units_forfeited.inc_by(counted),
        };
        tracing::info!(run = %id, units, ?fate, "an earlier run of this node was not ended; now it is");
        Ok(())
    }

    /// The run under which units are held now.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.current.id()
    }

    /// The node has another name from now on.
    pub fn rename_node(&self, node: &str) {
        self.current.rename_node(node);
    }

    /// Waits, if there is something to wait for; whether there was.
    async fn awaits_recovery(&self) -> bool {
        let mut recovered = self.recovered.subscribe();
        if *recovered.borrow_and_update() {
            return false;
        }
        let _ = tokio::time::timeout(RECOVERY_PATIENCE, recovered.wait_for(|done| *done)).await;
        true
    }

    /// Gives back what is free, and serves nobody any more; to be called when nobody reserves any more.
    pub async fn close(&self) {
        self.closing.cancel();
        self.closed.cancelled().await;
    }
}
