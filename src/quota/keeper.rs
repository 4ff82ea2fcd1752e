//! Looks in now and then: lets go of what nobody uses, and says that the run is alive.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::holdings::Holdings;
use crate::clock::Clock;
use crate::store::Db;
use crate::store::runs::{self, Run};

pub(super) struct Keeper {
    pub(super) db: Db,
    pub(super) run: Arc<Run>,
    pub(super) clock: Clock,
}

/// How often unused units are looked for.
const EVERY: Duration = Duration::from_millis(500);
/// After so many looks the run says that it is alive: once a minute.
const BEAT: u32 = 120;

// === impl Keeper ===

impl Keeper {
    /// Ends when everybody is gone, or when told.
    pub(super) async fn work(self, holdings: Weak<Holdings>, closing: CancellationToken) {
        let mut looks = interval(EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = 0_u32;
        loop {
            tokio::select! {
                biased;
                () = closing.cancelled() => return,
                _ = looks.tick() => looked += 1,
            }
            let Some(holdings) = holdings.upgrade() else { return };
            holdings.tidy();
            drop(holdings);
            if looked >= BEAT {
                looked = 0;
                if let Err(error) = runs::beat(&self.db, &self.run, self.clock.now()).await {
                    tracing::warn!(%error, "the run cannot say that it is alive");
                }
            }
        }
    }
}
