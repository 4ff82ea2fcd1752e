//! How fast: rates per client address and per user, and how many requests at a time.
//!
//! Rates and parallel limits belong to the user. A key that was given a plan of its own narrows them for itself;
//! its bucket goes by the user and the key's name, so that no rotation empties it.
//!
//! What is kept here may be forgotten: a restart gives everybody a full bucket. Exact counts live in
//! [`crate::quota`].

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use thiserror::Error;

use crate::clock::Clock;
use crate::config;
use crate::ids::UserId;
use crate::plan::{Plans, Rates};

mod addresses;
mod bodies;
mod credits;
mod parallel;
mod rate;

pub use addresses::Loan;
pub use bodies::BodyBytes;
pub use parallel::Slot;
pub use rate::Standing;

use addresses::Addresses;
use bodies::Bodies;
use credits::Credits;
use parallel::Per;
use rate::Buckets;

/// Every limiter of the gateway, shared by all workers.
pub struct Limits {
    addresses: Option<Arc<Addresses>>,
    /// What holds for users whose plan sets no rate.
    default: Rates,
    users: HashMap<Rates, Buckets<UserId>>,
    keys: HashMap<Rates, Buckets<KeyOf>>,
    /// `log-message` calls that a charged `verify-key` paid for.
    credits: Credits,
    per_key: Per<KeyOf>,
    per_user: Per<UserId>,
    max_per_user: u32,
    bodies: Arc<Bodies<UserId>>,
    /// Bodies of the control plane, counted by IP address since most senders are not known yet. They never take
    /// room from the data plane's.
    control_bodies: Arc<Bodies<IpAddr>>,
    in_flight: Arc<AtomicUsize>,
    max_in_flight: usize,
}

/// Whose request it is, and how fast they may be.
#[derive(Clone, Copy, Debug)]
pub struct Pace<'a> {
    /// Who pays for it.
    pub user: UserId,
    /// The name of the key, which outlives its rotation.
    pub key: &'a str,
    /// The rates of the user's plan.
    pub of_user: Rates,
    /// The same, or narrower ones that were given to the key.
    pub of_key: Rates,
}

/// A key of a user by its name.
pub(crate) type KeyOf = (UserId, String);

/// Too fast, or too many at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LimitError {
    /// A bucket is empty.
    #[error("rate limit of {per_minute} requests a minute reached")]
    Rate {
        /// The sustained rate of the bucket.
        per_minute: u32,
        /// When one more request will fit.
        retry_after: Duration,
    },
    /// The key has as many requests in flight as its plan allows.
    #[error("{0} requests of this key are in flight already")]
    Parallel(u32),
    /// The user has as many requests in flight, with all keys together, as the configuration allows.
    #[error("{0} requests of this user are in flight already")]
    ParallelOfUser(u32),
    /// The request bodies of the user, or IP address, take as many bytes as the configuration allows.
    #[error("request bodies of this sender take {0} bytes already")]
    BodiesOfOne(u64),
    /// All request bodies take as many bytes as the configuration allows.
    #[error("request bodies take {0} bytes already")]
    BodiesInAll(u64),
    /// The gateway has as many requests in flight as its configuration allows.
    #[error("the gateway has {0} requests in flight already")]
    Overloaded(usize),
}

/// Bytes that bodies of the control plane may have at least: all, and those of one IP address. A log-message has
/// 1 MiB at most.
const LEAST_CONTROL: (u64, u64) = (16 << 20, 4 << 20);

// === impl Limits ===

impl Limits {
    /// Limiters for client addresses as configured, for the rates of every plan, and for those of every
    /// plan narrowed by another.
    #[must_use]
    pub fn new(config: &config::Limits, plans: &Plans, clock: &Clock) -> Self {
        let of_addresses =
            Rates { per_minute: config.rate_limit_per_minute, burst: config.burst, parallel: 0 };
        let given: HashSet<Rates> = plans.all().map(|plan| plan.rates).collect();
        // A key may be narrowed by any plan, whatever its user's.
        let narrowed = given.iter().flat_map(|one| given.iter().map(|other| one.narrowed_by(other)));
        let rates: HashSet<Rates> = given.iter().copied().chain(narrowed).collect();
        let rates = rates.into_iter().chain([of_addresses]);
        let most = config.max_cached_keys;
        let (mut users, mut keys) = (HashMap::new(), HashMap::new());
        for rates in rates {
            users.extend(Buckets::new(rates, most, clock.clone()).map(|buckets| (rates, buckets)));
            keys.extend(Buckets::new(rates, most, clock.clone()).map(|buckets| (rates, buckets)));
        }
        let addresses = Buckets::new(of_addresses, config.max_tracked_addresses, clock.clone());
        Self {
            addresses: addresses.map(|buckets| Arc::new(Addresses::new(buckets))),
            default: of_addresses,
            users,
            keys,
            credits: Credits::new(most),
            per_key: Per::default(),
            per_user: Per::default(),
            max_per_user: config.max_parallel_per_user,
            bodies: Arc::new(Bodies::new(config.max_body_memory, config.max_body_memory_per_user)),
            control_bodies: Arc::new(Bodies::new(
                (config.max_body_memory / 4).max(LEAST_CONTROL.0),
                (config.max_body_memory / 16).max(LEAST_CONTROL.1),
            )),
            in_flight: Arc::new(AtomicUsize::new(0)),
            max_in_flight: config.max_parallel,
        }
    }

    /// Takes one request from the address's bucket. An IPv6 address shares its /64's bucket.
    /// `None` while addresses are not limited.
    ///
    /// # Errors
    ///
    /// [`LimitError::Rate`] when the bucket is empty.
    pub fn address(&self, ip: IpAddr) -> Result<Option<Standing>, LimitError> {
        self.addresses.as_ref().map(|addresses| addresses.take(network_of(ip))).transpose()
    }

    /// Takes one request from the address's bucket until its key is known to be good: see [`Loan`]. `None`
    /// while addresses are not limited.
    ///
    /// # Errors
    ///
    /// [`LimitError::Rate`] when the bucket is empty, and what was lent of it does not come back in time.
    pub async fn lend(&self, ip: IpAddr) -> Result<Option<Loan>, LimitError> {
        let Some(addresses) = &self.addresses else { return Ok(None) };
        addresses.lend(network_of(ip)).await.map(Some)
    }

    /// Takes one request of a user: from their bucket and the key's, and places among those of the user and of
    /// the key until the [`Slot`] is dropped. The request's body may come now; a place among all requests is
    /// taken after it, by [`Limits::enter`].
    ///
    /// # Errors
    ///
    /// The first of the limits that is reached.
    pub fn take(&self, pace: &Pace<'_>) -> Result<Slot, LimitError> {
        let max = tighter(self.max_per_user, pace.of_user.parallel);
        let of_user = self.per_user.enter(pace.user, max).ok_or(LimitError::ParallelOfUser(max))?;
        let narrowed = if pace.of_key.parallel == pace.of_user.parallel { 0 } else { pace.of_key.parallel };
        let key = (pace.user, pace.key.to_owned());
        let of_key = self.per_key.enter(key, narrowed).ok_or(LimitError::Parallel(narrowed))?;
        Ok(Slot::new(of_user, of_key, self.spend(pace)?))
    }

    /// Takes a place among all requests in flight.
    ///
    /// # Errors
    ///
    /// [`LimitError::Overloaded`].
    pub fn enter(&self, slot: &mut Slot) -> Result<(), LimitError> {
        let max = self.max_in_flight;
        slot.enter(parallel::enter(&self.in_flight, max).ok_or(LimitError::Overloaded(max))?);
        Ok(())
    }

    /// Counts the bytes of a body that `user` sends.
    pub fn body(&self, user: UserId) -> BodyBytes<UserId> {
        BodyBytes::new(Arc::clone(&self.bodies), user)
    }

    /// Counts the bytes of a body of the control plane that comes from `ip`. An IPv6 address shares its /64's.
    pub fn control_body(&self, ip: IpAddr) -> BodyBytes<IpAddr> {
        BodyBytes::new(Arc::clone(&self.control_bodies), network_of(ip))
    }

    /// Takes one request from the user's bucket, and from the key's where it has a narrower one. `None` while
    /// neither is limited.
    ///
    /// # Errors
    ///
    /// [`LimitError::Rate`] when a bucket is empty; then nothing was taken.
    pub fn spend(&self, pace: &Pace<'_>) -> Result<Option<Standing>, LimitError> {
        let of_user = match pace.of_user {
            Rates { per_minute: 0, .. } => self.users.get(&self.default),
            rates => self.users.get(&rates),
        };
        let by_user = of_user.map(|buckets| buckets.take(&pace.user)).transpose()?;
        let is_narrower = pace.of_key != pace.of_user;
        let of_key = self.keys.get(&pace.of_key).filter(|_| is_narrower);
        let by_key = of_key.map(|buckets| buckets.take(&(pace.user, pace.key.to_owned()))).transpose();
        let by_key = by_key.inspect_err(|_| {
            if let Some(buckets) = of_user {
                buckets.give_back(&pace.user);
            }
        })?;
        Ok(by_user.into_iter().chain(by_key).min_by_key(|standing| standing.remaining))
    }

    /// Pays for one later call of the user, which then takes nothing from their rate: a conversation that was
    /// charged by `verify-key` can always be logged.
    pub fn pay_ahead(&self, user: UserId) {
        self.credits.add(user);
    }

    /// Uses one call that was paid for; whether there was one.
    pub fn was_paid_ahead(&self, user: UserId) -> bool {
        self.credits.take(user)
    }

    /// Requests in flight now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Bytes of request bodies in memory now.
    pub fn body_bytes(&self) -> u64 {
        self.bodies.held() + self.control_bodies.held()
    }
}

/// The lower of two limits; 0 is none.
fn tighter(one: u32, other: u32) -> u32 {
    if one == 0 || other == 0 { one.max(other) } else { one.min(other) }
}

/// Whoever holds one IPv6 address holds its /64.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use chrono_tz::Tz;

    use super::{LimitError, Limits, Pace};
    use crate::clock::{Clock, Timestamp};
    use crate::config;
    use crate::ids::UserId;
    use crate::plan::{Allowance, Permitted, Plan, Plans, Rates};

    fn limits(addresses: u32, rates: Rates, max_parallel: usize) -> (Limits, Clock) {
        let plan = Plan {
            name: "free".into(),
            scopes: Permitted::All,
            models: Permitted::All,
            rates,
            allowance: Allowance { per_day: 1, zone: Tz::UTC },
        };
        let config = config::Limits {
            rate_limit_per_minute: addresses,
            burst: addresses,
            max_parallel,
            max_parallel_per_user: 3,
            max_body_memory: 4,
            max_body_memory_per_user: 2,
            time_zone: Tz::UTC,
            max_body_size: 1,
            max_upload_size: 1,
            max_cached_keys: 10,
            max_lease: 32,
            max_tracked_addresses: 10,
        };
        let clock = Clock::manual(Timestamp(0));
        (Limits::new(&config, &Plans::new(BTreeMap::new(), Arc::new(plan)), &clock), clock)
    }

    const NO_RATES: Rates = Rates { per_minute: 0, burst: 0, parallel: 0 };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_gets_its_burst_then_its_sustained_rate() {
        let (limits, clock) = limits(60, NO_RATES, 100);
        for _ in 0..60 {
            assert!(limits.address(ip("192.0.2.1")).is_ok());
        }
        let refused = limits.address(ip("192.0.2.1")).unwrap_err();
        assert_eq!(refused, LimitError::Rate { per_minute: 60, retry_after: Duration::from_secs(1) });
        assert!(limits.address(ip("192.0.2.2")).is_ok(), "another address has its own bucket");
        clock.advance(Duration::from_secs(1));
        assert!(limits.address(ip("192.0.2.1")).is_ok());
        assert!(limits.address(ip("192.0.2.1")).is_err());
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_share_a_bucket() {
        let (limits, _) = limits(1, NO_RATES, 100);
        assert!(limits.address(ip("2001:db8::1")).is_ok());
        assert!(limits.address(ip("2001:db8::2")).is_err());
        assert!(limits.address(ip("2001:db8:0:1::1")).is_ok());
    }

    fn pace(user: i64, key: &str, of_user: Rates, of_key: Rates) -> Pace<'_> {
        Pace { user: UserId(user), key, of_user, of_key }
    }

    #[test]
    fn a_place_in_flight_is_free_again_when_its_slot_is_dropped() {
        let (limits, _) = limits(0, NO_RATES, 3);
        let two = Rates { parallel: 2, ..NO_RATES };
        let take = |user, key, of_user, of_key| {
            let mut slot = limits.take(&pace(user, key, of_user, of_key))?;
            limits.enter(&mut slot).map(|()| slot)
        };
        let one = take(1, "a", NO_RATES, two).unwrap();
        let _two = take(1, "a", NO_RATES, two).unwrap();
        assert_eq!(take(1, "a", NO_RATES, two).err(), Some(LimitError::Parallel(2)), "a narrowed key");
        let _three = take(1, "b", NO_RATES, NO_RATES).unwrap();
        assert_eq!(take(1, "c", NO_RATES, NO_RATES).err(), Some(LimitError::ParallelOfUser(3)));
        assert_eq!(take(2, "d", two, two).err(), Some(LimitError::Overloaded(3)));
        drop(one);
        assert!(take(2, "d", two, two).is_ok());
        assert_eq!(limits.in_flight(), 2);
    }

    #[test]
    fn a_plans_parallel_limit_is_the_users_however_many_keys_they_have() {
        let (limits, _) = limits(0, NO_RATES, 10);
        let two = Rates { parallel: 2, ..NO_RATES };
        let _held = ["a", "b"].map(|key| limits.take(&pace(1, key, two, two)).unwrap());
        assert_eq!(limits.take(&pace(1, "c", two, two)).err(), Some(LimitError::ParallelOfUser(2)));
    }

    #[test]
    fn a_rate_is_the_users_whatever_the_key_and_a_key_only_narrows_it() {
        let ten = Rates { per_minute: 10, burst: 10, parallel: 0 };
        let three = Rates { per_minute: 3, burst: 3, parallel: 0 };
        let (limits, _) = limits(60, ten, 100);
        let limits = Limits {
            keys: [(three, super::Buckets::new(three, 10, Clock::manual(Timestamp(0))).unwrap())].into(),
            ..limits
        };
        for _ in 0..3 {
            assert!(limits.spend(&pace(1, "narrow", ten, three)).is_ok());
        }
        assert!(limits.spend(&pace(1, "narrow", ten, three)).is_err(), "the key is narrower");
        let passed = (0..20).filter(|key| limits.spend(&pace(1, &key.to_string(), ten, ten)).is_ok()).count();
        assert_eq!(passed, 7, "ten of all keys; a refusal by the key's bucket costs the user nothing");
        assert!(limits.spend(&pace(2, "a", ten, ten)).is_ok(), "another user has their own bucket");
        let unrated = (0..80).filter(|_| limits.spend(&pace(3, "a", NO_RATES, NO_RATES)).is_ok()).count();
        assert_eq!(unrated, 60, "a plan without a rate has the rate of the setting");
    }

    #[tokio::test]
    async fn a_good_key_returns_its_addresss_token_and_others_wait_for_it() {
        let (limits, _) = limits(2, NO_RATES, 100);
        let address = ip("192.0.2.1");
        for _ in 0..10 {
            limits.lend(address).await.unwrap().unwrap().give_back();
        }
        let one = limits.lend(address).await.unwrap().unwrap();
        let two = limits.lend(address).await.unwrap().unwrap();
        let third = limits.lend(address);
        let settle = async {
            one.give_back();
            drop(two);
        };
        let (third, ()) = tokio::join!(third, settle);
        assert!(third.is_ok(), "a token came back");
        drop(third);
        assert!(limits.lend(address).await.is_err(), "two failed, and nothing is lent any more");
        assert!(limits.address(address).is_err(), "whatever else comes from the address is refused too");
    }

    #[test]
    fn a_call_that_was_paid_ahead_is_used_once() {
        let (limits, _) = limits(1, NO_RATES, 1);
        assert!(!limits.was_paid_ahead(UserId(1)));
        limits.pay_ahead(UserId(1));
        assert!(limits.was_paid_ahead(UserId(1)) && !limits.was_paid_ahead(UserId(1)));
    }

    #[test]
    fn a_request_whose_body_is_on_its_way_takes_no_place_from_others() {
        let (limits, _) = limits(0, NO_RATES, 1);
        let names = ["a", "b", "c"];
        let slots = names.map(|key| limits.take(&pace(1, key, NO_RATES, NO_RATES)).unwrap());
        assert_eq!(limits.in_flight(), 0);
        let mut other = limits.take(&pace(2, "z", NO_RATES, NO_RATES)).unwrap();
        assert!(limits.enter(&mut other).is_ok());
        drop(slots);
    }
}
