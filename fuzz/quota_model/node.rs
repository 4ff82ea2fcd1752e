//! One node: the gateway's own memory of the user, and a teller that is played step by step.

use std::collections::BTreeMap;
use std::time::Duration;

use tollgate::clock::Clock;
use tollgate::quota::rehearsal::{Hand, Round};
use tollgate::store::leases::{Ask, Granted, Held};

use super::Story;
use super::book::{Entry, Ledger, USER};
use super::event::Fault;

pub(super) struct Node {
    pub(super) hand: Hand,
    pub(super) run: u32,
    pub(super) stage: Stage,
    /// Rows that wait to be written.
    pub(super) rows: Vec<Entry>,
    /// What it waits to know before anything else is done.
    pub(super) unclear: Option<Unclear>,
    /// Questions that the database did not answer.
    pub(super) failures: u64,
    /// The least that was there for it since its teller went.
    pub(super) floor: i64,
    /// Whether the round under way began by what does not hold any more.
    pub(super) old_round: bool,
    /// Whether nobody has come since the user's plan became another.
    pub(super) old_terms: bool,
    changed_at: Duration,
    knows_at: Duration,
    round_at: Duration,
}

/// How far its teller is.
pub(super) enum Stage {
    Idle,
    /// With what goes back, and what is asked for.
    Begun(Round),
    /// What was to go back is back, or not; and what memory will no longer have when it hears of it.
    Back(Round, bool, BTreeMap<Ledger, i64>),
    Landed(Round),
    /// The database has answered, or not.
    Answered(Round, Option<Granted>),
}

/// The database broke off, and nobody knows whether it did what it was to do.
pub(super) struct Unclear {
    is_done: bool,
    /// By how much a lease is more than memory knows.
    ledger: Option<(Ledger, i64)>,
    /// By how much leases are less.
    gone: BTreeMap<Ledger, i64>,
}

/// What a node was not told it knows after this long.
const FRESH: Duration = Duration::from_secs(5);
/// Or after this long, while the database is away.
const STALE: Duration = Duration::from_secs(66);

// === impl Node ===

impl Node {
    pub(super) fn new(clock: &Clock, run: u32, max_lease: i64) -> Self {
        Self {
            hand: Hand::new(clock, max_lease),
            run,
            stage: Stage::Idle,
            rows: Vec::new(),
            unclear: None,
            failures: 0,
            floor: i64::MAX,
            old_round: false,
            old_terms: false,
            changed_at: Duration::ZERO,
            knows_at: Duration::ZERO,
            round_at: Duration::ZERO,
        }
    }

    pub(super) fn is_told(&mut self) {
        (self.knows_at, self.old_round) = (Duration::ZERO, false);
    }

    pub(super) fn is_not_told(&mut self, now: Duration) {
        (self.changed_at, self.knows_at) = (now, now + FRESH);
        self.old_round |= !matches!(self.stage, Stage::Idle);
    }

    /// Whether it knows by now what it should.
    pub(super) fn is_informed(&self, now: Duration) -> bool {
        now >= self.knows_at && !self.old_round && !self.old_terms
    }

    /// Units that its lease in the database has and its memory has not yet, or the other way round.
    pub(super) fn in_transit(&self, ledger: Ledger) -> i64 {
        let of = |units: &BTreeMap<Ledger, i64>| units.get(&ledger).copied().unwrap_or(0);
        let known = match &self.stage {
            Stage::Back(_, _, gone) => -of(gone),
            Stage::Answered(_, Some(answer)) if (answer.day, answer.epoch) == ledger => answer.units,
            _ => 0,
        };
        let Some(unclear) = &self.unclear else { return known };
        let brought = unclear.ledger.filter(|(brought, _)| *brought == ledger);
        known + brought.map_or(0, |(_, units)| units) - of(&unclear.gone)
    }

    /// The database gave no answer.
    fn failed(&mut self) {
        self.failures += 1;
        if self.round_at < self.knows_at {
            self.knows_at = self.changed_at + STALE;
        }
    }

    /// It is found out what became of the last round.
    fn clear(&mut self) {
        let Some(Unclear { is_done, ledger, .. }) = self.unclear.take() else { return };
        let held = |((day, epoch), units)| Held { user: USER, day, epoch, units };
        let brought = ledger.map(held).filter(|held| held.units > 0);
        self.hand.cleared(&[USER], is_done, brought.as_slice());
    }
}

// === impl Story ===

impl Story {
    /// A node's teller does the next thing; `false` when there is nothing to do.
    pub(super) fn step(&mut self, node: usize, fault: Fault) -> bool {
        let stage = std::mem::replace(&mut self.nodes[node].stage, Stage::Idle);
        let next = match stage {
            Stage::Idle => match self.set_out(node, fault) {
                Some(Some(round)) => Stage::Begun(round),
                Some(None) => Stage::Idle,
                None => return false,
            },
            Stage::Begun(round) => self.bring_back(node, round, fault),
            Stage::Back(round, given, _) => {
                self.nodes[node].hand.landed(&round, given);
                Stage::Landed(round)
            }
            Stage::Landed(round) => self.ask(node, round, fault),
            Stage::Answered(round, answer) => {
                let of = &mut self.nodes[node];
                of.hand.answered(&round, answer.as_ref().map(std::slice::from_ref));
                if answer.is_none() {
                    of.failed();
                }
                Stage::Idle
            }
        };
        self.nodes[node].stage = next;
        true
    }

    /// A round, unless it is not known what became of the last one; `None`: there is nothing to do.
    fn set_out(&mut self, node: usize, fault: Fault) -> Option<Option<Round>> {
        let (now, available) = (self.clock.elapsed(), self.available(node));
        let of = &mut self.nodes[node];
        let users = of.hand.calls();
        if users.is_empty() && of.unclear.is_none() {
            return None;
        }
        assert!(users.len() <= 1, "somebody called twice");
        (of.round_at, of.floor) = (now, available);
        if of.unclear.is_some() && fault != Fault::None {
            of.hand.unanswered(&users);
            of.failed();
            return Some(None);
        }
        of.clear();
        let round = of.hand.round(users);
        assert!(round.asks.iter().all(|ask| ask.need >= 0 && ask.most >= 1), "{:?}", round.asks);
        of.old_round = now < of.knows_at || of.old_terms;
        Some(Some(round))
    }

    fn bring_back(&mut self, node: usize, round: Round, fault: Fault) -> Stage {
        let mut gone: BTreeMap<Ledger, i64> = BTreeMap::new();
        for one in &round.units {
            assert!(one.units > 0, "{one:?} goes back");
            *gone.entry((one.day, one.epoch)).or_default() += one.units;
        }
        if gone.is_empty() {
            return Stage::Back(round, true, gone);
        }
        let is_done = matches!(fault, Fault::None | Fault::UnknownDone);
        let of = &mut self.nodes[node];
        if is_done {
            let given = self.book.give_back(of.run, &round.units);
            assert!(given == gone || self.silent, "{gone:?} goes back, of which {given:?} was held");
        }
        match fault {
            Fault::None => Stage::Back(round, true, gone),
            Fault::Refused => Stage::Back(round, false, BTreeMap::new()),
            Fault::Unknown | Fault::UnknownDone => {
                let gone = if is_done { gone } else { BTreeMap::new() };
                of.unclear = Some(Unclear { is_done, ledger: None, gone });
                of.hand.answered(&round, None);
                of.failed();
                Stage::Idle
            }
        }
    }

    fn ask(&mut self, node: usize, round: Round, fault: Fault) -> Stage {
        let Some(ask) = round.asks.first().copied() else { return Stage::Idle };
        let answer = match fault {
            Fault::Refused => return Stage::Answered(round, None),
            Fault::Unknown => None,
            Fault::None | Fault::UnknownDone => Some(self.grant(node, &ask)),
        };
        if fault == Fault::None {
            return Stage::Answered(round, answer);
        }
        let ledger = answer.map(|answer| ((answer.day, answer.epoch), answer.units));
        let of = &mut self.nodes[node];
        of.unclear = Some(Unclear { is_done: answer.is_some(), ledger, gone: BTreeMap::new() });
        of.hand.doubt(&round);
        of.failed();
        Stage::Idle
    }

    fn grant(&mut self, node: usize, ask: &Ask) -> Granted {
        let begun = self.book.rows.len();
        let answer = self.book.grant(self.nodes[node].run, ask);
        if self.book.rows.len() > begun {
            self.model.begin(ask.day, ask.plan_limit);
            self.others_learn_late(node);
        }
        answer
    }

    /// A node has begun a day; with clocks that are turned back, others may still be in the one before.
    fn others_learn_late(&mut self, node: usize) {
        let now = self.clock.elapsed();
        let others = self.nodes.iter_mut().enumerate().filter(|(n, _)| *n != node);
        others.for_each(|(_, other)| other.is_not_told(now));
    }
}
