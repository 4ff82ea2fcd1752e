//! One node: the gateway's own memory of the user, and a teller that is played step by step.

use std::collections::BTreeMap;
use std::time::Duration;

use tollgate::clock::Clock;
use tollgate::quota::rehearsal::{Hand, Round};
use tollgate::store::leases::Granted;

use super::Story;
use super::book::{Entry, Ledger};
use super::event::Fault;

pub(super) struct Node {
    pub(super) hand: Hand,
    pub(super) run: u32,
    pub(super) stage: Stage,
    /// Rows that wait to be written.
    pub(super) rows: Vec<Entry>,
    /// Units that its lease has and it does not know of, because the database broke off.
    pub(super) leaked: BTreeMap<Ledger, i64>,
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
            leaked: BTreeMap::new(),
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
        match &self.stage {
            Stage::Back(_, _, gone) => -gone.get(&ledger).copied().unwrap_or(0),
            Stage::Answered(_, Some(answer)) if (answer.day, answer.epoch) == ledger => answer.units,
            _ => 0,
        }
    }

    fn leaks(&mut self, ledger: Ledger, units: i64) {
        *self.leaked.entry(ledger).or_default() += units;
    }
}

// === impl Story ===

impl Story {
    /// A node's teller does the next thing; `false` when there is nothing to do.
    pub(super) fn step(&mut self, node: usize, fault: Fault) -> bool {
        let stage = std::mem::replace(&mut self.nodes[node].stage, Stage::Idle);
        let next = match stage {
            Stage::Idle => match self.set_out(node) {
                Some(round) => Stage::Begun(round),
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
                of.failures += u64::from(answer.is_none());
                if answer.is_none() && of.round_at < of.knows_at {
                    of.knows_at = of.changed_at + STALE;
                }
                Stage::Idle
            }
        };
        self.nodes[node].stage = next;
        true
    }

    fn set_out(&mut self, node: usize) -> Option<Round> {
        let (now, available) = (self.clock.elapsed(), self.available(node));
        let of = &mut self.nodes[node];
        let round = of.hand.round()?;
        assert!(round.asks.len() <= 1 && round.asks.iter().all(|ask| ask.need >= 0 && ask.most >= 1));
        (of.round_at, of.floor) = (now, available);
        of.old_round = now < of.knows_at || of.old_terms;
        Some(round)
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
        let of = &mut self.nodes[node];
        match fault {
            Fault::Refused => return Stage::Back(round, false, BTreeMap::new()),
            Fault::Unknown => gone.iter().for_each(|(ledger, units)| of.leaks(*ledger, *units)),
            Fault::None | Fault::UnknownDone => {
                let given = self.book.give_back(of.run, &round.units);
                assert!(given == gone || self.silent, "{gone:?} goes back, of which {given:?} was held");
            }
        }
        Stage::Back(round, true, gone)
    }

    fn ask(&mut self, node: usize, round: Round, fault: Fault) -> Stage {
        let Some(ask) = round.asks.first().copied() else { return Stage::Idle };
        if matches!(fault, Fault::Refused | Fault::Unknown) {
            return Stage::Answered(round, None);
        }
        let begun = self.book.rows.len();
        let answer = self.book.grant(self.nodes[node].run, &ask);
        if self.book.rows.len() > begun {
            let before = self.ledger();
            self.model.begin(ask.day, ask.plan_limit);
            if self.ledger() != before || self.nodes.len() > 1 {
                self.others_learn_late(node);
            }
        }
        if fault == Fault::UnknownDone {
            self.nodes[node].leaks((answer.day, answer.epoch), answer.units);
            return Stage::Answered(round, None);
        }
        Stage::Answered(round, Some(answer))
    }

    /// A node has begun a day; with clocks that are turned back, others may still be in the one before.
    fn others_learn_late(&mut self, node: usize) {
        let now = self.clock.elapsed();
        let others = self.nodes.iter_mut().enumerate().filter(|(n, _)| *n != node);
        others.for_each(|(_, other)| other.is_not_told(now));
    }
}
