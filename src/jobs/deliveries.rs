//! From the queue of webhooks to the receiver: at least once, with growing pauses, until it is given up.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rand::RngExt;
use tokio_util::sync::CancellationToken;

use crate::background::Background;
use crate::clock::{Clock, Timestamp};
use crate::config::Webhooks;
use crate::notify::webhook::{TIMEOUT, Webhook};
use crate::store::webhooks::{self, Waiting};
use crate::store::{Db, StoreError};
use crate::telemetry::Metrics;

/// Where events wait, by what clock, and who counts them.
pub struct Queue {
    /// The events.
    pub db: Db,
    /// What time it is.
    pub clock: Clock,
    /// Told how many wait.
    pub metrics: Arc<Metrics>,
}

/// What a delivery needs.
struct Deliveries {
    queue: Queue,
    webhook: Webhook,
}

/// How often the queue is looked at.
const EVERY: Duration = Duration::from_millis(500);
/// Events under way at a time.
const AT_ONCE: i64 = 8;
/// For how long an event that was taken is nobody else's: longer than any attempt.
const TAKEN_FOR: Duration = TIMEOUT.saturating_mul(4);
/// The pause after each attempt in vain; after the last it is given up. Up to a tenth is added by
/// chance, so that what failed together does not come back together.
const PAUSES: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(10),
    Duration::from_mins(30),
    Duration::from_hours(1),
    Duration::from_hours(3),
    Duration::from_hours(6),
    Duration::from_hours(12),
];

/// Says which events are wanted, and delivers them on `background` until `stop`. An attempt under way
/// then comes to its end; what still waits is delivered by the next start.
///
/// # Errors
///
/// When the database does not answer, or TLS cannot be set up.
pub async fn start(
    background: &Background,
    queue: Queue,
    config: Option<&Webhooks>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let events = config.map_or_else(Vec::new, |config| config.events.clone());
    let noted = queue.db.clone();
    background.run(async move { webhooks::want(&noted, &events).await }).await??;
    let Some(config) = config else { return Ok(()) };
    let webhook = Webhook::new(config)?;
    let deliveries = Arc::new(Deliveries { queue, webhook });
    background.keep("webhook deliveries", async move { deliveries.run(stop).await });
    Ok(())
}

// === impl Deliveries ===

impl Deliveries {
    async fn run(&self, stop: CancellationToken) {
        loop {
            match self.round().await {
                Ok(0) => {}
                Ok(_) if !stop.is_cancelled() => continue,
                Ok(_) => return,
                Err(error) => tracing::error!(%error, "the webhook queue cannot be read; trying again"),
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Delivers what is due, as far as it is done at once; how many that were.
    async fn round(&self) -> Result<usize, StoreError> {
        let Queue { db, clock, metrics } = &self.queue;
        let now = clock.now();
        // Looked at first: with SQLite, taking waits for the one writer.
        let (due, waiting) = webhooks::due(db, now).await?;
        metrics.webhook_queue.set(waiting);
        if due == 0 {
            return Ok(0);
        }
        let taken = webhooks::take(db, now, now.plus(TAKEN_FOR), AT_ONCE).await?;
        let delivered = join_all(taken.iter().map(|waiting| self.deliver(waiting))).await;
        delivered.into_iter().collect::<Result<Vec<()>, _>>().map(|all| all.len())
    }

    async fn deliver(&self, waiting: &Waiting) -> Result<(), StoreError> {
        let Queue { db, clock, metrics } = &self.queue;
        let Waiting { id, event, payload, attempts } = waiting;
        let Err(error) = self.webhook.send(id, clock.now(), payload).await else {
            return webhooks::remove(db, id).await;
        };
        let Some(next) = next_attempt(*attempts, clock.now()) else {
            tracing::error!(%error, id, event, attempts, "a webhook is given up");
            metrics.webhooks_given_up.inc();
            return webhooks::remove(db, id).await;
        };
        tracing::warn!(%error, id, event, attempts, "a webhook was not delivered; it will be tried again");
        webhooks::postpone(db, id, next).await
    }
}

/// When to try again after `attempts` in vain; `None` to give up.
fn next_attempt(attempts: i64, now: Timestamp) -> Option<Timestamp> {
    let position = usize::try_from(attempts.saturating_sub(1)).ok()?;
    let pause = PAUSES.get(position)?;
    let chance = rand::rng().random_range(0.0..0.1);
    Some(now.plus(*pause + pause.mul_f64(chance)))
}

#[cfg(test)]
mod tests {
    use super::{PAUSES, next_attempt};
    use crate::clock::Timestamp;

    #[test]
    fn pauses_grow_until_it_is_given_up() {
        let mut last = 0;
        for attempt in 1..=PAUSES.len() {
            let next = next_attempt(i64::try_from(attempt).unwrap(), Timestamp(0)).unwrap().0;
            assert!(next > last, "{attempt}: {next}");
            last = next;
        }
        assert!(next_attempt(10, Timestamp(0)).is_none());
        assert!(next_attempt(0, Timestamp(0)).is_none());
    }
}
