//! One reserved conversation: charged or refunded, once, also when nobody says which.

use std::sync::Arc;
use std::time::Duration;

use super::account::Taken;
use super::holdings::Holdings;
use crate::clock::Timestamp;
use crate::ids::UserId;

/// A conversation taken from a user's day. Dropped before [`Reservation::dispatched`] it goes back;
/// dropped after, it is charged, unless [`Reservation::settle`] said otherwise.
pub struct Reservation {
    holdings: Arc<Holdings>,
    user: UserId,
    taken: Taken,
    stage: Stage,
}

/// How far it has come. What is charged stays with the run until its row is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Reserved,
    Dispatched,
    Settled(Verdict),
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
        Self { holdings, user, taken, stage: Stage::Reserved }
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

    /// From now on the upstream may be working on it, unless it is settled already.
    pub fn dispatched(&mut self) {
        if self.stage == Stage::Reserved {
            self.stage = Stage::Dispatched;
        }
    }

    /// Decides how it ends. A row must tell of it: the one that is written moves what was charged. Once it
    /// was dispatched, a refund asked for is refused, and the conversation charged, when the day has had
    /// its refunds: half of its conversations, at least five.
    ///
    /// The unit of a refunded one is there for others when this is dropped, which must come after its row
    /// is recorded: else a crash in between finds two conversations of one unit, and no word of a refund.
    pub fn settle(&mut self, wanted: Verdict) -> Verdict {
        if let Stage::Settled(verdict) = self.stage {
            return verdict;
        }
        let was_dispatched = self.stage == Stage::Dispatched;
        let is_granted =
            wanted == Verdict::Refunded && self.holdings.refund(self.user, &self.taken, was_dispatched);
        let verdict = if is_granted { Verdict::Refunded } else { Verdict::Charged };
        self.stage = Stage::Settled(verdict);
        verdict
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if matches!(self.stage, Stage::Reserved | Stage::Settled(Verdict::Refunded)) {
            self.holdings.put_back(self.user, &self.taken);
        }
    }
}
