//! Why this instance should not be sent work: every reason by its name.
//!
//! A part of the gateway contributes a reason with a line in the table below and, wherever it learns
//! that the reason holds or no longer does, [`Readiness::set`]. A part on a floor below, which does not
//! know this one, is given [`Readiness::setter`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Makes [`Reason`] of the lines below: the variant, its code, and its sentence for people.
macro_rules! reasons {
    ($($(#[doc = $meaning:literal])* $name:ident = $code:literal, $sentence:literal;)*) => {
        /// Why `/readyz` answers 503.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason { $($(#[doc = $meaning])* $name,)* }

        impl Reason {
            /// All of them, in the order in which they are told.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word by which programs tell it from others.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// For people: the end of a sentence that begins "This instance takes no requests now:".
            #[must_use]
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }
        }
    };
}

reasons! {
    /// The database is opened, migrated or waited for.
    Starting = "starting", "it is starting";
    /// SIGTERM or SIGINT has come.
    Stopping = "stopping", "it is stopping";
    /// A write to the database failed or took too long, and none has succeeded since.
    DatabaseCannotWrite = "database_cannot_write", "the database takes no writes";
    /// The check of a SQLite file that was not closed properly found damage.
    DatabaseDamaged = "database_damaged", "the database is corrupt";
    /// An earlier run of this node may be alive, such as that of the folder of which this one is a copy.
    EarlierRunMayBeAlive = "earlier_run_may_be_alive", "an earlier run of this node may still be alive";
    /// A task that the gateway cannot work without has panicked.
    TaskFailed = "task_failed", "one of its tasks has failed, and it has to be restarted";
    /// The spool or its disk has no room for another conversation.
    MessageLogFull = "message_log_full", "the message log has no room";
    /// The machine's clock disagrees with the database's, or with the time that has passed, by more than a
    /// minute.
    ClockNotTrusted = "clock_not_trusted", "the machine's clock is not trusted";
}

/// Which reasons hold now. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicU32>);

/// The bit beside those of the reasons: a probe has asked.
const ASKED: u32 = 1 << 31;

// === impl Reason ===

impl Reason {
    fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

// === impl Readiness ===

impl Readiness {
    /// Says whether `reason` holds from now on.
    pub fn set(&self, reason: Reason, holds: bool) {
        let before = if holds {
            self.0.fetch_or(reason.bit(), Ordering::AcqRel)
        } else {
            self.0.fetch_and(!reason.bit(), Ordering::AcqRel)
        };
        match (before & reason.bit() != 0, holds) {
            (false, true) => tracing::warn!(reason = reason.code(), "not ready: {}", reason.sentence()),
            (true, false) => tracing::info!(reason = reason.code(), "ready again"),
            _ => {}
        }
    }

    /// [`Readiness::set`] of one reason, for a part that does not know this module.
    pub fn setter(&self, reason: Reason) -> impl Fn(bool) + Send + Sync + 'static {
        let readiness = self.clone();
        move |holds| readiness.set(reason, holds)
    }

    /// A probe asked: something acts on the answer.
    pub(in super::super) fn note_asked(&self) {
        self.0.fetch_or(ASKED, Ordering::Relaxed);
    }

    /// Whether a probe ever asked.
    #[must_use]
    pub fn was_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed) & ASKED != 0
    }

    /// The reasons that hold; none when work is welcome.
    #[must_use]
    pub fn reasons(&self) -> Vec<Reason> {
        let bits = self.0.load(Ordering::Acquire);
        Reason::ALL.iter().copied().filter(|reason| bits & reason.bit() != 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Readiness, Reason};

    #[test]
    fn every_reason_is_told_from_the_others_and_can_be_raised_and_cleared_alone() {
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        let readiness = Readiness::default();
        for reason in Reason::ALL {
            readiness.set(*reason, true);
        }
        assert_eq!(readiness.reasons(), Reason::ALL);
        for (cleared, reason) in Reason::ALL.iter().enumerate() {
            readiness.setter(*reason)(false);
            assert_eq!(readiness.reasons(), Reason::ALL[cleared + 1..]);
        }
    }
}
