//! The clockwork: what happens by the clock and not by a request.
//!
//! [`table`] is all of it: name, hour, and whether nodes share it. Hours are those of
//! `limits.time_zone`. tokio-cron-scheduler ticks each second and knows nothing else: it keeps the offset
//! that a zone had when a job was made, and lets runs overlap; [`Schedule`] does neither. It plans its ticks by
//! the machine's clock and stops when that is set back, so an interval of the monotonic clock stands in for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_cron_scheduler::{Job as Tick, JobScheduler};
use tokio_util::sync::CancellationToken;

use crate::background::Background;
use crate::chatlog::Backlog;
use crate::clock::Clock;
use crate::config::Config;
use crate::schedule::{Job, NotACron, Reach, Schedule, When};
use crate::store::Db;

mod resident;
mod work;

pub use resident::{Resident, of_this_process};

use work::Workshop;

pub mod deliveries;

/// The jobs of a gateway, running.
pub struct Jobs {
    scheduler: JobScheduler,
    schedule: Schedule,
    running: Arc<AtomicBool>,
    stopping: CancellationToken,
    background: Background,
}

/// What the jobs work with.
pub struct Sources {
    /// Where runs are claimed, and most work is done.
    pub db: Db,
    /// What is flushed. Not the log itself, which ends when nobody can write to it any more.
    pub backlog: Backlog,
    /// What time it is.
    pub clock: Clock,
    /// The data folder's name for itself.
    pub node: String,
    /// What the process takes of the machine's memory.
    pub resident: Resident,
}

/// Each second: finer than any hour below, as coarse as an interval can be.
const TICK: &str = "* * * * * *";
/// The schedule is looked at after this long without a tick.
const LONGEST_SILENCE: Duration = Duration::from_millis(1500);
const MEMORY_CHECK: Duration = Duration::from_mins(2);

/// Every job.
fn table(shop: &Arc<Workshop>, batch_interval: Duration) -> Result<Vec<Job>, NotACron> {
    let mut jobs = of_the_log(shop, batch_interval)?;
    jobs.extend(of_the_house(shop)?);
    Ok(jobs)
}

/// What has to do with days and with the log.
fn of_the_log(shop: &Arc<Workshop>, batch_interval: Duration) -> Result<Vec<Job>, NotACron> {
    use Reach::{Fleet, Node};
    let job = |name, when, reach, about, work| Job { name, about, when, reach, work };
    Ok(vec![
        job(
            "reset_of_limits",
            When::cron("0 0 * * *")?,
            Fleet,
            "Marks the day's boundary and forgets old days. Limits need no reset: the day is computed from the clock at each request",
            shop.work(Workshop::begin_day),
        ),
        job(
            "message_log_batch",
            When::every(batch_interval),
            Node,
            "Writes what waits of the message log",
            shop.work(Workshop::write_log),
        ),
        job(
            "memory_check",
            When::every(MEMORY_CHECK),
            Node,
            "Writes what waits of the message log when that, or the whole process, takes more memory than message_log.memory_threshold",
            shop.work(Workshop::check_memory),
        ),
        job(
            "usage_statistics",
            When::cron("0 1 * * *")?,
            Fleet,
            "Sums the days up that are over",
            shop.work(Workshop::sum_up),
        ),
        job(
            "log_clean_up",
            When::cron("0 2 * * SUN")?,
            Fleet,
            "Forgets rows of the message log that are older than their retention",
            shop.work(Workshop::clean_log),
        ),
    ])
}

/// What is put away at night.
fn of_the_house(shop: &Arc<Workshop>) -> Result<Vec<Job>, NotACron> {
    use Reach::Fleet;
    let job = |name, when, reach, about, work| Job { name, about, when, reach, work };
    Ok(vec![
        job(
            "deleted_users",
            When::cron("30 2 * * *")?,
            Fleet,
            "Forgets the profiles of users who were deleted more than 30 days ago",
            shop.work(Workshop::purge_deleted),
        ),
        job(
            "house_keeping",
            When::cron("0 3 * * *")?,
            Fleet,
            "Forgets old runs of jobs, revoked keys and ended sessions, and notes the last link of the audit trail in the gateway's own log",
            shop.work(Workshop::keep_house),
        ),
        job(
            "lost_nodes",
            When::cron("30 3 * * *")?,
            Fleet,
            "Gives up the conversations that nodes had in hand which have not been heard of for three days",
            shop.work(Workshop::give_up_nodes),
        ),
    ])
}

// === impl Jobs ===

impl Jobs {
    /// Starts the jobs on `background`.
    ///
    /// # Errors
    ///
    /// When an hour of a job is no pattern of cron, or the scheduler cannot start.
    pub async fn start(background: &Background, sources: Sources, config: &Config) -> anyhow::Result<Self> {
        let Sources { db, backlog, clock, node, resident } = sources;
        let zone = config.limits.time_zone;
        let log = &config.message_log;
        let shop =
            Arc::new(Workshop::new((db.clone(), node), (backlog, resident), clock.clone(), (zone, log)));
        let schedule = Schedule::new(db, background, clock, zone, table(&shop, log.batch_interval)?);
        let stopping = CancellationToken::new();
        let bell = Arc::new(Notify::new());
        background.keep("schedule", watch(schedule.clone(), Arc::clone(&bell), stopping.clone()));
        let scheduler = background.run(async move {
            let scheduler = JobScheduler::new().await?;
            let tick = Tick::new_async(TICK, move |_, _| {
                let bell = Arc::clone(&bell);
                Box::pin(async move { bell.notify_one() })
            });
            scheduler.add(tick?).await?;
            scheduler.start().await?;
            anyhow::Ok(scheduler)
        });
        let (scheduler, background) = (scheduler.await??, background.clone());
        let running = Arc::new(AtomicBool::new(true));
        Ok(Self { scheduler, schedule, running, stopping, background })
    }

    /// When jobs run, and how they ran.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Whether the clockwork runs; true until [`Jobs::stop`].
    pub fn running(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.running)
    }

    /// Stops the clockwork; a job under way is left to the next start.
    pub async fn stop(&mut self) {
        self.running.store(false, Ordering::Release);
        self.schedule.stop();
        self.stopping.cancel();
        let mut scheduler = self.scheduler.clone();
        let stopped = self.background.run(async move { scheduler.shutdown().await }).await;
        if let Ok(Err(error)) = stopped {
            tracing::warn!(%error, "stopping the scheduler failed");
        }
    }
}

/// Looks at the schedule at each tick, and where none comes.
async fn watch(schedule: Schedule, bell: Arc<Notify>, stopping: CancellationToken) {
    let ticked = || timeout(LONGEST_SILENCE, bell.notified());
    while stopping.run_until_cancelled(ticked()).await.is_some() {
        schedule.tick().await;
    }
}
