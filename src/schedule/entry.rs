//! One job of the schedule: when its next turn is, and whether it is being run here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono_tz::Tz;

use super::{Inner, Job, Reach, Standing};
use crate::clock::Timestamp;
use crate::store::job_runs::{self, JobRun};

/// A job, and where it stands in this process.
pub(super) struct Entry {
    pub(super) job: Job,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    /// `None` until the first tick.
    next: Option<Next>,
    pub(super) running: bool,
    /// Of a job that is this node's own.
    last: Option<JobRun>,
}

#[derive(Clone, Copy)]
struct Next {
    due_at: Timestamp,
    /// Later than it is due by chance, or because it could not be done then.
    begin_at: Timestamp,
}

/// Nodes begin within so long of each other, so that not all ask at once.
const JITTER: Duration = Duration::from_secs(10);
/// No job is due more seldom than weekly.
const LONGEST: Duration = Duration::from_hours(8 * 24);
/// When to look again after a claim could not be decided.
const AGAIN: Duration = Duration::from_secs(30);

/// What a tick means for one job.
pub(super) enum Turn {
    Wait,
    First,
    Begin(Timestamp),
}

// === impl Entry ===

impl Entry {
    pub(super) fn new(job: Job) -> Self {
        Self { job, state: Mutex::default() }
    }

    pub(super) fn turn(&self, now: Timestamp, zone: Tz) -> Turn {
        let mut state = self.state();
        // Due later than any hour of a job can be: planned by a clock that was ahead.
        let Some(next) = state.next.filter(|next| next.due_at.since(now) <= LONGEST) else {
            return Turn::First;
        };
        if state.running || now < next.begin_at {
            return Turn::Wait;
        }
        state.running = true;
        // Of several that were missed meanwhile, the last is made up for.
        Turn::Begin(self.job.when.last_until(now, zone).map_or(next.due_at, |last| last.max(next.due_at)))
    }

    /// The first tick: what was missed is due now. A node's own memory has missed nothing.
    pub(super) async fn first(&self, inner: &Inner, now: Timestamp) {
        let missed = match self.job.reach {
            Reach::Node => None,
            Reach::Fleet => self.job.when.last_until(now, inner.zone),
        };
        let next = match missed {
            None => self.after(inner, now),
            Some(due_at) => match job_runs::ended_since(&inner.db, self.job.name, (due_at, now)).await {
                Ok(true) => self.after(inner, now),
                // At once: a start is as good as chance to set nodes apart.
                Ok(false) => Next { due_at, begin_at: now },
                Err(error) => {
                    tracing::error!(%error, job = self.job.name, "the last run is not known; asking again");
                    return;
                }
            },
        };
        self.state().next = Some(next);
    }

    /// After a run, or after it was somebody else's: what is due next. What could not be settled is
    /// looked at again.
    pub(super) fn done(&self, inner: &Inner, due_at: Timestamp, settled: bool) {
        let now = inner.clock.now();
        let again = Next { due_at, begin_at: now.plus(AGAIN) };
        let next = if settled { self.after(inner, due_at) } else { again };
        let mut state = self.state();
        state.next = Some(next);
        state.running = false;
    }

    fn after(&self, inner: &Inner, instant: Timestamp) -> Next {
        let due_at = self.job.when.next_after(instant, inner.zone);
        let jitter = match self.job.reach {
            Reach::Node => Duration::ZERO,
            Reach::Fleet => JITTER.mul_f64(rand::random()),
        };
        Next { due_at, begin_at: due_at.plus(jitter) }
    }

    pub(super) fn standing(&self, inner: &Inner, runs: &mut Vec<JobRun>, now: Timestamp) -> Standing {
        let shared = runs.iter().position(|run| run.job == self.job.name).map(|at| runs.swap_remove(at));
        let state = self.state();
        let planned = state.next.map(|next| next.due_at).filter(|due_at| *due_at > now);
        Standing {
            name: self.job.name,
            about: self.job.about,
            when: self.job.when.to_string(),
            zone: inner.zone,
            reach: self.job.reach,
            last_run: state.last.clone().or(shared),
            next_run: planned.unwrap_or_else(|| self.job.when.next_after(now, inner.zone)),
        }
    }

    /// Keeps the latest run of a job that is this node's own.
    pub(super) fn remember(&self, run: JobRun) {
        self.state().last = Some(run);
    }

    /// Whether the job was free, and is the caller's now.
    pub(super) fn take(&self) -> bool {
        let mut state = self.state();
        !std::mem::replace(&mut state.running, true)
    }

    pub(super) fn release(&self) {
        self.state().running = false;
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
