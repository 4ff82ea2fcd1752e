//! Ends of processes, and what the next start makes of them.

use std::collections::BTreeMap;

use tollgate::quota::Verdict;
use tollgate::store::runs::Fate;

use super::book::{End, Entry, Ledger, USER};
use super::{Stage, Story, Talk};

/// A run that was killed, and what it left behind.
pub(super) struct Dead {
    pub(super) node: usize,
    pub(super) run: u32,
    pub(super) rows: Vec<Entry>,
    /// Conversations of which no row tells that they count.
    pub(super) untold: BTreeMap<Ledger, i64>,
    pub(super) power: bool,
}

// === impl Story ===

impl Story {
    /// What the run had in its files is written later, unless it was not durable when the power went; what
    /// was under way is charged if the upstream may have seen it.
    pub(super) fn kill(&mut self, node: usize, power: bool, lost: u8, orderly: bool) {
        let power = power && !self.silent;
        let is_clear = self.nodes[node].unclear.is_none();
        if orderly && is_clear && matches!(self.nodes[node].stage, Stage::Idle) {
            let units = self.nodes[node].hand.surrender();
            self.book.give_back(self.nodes[node].run, &units);
        }
        let next = self.start();
        let mut was = std::mem::replace(&mut self.nodes[node], next);
        let mut untold: BTreeMap<Ledger, i64> = BTreeMap::new();
        self.waiters.retain(|waiter| waiter.node != node);
        let (here, elsewhere) =
            std::mem::take(&mut self.talks).into_iter().partition(|talk| talk.node == node);
        self.talks = elsewhere;
        for mut talk in Vec::<Talk>::from_iter::<Vec<Talk>>(here) {
            if talk.settled == Some(Verdict::Charged) {
                continue;
            }
            *untold.entry(talk.ledger).or_default() += 1;
            if talk.settled.is_none() && talk.dispatched {
                self.entries += 1;
                was.rows.push(Entry { id: self.entries, ledger: talk.ledger, end: End::Unseen });
            }
            // Nobody settles it any more.
            talk.reservation.dispatched();
        }
        was.rows.retain(|row| !self.book.is_written(row));
        // Of what was not durable the beginning may be there all the same.
        let gone = if power { usize::from(lost % 16).min(was.rows.len()) } else { 0 };
        for mut row in was.rows.split_off(was.rows.len() - gone) {
            *untold.entry(row.ledger).or_default() += i64::from(row.end == End::Charged);
            if lost & 16 == 0 {
                row.end = End::Unseen;
                was.rows.push(row);
            }
        }
        self.lossy |= power;
        self.dead.push(Dead { node, run: was.run, rows: was.rows, untold, power });
    }

    pub(super) fn recover(&mut self) {
        for dead in std::mem::take(&mut self.dead) {
            for (ledger, (counted, not, again)) in self.book.append(dead.run, &dead.rows) {
                let day = self.model.day(ledger);
                // What had been forfeited was used already.
                let again = if self.silent { 0 } else { again };
                (day.used, day.refunds) = (day.used + counted - again, day.refunds + not);
            }
            for (ledger, units) in &dead.untold {
                self.model.day(*ledger).used -= units;
            }
            let fate = if dead.power { Fate::Forfeited } else { Fate::Returned };
            for (ledger, units) in self.book.close(dead.run, fate) {
                self.model.day(ledger).used += if dead.power { units } else { 0 };
            }
            self.nodes[dead.node].hand.forget(USER);
        }
    }
}
