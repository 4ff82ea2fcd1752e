//! Goes between memory and SQL: units that are not used go back, those that are needed come.
//!
//! One at a time, and what is to be given back before what is asked for: so that a unit on its way back
//! is there for whoever asks, and what a user was granted moves only while their account says so.
//! Whoever calls while the teller is away makes up the next group.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::RETRY;
use super::holdings::Holdings;
use super::lease::Moment;
use crate::ids::{RunId, UserId};
use crate::store::Db;
use crate::store::leases::{self, Ask, GiveBackError, Held};
use crate::telemetry::Metrics;

pub(super) struct Teller {
    pub(super) db: Db,
    pub(super) run: RunId,
    pub(super) metrics: Arc<Metrics>,
    /// Counts the rounds.
    pub(super) rounds: watch::Sender<u64>,
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
        self,
        holdings: Weak<Holdings>,
        mut calls: mpsc::UnboundedReceiver<UserId>,
        (closing, closed): (CancellationToken, CancellationToken),
    ) {
        let mut users = Vec::with_capacity(GROUP);
        loop {
            let called = tokio::select! {
                biased;
                () = closing.cancelled() => break,
                called = calls.recv_many(&mut users, GROUP) => called,
            };
            let Some(holdings) = holdings.upgrade().filter(|_| called > 0) else { break };
            self.round(&holdings, &users).await;
            users.clear();
        }
        calls.close();
        if let Some(holdings) = holdings.upgrade().filter(|_| closing.is_cancelled()) {
            self.give_all_back(&holdings).await;
        }
        closed.cancel();
    }

    async fn round(&self, holdings: &Arc<Holdings>, users: &[UserId]) {
        let moment = holdings.moment();
        let (mut units, mut givers, mut asks) = (Vec::new(), Vec::new(), Vec::new());
        for user in users {
            holdings.serve(*user, moment);
            let (returned, ask) = holdings.gather(*user, moment);
            givers.extend((!returned.is_empty()).then_some(*user));
            units.extend(returned);
            asks.extend(ask);
        }
        if !units.is_empty() {
            let given = self.give_back(&units).await;
            holdings.landed(&givers, given);
        }
        if !asks.is_empty() {
            self.ask(holdings, &asks, moment).await;
        }
        self.rounds.send_modify(|rounds| *rounds += 1);
    }

    async fn ask(&self, holdings: &Arc<Holdings>, asks: &[Ask], moment: Moment) {
        match leases::grant(&self.db, self.run, asks).await {
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
                self.metrics.store_errors.inc();
                tracing::error!(%error, users = asks.len(), "no conversations can be granted");
                for ask in asks {
                    holdings.unanswered(ask.user, moment);
                }
            }
        }
    }

    /// Whether they need not be given back again.
    async fn give_back(&self, units: &[Held]) -> bool {
        match leases::give_back(&self.db, self.run, units).await {
            Ok(given) => {
                self.metrics.units_returned.inc_by(u64::try_from(given).unwrap_or(0));
                true
            }
            Err(error) => {
                self.metrics.store_errors.inc();
                tracing::error!(%error, rows = units.len(), "conversations cannot be given back");
                matches!(error, GiveBackError::Unknown(_))
            }
        }
    }

    async fn give_all_back(&self, holdings: &Holdings) {
        let units = holdings.surrender();
        let mut tries = 0;
        for group in units.chunks(GROUP) {
            while !self.give_back(group).await {
                tries += 1;
                if tries == LAST_TRIES {
                    tracing::error!(
                        "units in hand stay granted; the next start of this node takes them back"
                    );
                    return;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
