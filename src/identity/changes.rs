//! Whose rights changed lately, so that what they have running is looked at again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Subject;
use crate::ids::UserId;

/// Counts the changes that were told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revision(u64);

/// Whose rights may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    User(UserId),
    /// By name, where only that is known.
    Named(String),
    All,
}

/// Whose rights may have changed since somebody last asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed(Vec<Who>);

/// The latest changes; bounded, for who asks later than that looks at everybody.
#[derive(Default)]
pub(super) struct Changes {
    revision: AtomicU64,
    latest: Mutex<VecDeque<Who>>,
}

const MOST: usize = 256;

// === impl Changes ===

impl Changes {
    /// One atomic read.
    pub(super) fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Acquire))
    }

    pub(super) fn tell(&self, who: Who) {
        let mut latest = self.latest();
        if latest.len() >= MOST {
            latest.pop_front();
        }
        latest.push_back(who);
        self.revision.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn since(&self, seen: &mut Revision) -> Changed {
        if self.revision() == *seen {
            return Changed(Vec::new());
        }
        let latest = self.latest();
        let now = self.revision();
        let missed = usize::try_from(now.0.saturating_sub(seen.0)).unwrap_or(usize::MAX);
        *seen = now;
        match latest.len().checked_sub(missed) {
            Some(known) => Changed(latest.iter().skip(known).cloned().collect()),
            None => Changed(vec![Who::All]),
        }
    }

    fn latest(&self) -> MutexGuard<'_, VecDeque<Who>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Changed ===

impl Changed {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this subject may be concerned.
    #[must_use]
    pub fn concerns(&self, subject: &Subject) -> bool {
        self.0.iter().any(|who| who.is(subject))
    }
}

// === impl Who ===

impl Who {
    pub(super) fn is(&self, subject: &Subject) -> bool {
        match self {
            Self::User(user) => subject.user == *user,
            Self::Named(name) => subject.username == *name,
            Self::All => true,
        }
    }
}

// === impl Shown ===

impl super::Shown {
    /// As of when what the key opens is known.
    #[must_use]
    pub fn as_of(&self) -> Revision {
        self.as_of
    }
}

#[cfg(test)]
mod tests {
    use super::{Changed, Changes, MOST, Who};
    use crate::ids::UserId;

    #[test]
    fn who_asks_in_time_hears_who_and_who_asks_late_hears_all() {
        let changes = Changes::default();
        let mut seen = changes.revision();
        assert!(changes.since(&mut seen).is_empty());
        let users = |count: usize| (0..).map(|n| Who::User(UserId(n))).take(count).collect::<Vec<_>>();
        for count in [1, 2, MOST] {
            for who in users(count) {
                changes.tell(who);
            }
            assert_eq!(changes.since(&mut seen), Changed(users(count)));
            assert!(changes.since(&mut seen).is_empty());
        }
        for who in users(MOST + 1) {
            changes.tell(who);
        }
        assert_eq!(changes.since(&mut seen), Changed(vec![Who::All]));
        assert_eq!(seen, changes.revision());
    }
}
