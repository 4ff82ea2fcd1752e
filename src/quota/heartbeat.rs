//! The heartbeat of a run: by it, a run that starts on the same node knows that this one is alive.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::current::Current;
use super::holdings::Holdings;
use crate::clock::Clock;
use crate::store::Db;
use crate::store::runs;

pub(super) struct Heartbeat {
    pub(super) db: Db,
    pub(super) current: Arc<Current>,
    pub(super) clock: Clock,
    pub(super) every: Duration,
}

/// A heartbeat that failed is tried again after this long.
const RETRY: Duration = Duration::from_secs(1);
/// How often leases that are used up are removed.
const SWEEP: Duration = Duration::from_mins(1);

// === impl Heartbeat ===

impl Heartbeat {
    /// Beats until the quota is closing, or gone.
    pub(super) async fn work(self, holdings: Weak<Holdings>, closing: CancellationToken) {
        let mut swept = tokio::time::Instant::now();
        let mut pause = self.every;
        loop {
            tokio::select! {
                biased;
                () = closing.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            if holdings.strong_count() == 0 {
                return;
            }
            let run = self.current.id();
            pause = match runs::beat(&self.db, run, self.clock.now()).await {
                Ok(true) => self.every,
                Ok(false) => {
                    self.current.refuse(run);
                    self.every
                }
                Err(error) => {
                    tracing::warn!(%error, %run, "heartbeat failed");
                    RETRY.min(self.every)
                }
            };
            if swept.elapsed() >= SWEEP {
                swept = tokio::time::Instant::now();
                if let Err(error) = runs::sweep(&self.db, run).await {
                    tracing::warn!(%error, %run, "leases that are used up were not removed");
                }
            }
        }
    }
}
