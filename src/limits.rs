//! How fast: rates per client address and per key, and how many requests at a time.
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
use crate::ids::{KeyId, UserId};
use crate::plan::{Plans, Rates};

mod bodies;
mod parallel;
mod rate;

pub use bodies::BodyBytes;
pub use parallel::Slot;
pub use rate::Standing;

use bodies::Bodies;
use parallel::Per;
use rate::Buckets;

/// Every limiter of the gateway, shared by all workers.
pub struct Limits {
    addresses: Option<Buckets<IpAddr>>,
    keys: HashMap<Rates, Buckets<KeyId>>,
    per_key: Per<KeyId>,
    per_user: Per<UserId>,
    max_per_user: u32,
    bodies: Arc<Bodies<UserId>>,
    /// Bodies of the control plane, counted by IP address since most senders are not known yet. They never take
    /// room from the data plane's.
    control_bodies: Arc<Bodies<IpAddr>>,
    in_flight: Arc<AtomicUsize>,
    max_in_flight: usize,
}

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
        let keys = rates
            .into_iter()
            .filter_map(|rates| Some((rates, Buckets::new(rates, config.max_cached_keys, clock.clone())?)));
        Self {
            addresses: Buckets::new(of_addresses, config.max_tracked_addresses, clock.clone()),
            keys: keys.collect(),
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
        self.addresses.as_ref().map(|buckets| buckets.take(&network_of(ip))).transpose()
    }

    /// Takes one request of a key: from its bucket, and places among those of its user and of the key
    /// until the [`Slot`] is dropped. `by_address` is what [`Limits::address`] gave for the same request.
    /// The request's body may come now; a place among all requests is taken after it, by [`Limits::enter`].
    ///
    /// # Errors
    ///
    /// The first of the limits that is reached.
    pub fn take(
        &self,
        rates: &Rates,
        (user, key): (UserId, KeyId),
        by_address: Option<Standing>,
    ) -> Result<Slot, LimitError> {
        let max = self.max_per_user;
        let of_user = self.per_user.enter(user, max).ok_or(LimitError::ParallelOfUser(max))?;
        let of_key = self.per_key.enter(key, rates.parallel).ok_or(LimitError::Parallel(rates.parallel))?;
        let by_key = self.key(rates, key)?;
        Ok(Slot::new(of_user, of_key, by_key.or(by_address)))
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

    /// Takes one request from a key's bucket, for a request that somebody else carries. `None` while the
    /// key is not limited.
    ///
    /// # Errors
    ///
    /// [`LimitError::Rate`] when the bucket is empty.
    pub fn key(&self, rates: &Rates, key: KeyId) -> Result<Option<Standing>, LimitError> {
        self.keys.get(rates).map(|buckets| buckets.take(&key)).transpose()
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

    use super::{LimitError, Limits};
    use crate::clock::{Clock, Timestamp};
    use crate::config;
    use crate::ids::{KeyId, UserId};
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

    #[test]
    fn a_place_in_flight_is_free_again_when_its_slot_is_dropped() {
        let (limits, _) = limits(0, Rates { per_minute: 0, burst: 0, parallel: 2 }, 3);
        let rates = Rates { per_minute: 0, burst: 0, parallel: 2 };
        let take = |user, key| {
            let mut slot = limits.take(&rates, (UserId(user), KeyId(key)), None)?;
            limits.enter(&mut slot).map(|()| slot)
        };
        let one = take(1, 1).unwrap();
        let _two = take(1, 1).unwrap();
        assert_eq!(take(1, 1).err(), Some(LimitError::Parallel(2)));
        let _three = take(1, 2).unwrap();
        assert_eq!(take(1, 3).err(), Some(LimitError::ParallelOfUser(3)), "all keys of a user together");
        assert_eq!(take(2, 4).err(), Some(LimitError::Overloaded(3)));
        drop(one);
        assert!(take(2, 4).is_ok());
        assert_eq!(limits.in_flight(), 2);
    }

    #[test]
    fn a_request_whose_body_is_on_its_way_takes_no_place_from_others() {
        let (limits, _) = limits(0, NO_RATES, 1);
        let slots: Vec<_> =
            (0..3).map(|key| limits.take(&NO_RATES, (UserId(1), KeyId(key)), None).unwrap()).collect();
        assert_eq!(limits.in_flight(), 0);
        let mut other = limits.take(&NO_RATES, (UserId(2), KeyId(9)), None).unwrap();
        assert!(limits.enter(&mut other).is_ok());
        drop(slots);
    }
}
