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
        let per_day = allowance.per_day;
        let mut granted = self.grant(user, window.day, per_day).await?;
        if granted.is_none() && self.settler.has_refunds_under_way() {
            self.settler.settled().await;
            granted = self.grant(user, window.day, per_day).await?;
        }
        let Some(granted) = granted else {
            let limit = self.left(user, allowance).await?.allowance;
            return Err(QuotaError::UsedUp { limit, resets_at: window.resets_at, zone: allowance.zone });
        };
        self.metrics.reserved.inc();
        Ok(Reservation::new(user, window, granted, seat))
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

    async fn grant(
        &self,
        user: UserId,
        day: i64,
        per_day: i64,
    ) -> Result<Option<store::quota::Granted>, QuotaError> {
        let db = self.db.clone();
        let lease = async move { store::quota::reserve(&db, user, day, per_day, 1).await };
        self.asked(self.background.run(lease).await)
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
