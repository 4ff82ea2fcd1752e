//! How days stand, told exactly while units come and go.
//!
//! What is left is the allowance less what was granted, and the units that are granted and in nobody's
//! use. The first two stand in SQL, the last in memory: they are of one moment when nothing moved between
//! them since before SQL was read. While something moves, a user who has units in hand is answered from
//! memory alone.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::account::Standing;
use super::holdings::Look;
use super::{Left, Quota, QuotaError, Window};
use crate::ids::UserId;
use crate::plan::Allowance;
use crate::store::quota::{Asked, Used};
use crate::store::{self, StoreError};

/// Longest wait for a moment at which nothing moves; after it the answer is as good as it can be.
const PATIENCE: Duration = Duration::from_secs(2);

// === impl Quota ===

impl Quota {
    pub(super) async fn standings(
        &self,
        asked: &[(UserId, Allowance)],
    ) -> Result<HashMap<UserId, Left>, QuotaError> {
        let deadline = Instant::now() + PATIENCE;
        let mut rounds = self.rounds.clone();
        let mut answers = HashMap::with_capacity(asked.len());
        let mut open: Vec<&(UserId, Allowance)> = asked.iter().collect();
        loop {
            rounds.mark_unchanged();
            let is_late = Instant::now() >= deadline;
            let mut looks = Vec::new();
            for one @ (user, allowance) in &open {
                let look = self.holdings.look(*user, allowance.zone);
                match look.standing {
                    Standing::Known(left) => drop(answers.insert(*user, left)),
                    Standing::Moving if !is_late => {}
                    Standing::Moving | Standing::Ask => looks.push((*one, look)),
                }
            }
            let gone = self.look_up(&looks, is_late, &mut answers).await?;
            open.retain(|(user, _)| !answers.contains_key(user) && !gone.contains(user));
            if open.is_empty() || is_late {
                return Ok(answers);
            }
            if looks.is_empty() {
                let _ = timeout_at(deadline, rounds.changed()).await;
            }
        }
    }

    /// Asks the database for those who are not known here, and answers for whom nothing moved meanwhile.
    /// Gives those who are gone.
    async fn look_up(
        &self,
        looks: &[(&(UserId, Allowance), Look)],
        is_late: bool,
        answers: &mut HashMap<UserId, Left>,
    ) -> Result<Vec<UserId>, QuotaError> {
        if looks.is_empty() {
            return Ok(Vec::new());
        }
        let asked = looks.iter().map(|((user, allowance), _)| Asked {
            user: *user,
            day: self.today(allowance.zone).day,
            plan_limit: allowance.per_day,
        });
        let (db, asked) = (self.db.clone(), asked.collect::<Vec<_>>());
        let read = async move { store::quota::left_many(&db, &asked).await };
        let found = self.asked(self.background.run(read).await)?;
        let mut gone = Vec::new();
        for ((user, allowance), look) in looks {
            let Some(row) = found.get(user) else {
                gone.push(*user);
                continue;
            };
            let of = (row.day, Some(row.epoch));
            let unused = self.holdings.unused_since(look, *user, of);
            let unused = unused.or_else(|| is_late.then(|| self.holdings.unused(*user, of)));
            if let Some(unused) = unused {
                let window = Window::of(row.day, allowance.zone);
                answers.insert(*user, Left::of(row, unused, window));
            }
        }
        Ok(gone)
    }

    pub(super) async fn usage(&self, user: UserId, since: i64) -> Result<Vec<Used>, QuotaError> {
        let deadline = Instant::now() + PATIENCE;
        let mut rounds = self.rounds.clone();
        loop {
            rounds.mark_unchanged();
            let is_late = Instant::now() >= deadline;
            let look = self.holdings.look_at_grants(user);
            if matches!(look.standing, Standing::Moving) && !is_late {
                let _ = timeout_at(deadline, rounds.changed()).await;
                continue;
            }
            let db = self.db.clone();
            let read = async move { store::quota::used_since(&db, user, since).await };
            let mut days = self.asked(self.background.run(read).await)?;
            let of_one_moment = days.iter_mut().all(|used| {
                let of = (used.day, None);
                let unused = self.holdings.unused_since(&look, user, of);
                let unused = unused.or_else(|| is_late.then(|| self.holdings.unused(user, of)));
                used.units = used.units.saturating_sub(unused.unwrap_or(0)).max(0);
                unused.is_some()
            });
            if of_one_moment {
                return Ok(days);
            }
        }
    }

    fn asked<T, U>(&self, outcome: Result<Result<T, StoreError>, U>) -> Result<T, QuotaError> {
        match outcome {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                self.metrics.store_errors.inc();
                tracing::error!(%error, "the quota cannot be read");
                Err(QuotaError::StoreDown)
            }
            Err(_) => Err(QuotaError::StoreDown),
        }
    }
}
