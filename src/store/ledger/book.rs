//! One balance and the rows it is made of, held against each other.

use serde::Serialize;

use super::Difference;
use super::trail::Reach;
use crate::ids::UserId;

/// Whose balance, of which day and epoch. A row of the log may name no day.
pub(super) type Key = (UserId, Option<i64>, Option<i64>);

/// Everything that is known of one balance.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Book {
    /// Its row of `quota`.
    pub(super) balance: Option<Balance>,
    /// Rows of the log.
    pub(super) counted: Counted,
    /// What runs hold of it.
    pub(super) held: Held,
}

/// The columns of a quota row that are compared with something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct Balance {
    /// Conversations of the day.
    pub allowance: i64,
    /// Of them, given out.
    pub granted: i64,
    /// Used.
    pub charged: i64,
    /// Given back.
    pub refunded: i64,
    /// Lost with a run that never came back.
    pub forfeited: i64,
}

/// Rows of the log by their verdict.
#[derive(Clone, Copy, Debug, Default, sqlx::FromRow)]
pub(super) struct Counted {
    pub(super) charged: i64,
    pub(super) refunded: i64,
}

/// Leases of all runs.
#[derive(Clone, Copy, Debug, Default, sqlx::FromRow)]
pub(super) struct Held {
    pub(super) units: i64,
    /// The smallest of them.
    pub(super) least: i64,
}

/// A user, as far as a balance must agree with them.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct Owner {
    pub(super) id: UserId,
    pub(super) username: String,
    pub(super) quota_epoch: i64,
}

/// What does not add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// `charged`, which is the number of charged rows of the log.
    Charged,
    /// `refunded`, which is the number of refunded rows of the log.
    Refunded,
    /// `granted`, which is `charged`, what runs hold, and `forfeited`.
    Granted,
    /// `granted`, which is no more than `allowance`.
    AboveAllowance,
    /// A column that is never below zero.
    Negative(Column),
    /// The row's epoch, which is no later than its user's.
    LaterEpoch,
    /// A quota row, or a lease, of a user who is not there.
    NoUser,
    /// Units that runs hold of a day which has no quota row.
    LeaseWithoutBalance,
    /// Charged rows of the log that name a day which has no quota row, or no day at all.
    ChargedWithoutBalance,
    /// The same of refunded rows.
    RefundedWithoutBalance,
}

/// What a repair does about a difference. Only what follows from rows that are there has a remedy: what was
/// granted beyond an allowance was granted, and what the log has forgotten cannot be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// `charged` and `refunded` become the numbers of rows of the log, and `granted` follows.
    Recount,
    /// `granted` becomes `charged`, what runs hold, and `forfeited`, added up.
    Regrant,
    /// The balance of a day that is over is made again from its rows, with what was granted as its allowance.
    Restore,
    /// The balance, and its leases, of a user who is not there are removed.
    Remove,
}

/// A number of units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// `quota.allowance`
    Allowance,
    /// `quota.granted`
    Granted,
    /// `quota.charged`
    Charged,
    /// `quota.refunded`
    Refunded,
    /// `quota.forfeited`
    Forfeited,
    /// `leases.units`
    Lease,
}

/// Where differences of one book are gathered.
struct Findings<'a> {
    key: Key,
    owner: Option<&'a Owner>,
    reach: &'a Reach,
    found: Vec<Difference>,
}

// === impl Book ===

impl Book {
    /// What of this does not add up, whatever the audit trail may explain of it.
    pub(super) fn differences(&self, key: Key, owner: Option<&Owner>, reach: &Reach) -> Vec<Difference> {
        let mut findings = Findings { key, owner, reach, found: Vec::new() };
        match (owner, &self.balance) {
            (None, balance) => {
                // Rows of the log outlive who is deleted; nothing else does.
                findings.differ(What::NoUser, 0, i64::from(balance.is_some() || self.is_held()));
            }
            (Some(owner), Some(balance)) => self.held_against(*balance, owner, &mut findings),
            (Some(_), None) => self.without_balance(&mut findings),
        }
        findings.found
    }

    /// Charged and refunded rows of the log.
    pub(super) fn conversations(&self) -> u64 {
        u64::try_from(self.counted.charged + self.counted.refunded).unwrap_or(0)
    }

    fn held_against(&self, balance: Balance, owner: &Owner, findings: &mut Findings<'_>) {
        let Balance { allowance, granted, charged, refunded, forfeited } = balance;
        let columns = [
            (Column::Allowance, allowance),
            (Column::Granted, granted),
            (Column::Charged, charged),
            (Column::Refunded, refunded),
            (Column::Forfeited, forfeited),
            (Column::Lease, self.held.least),
        ];
        for (column, value) in columns.into_iter().filter(|(_, value)| *value < 0) {
            findings.differ(What::Negative(column), 0, value);
        }
        let (_, day, epoch) = findings.key;
        if let Some(later) = epoch.filter(|epoch| *epoch > owner.quota_epoch) {
            findings.differ(What::LaterEpoch, owner.quota_epoch, later);
        }
        let taken = charged.saturating_add(self.held.units).saturating_add(forfeited);
        findings.differ(What::Granted, taken, granted);
        if granted > allowance {
            findings.differ(What::AboveAllowance, allowance, granted);
        }
        let whole = day.is_some_and(|day| findings.reach.has_every_row_of(day));
        let counts = [
            (What::Charged, self.counted.charged, charged),
            (What::Refunded, self.counted.refunded, refunded),
        ];
        // Of what the log has forgotten in part, some rows are left, and never more than there were.
        for (what, counted, balance) in counts.into_iter().filter(|(_, rows, of)| whole || rows > of) {
            findings.differ(what, counted, balance);
        }
    }

    fn without_balance(&self, findings: &mut Findings<'_>) {
        findings.differ(What::LeaseWithoutBalance, 0, self.held.units);
        if findings.key.1.is_some_and(|day| !findings.reach.has_every_balance_of(day)) {
            return;
        }
        findings.differ(What::ChargedWithoutBalance, self.counted.charged, 0);
        findings.differ(What::RefundedWithoutBalance, self.counted.refunded, 0);
    }

    fn is_held(&self) -> bool {
        self.held.units != 0
    }
}

// === impl Findings ===

impl Findings<'_> {
    /// Nothing, when both are the same.
    fn differ(&mut self, what: What, expected: i64, found: i64) {
        if expected == found {
            return;
        }
        let ((user, day, epoch), username) = (self.key, self.owner.map(|owner| owner.username.clone()));
        let remedy = self.remedy(what);
        self.found.push(Difference { user, username, day, epoch, what, expected, found, remedy });
    }

    fn remedy(&self, what: What) -> Option<Remedy> {
        use Column::{Allowance, Charged, Forfeited, Granted, Lease, Refunded};
        let (day, epoch) = (self.key.1?, self.key.2?);
        let is_counted = self.reach.has_every_row_of(day);
        let is_over = self.reach.is_over(day) || self.owner.is_some_and(|owner| epoch < owner.quota_epoch);
        match what {
            What::Charged | What::Refunded | What::Negative(Charged | Refunded) => {
                is_counted.then_some(Remedy::Recount)
            }
            What::Granted | What::Negative(Granted) => Some(Remedy::Regrant),
            // The balance of a day that is not over is made by its next conversation, and recounted then.
            What::ChargedWithoutBalance | What::RefundedWithoutBalance | What::LeaseWithoutBalance => {
                (is_counted && is_over).then_some(Remedy::Restore)
            }
            What::NoUser => Some(Remedy::Remove),
            What::AboveAllowance | What::LaterEpoch | What::Negative(Allowance | Forfeited | Lease) => None,
        }
    }
}

// === impl What ===

impl What {
    /// The word by which programs tell it from others.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Charged => "charged",
            Self::Refunded => "refunded",
            Self::Granted => "granted",
            Self::AboveAllowance => "above_allowance",
            Self::Negative(Column::Allowance) => "negative_allowance",
            Self::Negative(Column::Granted) => "negative_granted",
            Self::Negative(Column::Charged) => "negative_charged",
            Self::Negative(Column::Refunded) => "negative_refunded",
            Self::Negative(Column::Forfeited) => "negative_forfeited",
            Self::Negative(Column::Lease) => "negative_lease",
            Self::LaterEpoch => "later_epoch",
            Self::NoUser => "no_user",
            Self::LeaseWithoutBalance => "lease_without_balance",
            Self::ChargedWithoutBalance => "charged_without_balance",
            Self::RefundedWithoutBalance => "refunded_without_balance",
        }
    }
}

// === impl Remedy ===

impl Remedy {
    /// The word by which programs tell it from others.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recount => "recount",
            Self::Regrant => "regrant",
            Self::Restore => "restore",
            Self::Remove => "remove",
        }
    }
}
