//! How often somebody may try to log in.
//!
//! Every account and every address has a bucket of attempts that fills again with time (GCRA); a
//! login that succeeds puts its attempt back, so only failures are counted and nobody who knows their
//! password is slowed down. An account is never locked: the next attempt is always in sight.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::problem::Problem;

/// Failed logins, by account and by address. The tables are bounded; when one is full, whoever has
/// waited longest is forgotten.
#[derive(Debug)]
pub struct Backoff {
    accounts: Buckets<String>,
    addresses: Buckets<IpAddr>,
}

/// An attempt that was admitted. Dropped, it counts as a failure.
#[must_use]
pub(super) struct Attempt<'b> {
    backoff: &'b Backoff,
    account: String,
    network: IpAddr,
}

/// For each key, the time at which its bucket will be full again.
#[derive(Debug)]
struct Buckets<K> {
    full_at: Mutex<HashMap<K, Duration>>,
    /// The time in which one attempt grows back.
    interval: Duration,
    /// The time in which a whole bucket does.
    window: Duration,
}

const WINDOW: Duration = Duration::from_mins(5);
const PER_ACCOUNT: u32 = 5;
const PER_ADDRESS: u32 = 20;
/// Most keys in one table.
const MOST_TRACKED: usize = 65_536;

// === impl Backoff ===

impl Default for Backoff {
    fn default() -> Self {
        Self { accounts: Buckets::new(PER_ACCOUNT), addresses: Buckets::new(PER_ADDRESS) }
    }
}

impl Backoff {
    /// Takes one attempt of `account` (a role and a name; case does not matter) from `ip`, at `now`
    /// of [`crate::clock::Clock::elapsed`].
    pub(super) fn admit(&self, account: &str, ip: IpAddr, now: Duration) -> Result<Attempt<'_>, Problem> {
        let (account, network) = (account.to_lowercase(), network_of(ip));
        let wait = |retry_after| Problem::TooManyLogins { retry_after };
        self.addresses.take(&network, now).map_err(wait)?;
        if let Err(retry_after) = self.accounts.take(&account, now) {
            self.addresses.put_back(&network);
            return Err(wait(retry_after));
        }
        Ok(Attempt { backoff: self, account, network })
    }
}

/// Whoever holds one IPv6 address holds its /64.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

// === impl Attempt ===

impl Attempt<'_> {
    /// It was no failure of who tried: it succeeded, or we could not tell.
    pub(super) fn put_back(self) {
        self.backoff.addresses.put_back(&self.network);
        self.backoff.accounts.put_back(&self.account);
    }

    /// The attempt could not be judged, because of `problem`: it goes back.
    pub(super) fn unanswered(self, problem: Problem) -> Problem {
        self.put_back();
        problem
    }
}

// === impl Buckets ===

impl<K: Hash + Eq + Clone> Buckets<K> {
    fn new(per_window: u32) -> Self {
        Self { full_at: Mutex::default(), interval: WINDOW / per_window, window: WINDOW }
    }

    fn take(&self, key: &K, now: Duration) -> Result<(), Duration> {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let full_after = full_at.get(key).map_or(now, |at| (*at).max(now)) + self.interval;
        let wait = full_after.saturating_sub(now + self.window);
        if !wait.is_zero() {
            return Err(wait);
        }
        if full_at.len() >= MOST_TRACKED && !full_at.contains_key(key) {
            forget(&mut full_at, now);
        }
        full_at.insert(key.clone(), full_after);
        Ok(())
    }

    fn put_back(&self, key: &K) {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = full_at.get_mut(key) {
            *at = at.saturating_sub(self.interval);
        }
    }
}

/// Makes room: full buckets say nothing, and one that is nearly full says least.
fn forget<K: Hash + Eq + Clone>(full_at: &mut HashMap<K, Duration>, now: Duration) {
    full_at.retain(|_, at| *at > now);
    if full_at.len() >= MOST_TRACKED {
        let soonest = full_at.iter().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone());
        soonest.and_then(|key| full_at.remove(&key));
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::{Backoff, Problem};

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn wait_of(outcome: Result<super::Attempt<'_>, Problem>) -> Option<Duration> {
        match outcome {
            Ok(_) => None,
            Err(Problem::TooManyLogins { retry_after }) => Some(retry_after),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn five_failures_in_five_minutes_and_then_one_a_minute() {
        let backoff = Backoff::default();
        let start = Duration::from_secs(1000);
        for n in 0..5 {
            assert_eq!(wait_of(backoff.admit("user:ann@example.com", ip(n), start)), None);
        }
        let minute = Duration::from_mins(1);
        assert_eq!(wait_of(backoff.admit("user:ANN@example.com", ip(9), start)), Some(minute));
        assert_eq!(wait_of(backoff.admit("user:bob@example.com", ip(9), start)), None, "others are free");
        assert_eq!(wait_of(backoff.admit("user:ann@example.com", ip(9), start + minute)), None);
        assert_eq!(wait_of(backoff.admit("user:ann@example.com", ip(9), start + minute)), Some(minute));
    }

    #[test]
    fn an_address_tries_twenty_accounts() {
        let backoff = Backoff::default();
        let outcomes = (0..21).map(|n| wait_of(backoff.admit(&format!("user:{n}"), ip(1), Duration::ZERO)));
        assert_eq!(outcomes.filter(Option::is_none).count(), 20);
        assert_eq!(wait_of(backoff.admit("user:x", ip(2), Duration::ZERO)), None);
    }

    #[test]
    fn who_knows_the_password_is_never_slowed_down() {
        let backoff = Backoff::default();
        for _ in 0..100 {
            backoff.admit("user:ann", ip(1), Duration::ZERO).unwrap_or_else(|_| panic!("refused")).put_back();
        }
    }

    #[test]
    fn an_attempt_on_an_exhausted_account_does_not_cost_its_address() {
        let backoff = Backoff::default();
        for _ in 0..50 {
            let _ = backoff.admit("user:ann", ip(1), Duration::ZERO);
        }
        assert_eq!(wait_of(backoff.admit("user:bob", ip(1), Duration::ZERO)), None);
    }
}
