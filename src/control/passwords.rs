//! The desk where passwords are hashed and compared.
//!
//! bcrypt takes a core for tens to hundreds of milliseconds, on purpose. So it runs on the blocking
//! pool, no more at a time than there are cores, and no more wait than a short queue holds: what
//! comes beyond is told to come back, and neither streams nor other calls notice. Logins go before
//! registrations.

use std::sync::Arc;

use super::problem::Problem;
use crate::credential::password::{self, HashError, Password, PasswordHash};

mod desks;

use desks::Desks;

pub(super) use desks::Urgency;

/// Hashes passwords, a bounded number at a time.
pub struct Passwords {
    cost: u32,
    /// Compared with when there is no account, so that nobody can tell by the time it takes.
    nobodys: PasswordHash,
    desks: Arc<Desks>,
}

/// What a comparison found.
pub(super) enum Comparison {
    /// Not the password.
    Wrong,
    /// The password; with a new hash when the old one was made at another cost.
    Right { renewed: Option<PasswordHash> },
}

// === impl Passwords ===

impl Passwords {
    /// A desk for each of `cores`, hashing at bcrypt cost `cost`. Makes one hash, so it takes as long
    /// as one.
    ///
    /// # Errors
    ///
    /// A cost outside 4 to 16, or a machine without randomness.
    pub fn open(cost: u32, cores: usize) -> Result<Self, HashError> {
        Ok(Self { cost, nobodys: password::dummy(cost)?, desks: Desks::new(cores) })
    }

    /// The hash of a new password.
    pub(super) async fn hash(&self, password: Password, urgency: Urgency) -> Result<PasswordHash, Problem> {
        let cost = self.cost;
        let hashed = self.at_a_desk(urgency, move || password::hash(&password, cost)).await?;
        hashed.map_err(|error| Problem::Internal(error.to_string()))
    }

    /// Compares a password with an account's hash, or with nobody's when there is no account: the
    /// same work, and never right.
    pub(super) async fn compare(
        &self,
        password: Password,
        stored: Option<PasswordHash>,
    ) -> Result<Comparison, Problem> {
        let (cost, exists) = (self.cost, stored.is_some());
        let hash = stored.unwrap_or_else(|| self.nobodys.clone());
        self.at_a_desk(Urgency::Now, move || {
            if !password::verify(&password, &hash) || !exists {
                password::spend_the_rest(&password, &hash, cost);
                return Comparison::Wrong;
            }
            let stale = password::needs_rehash(&hash, cost);
            let renewed = stale.then(|| password::hash(&password, cost).ok()).flatten();
            Comparison::Right { renewed }
        })
        .await
    }

    /// The desk is held by the work itself: a client who leaves does not free a core that is still busy.
    async fn at_a_desk<T: Send + 'static>(
        &self,
        urgency: Urgency,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let desk = self.desks.take(urgency).await;
        let desk = desk.map_err(|_| Problem::Busy("the queue for password work is full"))?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(desk);
            result
        });
        done.await.map_err(|error| Problem::Internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Comparison, Passwords, Urgency};
    use crate::credential::password::{self, Password, PasswordHash};

    fn of(text: &str) -> Password {
        Password::candidate(text).unwrap()
    }

    #[tokio::test]
    async fn the_right_password_is_right_and_nobody_has_one() {
        let desk = Passwords::open(4, 1).unwrap();
        let hash = desk.hash(of("hunter2hunter2"), Urgency::Now).await.unwrap();
        let right = desk.compare(of("hunter2hunter2"), Some(hash.clone())).await.unwrap();
        assert!(matches!(right, Comparison::Right { renewed: None }));
        let wrong = desk.compare(of("hunter2hunter3"), Some(hash)).await.unwrap();
        assert!(matches!(wrong, Comparison::Wrong));
        assert!(matches!(desk.compare(of("hunter2hunter2"), None).await.unwrap(), Comparison::Wrong));
    }

    #[tokio::test]
    async fn a_hash_of_a_lower_cost_is_renewed() {
        let old: PasswordHash = password::hash(&of("hunter2hunter2"), 4).unwrap();
        let desk = Passwords::open(5, 1).unwrap();
        let Comparison::Right { renewed: Some(new) } =
            desk.compare(of("hunter2hunter2"), Some(old)).await.unwrap()
        else {
            panic!("not renewed");
        };
        assert!(new.as_str().starts_with("$2b$05$"));
    }
}
