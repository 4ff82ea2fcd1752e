//! When: what is due by the clock, run once, and never twice at a time.
//!
//! A [`Job`] is due by its [`When`] in one zone. Whoever ticks asks nothing of the database until
//! something is due. A run of [`Reach::Fleet`] is claimed in the database, so that of several nodes
//! one runs it; what was missed while nobody ran happens at start, once, however often it was missed.
//! A run of [`Reach::Node`] concerns this process's own memory and is each node's own.

use std::sync::Arc;
use std::time::Duration;

use chrono_tz::Tz;
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::background::Background;
use crate::clock::{Clock, Timestamp};
use crate::store::job_runs::{self, Claim, Claimed, JobRun};
use crate::store::{Db, StoreError};

mod due;
mod entry;

pub use due::{NotACron, When};

use entry::{Entry, Turn};

/// Every job of a gateway, with its runs. Clones are the same schedule.
#[derive(Clone)]
pub struct Schedule(Arc<Inner>);

struct Inner {
    db: Db,
    background: Background,
    clock: Clock,
    zone: Tz,
    /// This process, as its runs name it.
    node: String,
    stopping: CancellationToken,
    entries: Vec<Entry>,
}

/// What is done, and when.
pub struct Job {
    /// By what it is called, such as `usage_statistics`.
    pub name: &'static str,
    /// What it does, for people.
    pub about: &'static str,
    /// When it is due.
    pub when: When,
    /// Whose it is.
    pub reach: Reach,
    /// Does it. What it answers is the result that people read.
    pub work: Work,
}

/// Does a job. It must be safe to do twice, and to stop at any await.
pub type Work = Box<dyn Fn() -> BoxFuture<'static, Result<String, Failed>> + Send + Sync>;

/// Why a job did not do what it should.
pub type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Whether nodes share a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One node runs it for all.
    Fleet,
    /// Each node runs its own.
    Node,
}

/// A job as it stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// When it is due: `0 1 * * *`, or `every 2m`.
    pub when: String,
    /// In which zone.
    pub zone: Tz,
    /// Whose it is.
    pub reach: Reach,
    /// Its latest run, of whichever node.
    pub last_run: Option<JobRun>,
    /// When it is due next.
    pub next_run: Timestamp,
}

/// Why a job was not run by hand.
#[derive(Debug, Error)]
pub enum NotRun {
    /// No job has this name.
    #[error("no such job")]
    Unknown,
    /// It is being run now, here or elsewhere.
    #[error("the job is running")]
    Running,
    /// The database does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How often a run says that it goes on, and after which silence it is dead.
const BEAT: Duration = Duration::from_secs(30);
const DEAD_AFTER: Duration = Duration::from_mins(3);
// === impl Schedule ===

impl Schedule {
    /// Nothing runs until [`Schedule::tick`] is called.
    #[must_use]
    pub fn new(db: Db, background: &Background, clock: Clock, zone: Tz, jobs: Vec<Job>) -> Self {
        let entries = jobs.into_iter().map(Entry::new);
        Self(Arc::new(Inner {
            db,
            background: background.clone(),
            clock,
            zone,
            node: Uuid::now_v7().simple().to_string(),
            stopping: CancellationToken::new(),
            entries: entries.collect(),
        }))
    }

    /// The zone in which jobs are due.
    #[must_use]
    pub fn zone(&self) -> Tz {
        self.0.zone
    }

    /// Begins what is due. Cheap while nothing is; to be called about once a second.
    pub async fn tick(&self) {
        if self.0.stopping.is_cancelled() {
            return;
        }
        let now = self.0.clock.now();
        for (at, entry) in self.0.entries.iter().enumerate() {
            match entry.turn(now, self.0.zone) {
                Turn::Wait => {}
                Turn::First => entry.first(&self.0, now).await,
                Turn::Begin(due_at) => drop(self.begin(at, due_at)),
            }
        }
    }

    /// Every job as it stands.
    ///
    /// # Errors
    /// [`StoreError`], when the database does not answer.
    pub async fn standing(&self) -> Result<Vec<Standing>, StoreError> {
        let mut runs = job_runs::latest(&self.0.db).await?;
        let now = self.0.clock.now();
        Ok(self.0.entries.iter().map(|entry| entry.standing(&self.0, &mut runs, now)).collect())
    }

    /// Runs a job now, besides its hours. The answer comes at its end; whoever stops waiting does not
    /// stop it.
    ///
    /// # Errors
    /// [`NotRun`]: nothing was done.
    pub async fn run_by_hand(&self, name: &str) -> Result<JobRun, NotRun> {
        let at = self.0.entries.iter().position(|entry| entry.job.name == name).ok_or(NotRun::Unknown)?;
        let this = self.clone();
        let run = self.0.background.run(async move { this.by_hand(at).await }).await;
        run.map_err(|_| NotRun::Store(StoreError::closed()))?
    }

    /// Begins nothing more; runs under way stop at their next await and are left to the next start.
    pub fn stop(&self) {
        self.0.stopping.cancel();
    }

    fn begin(&self, at: usize, due_at: Timestamp) -> JoinHandle<()> {
        let this = self.clone();
        self.0.background.spawn(async move {
            let Some(entry) = this.0.entries.get(at) else { return };
            let claimed = match entry.job.reach {
                Reach::Fleet => this.0.claim(entry.job.name, due_at, false).await,
                Reach::Node => Ok(Claimed::Ours),
            };
            let settled = match claimed {
                Ok(Claimed::Ours) => this.0.run(entry, due_at, false).await.is_some(),
                Ok(Claimed::Done) => true,
                Ok(Claimed::Running) => false,
                Err(error) => {
                    tracing::error!(%error, job = entry.job.name, "a job cannot be claimed; trying again");
                    false
                }
            };
            entry.done(&this.0, due_at, settled);
        })
    }

    async fn by_hand(&self, at: usize) -> Result<JobRun, NotRun> {
        let entry = self.0.entries.get(at).ok_or(NotRun::Unknown)?;
        let now = self.0.clock.now();
        if !entry.take() {
            return Err(NotRun::Running);
        }
        let run = async {
            let due_at = match entry.job.reach {
                Reach::Fleet => self.0.claim_by_hand(entry.job.name, now).await?,
                Reach::Node => now,
            };
            self.0.run(entry, due_at, true).await.ok_or(NotRun::Store(StoreError::closed()))
        };
        let run = run.await;
        entry.release();
        run
    }
}

// === impl Inner ===

impl Inner {
    async fn claim(&self, job: &str, due_at: Timestamp, by_hand: bool) -> Result<Claimed, StoreError> {
        let now = self.clock.now();
        let alive_since = now.minus(DEAD_AFTER);
        let claim = Claim { job, due_at, node: &self.node, by_hand, now, alive_since };
        job_runs::claim(&self.db, claim).await
    }

    /// Claims a run that is due since an admin asked; a moment later when something was due just then.
    async fn claim_by_hand(&self, job: &str, asked: Timestamp) -> Result<Timestamp, NotRun> {
        let mut due_at = asked;
        loop {
            match self.claim(job, due_at, true).await? {
                Claimed::Ours => return Ok(due_at),
                Claimed::Done => due_at = due_at.plus(Duration::from_millis(1)),
                Claimed::Running => return Err(NotRun::Running),
            }
        }
    }

    /// Runs a job that is ours, and notes what came of it. `None`: the gateway stops, and the run is
    /// given back.
    async fn run(&self, entry: &Entry, due_at: Timestamp, by_hand: bool) -> Option<JobRun> {
        let job = &entry.job;
        let started_at = self.clock.now();
        // On a task of its own, so that a panic is a failed run.
        let mut working = self.background.spawn((job.work)());
        let outcome = tokio::select! {
            outcome = &mut working => outcome.unwrap_or_else(|panic| Err(panic.into())),
            () = self.until_stopped(job, due_at) => {
                working.abort();
                self.give_back(job, due_at).await;
                return None;
            }
        };
        let ok = outcome.is_ok();
        let result = outcome.unwrap_or_else(|error| error.to_string());
        match (ok, job.reach) {
            (true, Reach::Fleet) => tracing::info!(job = job.name, result, "a job was done"),
            (true, Reach::Node) => tracing::debug!(job = job.name, result, "a job was done"),
            (false, _) => tracing::error!(job = job.name, error = result, "a job failed"),
        }
        let finished_at = self.clock.now();
        let run = JobRun {
            job: job.name.to_owned(),
            due_at,
            node: self.node.clone(),
            by_hand,
            started_at,
            beat_at: finished_at,
            finished_at: Some(finished_at),
            ok: Some(ok),
            result: Some(result),
        };
        self.note(entry, &run).await;
        Some(run)
    }

    /// Waits until the gateway stops, and says now and then that the run goes on.
    async fn until_stopped(&self, job: &Job, due_at: Timestamp) {
        while timeout(BEAT, self.stopping.cancelled()).await.is_err() {
            if job.reach == Reach::Fleet {
                let now = self.clock.now();
                if let Err(error) = job_runs::beat(&self.db, job.name, due_at, &self.node, now).await {
                    tracing::warn!(%error, job = job.name, "a run cannot say that it goes on");
                }
            }
        }
    }

    async fn note(&self, entry: &Entry, run: &JobRun) {
        if entry.job.reach == Reach::Node {
            entry.remember(run.clone());
            return;
        }
        if let Err(error) = job_runs::finish(&self.db, run).await {
            tracing::error!(%error, job = run.job, "the end of a run was not noted");
        }
    }

    async fn give_back(&self, job: &Job, due_at: Timestamp) {
        if job.reach == Reach::Node {
            return;
        }
        if let Err(error) = job_runs::release(&self.db, job.name, due_at, &self.node).await {
            tracing::warn!(%error, job = job.name, "an interrupted run was not given back");
        }
    }
}

#[cfg(test)]
mod tests;
