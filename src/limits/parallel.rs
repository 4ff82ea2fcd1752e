//! How many at a time: guards that give their place back when dropped.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Standing;
use crate::ids::KeyId;

/// One admitted request: it holds its places in flight and knows how its bucket stands. It lives as
/// long as the answer's body.
pub struct Slot {
    _of_gateway: InFlight,
    _of_key: Option<OfKey>,
    standing: Option<Standing>,
}

/// A place among the gateway's requests.
pub(super) struct InFlight(Arc<AtomicUsize>);

/// A place among a key's requests.
pub(super) struct OfKey {
    counts: Arc<Mutex<HashMap<KeyId, u32>>>,
    key: KeyId,
}

/// Requests in flight of every key that has some.
#[derive(Default)]
pub(super) struct PerKey(Arc<Mutex<HashMap<KeyId, u32>>>);

// === impl Slot ===

impl Slot {
    pub(super) fn new(of_gateway: InFlight, of_key: Option<OfKey>, standing: Option<Standing>) -> Self {
        Self { _of_gateway: of_gateway, _of_key: of_key, standing }
    }

    /// How the bucket that bounds this request stands; `None` without a rate.
    pub fn standing(&self) -> Option<Standing> {
        self.standing
    }
}

/// A place among at most `max`.
pub(super) fn enter(count: &Arc<AtomicUsize>, max: usize) -> Option<InFlight> {
    let guard = InFlight(Arc::clone(count));
    let before = count.fetch_add(1, Ordering::Relaxed);
    (before < max).then_some(guard)
}

// === impl InFlight ===

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl PerKey ===

impl PerKey {
    /// A place among at most `max` of a key (`Some(None)` when `max` is 0: no limit), or `None`.
    #[expect(clippy::option_option, reason = "unlimited and refused are different answers")]
    pub(super) fn enter(&self, key: KeyId, max: u32) -> Option<Option<OfKey>> {
        if max == 0 {
            return Some(None);
        }
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Some(OfKey { counts: Arc::clone(&self.0), key }))
    }
}

// === impl OfKey ===

impl Drop for OfKey {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Occupied(mut entry) = counts.entry(self.key) else { return };
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}
