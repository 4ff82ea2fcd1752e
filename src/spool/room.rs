//! How much there is, and whether more may begin.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::Options;
use super::disk::Space;

/// Why nothing may begin; a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// The spool has all the bytes it may have.
    Quota = 1,
    /// The disk is below its floor.
    Disk = 2,
    /// What was written cannot be made durable.
    Sync = 4,
}

/// The count of bytes, and the verdict in one atomic.
pub(super) struct Room {
    bytes: AtomicU64,
    wanting: AtomicU8,
    max: u64,
}

// === impl Room ===

impl Room {
    pub(super) fn new(max: u64) -> Self {
        Self { bytes: AtomicU64::new(0), wanting: AtomicU8::new(0), max }
    }

    pub(super) fn is_there(&self) -> bool {
        self.wanting.load(Ordering::Relaxed) == 0
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, bytes: u64) {
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= self.max {
            self.set(Want::Quota, true);
        }
    }

    pub(super) fn sub(&self, bytes: u64) {
        let before = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| Some(all.saturating_sub(bytes)));
        let left = before.unwrap_or(0).saturating_sub(bytes);
        self.set(Want::Quota, left >= self.max);
    }

    /// Judges the quota again: what was added and removed at the same time may have met.
    pub(super) fn review(&self) {
        self.set(Want::Quota, self.bytes() >= self.max);
    }

    pub(super) fn set(&self, want: Want, on: bool) {
        if on {
            self.wanting.fetch_or(want as u8, Ordering::Relaxed);
        } else {
            self.wanting.fetch_and(!(want as u8), Ordering::Relaxed);
        }
    }
}

/// Bytes that stay free on a file system.
pub(super) fn floor(options: &Options, space: Space) -> u64 {
    let part = space.total / 100;
    options.min_free.min(part.saturating_mul(options.min_free_percent))
}
