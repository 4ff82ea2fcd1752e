//! One reserved conversation: charged or refunded, once, also when nobody says which.

use std::sync::Arc;
use std::time::Duration;

use super::account::Taken;
use super::holdings::Holdings;
use crate::clock::Timestamp;
use crate::ids::UserId;

/// A conversation taken from a user's day. Dropped before [`Reservation::dispatched`] it goes back;
/// dropped after, it is charged.
pub struct Reservation {
    holdings: Arc<Holdings>,
    user: UserId,
    taken: Taken,
    dispatched: bool,
    settled: bool,
}

/// How a reservation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Charged,
    /// It was given back.
    Refunded,
}

// === impl Reservation ===

impl Reservation {
    pub(super) fn new(holdings: Arc<Holdings>, user: UserId, taken: Taken) -> Self {
        Self { holdings, user, taken, dispatched: false, settled: false }
    }

    /// Conversations left after this one.
    pub fn left(&self) -> i64 {
        self.taken.left
    }

    /// Conversations of the day altogether.
    pub fn limit(&self) -> i64 {
        self.taken.limit
    }

    /// When the next day begins.
    pub fn resets_at(&self) -> Timestamp {
        self.taken.window.resets_at
    }

    /// How long the day is.
    pub fn day_length(&self) -> Duration {
        self.taken.window.resets_at.since(self.taken.window.starts_at)
    }

    /// The quota row this one was taken from: day and epoch.
    pub fn ledger(&self) -> (i64, i64) {
        (self.taken.window.day, self.taken.epoch)
    }

    /// From now on the upstream may be working on it.
    pub fn dispatched(&mut self) {
        self.dispatched = true;
    }

    /// Ends it. A row must tell of it: the one that is written moves what was charged. Once it was
    /// dispatched, a refund asked for is refused, and the conversation charged, when the day has had its
    /// refunds: half of its conversations, at least five.
    pub fn settle(mut self, wanted: Verdict) -> Verdict {
        self.settled = true;
        // What is charged stays with the run until its row is written.
        let goes_back =
            wanted == Verdict::Refunded && self.holdings.refund(self.user, &self.taken, self.dispatched);
        if goes_back { Verdict::Refunded } else { Verdict::Charged }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.settled && !self.dispatched {
            self.holdings.put_back(self.user, &self.taken);
        }
    }
}
