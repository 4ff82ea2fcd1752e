//! Token buckets (GCRA, by governor), bounded in number.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::{DefaultKeyedStateStore, ShrinkableKeyedStateStore};
use governor::{Quota, RateLimiter};

use super::LimitError;
use crate::clock::Clock;
use crate::plan::Rates;

/// How a bucket stands after a request was taken from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The sustained rate.
    pub per_minute: u32,
    /// Requests that fit now.
    pub remaining: u32,
    /// Until the bucket is full again.
    pub full_in: Duration,
}

/// One bucket for each `K`.
pub(super) struct Buckets<K: Hash + Eq + Clone> {
    limiter: RateLimiter<K, Store<K>, Ticker, StateInformationMiddleware>,
    /// The limiter's own store, for what governor has no call for: a token that comes back.
    store: Store<K>,
    /// What one token is worth.
    interval: Nanos,
    rates: Rates,
    max_tracked: usize,
    since_sweep: AtomicU32,
    overfull: AtomicBool,
}

/// governor's store, shared.
struct Store<K: Hash + Eq + Clone>(Arc<DefaultKeyedStateStore<K>>);

/// The house's clock, as governor wants it.
#[derive(Clone, Debug)]
struct Ticker(Clock);

/// Buckets are counted, and full ones forgotten, once in so many requests.
const SWEEP_EVERY: u32 = 1024;

// === impl Buckets ===

impl<K: Hash + Eq + Clone> Buckets<K> {
    /// `None` when `rates` set no limit. governor itself has no bound on keys, so the table is
    /// swept; while more than `max_tracked` are really in use, everybody waits.
    pub(super) fn new(rates: Rates, max_tracked: usize, clock: Clock) -> Option<Self> {
        let per_minute = NonZeroU32::new(rates.per_minute)?;
        let quota = Quota::per_minute(per_minute);
        let quota = NonZeroU32::new(rates.burst).map_or(quota, |burst| quota.allow_burst(burst));
        let store = Store(Arc::default());
        let limiter = RateLimiter::new(quota, Store(Arc::clone(&store.0)), Ticker(clock));
        let interval = quota.replenish_interval().into();
        let (since_sweep, overfull) = (AtomicU32::new(0), AtomicBool::new(false));
        Some(Self { limiter, store, interval, rates, max_tracked, since_sweep, overfull })
    }

    pub(super) fn take(&self, key: &K) -> Result<Standing, LimitError> {
        self.sweep();
        let per_minute = self.rates.per_minute;
        if self.overfull.load(Ordering::Relaxed) {
            return Err(LimitError::Rate { per_minute, retry_after: Duration::from_secs(1) });
        }
        let now = governor::clock::Clock::now(&self.limiter.clock().clone());
        match self.limiter.check_key(key) {
            Ok(state) => {
                let quota = state.quota();
                let remaining = state.remaining_burst_capacity();
                let used = quota.burst_size().get().saturating_sub(remaining);
                Ok(Standing { per_minute, remaining, full_in: quota.replenish_interval() * used })
            }
            Err(not_until) => {
                Err(LimitError::Rate { per_minute, retry_after: not_until.wait_time_from(now) })
            }
        }
    }

    /// Returns a token that was taken. A full bucket stays full.
    pub(super) fn give_back(&self, key: &K) {
        let earlier =
            |state: Option<Nanos>| state.map(|arrival| ((), arrival.saturating_sub(self.interval))).ok_or(());
        // Without a state the bucket is full.
        let _ = self.store.0.measure_and_replace(key, earlier);
    }

    fn sweep(&self) {
        if !self.since_sweep.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY) {
            return;
        }
        if self.limiter.len() > self.max_tracked {
            self.limiter.retain_recent();
        }
        self.overfull.store(self.limiter.len() > self.max_tracked, Ordering::Relaxed);
    }
}

// === impl Store ===

impl<K: Hash + Eq + Clone> StateStore for Store<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(key, f)
    }
}

impl<K: Hash + Eq + Clone> ShrinkableKeyedStateStore<K> for Store<K> {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.retain_recent(drop_below);
    }

    fn len(&self) -> usize {
        ShrinkableKeyedStateStore::len(&*self.0)
    }

    fn is_empty(&self) -> bool {
        ShrinkableKeyedStateStore::is_empty(&*self.0)
    }
}

// === impl Ticker ===

impl governor::clock::Clock for Ticker {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}
