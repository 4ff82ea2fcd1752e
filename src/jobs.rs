//! The clockwork: what happens by the clock and not by a request.
//!
//! Days need no job: a quota's window is computed. What is left is the log's retention.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_cron_scheduler::{Job, JobScheduler};

use crate::background::Background;
use crate::clock::Clock;
use crate::config::{Config, MessageLog};
use crate::store::{self, Db};

pub mod deliveries;

/// The jobs of a gateway, running.
pub struct Jobs {
    scheduler: JobScheduler,
    running: Arc<AtomicBool>,
    background: Background,
}

/// What each run of the retention needs.
#[derive(Clone)]
struct Retention {
    db: Db,
    clock: Clock,
    content: Duration,
    metadata: Duration,
}

/// Sundays at two: the seed's hour, in UTC.
const RETENTION: &str = "0 0 2 * * Sun";

// === impl Jobs ===

impl Jobs {
    /// Starts the jobs on `background`.
    ///
    /// # Errors
    ///
    /// When the scheduler cannot start.
    pub async fn start(
        background: &Background,
        db: Db,
        config: &Config,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let retention = Retention::new(db, clock, &config.message_log);
        let running = Arc::new(AtomicBool::new(true));
        let scheduler = background.run(async move {
            let scheduler = JobScheduler::new().await?;
            scheduler.add(retention.job()?).await?;
            scheduler.start().await?;
            anyhow::Ok(scheduler)
        });
        Ok(Self { scheduler: scheduler.await??, running, background: background.clone() })
    }

    /// Whether the clockwork runs; true until [`Jobs::stop`].
    pub fn running(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.running)
    }

    /// Stops the clockwork; a job under way comes to its end.
    pub async fn stop(&mut self) {
        self.running.store(false, Ordering::Release);
        let mut scheduler = self.scheduler.clone();
        let stopped = self.background.run(async move { scheduler.shutdown().await }).await;
        if let Ok(Err(error)) = stopped {
            tracing::warn!(%error, "the scheduler did not stop");
        }
    }
}

// === impl Retention ===

impl Retention {
    fn new(db: Db, clock: Clock, log: &MessageLog) -> Self {
        Self { db, clock, content: log.content_retention, metadata: log.metadata_retention }
    }

    fn job(self) -> anyhow::Result<Job> {
        Ok(Job::new_async(RETENTION, move |_, _| Box::pin(self.clone().run()))?)
    }

    async fn run(self) {
        let now = self.clock.now();
        let before = |age: Duration| now.minus(age);
        let done = store::exchanges::forget(&self.db, before(self.content), before(self.metadata)).await;
        match done {
            Ok(rows) => tracing::info!(rows, "old rows of the message log are gone"),
            Err(error) => tracing::error!(%error, "the message log cannot be cleaned up; next week again"),
        }
    }
}
