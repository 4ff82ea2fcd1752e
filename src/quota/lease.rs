//! Units of one day that this node may spend without asking anybody.

use std::time::Duration;

use chrono_tz::Tz;

use super::Window;
use crate::clock::Timestamp;
use crate::ids::UserId;
use crate::store::leases::{Granted, Held};

/// What one user has of their day here, and how the day stands as far as this node knows: exact while
/// no other node serves the user.
pub(super) struct Lease {
    pub(super) window: Window,
    zone: Tz,
    pub(super) epoch: i64,
    /// Units that nobody uses.
    free: i64,
    pub(super) allowance: i64,
    /// Units of the day that were granted to anybody.
    granted: i64,
    pub(super) reset: i64,
    /// When this was asked for.
    asked_at: Duration,
    /// When a unit was last taken, or came back.
    used_at: Duration,
    /// Until when nobody is asked again, because nobody answered.
    excused_until: Duration,
    /// Units to have in hand after the next ask.
    pub(super) pace: i64,
}

/// An instant, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// By the wall clock: which day it is.
    pub(super) now: Timestamp,
    /// By the clock that never runs backwards: how old something is.
    pub(super) elapsed: Duration,
}

/// Knowledge this young is used without asking: so soon does another node's, or a command's, change of a
/// limit take hold.
const FRESH: Duration = Duration::from_secs(5);
/// Knowledge this young is enough to refuse without asking: a refused request is cheap, and one that is
/// refused by mistake is not.
const NEW: Duration = Duration::from_secs(1);
/// Knowledge this old is used only while the database is away.
const STALE: Duration = Duration::from_mins(1);
/// Units that nobody took for so long go back, for other nodes to use.
const IDLE: Duration = Duration::from_secs(2);

// === impl Moment ===

impl Moment {
    /// Whether less than `span` has passed since. What is still to come has not: a clock moved by hand can
    /// be set back.
    fn is_within(self, span: Duration, since: Duration) -> bool {
        self.elapsed.checked_sub(since).is_some_and(|passed| passed < span)
    }
}

// === impl Lease ===

impl Lease {
    pub(super) fn new(answer: &Granted, window: Window, zone: Tz, moment: Moment) -> Self {
        Self {
            window,
            zone,
            epoch: answer.epoch,
            free: answer.units,
            allowance: answer.allowance,
            granted: answer.granted,
            reset: answer.reset,
            asked_at: moment.elapsed,
            used_at: moment.elapsed,
            excused_until: Duration::ZERO,
            // Somebody who comes back soon will come back again; whoever does not holds nothing.
            pace: 2,
        }
    }

    /// Learns how the day stands, with what was granted.
    pub(super) fn renew(&mut self, answer: &Granted, moment: Moment, most: i64) {
        self.free += answer.units;
        self.allowance = answer.allowance;
        self.granted = answer.granted;
        self.reset = answer.reset;
        self.asked_at = moment.elapsed;
        self.excused_until = Duration::ZERO;
        if answer.units > 0 {
            self.pace = (self.pace * 2).min(most);
        }
    }

    /// Nobody answered: what is here is used a little longer.
    pub(super) fn excuse(&mut self, moment: Moment) {
        if moment.is_within(STALE, self.asked_at) {
            self.excused_until = moment.elapsed + FRESH;
        }
    }

    /// Whether what it says can be relied on now.
    pub(super) fn holds(&self, zone: Tz, moment: Moment) -> bool {
        let is_fresh = moment.is_within(FRESH, self.asked_at);
        self.is_today(zone, moment) && (is_fresh || moment.elapsed < self.excused_until)
    }

    /// Whether it was asked for just now.
    pub(super) fn is_new(&self, moment: Moment) -> bool {
        moment.is_within(NEW, self.asked_at)
    }

    /// Whether its day is not over: a clock that was set back stays in the day.
    pub(super) fn is_today(&self, zone: Tz, moment: Moment) -> bool {
        moment.now < self.window.resets_at && zone == self.zone
    }

    /// Whether it should be let go.
    pub(super) fn is_idle(&self, moment: Moment) -> bool {
        moment.now >= self.window.resets_at || !moment.is_within(IDLE, self.used_at)
    }

    pub(super) fn is_of(&self, day: i64, epoch: i64) -> bool {
        (self.window.day, self.epoch) == (day, epoch)
    }

    /// Conversations left of the day, those that are free here among them.
    pub(super) fn left(&self) -> i64 {
        self.allowance.saturating_sub(self.granted).saturating_add(self.free)
    }

    /// Units that may be taken: none when the allowance has been lowered to what is used.
    pub(super) fn spendable(&self) -> i64 {
        self.free.min(self.left()).max(0)
    }

    pub(super) fn free(&self) -> i64 {
        self.free
    }

    /// Takes one unit, if one may be taken.
    pub(super) fn take(&mut self, moment: Moment) -> bool {
        let taken = self.spendable() > 0;
        if taken {
            self.free -= 1;
            self.used_at = moment.elapsed;
        }
        taken
    }

    /// Units that were taken, or on their way back, are here again.
    pub(super) fn add(&mut self, units: i64, moment: Moment) {
        self.free += units;
        self.used_at = moment.elapsed;
    }

    /// Its free units, to be given back.
    pub(super) fn into_held(self, user: UserId) -> Held {
        Held { user, day: self.window.day, epoch: self.epoch, units: self.free }
    }
}
