//! A budget of bytes for request bodies that are held in memory: of one sender, and in all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::LimitError;

/// Bytes of request bodies in memory. A sender is a user, or an IP address where the user is not known yet.
pub(super) struct Bodies<K> {
    all: AtomicU64,
    max: u64,
    /// Senders with bytes in memory, so that the table is as long as there are requests.
    senders: Mutex<HashMap<K, u64>>,
    max_of_one: u64,
}

/// The bytes of one body; given back when dropped.
pub struct BodyBytes<K: Hash + Eq + Copy> {
    bodies: Arc<Bodies<K>>,
    sender: K,
    bytes: u64,
}

// === impl Bodies ===

impl<K: Hash + Eq + Copy> Bodies<K> {
    pub(super) fn new(max: u64, max_of_one: u64) -> Self {
        Self { all: AtomicU64::new(0), max, senders: Mutex::default(), max_of_one }
    }

    /// Bytes in memory now.
    pub(super) fn held(&self) -> u64 {
        self.all.load(Ordering::Relaxed)
    }

    fn take(&self, sender: K, bytes: u64) -> Result<(), LimitError> {
        let before = self.all.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.max {
            self.all.fetch_sub(bytes, Ordering::Relaxed);
            return Err(LimitError::BodiesInAll(self.max));
        }
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let held = senders.get(&sender).copied().unwrap_or(0).saturating_add(bytes);
        if held > self.max_of_one {
            drop(senders);
            self.all.fetch_sub(bytes, Ordering::Relaxed);
            return Err(LimitError::BodiesOfOne(self.max_of_one));
        }
        senders.insert(sender, held);
        Ok(())
    }

    fn give_back(&self, sender: K, bytes: u64) {
        self.all.fetch_sub(bytes, Ordering::Relaxed);
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Occupied(mut entry) = senders.entry(sender) else { return };
        *entry.get_mut() = entry.get().saturating_sub(bytes);
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

// === impl BodyBytes ===

impl<K: Hash + Eq + Copy> BodyBytes<K> {
    pub(super) fn new(bodies: Arc<Bodies<K>>, sender: K) -> Self {
        Self { bodies, sender, bytes: 0 }
    }

    /// Counts `total` bytes of this body; fewer than before changes nothing.
    ///
    /// # Errors
    ///
    /// [`LimitError::BodiesOfOne`] or [`LimitError::BodiesInAll`]; what was counted before stays so.
    pub fn hold(&mut self, total: u64) -> Result<(), LimitError> {
        if let Some(more @ 1..) = total.checked_sub(self.bytes) {
            self.bodies.take(self.sender, more)?;
            self.bytes = total;
        }
        Ok(())
    }
}

impl<K: Hash + Eq + Copy> Drop for BodyBytes<K> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.bodies.give_back(self.sender, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Bodies, BodyBytes};
    use crate::ids::UserId;
    use crate::limits::LimitError;

    #[test]
    fn bytes_are_bounded_for_one_user_and_in_all_and_come_back() {
        let bodies = Arc::new(Bodies::new(100, 60));
        let of = |user: i64| BodyBytes::new(Arc::clone(&bodies), UserId(user));
        let (mut first, mut second, mut other) = (of(1), of(1), of(2));
        first.hold(40).unwrap();
        first.hold(30).unwrap();
        assert_eq!(bodies.held(), 40, "a body does not shrink");
        assert_eq!(second.hold(21), Err(LimitError::BodiesOfOne(60)));
        second.hold(20).unwrap();
        assert_eq!(other.hold(41), Err(LimitError::BodiesInAll(100)));
        other.hold(40).unwrap();
        drop((first, second));
        assert_eq!(bodies.held(), 40);
        other.hold(60).unwrap();
        drop(other);
        assert_eq!(bodies.held(), 0);
        assert!(bodies.senders.lock().unwrap().is_empty());
    }
}
