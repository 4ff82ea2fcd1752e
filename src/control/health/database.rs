//! Whether the database takes writes.
//!
//! What the gateway writes anyhow tells it, so that a busy one needs no probe. Without such news, and
//! after every error, one row is written to find out.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::store::{Db, write_probe};
use crate::telemetry::Metrics;

/// What is known of the database.
#[derive(Default)]
pub(super) struct Writes {
    latest: Option<Look>,
}

/// One look.
#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    /// When the latest write that is known of succeeded, or the probe failed.
    known: Instant,
    news: News,
    sound: bool,
}

/// What the gateway's own writes have come to.
#[derive(Clone, Copy, PartialEq, Eq)]
struct News {
    written: u64,
    errors: u64,
}

/// Longest wait for a probe.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a write that succeeded is believed.
const BELIEVED: Duration = Duration::from_secs(5);
/// Looks that are no further apart see an error that is as recent.
const RECENT: Duration = Duration::from_secs(3);

// === impl Writes ===

impl Writes {
    /// Looks again.
    pub(super) async fn look(&mut self, db: &Db, metrics: &Metrics, now: Timestamp) -> bool {
        let news = News::of(metrics);
        let latest = match self.latest.map(|before| before.judge(news, Instant::now())) {
            Some(Judgement::Known(look)) => look,
            judged => {
                let probed = tokio::time::timeout(PATIENCE, write_probe::write(db, now)).await;
                // A probe touches no balance: where granting itself fails, that is the truth.
                let failing = matches!(judged, Some(Judgement::Failing));
                let at = Instant::now();
                Look { at, known: at, news, sound: matches!(probed, Ok(Ok(()))) && !failing }
            }
        };
        self.latest = Some(latest);
        latest.sound
    }
}

/// What news alone tell.
enum Judgement {
    /// The next look.
    Known(Look),
    /// Nothing for certain.
    Unknown,
    /// Something failed just now, and nothing has succeeded since.
    Failing,
}

// === impl Look ===

impl Look {
    fn judge(self, news: News, at: Instant) -> Judgement {
        let (wrote, failed) = (news.written != self.news.written, news.errors != self.news.errors);
        let is_recent = at.duration_since(self.at) <= RECENT;
        match (wrote, failed) {
            (false, true) if is_recent => Judgement::Failing,
            (_, true) => Judgement::Unknown,
            _ if !self.sound => Judgement::Unknown,
            (true, false) => Judgement::Known(Self { at, known: at, news, sound: true }),
            (false, false) if at.duration_since(self.known) < BELIEVED => {
                Judgement::Known(Self { at, ..self })
            }
            (false, false) => Judgement::Unknown,
        }
    }
}

// === impl News ===

impl News {
    fn of(metrics: &Metrics) -> Self {
        let granted = metrics.units_granted.get().wrapping_add(metrics.units_returned.get());
        Self { written: granted.wrapping_add(metrics.log_written.get()), errors: metrics.store_errors.get() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a look after `seconds` probes, and what it says if it need not.
    fn judged(sound: bool, (written, errors): (u64, u64), seconds: u64) -> Judgement {
        let at = Instant::now();
        let look = Look { at, known: at, news: News { written: 7, errors: 3 }, sound };
        look.judge(News { written: 7 + written, errors: 3 + errors }, at + Duration::from_secs(seconds))
    }

    #[test]
    fn a_busy_gateway_is_not_probed_and_an_idle_one_rarely() {
        for (written, seconds) in [(0, 1), (0, 4), (1, 1), (1, 60)] {
            assert!(matches!(judged(true, (written, 0), seconds), Judgement::Known(look) if look.sound));
        }
        assert!(matches!(judged(true, (0, 0), 5), Judgement::Unknown));
    }

    #[test]
    fn after_an_error_and_while_it_is_bad_only_a_probe_brings_good_news() {
        assert!(matches!(judged(true, (0, 1), 1), Judgement::Failing));
        assert!(matches!(judged(true, (0, 1), 60), Judgement::Unknown));
        assert!(matches!(judged(true, (9, 1), 1), Judgement::Unknown));
        assert!(matches!(judged(false, (0, 0), 1), Judgement::Unknown));
        assert!(matches!(judged(false, (9, 0), 1), Judgement::Unknown));
    }
}
