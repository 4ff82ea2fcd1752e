//! How many at a time: guards that give their place back when dropped.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Standing;
use crate::ids::UserId;

use super::KeyOf;

/// One admitted request: it holds its places in flight and knows how its bucket stands. It lives as
/// long as the answer's body.
pub struct Slot {
    /// Taken once the request's body is in, so that a slow one takes nothing from other users.
    of_gateway: Option<InFlight>,
    _of_user: Option<Of<UserId>>,
    _of_key: Option<Of<KeyOf>>,
    standing: Option<Standing>,
}

/// A place among the gateway's requests.
pub(super) struct InFlight(Arc<AtomicUsize>);

/// A place among the requests of a key or user.
pub(super) struct Of<K: Hash + Eq + Clone> {
    counts: Arc<Mutex<HashMap<K, u32>>>,
    key: K,
}

/// Requests in flight of every key or user that has some.
pub(super) struct Per<K>(Arc<Mutex<HashMap<K, u32>>>);

// === impl Slot ===

impl Slot {
    pub(super) fn new(
        of_user: Option<Of<UserId>>,
        of_key: Option<Of<KeyOf>>,
        standing: Option<Standing>,
    ) -> Self {
        Self { of_gateway: None, _of_user: of_user, _of_key: of_key, standing }
    }

    pub(super) fn enter(&mut self, of_gateway: InFlight) {
        self.of_gateway = Some(of_gateway);
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

// === impl Per ===

impl<K> Default for Per<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Hash + Eq + Clone> Per<K> {
    /// A place among at most `max` of a key or user (`Some(None)` when `max` is 0: no limit), or `None`.
    #[expect(clippy::option_option, reason = "unlimited and refused are different answers")]
    pub(super) fn enter(&self, key: K, max: u32) -> Option<Option<Of<K>>> {
        if max == 0 {
            return Some(None);
        }
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.clone()).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Some(Of { counts: Arc::clone(&self.0), key }))
    }
}

// === impl Of ===

impl<K: Hash + Eq + Clone> Drop for Of<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Occupied(mut entry) = counts.entry(self.key.clone()) else { return };
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}
