//! How often a secret may be guessed, and how one who knows it is never kept out by those who guess.
//!
//! Failures are counted; a success never is. What is counted first is the pair of account and network
//! (an IPv4 address, or the /64 of an IPv6 address): when its bucket is empty, the network waits for that
//! account, and other networks do not. A network also has a bucket for all accounts together, and so has
//! an IPv6 /48. A pair that succeeded in the last thirty days is *known* and is held to its own bucket only.
//!
//! | what is guessed | a pair | a network | the account, from everywhere |
//! |---|---|---|---|
//! | password: login of users, staff and admins; change of password or e-mail address; end of a second factor | 5 in 5 min | 20 | 20, then each attempt waits 2 s |
//! | TOTP code, recovery code (the password is known then) | 5 | 20 | 5, then only known pairs |
//! | token of a letter (100 bits) | 5 | 20 | 20, then each attempt waits 2 s |
//! | asking for a letter | 5 | 20 | 5, then no letter is sent |
//! | refresh token, API key (150 bits and more) | – | – | –; the rate of the IP address |
//!
//! An attempt that is being judged holds its place. Where its place might be the last one, the next attempt
//! waits until it is judged: parallel right logins all succeed, and parallel guesses are not more guesses.
//!
//! Every table is bounded. A full one forgets those entries that stand for the fewest failures, so a flood of
//! names or networks cannot make it forget an exhausted one.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use super::problem::Problem;
use crate::clock::Clock;

mod known;
mod table;

use known::Known;
use table::{Budget, Room, Table};

/// Failed attempts, by pair, account and network.
#[derive(Debug)]
pub struct Backoff {
    state: Mutex<State>,
    /// Keys are digests by a secret of this process: nobody can choose two that collide.
    digests: RandomState,
    /// Notified when an attempt was judged.
    judged: Notify,
    /// Attempts that may wait for another one to be judged.
    waiting: Semaphore,
    /// The same for registrations.
    registrants: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    pairs: Table,
    accounts: Table,
    networks: Table,
    prefixes: Table,
    known: Known,
}

/// What is guessed at, or otherwise bounded by network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guarded {
    /// A password.
    Password,
    /// A second factor.
    Code,
    /// The token of a letter.
    MailToken,
    /// Not a secret, but a mailbox that strangers must not fill.
    Letter,
    /// Not a secret, but the time to hash one.
    Registration,
}

/// An attempt that was admitted. Dropped, it counts as a failure.
#[must_use]
pub(super) struct Attempt<'b> {
    backoff: &'b Backoff,
    clock: Clock,
    keys: Keys,
    /// Whether the account had more failures than its bucket holds.
    is_braked: bool,
    is_judged: bool,
}

/// Whose buckets an attempt is taken from.
#[derive(Clone, Copy, Debug)]
struct Keys {
    what: Guarded,
    pair: u64,
    account: u64,
    network: u64,
    prefix: Option<u64>,
}

/// What becomes of an attempt now.
enum Decision {
    Go { is_braked: bool },
    Wait,
    Refuse(Duration),
}

enum Judgement {
    Right,
    Wrong,
    /// It could not be told.
    Unknown,
}

const NETWORK: Budget = Budget { per_window: 20, at_once: 4 };
const PREFIX: Budget = Budget { per_window: 100, at_once: 32 };
/// How long an attempt at an account with too many failures is held back.
const BRAKE: Duration = Duration::from_secs(2);
/// Longest wait for another attempt to be judged.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST_WAITING: usize = 1024;
const MOST_REGISTRANTS: usize = 64;

// === impl Backoff ===

impl Default for Backoff {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            digests: RandomState::new(),
            judged: Notify::new(),
            waiting: Semaphore::new(MOST_WAITING),
            registrants: Semaphore::new(MOST_REGISTRANTS),
        }
    }
}

impl Backoff {
    /// Takes one attempt at what `account` guards (a role and a name; case does not matter) from `ip`.
    /// Waits where an attempt that is being judged holds the last place, and where the account has had too
    /// many failures.
    pub(super) async fn admit(
        &self,
        what: Guarded,
        account: &str,
        ip: IpAddr,
        clock: &Clock,
    ) -> Result<Attempt<'_>, Problem> {
        let keys = self.keys(what, account, ip);
        let is_braked = match self.decide(&keys, clock.elapsed()) {
            Decision::Go { is_braked } => is_braked,
            Decision::Refuse(retry_after) => return Err(Problem::TooManyLogins { retry_after }),
            Decision::Wait => self.wait(&keys, clock).await?,
        };
        let attempt = Attempt { backoff: self, clock: clock.clone(), keys, is_braked, is_judged: false };
        if is_braked && what.slows() {
            sleep(BRAKE).await;
        }
        Ok(attempt)
    }

    async fn wait(&self, keys: &Keys, clock: &Clock) -> Result<bool, Problem> {
        let places = if keys.what == Guarded::Registration { &self.registrants } else { &self.waiting };
        let busy = || Problem::Busy("too many attempts wait for others to be judged");
        let _place = places.try_acquire().map_err(|_| busy())?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let judged = self.judged.notified();
            match self.decide(keys, clock.elapsed()) {
                Decision::Go { is_braked } => return Ok(is_braked),
                Decision::Refuse(retry_after) => return Err(Problem::TooManyLogins { retry_after }),
                Decision::Wait => timeout_at(deadline, judged).await.map_err(|_| busy())?,
            }
        }
    }

    /// Takes the attempt where there is room for it.
    fn decide(&self, keys: &Keys, now: Duration) -> Decision {
        let mut state = self.state();
        let state = &mut *state;
        let is_known = state.known.has(keys.account, keys.network, now);
        let account = state.accounts.room(keys.account, keys.what.per_account(), now);
        let mut rooms = vec![state.pairs.room(keys.pair, keys.what.per_pair(), now)];
        if !is_known && keys.what != Guarded::Registration {
            rooms.push(state.networks.room(keys.network, NETWORK, now));
            rooms.extend(keys.prefix.map(|prefix| state.prefixes.room(prefix, PREFIX, now)));
            if keys.what == Guarded::Code {
                rooms.push(account);
            }
        }
        if let Some(wait) = rooms.iter().filter_map(Room::refused_for).max() {
            return Decision::Refuse(wait);
        }
        if rooms.contains(&Room::Held) {
            return Decision::Wait;
        }
        for (table, key) in state.tables(keys) {
            table.take(key, now);
        }
        Decision::Go { is_braked: !is_known && account.refused_for().is_some() }
    }

    fn judge(&self, keys: &Keys, judgement: &Judgement, now: Duration) {
        let mut state = self.state();
        let failed = matches!(judgement, Judgement::Wrong);
        let budgets = [keys.what.per_pair(), keys.what.per_account(), NETWORK, PREFIX];
        for ((table, key), budget) in state.tables(keys).into_iter().zip(budgets) {
            table.settle(key, failed.then_some(budget), now);
        }
        if matches!(judgement, Judgement::Right) {
            state.known.note(keys.account, keys.network, now);
        }
        drop(state);
        self.judged.notify_waiters();
    }

    fn keys(&self, what: Guarded, account: &str, ip: IpAddr) -> Keys {
        let account = (what.word(), account.to_lowercase());
        let (network, prefix) = networks_of(ip);
        let digest = |network: IpAddr| self.digests.hash_one(network);
        Keys {
            what,
            pair: self.digests.hash_one((&account, network)),
            account: self.digests.hash_one(&account),
            network: digest(network),
            prefix: prefix.map(digest),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The network that shares a bucket, and for IPv6 the wider one: who holds one IPv6 address holds its
/// /64, and often the /48.
fn networks_of(ip: IpAddr) -> (IpAddr, Option<IpAddr>) {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let cut = |bits: u32| IpAddr::V6((v6.to_bits() & !(u128::MAX >> bits)).into());
            (cut(64), Some(cut(48)))
        }
        v4 @ IpAddr::V4(_) => (v4, None),
    }
}

// === impl State ===

impl State {
    /// The tables of an attempt with its keys: pair, account, network, prefix.
    fn tables(&mut self, keys: &Keys) -> Vec<(&mut Table, u64)> {
        let mut tables = vec![(&mut self.pairs, keys.pair)];
        if keys.what != Guarded::Registration {
            tables.push((&mut self.accounts, keys.account));
            tables.push((&mut self.networks, keys.network));
            if let Some(prefix) = keys.prefix {
                tables.push((&mut self.prefixes, prefix));
            }
        }
        tables
    }
}

// === impl Guarded ===

impl Guarded {
    fn word(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Code => "second factor",
            Self::MailToken => "token of a letter",
            Self::Letter => "letter",
            Self::Registration => "registration",
        }
    }

    fn per_pair(self) -> Budget {
        match self {
            Self::Registration => Budget { per_window: u32::MAX, at_once: 2 },
            _ => Budget { per_window: 5, at_once: 4 },
        }
    }

    fn per_account(self) -> Budget {
        match self {
            Self::Code => Budget { per_window: 5, at_once: 4 },
            Self::Letter => Budget { per_window: 5, at_once: u32::MAX },
            _ => Budget { per_window: 20, at_once: u32::MAX },
        }
    }

    /// Whether attempts at an account with too many failures are held back, for a bounded time.
    fn slows(self) -> bool {
        matches!(self, Self::Password | Self::MailToken)
    }
}

// === impl Attempt ===

impl Attempt<'_> {
    /// It was right: it is not counted, and the pair is known from now on.
    pub(super) fn succeeded(mut self) {
        self.judge(&Judgement::Right);
    }

    /// It is not counted.
    pub(super) fn put_back(mut self) {
        self.judge(&Judgement::Unknown);
    }

    /// The attempt could not be judged, because of `problem`: it is not counted.
    pub(super) fn unanswered(self, problem: Problem) -> Problem {
        self.put_back();
        problem
    }

    /// Whether the account had more failures, from everywhere, than its bucket holds.
    pub(super) fn is_braked(&self) -> bool {
        self.is_braked
    }

    fn judge(&mut self, judgement: &Judgement) {
        if !std::mem::replace(&mut self.is_judged, true) {
            self.backoff.judge(&self.keys, judgement, self.clock.elapsed());
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.judge(&Judgement::Wrong);
    }
}

#[cfg(test)]
mod tests;
