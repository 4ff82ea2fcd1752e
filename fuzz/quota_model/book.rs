//! The database, as far as one user's quota goes: what `store/leases.rs`, `store/quota.rs`, `store/runs.rs`
//! and `store/exchanges.rs` do in SQL, rule by rule, in memory.

use std::collections::{BTreeMap, BTreeSet};

use tollgate::ids::UserId;
use tollgate::store::leases::{Ask, Granted, Held};
use tollgate::store::quota::{Asked, Left};
use tollgate::store::runs::Fate;

pub(super) const USER: UserId = UserId(1);

/// A day and an epoch.
pub(super) type Ledger = (i64, i64);

/// A row of `quota`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row {
    pub(super) allowance: i64,
    pub(super) granted: i64,
    pub(super) charged: i64,
    pub(super) refunded: i64,
    pub(super) forfeited: i64,
}

/// A row of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) ledger: Ledger,
    pub(super) end: End,
}

/// How a conversation ended, as its row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Charged,
    Refunded,
    /// It began, and nobody knows more. It counts where its run has a unit for it.
    Unseen,
}

#[derive(Default)]
pub(super) struct Book {
    /// The user's own limit.
    pub(super) reset: Option<i64>,
    pub(super) epoch: i64,
    pub(super) rows: BTreeMap<Ledger, Row>,
    leases: BTreeMap<(u32, Ledger), i64>,
    written: BTreeSet<u64>,
}

impl Book {
    /// `day`, or the later one that the user has begun in this epoch.
    pub(super) fn day(&self, day: i64) -> i64 {
        let begun = self.rows.keys().filter(|(_, epoch)| *epoch == self.epoch);
        begun.map(|(begun, _)| *begun).max().map_or(day, |latest| latest.max(day))
    }

    pub(super) fn lease(&self, run: u32, ledger: Ledger) -> i64 {
        self.leases.get(&(run, ledger)).copied().unwrap_or(0)
    }

    /// What all runs hold.
    pub(super) fn held(&self, ledger: Ledger) -> i64 {
        self.leases.iter().filter(|((_, of), _)| *of == ledger).map(|(_, units)| units).sum()
    }

    pub(super) fn is_written(&self, entry: &Entry) -> bool {
        self.written.contains(&entry.id)
    }

    /// `granted = charged + leases + forfeited`, of every row.
    pub(super) fn check(&self) {
        for (ledger, row) in &self.rows {
            let Row { granted, charged, forfeited, .. } = *row;
            assert_eq!(granted, charged + self.held(*ledger) + forfeited, "{ledger:?} {row:?}");
            assert!(charged >= 0 && forfeited >= 0, "{ledger:?} {row:?}");
        }
        assert!(self.leases.values().all(|units| *units >= 0), "{:?}", self.leases);
    }

    pub(super) fn grant(&mut self, run: u32, ask: &Ask) -> Granted {
        let (day, epoch) = (self.day(ask.day), self.epoch);
        let reset = self.reset.unwrap_or(ask.plan_limit);
        let row = self.rows.get(&(day, epoch)).copied();
        let row = row.unwrap_or(Row { allowance: reset, ..Row::default() });
        let units = share(row.allowance - row.granted, ask);
        let granted = row.granted + units;
        if units > 0 {
            self.rows.insert((day, epoch), Row { granted, ..row });
            *self.leases.entry((run, (day, epoch))).or_default() += units;
        }
        let (allowance, refunded) = (row.allowance, row.refunded);
        Granted { user_id: USER, day, epoch, reset, allowance, granted, refunded, units }
    }

    /// Answers what was given back, of each.
    pub(super) fn give_back(&mut self, run: u32, units: &[Held]) -> BTreeMap<Ledger, i64> {
        let mut merged: BTreeMap<Ledger, i64> = BTreeMap::new();
        for one in units {
            *merged.entry((one.day, one.epoch)).or_default() += one.units;
        }
        for (ledger, units) in &mut merged {
            *units = self.lease(run, *ledger).min(*units);
            *self.leases.entry((run, *ledger)).or_default() -= *units;
            self.row(*ledger).granted -= *units;
        }
        merged
    }

    /// Rows that were written before are passed over. Answers how many unseen ones counted, how many did
    /// not, and how many units were found again that had been forfeited.
    pub(super) fn append(&mut self, run: u32, entries: &[Entry]) -> BTreeMap<Ledger, (i64, i64, i64)> {
        let mut days: BTreeMap<Ledger, [i64; 3]> = BTreeMap::new();
        for entry in entries {
            if self.written.insert(entry.id) {
                days.entry(entry.ledger).or_default()[entry.end as usize] += 1;
            }
        }
        let mut counted = BTreeMap::new();
        for (ledger, [charged, refunded, unseen]) in days {
            let held = self.lease(run, ledger);
            let row = self.row(ledger);
            let counts = unseen.min((held + row.forfeited - charged).max(0));
            let units = charged + counts;
            row.charged += units;
            row.refunded += refunded + unseen - counts;
            let found = held.min(units);
            let made_good = (units - found).min(row.forfeited);
            row.forfeited -= made_good;
            row.granted += units - found - made_good;
            self.leases.insert((run, ledger), held - found);
            counted.insert(ledger, (counts, unseen - counts, made_good));
        }
        counted
    }

    /// Ends a run; answers what it still held, of each.
    pub(super) fn close(&mut self, run: u32, fate: Fate) -> BTreeMap<Ledger, i64> {
        let leases = std::mem::take(&mut self.leases);
        let (gone, stay) = leases.into_iter().partition(|((of, _), _)| *of == run);
        self.leases = stay;
        let gone: BTreeMap<(u32, Ledger), i64> = gone;
        for ((_, ledger), units) in &gone {
            match fate {
                Fate::Returned => self.row(*ledger).granted -= units,
                Fate::Forfeited => self.row(*ledger).forfeited += units,
            }
        }
        gone.into_iter().map(|((_, ledger), units)| (ledger, units)).collect()
    }

    pub(super) fn left(&self, asked: Asked) -> Left {
        let reset = self.reset.unwrap_or(asked.plan_limit);
        let day = self.day(asked.day);
        let row = self.rows.get(&(day, self.epoch)).copied();
        let (allowance, granted) = row.map_or((reset, 0), |row| (row.allowance, row.granted));
        Left { day, epoch: self.epoch, left: (allowance - granted).max(0), allowance, granted, reset }
    }

    /// An admin says how many are left today.
    pub(super) fn set_left(&mut self, today: i64, left: i64) {
        let ledger = (self.day(today), self.epoch + 1);
        self.epoch += 1;
        self.rows.insert(ledger, Row { allowance: left, ..Row::default() });
    }

    /// From tomorrow on the user has a limit of their own.
    pub(super) fn set_reset(&mut self, today: i64, plan_limit: i64, reset: i64) {
        self.keep_today(today, plan_limit);
        self.reset = Some(reset);
    }

    /// The user's plan has another limit, from today on.
    pub(super) fn set_plan(&mut self, today: i64, plan_limit: i64) {
        self.keep_today(today, plan_limit);
        let ledger = (self.day(today), self.epoch);
        if self.reset.is_none() {
            self.row(ledger).allowance = plan_limit;
        }
    }

    fn keep_today(&mut self, today: i64, plan_limit: i64) {
        let allowance = self.reset.unwrap_or(plan_limit);
        let ledger = (self.day(today), self.epoch);
        self.rows.entry(ledger).or_insert(Row { allowance, ..Row::default() });
    }

    fn row(&mut self, ledger: Ledger) -> &mut Row {
        self.rows.get_mut(&ledger).expect("a day that has begun")
    }
}

/// How many of `left` an ask gets.
fn share(left: i64, ask: &Ask) -> i64 {
    if ask.need == 0 {
        return 0;
    }
    let ahead = ask.most.min((left - ask.need + 1) / 8).max(1) - 1;
    (ask.need + ahead).min(left.max(0))
}
