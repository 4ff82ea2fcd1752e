//! Looks in now and then: lets go of what nobody uses.

use std::sync::Weak;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::holdings::Holdings;

/// How often unused units are looked for.
const EVERY: Duration = Duration::from_millis(500);

/// Ends when everybody is gone, or when told.
pub(super) async fn work(holdings: Weak<Holdings>, closing: CancellationToken) {
    let mut looks = interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = closing.cancelled() => return,
            _ = looks.tick() => {}
        }
        let Some(holdings) = holdings.upgrade() else { return };
        holdings.tidy();
    }
}
