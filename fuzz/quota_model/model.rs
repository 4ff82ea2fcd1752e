//! The page of arithmetic: how many conversations each day has, and how many are used.

use std::collections::BTreeMap;

use chrono_tz::Tz;
use tollgate::plan::Allowance;

use super::book::Ledger;
use super::event::Edit;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Day {
    pub(super) allowance: i64,
    /// The most it ever was.
    pub(super) ceiling: i64,
    pub(super) used: i64,
    pub(super) refunds: i64,
}

pub(super) struct Model {
    pub(super) plan_limit: i64,
    pub(super) zone: Tz,
    reset: Option<i64>,
    epoch: i64,
    /// Days that have begun.
    pub(super) days: BTreeMap<Ledger, Day>,
}

// === impl Model ===

impl Model {
    pub(super) fn new(plan_limit: i64, zone: Tz) -> Self {
        Self { plan_limit, zone, reset: None, epoch: 0, days: BTreeMap::new() }
    }

    pub(super) fn terms(&self) -> Allowance {
        Allowance { per_day: self.plan_limit, zone: self.zone }
    }

    /// Today, or the latest day that has begun in the epoch that holds.
    pub(super) fn ledger(&self, today: i64) -> Ledger {
        let begun = self.days.keys().filter(|(_, epoch)| *epoch == self.epoch);
        let latest = begun.map(|(day, _)| *day).max();
        (latest.map_or(today, |latest| latest.max(today)), self.epoch)
    }

    pub(super) fn day_of(&self, ledger: Ledger) -> Day {
        let allowance = self.reset.unwrap_or(self.plan_limit);
        self.days.get(&ledger).copied().unwrap_or(Day { allowance, ..Day::default() })
    }

    pub(super) fn day(&mut self, ledger: Ledger) -> &mut Day {
        self.days.get_mut(&ledger).expect("a day that has begun")
    }

    /// Its first conversation is granted, by a plan that had `plan_limit`.
    pub(super) fn begin(&mut self, today: i64, plan_limit: i64) {
        let allowance = self.reset.unwrap_or(plan_limit);
        let day = Day { allowance, ceiling: allowance, ..Day::default() };
        self.days.entry(self.ledger(today)).or_insert(day);
    }

    pub(super) fn edit(&mut self, edit: Edit, today: i64) {
        match edit {
            Edit::Left(left) => {
                let (day, epoch) = self.ledger(today);
                self.epoch = epoch + 1;
                let begun = Day { allowance: left, ceiling: left, ..Day::default() };
                self.days.insert((day, epoch + 1), begun);
            }
            Edit::Reset(reset) => {
                self.begin(today, self.plan_limit);
                self.reset = Some(reset);
            }
            Edit::Plan(limit) => {
                self.plan_limit = limit;
                self.begin(today, limit);
                if self.reset.is_none() {
                    let day = self.day(self.ledger(today));
                    (day.allowance, day.ceiling) = (limit, day.ceiling.max(limit));
                }
            }
            Edit::ResetAll => self.epoch += 1,
        }
    }
}
