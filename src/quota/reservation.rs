//! One reserved conversation: charged or refunded, once, also when nobody says which.

use std::time::Duration;

use super::settler::Seat;
use super::window::Window;
use crate::clock::Timestamp;
use crate::ids::UserId;
use crate::store::quota::{Granted, Refund};

/// A conversation taken from a user's day. Dropped before [`Reservation::dispatched`] it goes back;
/// dropped after, it is charged.
pub struct Reservation {
    refund: Refund,
    seat: Option<Seat>,
    window: Window,
    granted: Granted,
    dispatched: bool,
}

/// How a reservation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Charged,
    /// It was given back.
    Refunded,
}

/// Refunds a day may have: failures must not become a way to try for free.
const LEAST_REFUNDS: i64 = 5;

// === impl Reservation ===

impl Reservation {
    pub(super) fn new(user: UserId, window: Window, granted: Granted, seat: Seat) -> Self {
        let refund = Refund { user, day: window.day, epoch: granted.epoch, units: 1 };
        Self { refund, seat: Some(seat), window, granted, dispatched: false }
    }

    /// Conversations left after this one.
    pub fn left(&self) -> i64 {
        (self.granted.allowance - self.granted.granted).max(0)
    }

    /// Conversations of the day altogether.
    pub fn limit(&self) -> i64 {
        self.granted.allowance
    }

    /// When the next day begins.
    pub fn resets_at(&self) -> Timestamp {
        self.window.resets_at
    }

    /// How long the day is.
    pub fn day_length(&self) -> Duration {
        self.window.resets_at.since(self.window.starts_at)
    }

    /// The quota row this one was taken from: day and epoch.
    pub fn ledger(&self) -> (i64, i64) {
        (self.refund.day, self.refund.epoch)
    }

    /// From now on the upstream may be working on it.
    pub fn dispatched(&mut self) {
        self.dispatched = true;
    }

    /// Ends it. Once it was dispatched, a refund asked for is refused, and the conversation charged,
    /// when the day has had its refunds: half of its conversations, at least five.
    pub fn settle(mut self, wanted: Verdict) -> Verdict {
        self.end(wanted)
    }

    fn end(&mut self, wanted: Verdict) -> Verdict {
        let most = (self.granted.allowance / 2).max(LEAST_REFUNDS);
        let refused = self.dispatched && self.granted.refunded >= most;
        match self.seat.take() {
            Some(seat) if wanted == Verdict::Refunded && !refused => {
                seat.refund(self.refund);
                Verdict::Refunded
            }
            _ => Verdict::Charged,
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let wanted = if self.dispatched { Verdict::Charged } else { Verdict::Refunded };
        self.end(wanted);
    }
}
