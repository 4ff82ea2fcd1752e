//! One user, as this node sees them: their lease, who waits for it, and what is on its way back.

use std::collections::VecDeque;

use chrono_tz::Tz;
use tokio::sync::oneshot;

use super::holdings::Peeked;
use super::lease::{Lease, Moment};
use super::{Left, QuotaError, Reservation, Window};
use crate::clock::Timestamp;
use crate::ids::UserId;
use crate::plan::Allowance;
use crate::store;
use crate::store::leases::{Ask, Granted, Held};

/// Somebody who waits for a conversation.
pub(super) type Waiter = oneshot::Sender<Result<Reservation, QuotaError>>;

/// What this node holds of one user's days. It says nothing while it is empty.
pub(super) struct Account {
    user: UserId,
    /// The terms of whoever asked last.
    terms: Allowance,
    lease: Option<Lease>,
    refunds: Option<Refunds>,
    waiters: VecDeque<Waiter>,
    /// Units to be given back.
    returns: Vec<Held>,
    /// Units being given back: whether they are still granted, nobody knows.
    flying: Vec<Held>,
    /// Whether the database is being asked: what it has granted, nobody here knows.
    asking: bool,
    /// Whether the answer under way will be too old.
    overtaken: bool,
    /// Whether an answer was lost on the way.
    in_doubt: bool,
    /// Whether the teller will come.
    called: bool,
}

/// A unit that was taken, and how the day stood then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) window: Window,
    pub(super) epoch: i64,
    pub(super) limit: i64,
    pub(super) left: i64,
    pub(super) refunded: i64,
}

/// Refunds of a day, those whose rows are still on their way included.
struct Refunds {
    day: i64,
    epoch: i64,
    resets_at: Timestamp,
    total: i64,
    /// Whether some are this node's, so that nobody else knows of them yet.
    ours: bool,
}

/// How a user's day stands, as far as it can be told from here.
pub(super) enum Standing {
    /// So.
    Known(Left),
    /// The database knows.
    Ask,
    /// Nobody knows until the teller is through.
    Moving,
}

/// Refunds a day may have: failures must not become a way to try for free.
const LEAST_REFUNDS: i64 = 5;

// === impl Account ===

impl Account {
    pub(super) fn new(user: UserId, terms: Allowance) -> Self {
        Self {
            user,
            terms,
            lease: None,
            refunds: None,
            waiters: VecDeque::new(),
            returns: Vec::new(),
            flying: Vec::new(),
            asking: false,
            overtaken: false,
            in_doubt: false,
            called: false,
        }
    }

    /// Takes a unit that is free here, unless others wait for one.
    pub(super) fn take(&mut self, terms: &Allowance, moment: Moment) -> Option<Taken> {
        self.terms = terms.clone();
        if !self.waiters.is_empty() {
            return None;
        }
        self.take_for_waiter(moment)
    }

    fn take_for_waiter(&mut self, moment: Moment) -> Option<Taken> {
        let zone = self.terms.zone;
        let lease = self.lease.as_mut().filter(|lease| lease.holds(zone, moment))?;
        if !lease.take(moment) {
            return None;
        }
        let refunds = self.refunds.as_ref().filter(|refunds| lease.is_of(refunds.day, refunds.epoch));
        Some(Taken {
            window: lease.window,
            epoch: lease.epoch,
            limit: lease.allowance,
            left: lease.left().max(0),
            refunded: refunds.map_or(0, |refunds| refunds.total),
        })
    }

    /// Whether a unit could be taken, as far as this can be told without asking.
    pub(super) fn peek(&self, terms: &Allowance, moment: Moment) -> Peeked {
        let lease = self.lease.as_ref().filter(|lease| lease.holds(terms.zone, moment));
        let lease = lease.filter(|_| self.waiters.is_empty() && self.terms.per_day == terms.per_day);
        match lease {
            Some(lease) if lease.spendable() > 0 => Peeked::Free,
            Some(lease) if lease.left() <= 0 && !self.asking && lease.is_new(moment) => {
                let (limit, resets_at) = (lease.allowance, lease.window.resets_at);
                Peeked::UsedUp(QuotaError::UsedUp { limit, resets_at, zone: terms.zone })
            }
            _ => Peeked::Unknown,
        }
    }

    pub(super) fn wait(&mut self, waiter: Waiter) {
        self.waiters.push_back(waiter);
    }

    /// Whether the teller has to be called; once until they come.
    pub(super) fn calls(&mut self) -> bool {
        let has_work = !self.waiters.is_empty() || !self.returns.is_empty();
        let calls = has_work && !self.called && !self.asking;
        self.called |= calls;
        calls
    }

    /// The longest waiting of those who still wait, with a unit, if there is both.
    pub(super) fn next_served(&mut self, moment: Moment) -> Option<(Waiter, Taken)> {
        while self.waiters.front().is_some_and(oneshot::Sender::is_closed) {
            self.waiters.pop_front();
        }
        if self.waiters.is_empty() {
            return None;
        }
        let taken = self.take_for_waiter(moment)?;
        Some((self.waiters.pop_front()?, taken))
    }

    /// What the teller has to do here: units to give back, and what to ask for.
    pub(super) fn gather(&mut self, moment: Moment, most: i64) -> (Vec<Held>, Option<Ask>) {
        self.called = false;
        self.waiters.retain(|waiter| !waiter.is_closed());
        let zone = self.terms.zone;
        // Over, or with units that nobody may take.
        if self
            .lease
            .as_ref()
            .is_some_and(|lease| !lease.is_today(zone, moment) || lease.left() < lease.free())
        {
            self.let_go();
        }
        self.flying = std::mem::take(&mut self.returns);
        let ask = (!self.waiters.is_empty()).then(|| {
            let waiting = i64::try_from(self.waiters.len()).unwrap_or(i64::MAX);
            let (in_hand, pace) = self.lease.as_ref().map_or((0, 1), |lease| (lease.spendable(), lease.pace));
            Ask {
                user: self.user,
                day: Window::at(moment.now, zone).day,
                plan_limit: self.terms.per_day,
                need: waiting.saturating_sub(in_hand).max(0),
                most: pace.min(most),
            }
        });
        (self.asking, self.overtaken) = (ask.is_some(), false);
        (self.flying.clone(), ask)
    }

    /// What was being given back is given back, or lost; or, when that failed, is here again.
    pub(super) fn landed(&mut self, given: bool) {
        let units = std::mem::take(&mut self.flying);
        if !given {
            self.returns.extend(units);
        }
    }

    /// The answer of the database.
    pub(super) fn granted(&mut self, answer: &Granted, moment: Moment, most: i64) {
        self.asking = false;
        let Granted { user_id: user, day, epoch, units, .. } = *answer;
        if self.overtaken {
            self.returns.extend((units > 0).then_some(Held { user, day, epoch, units }));
            return;
        }
        let zone = self.terms.zone;
        match &mut self.lease {
            Some(lease) if lease.is_of(day, epoch) => lease.renew(answer, moment, most),
            _ => {
                self.let_go();
                let today = Window::at(moment.now, zone);
                let window = if today.day == day { today } else { Window::of(day, zone) };
                self.lease = Some(Lease::new(answer, window, zone, moment));
            }
        }
        let Some(lease) = &mut self.lease else { return };
        let on_their_way = self.returns.extract_if(.., |one| lease.is_of(one.day, one.epoch));
        lease.add(on_their_way.map(|one| one.units).sum(), moment);
        match &mut self.refunds {
            Some(refunds) if lease.is_of(refunds.day, refunds.epoch) => {
                refunds.total = refunds.total.max(answer.refunded);
            }
            refunds => {
                let (resets_at, total) = (lease.window.resets_at, answer.refunded);
                *refunds = Some(Refunds { day, epoch, resets_at, total, ours: false });
            }
        }
    }

    /// The user is gone.
    pub(super) fn nobody(&mut self) -> Vec<Waiter> {
        self.asking = false;
        self.let_go();
        self.waiters.drain(..).collect()
    }

    /// Whether the last ask was granted, nobody knows.
    pub(super) fn doubt(&mut self) {
        self.in_doubt = true;
    }

    /// Now it is known: these units were granted.
    pub(super) fn found(&mut self, units: impl Iterator<Item = Held>) {
        self.in_doubt = false;
        self.returns.extend(units);
    }

    /// The database did not answer: what is here is used a little longer.
    pub(super) fn unanswered(&mut self, moment: Moment) {
        (self.asking, self.called) = (false, false);
        if let Some(lease) = &mut self.lease {
            lease.excuse(moment);
        }
    }

    /// Those who wait in vain, because nothing is left; with the limit and its end.
    pub(super) fn refused(&mut self, moment: Moment) -> (Vec<Waiter>, Option<QuotaError>) {
        match &self.lease {
            Some(lease) if lease.is_today(self.terms.zone, moment) && lease.left() <= 0 => {
                let (limit, resets_at) = (lease.allowance, lease.window.resets_at);
                let error = QuotaError::UsedUp { limit, resets_at, zone: self.terms.zone };
                (self.waiters.drain(..).collect(), Some(error))
            }
            _ => (Vec::new(), None),
        }
    }

    /// All who wait.
    pub(super) fn all_waiters(&mut self) -> Vec<Waiter> {
        self.waiters.drain(..).collect()
    }

    /// A unit that nobody used comes back.
    pub(super) fn put_back(&mut self, taken: &Taken, moment: Moment) {
        let (user, day, epoch) = (self.user, taken.window.day, taken.epoch);
        match &mut self.lease {
            Some(lease) if lease.is_of(day, epoch) => lease.add(1, moment),
            _ => self.returns.push(Held { user, day, epoch, units: 1 }),
        }
    }

    /// Whether a unit may come back with a row that says so: not when the day has had its refunds; what
    /// was never `dispatched` always may.
    pub(super) fn refund(&mut self, taken: &Taken, dispatched: bool) -> bool {
        let (day, epoch, resets_at) = (taken.window.day, taken.epoch, taken.window.resets_at);
        let known = self.refunds.as_ref().filter(|refunds| (refunds.day, refunds.epoch) == (day, epoch));
        let total = known.map_or(taken.refunded, |refunds| refunds.total.max(taken.refunded));
        if dispatched && total >= (taken.limit / 2).max(LEAST_REFUNDS) {
            return false;
        }
        let is_latest = self.refunds.as_ref().is_none_or(|known| (known.day, known.epoch) <= (day, epoch));
        if is_latest {
            self.refunds = Some(Refunds { day, epoch, resets_at, total: total + 1, ours: true });
        }
        true
    }

    /// Whatever is known may be otherwise now.
    pub(super) fn forget(&mut self) {
        self.overtaken = self.asking;
        self.let_go();
    }

    /// Lets go of what nobody uses.
    pub(super) fn tidy(&mut self, moment: Moment) {
        if self.lease.as_ref().is_some_and(|lease| lease.is_idle(moment)) {
            self.let_go();
        }
        let forgotten = |refunds: &Refunds| !refunds.ours || moment.now >= refunds.resets_at;
        if self.lease.is_none() && self.refunds.as_ref().is_some_and(forgotten) {
            self.refunds = None;
        }
    }

    fn let_go(&mut self) {
        let held = self.lease.take().map(|lease| lease.into_held(self.user));
        self.returns.extend(held.filter(|held| held.units > 0));
    }

    /// Everything that is to be given back, at the end.
    pub(super) fn surrender(&mut self) -> Vec<Held> {
        self.let_go();
        std::mem::take(&mut self.returns)
    }

    pub(super) fn is_empty(&self) -> bool {
        let nobody = self.waiters.is_empty() && !self.asking && !self.in_doubt && !self.called;
        let nothing = self.lease.is_none() && self.returns.is_empty() && self.flying.is_empty();
        nobody && nothing && self.refunds.is_none()
    }

    pub(super) fn is_moving(&self) -> bool {
        self.asking || self.in_doubt || !self.flying.is_empty()
    }

    #[cfg(test)]
    pub(super) fn is_settled(&self) -> bool {
        self.returns.is_empty() && !self.is_moving()
    }

    /// How the day stands. The database is asked rather than the lease, which knows of no other node;
    /// but what the lease says stays true while units move between the two.
    pub(super) fn standing(&self, zone: Tz, moment: Moment) -> Standing {
        match &self.lease {
            _ if !self.is_moving() => Standing::Ask,
            Some(lease) if lease.holds(zone, moment) => Standing::Known(Left {
                day: lease.window.day,
                left: lease.left().max(0),
                allowance: lease.allowance,
                reset: lease.reset,
                resets_at: lease.window.resets_at,
            }),
            _ => Standing::Moving,
        }
    }

    /// Granted units of a day that nobody here uses, of one epoch or of all.
    pub(super) fn unused(&self, day: i64, epoch: Option<i64>) -> i64 {
        let is_meant = |of: (i64, i64)| of.0 == day && epoch.is_none_or(|epoch| epoch == of.1);
        let on_their_way = self.returns.iter().chain(&self.flying);
        let on_their_way = on_their_way.filter(|one| is_meant((one.day, one.epoch)));
        let lease = self.lease.as_ref().filter(|lease| is_meant((lease.window.day, lease.epoch)));
        lease.map_or(0, Lease::free) + on_their_way.map(|one| one.units).sum::<i64>()
    }
}

// === impl Left ===

impl Left {
    /// From what the database says, and the units that are free here.
    pub(super) fn of(found: &store::quota::Left, unused: i64, window: Window) -> Self {
        let left = found.allowance.saturating_sub(found.granted).saturating_add(unused).max(0);
        let (allowance, reset) = (found.allowance, found.reset);
        Self { day: found.day, left, allowance, reset, resets_at: window.resets_at }
    }
}
