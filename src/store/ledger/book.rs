//! One balance and the rows it is made of, held against each other.

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

/// The columns of a quota row that are held against something.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub(super) struct Balance {
    pub(super) allowance: i64,
    pub(super) granted: i64,
    pub(super) charged: i64,
    pub(super) refunded: i64,
    pub(super) forfeited: i64,
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
    found: Vec<Difference>,
}

// === impl Book ===

impl Book {
    /// What of this does not add up, whatever the audit trail may explain of it.
    pub(super) fn differences(&self, key: Key, owner: Option<&Owner>, reach: &Reach) -> Vec<Difference> {
        let mut findings = Findings { key, owner, found: Vec::new() };
        match (owner, &self.balance) {
            (None, balance) => {
                // Rows of the log outlive who is deleted; nothing else does.
                findings.differ(What::NoUser, 0, i64::from(balance.is_some() || self.is_held()));
            }
            (Some(owner), Some(balance)) => self.held_against(*balance, owner, reach, &mut findings),
            (Some(_), None) => self.without_balance(reach, &mut findings),
        }
        findings.found
    }

    /// Charged and refunded rows of the log.
    pub(super) fn conversations(&self) -> u64 {
        u64::try_from(self.counted.charged + self.counted.refunded).unwrap_or(0)
    }

    fn held_against(&self, balance: Balance, owner: &Owner, reach: &Reach, findings: &mut Findings<'_>) {
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
        let whole = day.is_some_and(|day| reach.has_every_row_of(day));
        let counts = [
            (What::Charged, self.counted.charged, charged),
            (What::Refunded, self.counted.refunded, refunded),
        ];
        // Of what the log has forgotten in part, some rows are left, and never more than there were.
        for (what, counted, balance) in counts.into_iter().filter(|(_, rows, of)| whole || rows > of) {
            findings.differ(what, counted, balance);
        }
    }

    fn without_balance(&self, reach: &Reach, findings: &mut Findings<'_>) {
        findings.differ(What::LeaseWithoutBalance, 0, self.held.units);
        if findings.key.1.is_some_and(|day| !reach.has_every_balance_of(day)) {
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
        self.found.push(Difference { user, username, day, epoch, what, expected, found });
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
