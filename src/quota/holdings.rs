//! What this run holds of everybody's days: the accounts, in shards, and the bell that calls the teller.
//!
//! No lock is held while anybody waits, and none for longer than one account takes. A [`Reservation`]
//! that is dropped takes its shard's lock, so none is dropped, or handed over, under one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono_tz::Tz;
use tokio::sync::{mpsc, oneshot};

use super::account::{Account, Standing, Taken, Waiter};
use super::lease::Moment;
use super::{QuotaError, Reservation};
use crate::clock::Clock;
use crate::ids::UserId;
use crate::plan::Allowance;
use crate::store::leases::{Ask, Granted, Held};

/// Every account of this run.
pub(super) struct Holdings {
    shards: Vec<Mutex<Shard>>,
    /// Whoever belongs to no shard, which is nobody.
    spare: Mutex<Shard>,
    /// Users for whom the teller has something to do: each at most once, so that it is as long as there
    /// are accounts.
    bell: mpsc::UnboundedSender<UserId>,
    clock: Clock,
    max_lease: i64,
}

#[derive(Default)]
struct Shard {
    accounts: HashMap<UserId, Account>,
    /// How often something began that moves what is granted, or made it unknown.
    moves: u64,
}

/// What became of a try to take a unit.
pub(super) enum Tried {
    /// Here it is.
    Taken(Reservation),
    /// It will come, or word why not.
    Waiting(oneshot::Receiver<Result<Reservation, QuotaError>>),
}

/// What is known here of a reservation that is yet to be made.
pub(super) enum Peeked {
    /// A unit is free here.
    Free,
    /// None is left of the day.
    UsedUp(QuotaError),
    /// The database has to be asked.
    Unknown,
}

/// How a user's day stands, and since when.
pub(super) struct Look {
    pub(super) standing: Standing,
    moves: u64,
}

const SHARDS: usize = 64;

// === impl Holdings ===

impl Holdings {
    pub(super) fn new(clock: Clock, max_lease: i64, bell: mpsc::UnboundedSender<UserId>) -> Self {
        let shards = std::iter::repeat_with(Mutex::default).take(SHARDS).collect();
        Self { shards, spare: Mutex::default(), bell, clock, max_lease }
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { now: self.clock.now(), elapsed: self.clock.elapsed() }
    }

    /// When an answer comes it is as old as its question; but the day may have ended since.
    fn since(&self, asked_at: Moment) -> Moment {
        Moment { now: self.clock.now(), ..asked_at }
    }

    /// Takes a unit that is free here, or waits in line for one.
    pub(super) fn take(self: &Arc<Self>, user: UserId, terms: &Allowance) -> Tried {
        let moment = self.moment();
        let mut shard = self.shard(user);
        let account = shard.accounts.entry(user).or_insert_with(|| Account::new(user, terms.clone()));
        if let Some(taken) = account.take(terms, moment) {
            drop(shard);
            return Tried::Taken(Reservation::new(Arc::clone(self), user, taken));
        }
        let (waiter, word) = oneshot::channel();
        account.wait(waiter);
        self.call(account, user);
        Tried::Waiting(word)
    }

    /// Whether a unit could be taken now.
    pub(super) fn peek(&self, user: UserId, terms: &Allowance) -> Peeked {
        let moment = self.moment();
        self.shard(user).accounts.get(&user).map_or(Peeked::Unknown, |account| account.peek(terms, moment))
    }

    /// A unit that nobody used comes back.
    pub(super) fn put_back(&self, user: UserId, taken: &Taken) {
        let moment = self.moment();
        let mut shard = self.shard(user);
        let account = Self::account_of(&mut shard, user, taken);
        account.put_back(taken, moment);
        self.call(account, user);
    }

    /// Whether a unit will come back, with a row that says so.
    pub(super) fn refund(&self, user: UserId, taken: &Taken, dispatched: bool) -> bool {
        Self::account_of(&mut self.shard(user), user, taken).refund(taken, dispatched)
    }

    fn account_of<'s>(shard: &'s mut Shard, user: UserId, taken: &Taken) -> &'s mut Account {
        let terms = Allowance { per_day: taken.limit, zone: Tz::UTC };
        shard.accounts.entry(user).or_insert_with(|| Account::new(user, terms))
    }

    /// Hands free units to those who wait, the first come first. A unit whose waiter has left meanwhile
    /// comes back, and is the next one's.
    pub(super) fn serve(self: &Arc<Self>, user: UserId, moment: Moment) {
        loop {
            let next = self.shard(user).accounts.get_mut(&user).and_then(|one| one.next_served(moment));
            let Some((waiter, taken)) = next else { return };
            let _ = waiter.send(Ok(Reservation::new(Arc::clone(self), user, taken)));
        }
    }

    /// What the teller has to do for a user.
    pub(super) fn gather(&self, user: UserId, moment: Moment) -> (Vec<Held>, Option<Ask>) {
        let mut shard = self.shard(user);
        shard.moves += 1;
        let account = shard.accounts.get_mut(&user);
        account.map(|account| account.gather(moment, self.max_lease)).unwrap_or_default()
    }

    /// What was being given back is, or, when that failed, is here again.
    pub(super) fn landed(&self, users: &[UserId], given: bool) {
        for user in users {
            if let Some(account) = self.shard(*user).accounts.get_mut(user) {
                account.landed(given);
            }
        }
    }

    /// Whether something was granted to these, nobody knows.
    pub(super) fn doubt(&self, asks: &[Ask]) {
        for ask in asks {
            if let Some(account) = self.shard(ask.user).accounts.get_mut(&ask.user) {
                account.doubt();
            }
        }
    }

    /// These units were granted to some of the `users` in doubt, and nothing to the others.
    pub(super) fn found(&self, users: &[UserId], units: &[Held]) {
        for user in users {
            let mut shard = self.shard(*user);
            shard.moves += 1;
            let Some(account) = shard.accounts.get_mut(user) else { continue };
            account.found(units.iter().filter(|held| held.user == *user).copied());
            self.call(account, *user);
        }
    }

    /// The database's answer to an ask; `None`: there is no such user.
    pub(super) fn answered(self: &Arc<Self>, user: UserId, answer: Option<&Granted>, asked_at: Moment) {
        let told = {
            let mut shard = self.shard(user);
            let Some(account) = shard.accounts.get_mut(&user) else { return };
            match answer {
                Some(answer) => {
                    account.granted(answer, asked_at, self.max_lease);
                    Vec::new()
                }
                None => account.nobody(),
            }
        };
        tell(told, QuotaError::NoSuchUser);
        let moment = self.since(asked_at);
        self.serve(user, moment);
        let (refused, error) = {
            let mut shard = self.shard(user);
            let Some(account) = shard.accounts.get_mut(&user) else { return };
            let refused = account.refused(moment);
            self.call(account, user);
            refused
        };
        if let Some(error) = error {
            tell(refused, error);
        }
    }

    /// The database did not answer an ask.
    pub(super) fn unanswered(self: &Arc<Self>, user: UserId, moment: Moment) {
        let moment = self.since(moment);
        if let Some(account) = self.shard(user).accounts.get_mut(&user) {
            account.unanswered(moment);
        }
        self.serve(user, moment);
        let waiting = self.shard(user).accounts.get_mut(&user).map(Account::all_waiters);
        tell(waiting.unwrap_or_default(), QuotaError::StoreDown);
    }

    /// What is known of a user may be otherwise now.
    pub(super) fn forget(&self, user: UserId) {
        let mut shard = self.shard(user);
        shard.moves += 1;
        if let Some(account) = shard.accounts.get_mut(&user) {
            account.forget();
            self.call(account, user);
        }
    }

    /// What is known of anybody may be otherwise now.
    pub(super) fn forget_all(&self) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.moves += 1;
            for (user, account) in &mut shard.accounts {
                account.forget();
                self.call(account, *user);
            }
        }
    }

    /// Lets go of what nobody uses, and calls the teller again for what could not be given back.
    pub(super) fn tidy(&self) {
        let moment = self.moment();
        for shard in &self.shards {
            lock(shard).accounts.retain(|user, account| {
                account.tidy(moment);
                self.call(account, *user);
                !account.is_empty()
            });
        }
    }

    /// Everything that is free here, at the end. Nobody is served any more.
    pub(super) fn surrender(&self) -> Vec<Held> {
        let mut units = Vec::new();
        for shard in &self.shards {
            let accounts = std::mem::take(&mut lock(shard).accounts);
            // Whoever still waits learns that nobody will answer.
            units.extend(accounts.into_values().flat_map(|mut account| account.surrender()));
        }
        units
    }

    /// How a user's day stands, as far as it can be told from here.
    pub(super) fn look(&self, user: UserId, zone: Tz) -> Look {
        let moment = self.moment();
        let shard = self.shard(user);
        let standing = shard.accounts.get(&user).map(|account| account.standing(zone, moment));
        Look { standing: standing.unwrap_or(Standing::Ask), moves: shard.moves }
    }

    /// Whether the database may be asked how much a user was granted.
    pub(super) fn look_at_grants(&self, user: UserId) -> Look {
        let shard = self.shard(user);
        let is_moving = shard.accounts.get(&user).is_some_and(Account::is_moving);
        let standing = if is_moving { Standing::Moving } else { Standing::Ask };
        Look { standing, moves: shard.moves }
    }

    /// Units of a day that are granted and not used, of one epoch or of all; `None` when what was read
    /// since `look` may be of another moment.
    pub(super) fn unused_since(
        &self,
        look: &Look,
        user: UserId,
        (day, epoch): (i64, Option<i64>),
    ) -> Option<i64> {
        let shard = self.shard(user);
        let unused = shard.accounts.get(&user).map_or(0, |account| account.unused(day, epoch));
        (shard.moves == look.moves).then_some(unused)
    }

    /// The same, whatever may have moved.
    pub(super) fn unused(&self, user: UserId, (day, epoch): (i64, Option<i64>)) -> i64 {
        self.shard(user).accounts.get(&user).map_or(0, |account| account.unused(day, epoch))
    }

    /// How many users are known here.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).accounts.len()).sum()
    }

    /// Whether nothing is on its way back.
    #[cfg(test)]
    pub(super) fn is_settled(&self) -> bool {
        self.shards.iter().all(|shard| lock(shard).accounts.values().all(Account::is_settled))
    }

    fn call(&self, account: &mut Account, user: UserId) {
        if account.calls() && self.bell.send(user).is_err() {
            // The teller has gone home: whoever waits is told so, by the end of their channel.
            account.all_waiters().clear();
        }
    }

    fn shard(&self, user: UserId) -> MutexGuard<'_, Shard> {
        let index = usize::try_from(user.0.unsigned_abs() % SHARDS as u64).unwrap_or(0);
        lock(self.shards.get(index).unwrap_or(&self.spare))
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tell(waiters: Vec<Waiter>, error: QuotaError) {
    for waiter in waiters {
        let _ = waiter.send(Err(error));
    }
}
