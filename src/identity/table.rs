//! The keys in memory: sharded, bounded, and never older than a change.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::Subject;
use super::uses::LastUse;
use crate::credential::key::KeyDigest;

/// What is known of a key.
pub(super) struct Known {
    pub(super) subject: Arc<Subject>,
    pub(super) is_active: bool,
    pub(super) read_at: Duration,
    pub(super) used: LastUse,
}

type Shard = RwLock<HashMap<KeyDigest, Arc<Known>>>;

pub(super) struct Table {
    shards: Vec<Shard>,
    per_shard: usize,
    generation: AtomicU64,
}

const SHARDS: usize = 64;

// === impl Known ===

impl Known {
    pub(super) fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.read_at)
    }
}

// === impl Table ===

impl Table {
    pub(super) fn new(capacity: usize) -> Self {
        let shards = std::iter::repeat_with(Shard::default).take(SHARDS).collect();
        Self { shards, per_shard: capacity.div_ceil(SHARDS), generation: AtomicU64::new(0) }
    }

    pub(super) fn get(&self, digest: &KeyDigest) -> Option<Arc<Known>> {
        self.shard(digest)?.read().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    /// Counts the changes; taken before a read, it tells [`Table::insert`] whether one came between.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Keeps what was read, unless something was forgotten since `read_in`.
    pub(super) fn insert(&self, digest: KeyDigest, known: &Arc<Known>, read_in: u64) -> bool {
        let Some(shard) = self.shard(&digest) else { return false };
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        if self.generation() != read_in {
            return false;
        }
        if shard.len() >= self.per_shard && !shard.contains_key(&digest) {
            let oldest =
                shard.iter().take(8).min_by_key(|(_, known)| known.read_at).map(|(digest, _)| *digest);
            oldest.and_then(|digest| shard.remove(&digest));
        }
        shard.insert(digest, Arc::clone(known));
        true
    }

    pub(super) fn remove(&self, digest: &KeyDigest) {
        if let Some(shard) = self.shard(digest) {
            shard.write().unwrap_or_else(PoisonError::into_inner).remove(digest);
        }
    }

    pub(super) fn forget(&self, which: impl Fn(&Known) -> bool) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        for shard in &self.shards {
            shard.write().unwrap_or_else(PoisonError::into_inner).retain(|_, known| !which(known));
        }
    }

    fn shard(&self, digest: &KeyDigest) -> Option<&Shard> {
        let first = digest.as_bytes().first().copied().unwrap_or_default();
        self.shards.get(usize::from(first) % SHARDS)
    }
}
