//! Whether a day is used up, asked before a request's body is read.

use super::holdings::Peeked;
use super::{Quota, QuotaError};
use crate::ids::UserId;
use crate::plan::Allowance;

// === impl Quota ===

impl Quota {
    /// Whether a reservation may succeed. Without I/O while units are in hand, or while the day is known to be
    /// used up; else the question that the reservation would put to the database is put now, and its answer is
    /// there for the reservation.
    ///
    /// Nothing is taken: only [`Quota::reserve`] decides.
    ///
    /// # Errors
    ///
    /// [`QuotaError::UsedUp`] when none is left, [`QuotaError::StoreDown`] when that cannot be found out.
    pub async fn peek(&self, user: UserId, allowance: &Allowance) -> Result<(), QuotaError> {
        let told = match self.holdings.peek(user, allowance) {
            Peeked::Free => return Ok(()),
            Peeked::UsedUp(error) => Err(error),
            Peeked::Unknown => self.take(user, allowance).await.map(drop),
        };
        match told {
            // What an earlier run held may come back yet: the reservation waits for it.
            Err(QuotaError::UsedUp { .. }) if !*self.recovered.borrow() => Ok(()),
            told => told,
        }
    }
}
