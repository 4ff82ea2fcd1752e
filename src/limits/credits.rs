//! Calls that were paid for in advance: a charged `verify-key` pays for one `log-message`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

use crate::ids::UserId;

/// How many calls of each user are paid for.
pub(super) struct Credits {
    counts: Mutex<HashMap<UserId, u32>>,
    max_users: usize,
}

// === impl Credits ===

impl Credits {
    pub(super) fn new(max_users: usize) -> Self {
        Self { counts: Mutex::default(), max_users }
    }

    /// Adds one. A full table makes room by one user of its choice.
    pub(super) fn add(&self, user: UserId) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= self.max_users && !counts.contains_key(&user) {
            let evicted = counts.keys().next().copied();
            evicted.map(|evicted| counts.remove(&evicted));
        }
        let count = counts.entry(user).or_insert(0);
        *count = count.saturating_add(1);
    }

    /// Takes one, if there is one.
    pub(super) fn take(&self, user: UserId) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Occupied(mut entry) = counts.entry(user) else { return false };
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
        true
    }
}
