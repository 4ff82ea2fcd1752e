//! How much: conversations per day, reserved one by one and never once too often.
//!
//! The truth is one row of SQL for each user, day and epoch, moved by one conditional statement. A
//! day is computed from the clock and the allowance's zone at each request; no job resets anything,
//! so nothing can be missed or run twice.

use std::sync::Arc;

use chrono_tz::Tz;
use thiserror::Error;

use crate::background::Background;
use crate::clock::{Clock, Timestamp};
use crate::ids::UserId;
use crate::plan::Allowance;
use crate::store::{self, Db, StoreError};
use crate::telemetry::Metrics;

mod reservation;
mod settler;
mod window;

pub use reservation::{Reservation, Verdict};
pub use settler::Seat;
pub use window::Window;

use settler::Settler;

/// The daily quota. Clones are the same quota.
#[derive(Clone)]
pub struct Quota {
    db: Db,
    background: Background,
    clock: Clock,
    metrics: Arc<Metrics>,
    settler: Settler,
}

/// What a user has today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Conversations left now.
    pub left: i64,
    /// Conversations of this day altogether.
    pub allowance: i64,
    /// What the next day will give.
    pub reset: i64,
    /// When the next day begins.
    pub resets_at: Timestamp,
}

/// No conversation was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QuotaError {
    /// The day's conversations are used up.
    #[error("daily limit of {limit} conversations reached")]
    UsedUp {
        /// Of the day.
        limit: i64,
        /// When the next day begins.
        resets_at: Timestamp,
        /// In whose day.
        zone: Tz,
    },
    /// There is no such user any more.
    #[error("the user is gone")]
    NoSuchUser,
    /// Too many conversations are waiting to be settled.
    #[error("too many conversations wait to be settled")]
    Busy,
    /// The database does not answer.
    #[error("the quota cannot be read")]
    StoreDown,
}

// === impl Quota ===

impl Quota {
    /// Starts the settler on `background`. At most `max_parallel` reservations may be open.
    #[must_use]
    pub fn start(
        db: Db,
        background: &Background,
        clock: Clock,
        metrics: Arc<Metrics>,
        max_parallel: usize,
    ) -> Self {
        let settler = Settler::start(db.clone(), background, max_parallel);
        Self { db, background: background.clone(), clock, metrics, settler }
    }

    /// The day it is now in `zone`.
    #[must_use]
    pub fn today(&self, zone: Tz) -> Window {
        Window::at(self.clock.now(), zone)
    }

    /// A place in the queue of the settler, taken before a reservation so that the reservation can
    /// be settled in `Drop`, whatever happens.
    ///
    /// # Errors
    ///
    /// [`QuotaError::Busy`] when every place is taken.
    pub fn seat(&self) -> Result<Seat, QuotaError> {
        self.settler.seat().ok_or(QuotaError::Busy)
    }

    /// Reserves one conversation of today.
    ///
    /// # Errors
    ///
    /// [`QuotaError::UsedUp`] when none is left, [`QuotaError::StoreDown`] when nobody can tell.
    pub async fn reserve(
        &self,
        user: UserId,
        allowance: &Allowance,
        seat: Seat,
    ) -> Result<Reservation, QuotaError> {
        let window = self.today(allowance.zone);
        let mut taken = self.take(user, window, allowance.per_day, seat).await?;
        if let Err(seat) = taken {
            if !self.settler.has_refunds_under_way() {
                return Err(self.used_up(user, allowance, window).await);
            }
            self.settler.settled().await;
            taken = self.take(user, window, allowance.per_day, seat).await?;
        }
        let Ok(reservation) = taken else { return Err(self.used_up(user, allowance, window).await) };
        self.metrics.reserved.inc();
        Ok(reservation)
    }

    /// What a user has today, exact: refunds under way are waited for.
    ///
    /// # Errors
    ///
    /// [`QuotaError::NoSuchUser`], [`QuotaError::StoreDown`].
    pub async fn left(&self, user: UserId, allowance: &Allowance) -> Result<Left, QuotaError> {
        self.settled().await;
        let (db, window, per_day) = (self.db.clone(), self.today(allowance.zone), allowance.per_day);
        let read = async move { store::quota::left(&db, user, window.day, per_day).await };
        let found = self.asked(self.background.run(read).await)?.ok_or(QuotaError::NoSuchUser)?;
        let (left, allowance, reset) = (found.left, found.allowance, found.reset);
        Ok(Left { left, allowance, reset, resets_at: window.resets_at })
    }

    /// Waits until every refund that was due when this was called is in the database.
    pub async fn settled(&self) {
        self.settler.settled().await;
    }

    /// One conversation, or the seat back. The reservation is made where the database answers: if
    /// nobody waits for it any more, because the client left, it is dropped there, and refunded.
    async fn take(
        &self,
        user: UserId,
        window: Window,
        per_day: i64,
        seat: Seat,
    ) -> Result<Result<Reservation, Seat>, QuotaError> {
        let db = self.db.clone();
        let take = async move {
            let granted = store::quota::reserve(&db, user, window.day, per_day, 1).await?;
            Ok(match granted {
                Some(granted) => Ok(Reservation::new(user, window, granted, seat)),
                None => Err(seat),
            })
        };
        self.asked(self.background.run(take).await)
    }

    async fn used_up(&self, user: UserId, allowance: &Allowance, window: Window) -> QuotaError {
        match self.left(user, allowance).await {
            Ok(Left { allowance: limit, resets_at, .. }) => {
                QuotaError::UsedUp { limit, resets_at: resets_at.max(window.resets_at), zone: allowance.zone }
            }
            Err(error) => error,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use chrono_tz::Tz;
    use futures_util::future::join_all;
    use futures_util::poll;

    use super::{Quota, QuotaError, Verdict};
    use crate::background::Background;
    use crate::clock::Clock;
    use crate::ids::UserId;
    use crate::plan::Allowance;
    use crate::store::tests::{Fresh, NOW, fresh, user};
    use crate::telemetry::Metrics;

    struct Day {
        quota: Quota,
        user: UserId,
        allowance: Allowance,
        _database: Fresh,
    }

    impl Day {
        async fn of(per_day: i64) -> Self {
            let database = fresh().await;
            let user = user(&database.db, "ann").await;
            let background = Background::new(tokio::runtime::Handle::current());
            let metrics = Arc::new(Metrics::new());
            let quota = Quota::start(database.db.clone(), &background, Clock::manual(NOW), metrics, 1000);
            Self { quota, user, allowance: Allowance { per_day, zone: Tz::UTC }, _database: database }
        }

        async fn reserve(&self) -> Result<super::Reservation, QuotaError> {
            self.quota.reserve(self.user, &self.allowance, self.quota.seat()?).await
        }

        async fn left(&self) -> i64 {
            self.quota.left(self.user, &self.allowance).await.unwrap().left
        }
    }

    #[tokio::test]
    async fn as_many_pass_as_are_left_however_many_come_at_once() {
        let day = Day::of(10).await;
        let all = join_all((0..60).map(|_| day.reserve())).await;
        let passed: Vec<_> = all.into_iter().filter_map(Result::ok).collect();
        assert_eq!(passed.len(), 10);
        for one in passed {
            assert_eq!(one.settle(Verdict::Charged), Verdict::Charged);
        }
        assert_eq!(day.left().await, 0);
        assert!(matches!(day.reserve().await.err(), Some(QuotaError::UsedUp { limit: 10, .. })));
    }

    #[tokio::test]
    async fn what_is_refunded_is_there_for_whoever_asks_next() {
        let day = Day::of(1).await;
        for _ in 0..5 {
            assert_eq!(day.reserve().await.unwrap().settle(Verdict::Refunded), Verdict::Refunded);
        }
        assert_eq!(day.left().await, 1);
    }

    #[tokio::test]
    async fn failures_cannot_be_farmed() {
        let day = Day::of(2).await;
        let mut verdicts = Vec::new();
        while let Ok(mut one) = day.reserve().await {
            one.dispatched();
            verdicts.push(one.settle(Verdict::Refunded));
            // A refund on its way is not counted yet: what comes at once may pass the cap together.
            day.quota.settled().await;
        }
        let refunded = verdicts.iter().filter(|verdict| **verdict == Verdict::Refunded).count();
        assert_eq!((refunded, verdicts.len()), (5, 7), "five refunds, and then the day's two");
    }

    #[tokio::test]
    async fn what_nobody_settles_is_charged_only_if_it_was_dispatched() {
        let day = Day::of(10).await;
        drop(day.reserve().await.unwrap());
        assert_eq!(day.left().await, 10);
        let mut forwarded = day.reserve().await.unwrap();
        forwarded.dispatched();
        drop(forwarded);
        assert_eq!(day.left().await, 9);
    }

    #[tokio::test]
    async fn a_client_that_leaves_while_the_database_answers_loses_nothing() {
        let day = Day::of(10).await;
        for _ in 0..20 {
            let mut waiting = Box::pin(day.reserve());
            assert!(poll!(waiting.as_mut()).is_pending());
            drop(waiting);
        }
        let all_back = async {
            while day.left().await < 10 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all_back).await.expect("all of them come back");
    }
}
