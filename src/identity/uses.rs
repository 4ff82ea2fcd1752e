//! When keys were last used: noted in passing, written behind, at most once a minute for each key.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::background::Background;
use crate::clock::Timestamp;
use crate::ids::KeyId;
use crate::store::{Db, keys};

/// The way to the writer, which ends when the last of these is gone.
pub(super) struct Uses(mpsc::Sender<(KeyId, Timestamp)>);

/// The latest use of a key that was told, in milliseconds since the epoch.
pub(super) struct LastUse(AtomicI64);

/// A use that is this much later is told again.
const APART: Duration = Duration::from_mins(1);
/// How long uses are gathered, and how many at most.
const LINGER: Duration = Duration::from_secs(1);
const BATCH: usize = 500;
/// Uses on their way; beyond, one is missed and the next use tells.
const ROOM: usize = 4096;

// === impl Uses ===

impl Uses {
    pub(super) fn start(db: Db, background: &Background) -> Self {
        let (uses, told) = mpsc::channel(ROOM);
        background.spawn(write(db, told));
        Self(uses)
    }

    /// Costs a comparison, and once a minute a place in a queue.
    pub(super) fn note(&self, key: KeyId, last: &LastUse, now: Timestamp) {
        if last.is_due(now) && self.0.try_send((key, now)).is_ok() {
            last.0.store(now.0, Ordering::Relaxed);
        }
    }
}

// === impl LastUse ===

impl LastUse {
    pub(super) fn new(noted: Option<Timestamp>) -> Self {
        Self(AtomicI64::new(noted.map_or(i64::MIN, |at| at.0)))
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let last = Timestamp(self.0.load(Ordering::Relaxed));
        last.0 == i64::MIN || now.since(last) >= APART
    }
}

/// Nothing hangs on a use that cannot be written: the next one tells.
async fn write(db: Db, mut told: mpsc::Receiver<(KeyId, Timestamp)>) {
    let mut batch = Vec::new();
    loop {
        if told.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        let deadline = Instant::now() + LINGER;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            tokio::select! {
                biased;
                more = told.recv_many(&mut batch, room) => if more == 0 { break },
                () = sleep_until(deadline) => break,
            }
        }
        // In order, so the latest of a key wins.
        let latest: BTreeMap<KeyId, Timestamp> = batch.drain(..).collect();
        let latest: Vec<_> = latest.into_iter().collect();
        if let Err(error) = keys::touch(&db, &latest).await {
            tracing::warn!(%error, keys = latest.len(), "when keys were used is not noted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LastUse;
    use crate::clock::Timestamp;

    #[test]
    fn a_use_is_told_once_a_minute() {
        assert!(LastUse::new(None).is_due(Timestamp(0)));
        let noted = LastUse::new(Some(Timestamp(1_000)));
        assert!(!noted.is_due(Timestamp(60_999)));
        assert!(noted.is_due(Timestamp(61_000)));
        assert!(!noted.is_due(Timestamp(0)), "a clock that was set back");
    }
}
