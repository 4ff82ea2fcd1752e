//! Buckets of failures (GCRA), bounded in number.

use std::collections::HashMap;
use std::time::Duration;

/// What a bucket holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Failures in one [`WINDOW`].
    pub(super) per_window: u32,
    /// Attempts that may be judged at one time.
    pub(super) at_once: u32,
}

/// One bucket for each key.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<u64, Entry>,
}

/// Whether another attempt may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// Perhaps, once those that are being judged have been.
    Held,
    /// Not before this time has passed.
    Refused(Duration),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// When the bucket will be full again, if no attempt fails that is being judged.
    full_at: Duration,
    /// Attempts that are being judged.
    pending: u32,
}

/// The time in which an empty bucket fills again.
pub(super) const WINDOW: Duration = Duration::from_mins(5);
/// Most entries of a table: 2 MiB.
pub(super) const MOST_TRACKED: usize = 65_536;

// === impl Table ===

impl Table {
    /// Whether an attempt by `key` may begin.
    pub(super) fn room(&self, key: u64, budget: Budget, now: Duration) -> Room {
        let Some(entry) = self.entries.get(&key) else { return Room::Free };
        let (full_at, interval) = (entry.full_at.max(now), budget.interval());
        let wait = (full_at + interval).saturating_sub(now + WINDOW);
        if !wait.is_zero() {
            return Room::Refused(wait);
        }
        let if_all_fail = full_at + interval.saturating_mul(entry.pending.saturating_add(1));
        if entry.pending >= budget.at_once || if_all_fail > now + WINDOW { Room::Held } else { Room::Free }
    }

    /// Begins an attempt.
    pub(super) fn take(&mut self, key: u64, now: Duration) {
        self.entry(key, now).pending += 1;
    }

    /// Ends an attempt that was taken; with the budget it is taken from, where it failed.
    pub(super) fn settle(&mut self, key: u64, failed: Option<Budget>, now: Duration) {
        let entry = self.entry(key, now);
        entry.pending = entry.pending.saturating_sub(1);
        if let Some(budget) = failed {
            entry.full_at = (entry.full_at.max(now) + budget.interval()).min(now + WINDOW);
        }
        if entry.pending == 0 && entry.full_at <= now {
            self.entries.remove(&key);
        }
    }

    fn entry(&mut self, key: u64, now: Duration) -> &mut Entry {
        if self.entries.len() >= MOST_TRACKED && !self.entries.contains_key(&key) {
            self.forget(now);
        }
        self.entries.entry(key).or_insert(Entry { full_at: now, pending: 0 })
    }

    /// Makes room for an eighth of the table: buckets that are full again, then those with the fewest
    /// failures.
    fn forget(&mut self, now: Duration) {
        self.entries.retain(|_, entry| entry.pending > 0 || entry.full_at > now);
        let mut excess = self.entries.len().saturating_sub(MOST_TRACKED / 8 * 7);
        if excess == 0 {
            return;
        }
        let mut ends: Vec<Duration> = self.entries.values().map(|entry| entry.full_at).collect();
        let (_, last, _) = ends.select_nth_unstable(excess - 1);
        let last = *last;
        let mut drop_until = |end: Duration, at_last: bool| {
            let goes = excess > 0 && (end < last || (at_last && end == last));
            excess -= usize::from(goes);
            goes
        };
        self.entries.retain(|_, entry| !drop_until(entry.full_at, false));
        self.entries.retain(|_, entry| !drop_until(entry.full_at, true));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

// === impl Budget ===

impl Budget {
    /// The time in which one failure is forgiven.
    fn interval(self) -> Duration {
        WINDOW / self.per_window
    }
}

// === impl Room ===

impl Room {
    /// How long, where it is refused.
    pub(super) fn refused_for(&self) -> Option<Duration> {
        if let Self::Refused(wait) = self { Some(*wait) } else { None }
    }
}
