//! What one run has in memory, without its teller: whoever rehearses plays the database, and decides
//! what it answers, when, and what happens meanwhile.
//!
//! A door for `fuzz/quota_model`, and nobody else: it is compiled for tests and for fuzzing only.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::account::Standing;
use super::holdings::{Holdings, Tried};
use super::lease::Moment;
use super::{Left, QuotaError, Reservation, Window};
use crate::clock::Clock;
use crate::ids::UserId;
use crate::plan::Allowance;
use crate::store::leases::{Ask, Granted, Held};
use crate::store::quota;

/// Everybody's accounts in one run.
pub struct Hand {
    holdings: Arc<Holdings>,
    calls: mpsc::UnboundedReceiver<UserId>,
    clock: Clock,
}

/// Somebody who waits for a conversation; dropped, they have left.
pub struct Waiting(oneshot::Receiver<Result<Reservation, QuotaError>>);

/// One walk of the teller, on which these are to be given back first, and those to be asked for then.
pub struct Round {
    users: Vec<UserId>,
    moment: Moment,
    /// What goes back.
    pub units: Vec<Held>,
    /// What is asked for.
    pub asks: Vec<Ask>,
}

/// What a user is told of their day.
#[derive(Clone, Copy, Debug)]
pub enum Told {
    /// From memory alone.
    Remembered(Left),
    /// From the database, and what is free in memory.
    Read(Left),
    /// Nothing yet: the database is being asked.
    Later,
}

// === impl Hand ===

impl Hand {
    /// Holds nothing yet, and at most `max_lease` ahead of what is asked for.
    #[must_use]
    pub fn new(clock: &Clock, max_lease: i64) -> Self {
        let (bell, calls) = mpsc::unbounded_channel();
        Self {
            holdings: Arc::new(Holdings::new(clock.clone(), max_lease, bell)),
            calls,
            clock: clock.clone(),
        }
    }

    /// Takes a conversation, or waits for it.
    ///
    /// # Errors
    /// The place in the line.
    pub fn take(&self, user: UserId, terms: &Allowance) -> Result<Reservation, Waiting> {
        match self.holdings.take(user, terms) {
            Tried::Taken(reservation) => Ok(reservation),
            Tried::Waiting(word) => Err(Waiting(word)),
        }
    }

    /// Who has called the teller since it was asked last.
    pub fn calls(&mut self) -> Vec<UserId> {
        std::iter::from_fn(|| self.calls.try_recv().ok()).collect()
    }

    /// As the [`Teller`](super::teller::Teller) begins a round for who called. The next is begun when this
    /// one was told to [`Hand::landed`] and to [`Hand::answered`], or nobody knows its outcome any more.
    pub fn round(&self, users: Vec<UserId>) -> Round {
        let moment = self.holdings.moment();
        let (mut units, mut asks) = (Vec::new(), Vec::new());
        for user in &users {
            self.holdings.serve(*user, moment);
            let (returned, ask) = self.holdings.gather(*user, moment);
            units.extend(returned);
            asks.extend(ask);
        }
        Round { users, moment, units, asks }
    }

    /// What goes back is back; or, when it was not `given`, here again.
    pub fn landed(&self, round: &Round, given: bool) {
        if !round.units.is_empty() {
            self.holdings.landed(&round.users, given);
        }
    }

    /// Whether what was asked for was granted, nobody knows.
    pub fn doubt(&self, round: &Round) {
        self.holdings.doubt(&round.asks);
        self.answered(round, None);
    }

    /// It is still not known what became of the last round, so that nothing is done for these.
    pub fn unanswered(&self, users: &[UserId]) {
        let moment = self.holdings.moment();
        for user in users {
            self.holdings.unanswered(*user, moment);
        }
    }

    /// What became of the last round of these is known: whether it was done, and what was granted.
    pub fn cleared(&self, users: &[UserId], is_done: bool, brought: &[Held]) {
        self.holdings.landed(users, is_done);
        self.holdings.found(users, brought);
    }

    /// The answers to what was asked for; `None`: the database gave none.
    pub fn answered(&self, round: &Round, answers: Option<&[Granted]>) {
        for ask in &round.asks {
            let Some(answers) = answers else {
                self.holdings.unanswered(ask.user, round.moment);
                continue;
            };
            let answer = answers.iter().find(|answer| answer.user_id == ask.user);
            self.holdings.answered(ask.user, answer, round.moment);
        }
    }

    /// What is known of a user may be otherwise now.
    pub fn forget(&self, user: UserId) {
        self.holdings.forget(user);
    }

    /// Lets go of what nobody uses.
    pub fn tidy(&self) {
        self.holdings.tidy();
    }

    /// Everything that is free, at an orderly end.
    #[must_use]
    pub fn surrender(&self) -> Vec<Held> {
        self.holdings.surrender()
    }

    /// Granted units of a day and an epoch that nobody uses.
    #[must_use]
    pub fn unused(&self, user: UserId, (day, epoch): (i64, i64)) -> i64 {
        self.holdings.unused(user, (day, Some(epoch)))
    }

    /// How a user's day stands, with `read` for what the database says of it.
    pub fn told(
        &self,
        user: UserId,
        terms: &Allowance,
        read: impl FnOnce(quota::Asked) -> quota::Left,
    ) -> Told {
        let look = self.holdings.look(user, terms.zone);
        match look.standing {
            Standing::Known(left) => Told::Remembered(left),
            Standing::Moving => Told::Later,
            Standing::Ask => {
                let day = Window::at(self.clock.now(), terms.zone).day;
                let found = read(quota::Asked { user, day, plan_limit: terms.per_day });
                let unused = self.holdings.unused_since(&look, user, (found.day, Some(found.epoch)));
                let window = Window::of(found.day, terms.zone);
                unused.map_or(Told::Later, |unused| Told::Read(Left::of(&found, unused, window)))
            }
        }
    }
}

// === impl Waiting ===

impl Waiting {
    /// A conversation, or why there is none; `None` while there is no word.
    pub fn word(&mut self) -> Option<Result<Reservation, QuotaError>> {
        match self.0.try_recv() {
            Ok(word) => Some(word),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(QuotaError::StoreDown)),
        }
    }
}
