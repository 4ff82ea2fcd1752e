//! The ledger: every balance, computed again from the rows it is made of.
//!
//! What holds at every moment, in every snapshot, however many gateways are running:
//!
//! - `charged` and `refunded` of a quota row are the numbers of rows of the log with that verdict that
//!   name its user, day and epoch;
//! - `granted` is `charged`, what runs hold of it (`leases`), and `forfeited`, added up;
//! - no column is below zero, and `granted` is not above `allowance`, unless the user was moved to
//!   another plan on that day;
//! - a quota row has a user, and its epoch is not later than the user's;
//! - no lease, and no row of the log that was charged or refunded, names a day that has no quota row.
//!
//! Some of it is removed on purpose, and [`trail::Reach`] says where that leaves us: of days whose rows
//! the log has forgotten, rows are only held to be no more than the balance says; rows of the log may
//! outlive a quota row that was pruned, or that went when its user was deleted; rows of users who are
//! deleted or erased are nobody's. What cannot be computed is what somebody chose, `allowance` and
//! `users.quota_epoch`: the audit trail tells who.

use std::time::Duration;

use tokio::time::Instant;

use super::{SlowRead, StoreError};
use crate::clock::Timestamp;
use crate::ids::UserId;

mod book;
mod day;
mod page;
mod repair;
pub(super) mod trail;

pub use book::{Balance, Column, Remedy, What};
pub use day::{Asked, Day, Epoch, Line, explain};
pub use repair::{BalanceKey, Repaired, repair};

#[cfg(test)]
pub(super) use {day::COUNT, day::LINES, page::COUNTS};

use page::Page;
use trail::{Reach, Trail};

/// What is to be verified.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// This user only.
    pub only: Option<UserId>,
    /// Only users after this one, where an earlier walk stopped.
    pub after: Option<UserId>,
    /// After this long the walk stops where it is; no statement takes longer. `None`: it goes on to the
    /// end.
    pub patience: Option<Duration>,
    /// What time it is.
    pub now: Timestamp,
}

/// What a walk through the ledger found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Users who were looked at.
    pub users: u64,
    /// Balances: one for each user, day and epoch.
    pub balances: u64,
    /// Of them, those whose rows the log has forgotten, all or some: their `charged` and `refunded` could
    /// not be counted again.
    pub out_of_reach: u64,
    /// Charged and refunded rows of the log that were counted.
    pub conversations: u64,
    /// The first day of which the log has every row; `None`: it has forgotten nothing yet.
    pub first_day: Option<i64>,
    /// How many differences there are.
    pub total: u64,
    /// The first of them, [`MOST_TOLD`] at most, by user, day and epoch.
    pub differences: Vec<Difference>,
    /// The last user looked at, when patience ended before the walk did.
    pub stopped_after: Option<UserId>,
}

/// Something that does not add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Whose balance.
    pub user: UserId,
    /// Their name, if there is such a user.
    pub username: Option<String>,
    /// Of which day; `None` where a row of the log names none.
    pub day: Option<i64>,
    /// In which epoch; `None` likewise.
    pub epoch: Option<i64>,
    /// What does not add up.
    pub what: What,
    /// What it should be, computed from the rows.
    pub expected: i64,
    /// What it is.
    pub found: i64,
    /// What [`repair`] does about it; `None`: nothing can be done.
    pub remedy: Option<Remedy>,
}

/// Differences told one by one.
pub const MOST_TOLD: usize = 1000;
/// Users of the first page, and the fewest and most of any.
const FIRST_STEP: i64 = 64;
const STEPS: (i64, i64) = (8, 2048);
/// Balances of a page above and below which the next has half or twice as many users: a page is what is
/// in memory at a time.
const HEAVY: usize = 20_000;
const LIGHT: usize = 5_000;

/// Walks through the whole ledger in one snapshot, some users at a time, so that memory is bounded and
/// nobody is kept from writing.
///
/// # Errors
/// [`StoreError`], when the database does not answer; then nothing is known.
pub async fn verify(reads: &SlowRead, question: &Question) -> Result<Verified, StoreError> {
    let begun = Instant::now();
    let mut snapshot = reads.db().snapshot(question.patience).await?;
    let tx = &mut snapshot.tx;
    let mut trail = Trail::default();
    let reach = Reach::read(tx, question.now).await?;
    let mut found = Verified::of(&reach);
    let mut step = FIRST_STEP;
    let (mut after, last) = question.range();
    while after < last {
        let page = Page::read(tx, (after, last), step).await?;
        for difference in page.differences(&reach) {
            if !trail.explains(tx, &page, &difference).await? {
                found.add(difference);
            }
        }
        found.count(&page, &reach);
        after = page.reached;
        if after < last && question.patience.is_some_and(|patience| begun.elapsed() >= patience) {
            found.stopped_after = Some(UserId(after));
            break;
        }
        step = next_step(step, page.len());
    }
    snapshot.end().await?;
    Ok(found)
}

fn next_step(step: i64, weight: usize) -> i64 {
    let next = if weight > HEAVY {
        step / 2
    } else if weight < LIGHT {
        step * 2
    } else {
        step
    };
    next.clamp(STEPS.0, STEPS.1)
}

// === impl Question ===

impl Question {
    /// The users it is about: after the first number, up to the second.
    fn range(&self) -> (i64, i64) {
        let (before, last) =
            self.only.map_or((i64::MIN, i64::MAX), |user| (user.0.saturating_sub(1), user.0));
        (self.after.map_or(before, |user| user.0.max(before)), last)
    }
}

// === impl Verified ===

impl Verified {
    fn of(reach: &Reach) -> Self {
        Self {
            users: 0,
            balances: 0,
            out_of_reach: 0,
            conversations: 0,
            first_day: reach.first_day,
            total: 0,
            differences: Vec::new(),
            stopped_after: None,
        }
    }

    /// Whether everything that was looked at adds up.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.total == 0
    }

    fn add(&mut self, difference: Difference) {
        self.total += 1;
        if self.differences.len() < MOST_TOLD {
            self.differences.push(difference);
        }
    }

    fn count(&mut self, page: &Page, reach: &Reach) {
        self.users += page.users() as u64;
        for (day, conversations) in page.balances() {
            self.balances += 1;
            self.out_of_reach += u64::from(!reach.has_every_row_of(day));
            self.conversations += conversations;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{HEAVY, LIGHT, Question, next_step};
    use crate::clock::Timestamp;
    use crate::ids::UserId;

    #[test]
    fn a_page_shrinks_and_grows_between_its_bounds() {
        assert_eq!([next_step(64, HEAVY + 1), next_step(64, LIGHT), next_step(64, 0)], [32, 64, 128]);
        assert_eq!([next_step(8, HEAVY + 1), next_step(2048, 0)], [8, 2048]);
    }

    #[test]
    fn a_walk_covers_everybody_one_user_or_the_rest() {
        let range = |only: Option<i64>, after: Option<i64>| {
            let (only, after) = (only.map(UserId), after.map(UserId));
            Question { only, after, patience: None, now: Timestamp(0) }.range()
        };
        assert_eq!(range(None, None), (i64::MIN, i64::MAX));
        assert_eq!(range(Some(7), None), (6, 7));
        assert_eq!(range(None, Some(7)), (7, i64::MAX));
        assert_eq!(range(Some(7), Some(9)), (9, 7), "nobody is left");
    }
}
