//! Units of a day in the hands of runs: granted several at a time, charged as their rows are written,
//! given back or forfeited where nobody used them.
//!
//! Of every row of `quota`, at every moment: `granted` is `charged` and what runs hold and
//! `forfeited`. Each function here moves both sides in one transaction. Rows of `quota` are locked
//! before those of `leases`, both in the order of their keys, so that two nodes never wait for each
//! other.

use crate::ids::UserId;

mod charge;
mod errand;
mod give_back;
mod grant;

pub(super) use charge::{Used, charge};
pub use errand::{Cleared, Doubt, LeaseError, clear};
pub use give_back::give_back;
pub use grant::grant;

/// What a run asks for one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Whose day.
    pub user: UserId,
    /// Today, in the zone of their allowance.
    pub day: i64,
    /// What they have a day without a limit of their own.
    pub plan_limit: i64,
    /// Units that somebody waits for; 0 asks only how the day stands.
    pub need: i64,
    /// Units to have, with the last one that somebody waits for, where an eighth of what the others leave is
    /// as many.
    pub most: i64,
}

/// How a user's day stands after an [`Ask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Granted {
    /// Whose day.
    pub user_id: UserId,
    /// Which day: that of the ask, or a later one when the user has begun a later one already.
    pub day: i64,
    /// The epoch of the user.
    pub epoch: i64,
    /// What the next day begins with.
    pub reset: i64,
    /// Conversations of the day.
    pub allowance: i64,
    /// How many of them are given out, these included.
    pub granted: i64,
    /// Rows that say that one was given back; caps on refunds look here.
    pub refunded: i64,
    /// How many were given out now: as many as were needed, or all that were left.
    pub units: i64,
}

/// Units of one row of `quota`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, sqlx::FromRow)]
pub struct Held {
    /// Whose.
    #[sqlx(rename = "user_id")]
    pub user: UserId,
    /// The day they were granted for.
    pub day: i64,
    /// The epoch they were granted in.
    pub epoch: i64,
    /// How many, 1 and more.
    pub units: i64,
}

/// Rows of numbers, as JSON.
fn json<const N: usize>(rows: impl Iterator<Item = [i64; N]>) -> String {
    let rows: Vec<Vec<i64>> = rows.map(|row| row.to_vec()).collect();
    serde_json::Value::from(rows).to_string()
}
