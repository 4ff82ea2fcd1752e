//! What must hold after each event.

use tollgate::quota::rehearsal::Told;
use tollgate::quota::{Reservation, Verdict};

use super::book::{End, Entry, Ledger, USER};
use super::{Stage, Story, Talk};

// === impl Story ===

impl Story {
    /// Conversations that a node may give: what is left, but for what others have in hand.
    pub(super) fn available(&self, node: usize) -> i64 {
        let ledger = self.ledger();
        let day = self.model.day_of(ledger);
        let others = (0..self.nodes.len()).filter(|other| *other != node);
        let others =
            others.map(|other| self.book.lease(self.nodes[other].run, ledger) - self.busy(other, ledger));
        let dead = self.dead.iter().map(|dead| {
            let rows = dead.rows.iter().filter(|row| counts(row, ledger));
            let untold = dead.untold.get(&ledger).copied().unwrap_or(0);
            self.book.lease(dead.run, ledger) - rows.count() as i64 - untold
        });
        day.allowance - day.used - others.sum::<i64>() - dead.sum::<i64>()
    }

    /// Units of a node that conversations have, or had without a row that is written.
    fn busy(&self, node: usize, ledger: Ledger) -> i64 {
        let talks = self
            .talks
            .iter()
            .filter(|talk| {
                talk.node == node && talk.ledger == ledger && talk.settled != Some(Verdict::Charged)
            })
            .count();
        let rows = self.nodes[node].rows.iter().filter(|row| counts(row, ledger));
        (talks + rows.filter(|row| !self.book.is_written(row)).count()) as i64
    }

    pub(super) fn is_informed(&self, node: usize) -> bool {
        self.nodes[node].is_informed(self.clock.elapsed())
    }

    pub(super) fn admitted(&mut self, node: usize, reservation: Reservation) {
        let ledger = reservation.ledger();
        let day = self.model.day_of(ledger);
        assert!(day.used < day.ceiling, "one too many: {day:?}");
        if self.is_informed(node) && !self.silent {
            assert_eq!(ledger, self.ledger(), "a conversation of another day");
            let available = self.available(node);
            assert!(available > 0, "one too many, with {available} left");
            assert!(reservation.left() >= 0 && reservation.limit() == day.allowance);
            if self.nodes.len() == 1 && self.dead.is_empty() {
                assert_eq!(reservation.left(), available - 1, "left after this one");
            }
        }
        self.model.day(ledger).used += 1;
        self.talks.push(Talk { node, reservation, ledger, dispatched: false, settled: None });
    }

    /// A refund was asked for.
    pub(super) fn asked_back(&mut self, talk: &Talk, verdict: Verdict) {
        let is_counted =
            self.nodes.len() == 1 && self.runs == 1 && !self.turned && talk.ledger == self.ledger();
        let day = self.model.day(talk.ledger);
        let cap = (talk.reservation.limit() / 2).max(5);
        if verdict == Verdict::Charged {
            assert!(talk.dispatched && day.refunds >= cap, "refused a refund after {}", day.refunds);
            return;
        }
        assert!(day.refunds < cap || !talk.dispatched || !is_counted, "{} refunds", day.refunds);
        day.refunds += 1;
    }

    pub(super) fn check(&self) {
        self.book.check();
        assert!(self.book.rows.keys().eq(self.model.days.keys()), "other days have begun");
        for (ledger, row) in &self.book.rows {
            let day = self.model.day_of(*ledger);
            assert_eq!(row.allowance, day.allowance, "{ledger:?}");
            assert!(day.used >= 0 && day.used <= day.ceiling, "{ledger:?} {day:?}");
            assert!(row.granted <= day.ceiling || self.silent, "{ledger:?} {row:?}");
        }
        if self.silent {
            return;
        }
        for (n, node) in self.nodes.iter().enumerate() {
            for ledger in self.book.rows.keys() {
                let known =
                    self.busy(n, *ledger) + node.hand.unused(USER, *ledger) + node.in_transit(*ledger);
                assert_eq!(self.book.lease(node.run, *ledger), known, "node {n} of {ledger:?}");
            }
            self.check_told(n);
        }
    }

    /// What is told is exact.
    fn check_told(&self, n: usize) {
        let node = &self.nodes[n];
        let (day, left) = (self.ledger().0, self.available(n).max(0));
        match node.hand.told(USER, &self.model.terms(), |asked| self.book.left(asked)) {
            Told::Read(told) => {
                assert_eq!((told.day, told.left), (day, left), "node {n} tells what is read");
                assert_eq!(told.allowance, self.model.day_of(self.ledger()).allowance);
            }
            Told::Remembered(told) => {
                let is_exact = self.nodes.len() == 1 && self.dead.is_empty();
                // Of a day that has not begun, before a clock was turned back.
                let is_of_later = self.turned && told.day > day;
                if is_exact && self.is_informed(n) && !is_of_later {
                    assert_eq!((told.day, told.left), (day, left), "node {n} tells what it remembers");
                }
            }
            Told::Later => {
                let is_moving = !matches!(node.stage, Stage::Idle) || node.unclear.is_some();
                assert!(is_moving, "node {n} has no answer");
            }
        }
    }
}

fn counts(row: &Entry, ledger: Ledger) -> bool {
    row.end == End::Charged && row.ledger == ledger
}
