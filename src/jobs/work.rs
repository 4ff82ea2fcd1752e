//! What each job does. All of it may be done twice, and stopped in the middle.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono_tz::Tz;

use super::Resident;

use crate::chatlog::Backlog;
use crate::clock::{Clock, Timestamp, Trust};
use crate::config::MessageLog;
use crate::quota::Window;
use crate::schedule::{Failed, Work};
use crate::store::runs::Fate;
use crate::store::usage::Day;
use crate::store::{self, Db};

/// Where jobs find what they work with.
pub(super) struct Workshop {
    db: Db,
    node: String,
    backlog: Backlog,
    resident: Resident,
    clock: Clock,
    zone: Tz,
    memory_threshold: u64,
    content_retention: Duration,
    metadata_retention: Duration,
}

/// What came of a job, for people.
type Outcome = Result<String, Failed>;

/// How long runs of jobs are kept.
const RUNS_KEPT: Duration = Duration::from_hours(90 * 24);
/// A node that was silent for so long will not come back; if it does, its rows are counted all the same.
const SILENT_FOR: Duration = Duration::from_hours(3 * 24);
const LAST_OF_HOUR: Duration = Duration::from_millis(60 * 60 * 1000 - 1);
/// Days summed up again each night: an answer may end, and be logged, long after the day it began on.
const SUMMED_AGAIN: i64 = 2;

// === impl Workshop ===

impl Workshop {
    pub(super) fn new(
        (db, node): (Db, String),
        (backlog, resident): (Backlog, Resident),
        clock: Clock,
        (zone, log): (Tz, &MessageLog),
    ) -> Self {
        Self {
            db,
            node,
            backlog,
            resident,
            clock,
            zone,
            memory_threshold: log.memory_threshold,
            content_retention: log.content_retention,
            metadata_retention: log.metadata_retention,
        }
    }

    /// One of the functions below, to be run whenever it is due.
    pub(super) fn work<F>(self: &Arc<Self>, function: impl Fn(Arc<Self>) -> F + Send + Sync + 'static) -> Work
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let shop = Arc::clone(self);
        Box::new(move || Box::pin(function(Arc::clone(&shop))))
    }

    /// Nothing is removed, summed up or given up by a clock that may be wrong.
    fn needs_the_clock(&self) -> Result<(), Failed> {
        match self.clock.trust() {
            Trust::Confirmed => Ok(()),
            Trust::Provisional => Err("the clock is far ahead of the last entry: waiting for a day".into()),
            Trust::Held => Err("the clock is not trusted".into()),
        }
    }

    pub(super) async fn begin_day(self: Arc<Self>) -> Outcome {
        self.needs_the_clock()?;
        let today = self.today();
        let rows = store::quota::prune(&self.db, today.day - store::quota::KEPT_DAYS).await?;
        // Yesterday goes on in zones to the west.
        store::carried::prune(&self.db, today.day - 1).await?;
        let begun = today.starts_at.to_utc().with_timezone(&self.zone);
        Ok(format!("the day of {} has begun; {rows} rows of old days are gone", begun.format("%F")))
    }

    pub(super) async fn write_log(self: Arc<Self>) -> Outcome {
        let waiting = self.backlog.rows();
        self.backlog.flush().await;
        Ok(format!("{waiting} rows were waiting"))
    }

    /// The earlier service looked at its process, whose buffer had no bound. Ours has one of its own, so what
    /// the process takes is mostly not the log's, and may stay above the threshold: then this is a write each
    /// two minutes.
    pub(super) async fn check_memory(self: Arc<Self>) -> Outcome {
        let (used, most) = (self.backlog.bytes(), self.memory_threshold);
        let resident = (self.resident)();
        let taken = resident.map_or_else(|| "an unknown number".to_owned(), |bytes| bytes.to_string());
        let told = format!("{used} of {most} bytes wait, and the process takes {taken}");
        if used.max(resident.unwrap_or(0)) <= most {
            return Ok(told);
        }
        let rows = self.backlog.rows();
        self.backlog.flush().await;
        Ok(format!("{told}; {rows} rows were waiting and are written, {} are left", self.backlog.rows()))
    }

    /// Days that are over: those never summed up, the last ones again, and those that rows came late for; but
    /// none again of which the log has forgotten rows, for its sums would shrink.
    pub(super) async fn sum_up(self: Arc<Self>) -> Outcome {
        self.needs_the_clock()?;
        self.backlog.flush().await;
        let yesterday = self.today().day - 1;
        let Some(oldest) = store::usage::oldest_row(&self.db).await? else {
            return Ok("nothing was ever logged".to_owned());
        };
        let first = Window::at(oldest, self.zone).day;
        let whole = self.day_of(self.clock.now().minus(self.metadata_retention)) + 1;
        let from = match store::usage::last_day(&self.db).await? {
            None => first,
            Some(last) => (yesterday - SUMMED_AGAIN + 1).max(whole).min(last + 1),
        };
        let hours = store::usage::late(&self.db).await?;
        // An hour may be of two days, where a zone is half an hour off.
        let both = |(hour, _): &(Timestamp, i64)| [*hour, hour.plus(LAST_OF_HOUR)];
        let late = hours.iter().flat_map(both).map(|instant| self.day_of(instant));
        let mut days: BTreeSet<i64> = late.filter(|day| (whole..=yesterday).contains(day)).collect();
        days.extend(from..=yesterday);
        let mut groups = 0;
        for day in &days {
            let Window { starts_at: since, resets_at: until, .. } = Window::of(*day, self.zone);
            groups += store::usage::sum_up(&self.db, Day { day: *day, since, until }).await?;
        }
        store::usage::settle_late(&self.db, &hours).await?;
        Ok(format!("{} days were summed up, in {groups} rows", days.len()))
    }

    /// What is forgotten has been summed up.
    pub(super) async fn clean_log(self: Arc<Self>) -> Outcome {
        Self::sum_up(Arc::clone(&self)).await?;
        let now = self.clock.now();
        let (content, rows) = (now.minus(self.content_retention), now.minus(self.metadata_retention));
        let gone = store::exchanges::forget(&self.db, content, rows, now).await?;
        Ok(format!("{gone} rows of the message log are gone"))
    }

    pub(super) async fn purge_deleted(self: Arc<Self>) -> Outcome {
        self.needs_the_clock()?;
        let now = self.clock.now();
        let gone = store::deleted::purge(&self.db, now.minus(store::deleted::KEPT_FOR), now).await?;
        Ok(format!("{gone} deleted users can be restored no longer"))
    }

    pub(super) async fn keep_house(self: Arc<Self>) -> Outcome {
        self.needs_the_clock()?;
        let now = self.clock.now();
        let runs = store::job_runs::forget(&self.db, now.minus(RUNS_KEPT)).await?;
        let keys = store::keys::forget_revoked(&self.db, now.minus(self.metadata_retention)).await?;
        let head = store::audit::chain::head(&self.db).await?;
        tracing::info!(link = %head, "the last link of the audit trail; keep it where the database is not");
        let sessions = store::sessions::sweep(&self.db, now).await?;
        Ok(format!(
            "{runs} runs of jobs, {keys} revoked keys and {sessions} ended sessions are gone; \
             the audit trail ends with {head}"
        ))
    }

    pub(super) async fn give_up_nodes(self: Arc<Self>) -> Outcome {
        self.needs_the_clock()?;
        let since = self.clock.now().minus(SILENT_FOR);
        let silent = store::runs::silent(&self.db, since, &self.node).await?;
        let (runs, mut units) = (silent.len(), 0);
        for run in silent {
            let forfeited = store::runs::close(&self.db, run.id, Fate::Forfeited).await?;
            let (run, node) = (run.id, run.node);
            tracing::warn!(%run, node, forfeited, "a node has not been heard of for three days");
            units += forfeited;
        }
        Ok(format!("{runs} runs of nodes were given up, with {units} conversations in hand"))
    }

    fn today(&self) -> Window {
        Window::at(self.clock.now(), self.zone)
    }

    fn day_of(&self, instant: Timestamp) -> i64 {
        Window::at(instant, self.zone).day
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Workshop;
    use crate::chatlog::tests::{Place, config};
    use crate::clock::Clock;
    use crate::store::tests::{NOW, exchange};

    #[tokio::test]
    async fn the_log_is_written_when_the_process_is_large_though_little_waits() {
        let place = Place::new().await;
        let run = place.run();
        let taken = Arc::new(AtomicU64::new(100 << 20));
        let reading = Arc::clone(&taken);
        let resident = Box::new(move || Some(reading.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0));
        let (db, log) = ((place.database.db.clone(), "node".to_owned()), config());
        let sources = (run.log.backlog().clone(), resident as super::Resident);
        let shop = Arc::new(Workshop::new(db, sources, Clock::manual(NOW), (chrono_tz::UTC, &log)));
        run.log.log(&exchange(NOW.0)).await.unwrap();
        let told = Arc::clone(&shop).check_memory().await.unwrap();
        assert!(told.ends_with("and the process takes 104857600"), "{told}");
        taken.store(0, Ordering::Relaxed);
        let told = Arc::clone(&shop).check_memory().await.unwrap();
        assert!(told.ends_with("and the process takes an unknown number"), "{told}");
        taken.store((100 << 20) + 1, Ordering::Relaxed);
        let told = shop.check_memory().await.unwrap();
        assert!(told.contains("takes 104857601; ") && told.ends_with("are written, 0 are left"), "{told}");
        assert_eq!((run.log.waiting(), place.rows().await.len()), (0, 1));
        run.stop().await;
    }
}
