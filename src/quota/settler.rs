//! Carries refunds to the database, in groups, in the order they were given.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::background::Background;
use crate::store::quota::Refund;
use crate::store::{self, Db};

/// The way to the settler. Clones lead to the same one.
#[derive(Clone)]
pub(super) struct Settler {
    queue: mpsc::Sender<Refund>,
    given: watch::Sender<u64>,
    settled: watch::Receiver<u64>,
}

/// A place in the settler's queue: with it, giving back cannot fail and need not wait.
pub struct Seat {
    place: mpsc::OwnedPermit<Refund>,
    given: watch::Sender<u64>,
}

/// Most refunds in one transaction.
const GROUP: usize = 256;
/// Longest wait of a reader for the refunds under way.
const PATIENCE: Duration = Duration::from_secs(1);
/// A database that does not answer is asked again after this long.
const RETRY: Duration = Duration::from_millis(250);

// === impl Settler ===

impl Settler {
    pub(super) fn start(db: Db, background: &Background, places: usize) -> Self {
        let (queue, refunds) = mpsc::channel(places.max(1));
        let (done, settled) = watch::channel(0);
        background.spawn(settle(db, refunds, done));
        Self { queue, given: watch::Sender::new(0), settled }
    }

    pub(super) fn seat(&self) -> Option<Seat> {
        let place = self.queue.clone().try_reserve_owned().ok()?;
        Some(Seat { place, given: self.given.clone() })
    }

    pub(super) fn has_refunds_under_way(&self) -> bool {
        *self.settled.borrow() < *self.given.borrow()
    }

    /// Waits until all given until now are in the database, but not longer than the database would
    /// be waited for: while it is away nobody's balance can be read anyhow.
    pub(super) async fn settled(&self) {
        let given = *self.given.borrow();
        let mut settled = self.settled.clone();
        let _ = tokio::time::timeout(PATIENCE, settled.wait_for(|settled| *settled >= given)).await;
    }
}

// === impl Seat ===

impl Seat {
    pub(super) fn refund(self, refund: Refund) {
        self.given.send_modify(|given| *given += 1);
        self.place.send(refund);
    }
}

/// Ends when every [`Settler`] and [`Seat`] is gone and the last refund is written.
async fn settle(db: Db, mut refunds: mpsc::Receiver<Refund>, done: watch::Sender<u64>) {
    let mut group = Vec::with_capacity(GROUP);
    while refunds.recv_many(&mut group, GROUP).await > 0 {
        while let Err(error) = store::quota::refund(&db, &group).await {
            tracing::error!(%error, waiting = group.len(), "refunds cannot be written; trying again");
            tokio::time::sleep(RETRY).await;
        }
        done.send_modify(|settled| *settled += group.len() as u64);
        group.clear();
    }
}
