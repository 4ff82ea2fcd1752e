//! How many bytes of conversations may be in memory, over all of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::Metrics;

/// The bytes all conversations may keep together. Clones are the same budget.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    used: AtomicU64,
    max: u64,
    metrics: Arc<Metrics>,
}

/// What one conversation keeps; it goes back when dropped.
pub struct Share {
    budget: Budget,
    bytes: u64,
}

/// How short memory is, and so what is done with the bytes of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// They are kept, and written in large pieces.
    Calm,
    /// From 70 %: what waits is written to the database, and the pieces are small.
    Tight,
    /// From 85 %: nothing is kept; each is written as it comes.
    Short,
    /// From 95 %: nothing is kept and nothing is written; rows say that they are cut.
    Bare,
    /// No conversation may begin.
    Full,
}

// === impl Budget ===

impl Budget {
    /// Nothing is kept yet; `max` bytes may be.
    #[must_use]
    pub fn new(max: u64, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner { used: AtomicU64::new(0), max, metrics }))
    }

    /// An empty share.
    #[must_use]
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }

    /// Bytes kept now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    fn show(&self) {
        self.0.metrics.log_bytes.set(i64::try_from(self.used()).unwrap_or(i64::MAX));
    }

    /// How short memory is now.
    #[must_use]
    pub fn level(&self) -> Level {
        let (used, max) = (self.used(), self.0.max);
        let reached = |percent: u64| used >= max / 100 * percent;
        match () {
            () if used >= max => Level::Full,
            () if reached(95) => Level::Bare,
            () if reached(85) => Level::Short,
            () if reached(70) => Level::Tight,
            () => Level::Calm,
        }
    }
}

// === impl Share ===

impl Share {
    /// Takes `more` bytes, or nothing when they do not fit: then what is not kept is marked so.
    pub fn grow(&mut self, more: u64) -> bool {
        let fits = self.try_grow(more);
        if !fits {
            self.budget.0.metrics.drop_from_log("memory");
        }
        fits
    }

    /// The same, where it is no loss when they do not fit.
    pub fn try_grow(&mut self, more: u64) -> bool {
        let Inner { used, max, .. } = &*self.budget.0;
        let before = used.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > *max {
            used.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes += more;
        self.budget.show();
        true
    }

    /// Gives everything back: it stands elsewhere now.
    pub fn release(&mut self) {
        if self.bytes > 0 {
            self.budget.0.used.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
            self.budget.show();
        }
    }

    /// How short memory is now.
    #[must_use]
    pub fn level(&self) -> Level {
        self.budget.level()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Share").field(&self.bytes).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Budget, Level};
    use crate::telemetry::Metrics;

    #[test]
    fn what_does_not_fit_is_refused_and_what_is_dropped_comes_back() {
        let budget = Budget::new(10, Arc::new(Metrics::new()));
        let (mut one, mut two) = (budget.share(), budget.share());
        assert!(one.grow(6));
        assert!(!two.grow(5));
        assert!(two.grow(4));
        assert_eq!(budget.used(), 10);
        drop(one);
        assert_eq!(budget.used(), 4);
        assert!(two.grow(6));
        two.release();
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_fuller_the_less_is_kept() {
        let budget = Budget::new(1000, Arc::new(Metrics::new()));
        let mut share = budget.share();
        let mut seen = Vec::new();
        for _ in 0..20 {
            assert!(share.grow(50));
            seen.push(share.level());
        }
        assert_eq!(
            seen[12..],
            [
                Level::Calm,
                Level::Tight,
                Level::Tight,
                Level::Tight,
                Level::Short,
                Level::Short,
                Level::Bare,
                Level::Full
            ]
        );
    }
}
