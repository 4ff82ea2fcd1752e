//! Goes between memory and SQL: units that are not used go back, those that are needed come.
//!
//! One at a time, and what is to be given back before what is asked for: so that a unit on its way back
//! is there for whoever asks, and what a user was granted moves only while their account says so.
//! Whoever calls while the teller is away makes up the next group. Where nobody knows whether the last
//! transaction was done, that is found out first.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::RETRY;
use super::current::Current;
use super::holdings::Holdings;
use super::lease::Moment;
use crate::ids::UserId;
use crate::store::Db;
use crate::store::leases::{self, Ask, Doubt, Held, LeaseError};
use crate::telemetry::Metrics;

pub(super) struct Teller {
    pub(super) db: Db,
    pub(super) current: Arc<Current>,
    pub(super) metrics: Arc<Metrics>,
    /// Counts the rounds.
    pub(super) rounds: watch::Sender<u64>,
    /// Where nobody knows whether the last transaction was done: nothing moves before that is found out.
    pub(super) unclear: Option<Unclear>,
}

pub(super) struct Unclear {
    doubt: Doubt,
    /// Whose units it was to move.
    users: Vec<UserId>,
}

/// Most users of one transaction.
const GROUP: usize = 256;
/// How often the last units are tried to be given back.
const LAST_TRIES: usize = 8;

// === impl Teller ===

impl Teller {
    /// Ends when everybody is gone, and then leaves everything as it is; or when told that the quota is
    /// `closing`, and then gives back what is free and says that it is `closed`.
    pub(super) async fn work(
        mut self,
        holdings: Weak<Holdings>,
        mut calls: mpsc::UnboundedReceiver<UserId>,
        (closing, closed): (CancellationToken, CancellationToken),
    ) {
        let mut users = Vec::with_capacity(GROUP);
        loop {
            let is_called = tokio::select! {
                biased;
                () = closing.cancelled() => break,
                () = self.current.refused() => {
                    if let Some(holdings) = holdings.upgrade() {
                        self.begin_anew(&holdings).await;
                    }
                    continue;
                }
                called = calls.recv_many(&mut users, GROUP) => called > 0,
                () = tokio::time::sleep(RETRY), if self.unclear.is_some() => true,
            };
            let Some(holdings) = holdings.upgrade().filter(|_| is_called) else { break };
            self.round(&holdings, &users).await;
            users.clear();
        }
        calls.close();
        if let Some(holdings) = holdings.upgrade().filter(|_| closing.is_cancelled()) {
            self.give_all_back(&holdings).await;
        }
        closed.cancel();
    }

    async fn round(&mut self, holdings: &Arc<Holdings>, users: &[UserId]) {
        let moment = holdings.moment();
        if !self.clear(holdings).await {
            for user in users {
                holdings.unanswered(*user, moment);
            }
            return;
        }
        let (mut units, mut givers, mut asks) = (Vec::new(), Vec::new(), Vec::new());
        for user in users {
            holdings.serve(*user, moment);
            let (returned, ask) = holdings.gather(*user, moment);
            givers.extend((!returned.is_empty()).then_some(*user));
            units.extend(returned);
            asks.extend(ask);
        }
        if !units.is_empty()
            && let Some(given) = self.give_back(&units, &givers).await
        {
            holdings.landed(&givers, given);
        }
        if self.unclear.is_some() {
            for ask in &asks {
                holdings.unanswered(ask.user, moment);
            }
        } else if !asks.is_empty() {
            self.ask(holdings, &asks, moment).await;
        }
        self.rounds.send_modify(|rounds| *rounds += 1);
    }

    async fn ask(&mut self, holdings: &Arc<Holdings>, asks: &[Ask], moment: Moment) {
        let mut granted = leases::grant(&self.db, self.current.id(), asks).await;
        if matches!(granted, Err(LeaseError::Fenced)) && self.begin_anew(holdings).await {
            granted = leases::grant(&self.db, self.current.id(), asks).await;
        }
        match granted {
            Ok(answers) => {
                let units = answers.iter().map(|answer| answer.units).sum::<i64>();
                self.metrics.grants.inc_by(asks.len() as u64);
                self.metrics.units_granted.inc_by(u64::try_from(units).unwrap_or(0));
                let answers: HashMap<_, _> = answers.iter().map(|answer| (answer.user_id, answer)).collect();
                for ask in asks {
                    holdings.answered(ask.user, answers.get(&ask.user).copied(), moment);
                }
            }
            Err(error) => {
                tracing::error!(%error, users = asks.len(), "no conversations can be granted");
                let users = asks.iter().map(|ask| ask.user).collect();
                if !self.failed(error, users) {
                    holdings.doubt(asks);
                }
                for ask in asks {
                    holdings.unanswered(ask.user, moment);
                }
            }
        }
    }

    /// Whether they are given back; `None`: nobody knows.
    async fn give_back(&mut self, units: &[Held], givers: &[UserId]) -> Option<bool> {
        match leases::give_back(&self.db, self.current.id(), units).await {
            Ok(given) => {
                self.metrics.units_returned.inc_by(u64::try_from(given).unwrap_or(0));
                Some(true)
            }
            Err(error) => {
                tracing::error!(%error, rows = units.len(), "conversations cannot be given back");
                self.failed(error, givers.to_vec()).then_some(false)
            }
        }
    }

    /// Whether nothing was done, for certain.
    fn failed(&mut self, error: LeaseError, users: Vec<UserId>) -> bool {
        self.metrics.store_errors.inc();
        match error {
            LeaseError::NotDone(_) | LeaseError::Fenced => true,
            LeaseError::Unknown(doubt, _) => {
                self.unclear = Some(Unclear { doubt, users });
                false
            }
        }
    }

    /// Another process has taken over what this run held: drops it, and goes on under a new run. Whether
    /// that could be entered.
    async fn begin_anew(&mut self, holdings: &Holdings) -> bool {
        // Nothing of the old run may be spent from here on, whatever the database says.
        holdings.abandon();
        self.unclear = None;
        match self.current.begin_anew(&self.db, holdings.moment().now).await {
            Ok(_) => true,
            Err(error) => {
                self.metrics.store_errors.inc();
                tracing::error!(%error, "no new run could be entered; trying again");
                false
            }
        }
    }

    /// Finds out what became of the last transaction, where nobody knows; whether it is clear now.
    async fn clear(&mut self, holdings: &Holdings) -> bool {
        let Some(Unclear { doubt, users }) = &self.unclear else { return true };
        match leases::clear(&self.db, self.current.id(), doubt).await {
            Ok(cleared) => {
                holdings.landed(users, cleared.is_done);
                holdings.found(users, &cleared.brought);
                self.unclear = None;
                true
            }
            Err(error) => {
                self.metrics.store_errors.inc();
                tracing::debug!(%error, "nobody knows yet what became of conversations in hand");
                false
            }
        }
    }

    async fn give_all_back(&mut self, holdings: &Holdings) {
        for _ in 1..LAST_TRIES {
            if !self.clear(holdings).await {
                tokio::time::sleep(RETRY).await;
            }
        }
        let mut given = self.clear(holdings).await;
        for group in holdings.surrender().chunks(GROUP) {
            given = given && self.give_back_at_last(group).await;
        }
        if !given {
            tracing::error!("units in hand stay granted; the next start of this node takes them back");
        }
    }

    async fn give_back_at_last(&mut self, units: &[Held]) -> bool {
        for _ in 0..LAST_TRIES {
            let given = match &self.unclear {
                None => self.give_back(units, &[]).await,
                Some(Unclear { doubt, .. }) => {
                    let cleared = leases::clear(&self.db, self.current.id(), doubt).await.ok();
                    self.unclear = self.unclear.take().filter(|_| cleared.is_none());
                    cleared.map(|cleared| cleared.is_done)
                }
            };
            if given == Some(true) {
                return true;
            }
            tokio::time::sleep(RETRY).await;
        }
        false
    }
}
