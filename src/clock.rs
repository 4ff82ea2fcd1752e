//! Time as an input. Nothing in the house reads the wall clock but [`Clock`], so a test decides what
//! day it is.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant: milliseconds since 1970-01-01T00:00:00Z, the form every database column uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct Timestamp(pub i64);

/// The wall clock, or one that a test moves by hand.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { started: Instant },
    Manual(Arc<Hands>),
}

/// Of a clock that is moved by hand, in milliseconds.
#[derive(Debug)]
struct Hands {
    /// What it shows.
    at: AtomicI64,
    /// By how much more it shows than has passed: it was turned.
    turned: AtomicI64,
}

// === impl Clock ===

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System { started: Instant::now() })
    }

    /// A clock that stands at `start` until it is moved. Clones are the same clock.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(Hands { at: AtomicI64::new(start.0), turned: AtomicI64::new(0) })))
    }

    /// Now, in UTC.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the Clock")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System { .. } => Timestamp(Utc::now().timestamp_millis()),
            Source::Manual(hands) => Timestamp(hands.at.load(Ordering::Acquire)),
        }
    }

    /// Time that never runs backwards, for rates and ages: since the clock was made, or, by hand,
    /// since the epoch.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Source::System { started } => started.elapsed(),
            Source::Manual(hands) => {
                let turned = Timestamp(hands.turned.load(Ordering::Acquire));
                Timestamp(hands.at.load(Ordering::Acquire)).since(turned)
            }
        }
    }

    /// Moves a manual clock; the machine's clock cannot be moved and ignores this.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(hands) = &self.0 {
            hands.at.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::AcqRel);
        }
    }

    /// Sets a manual clock, backwards too; the machine's clock ignores this.
    pub fn set(&self, to: Timestamp) {
        if let Source::Manual(hands) = &self.0 {
            hands.at.store(to.0, Ordering::Release);
        }
    }

    /// Turns a manual clock by so many milliseconds, as somebody does who sets a clock on the wall: what it
    /// shows is another time, and none has passed. The machine's clock ignores this.
    pub fn turn(&self, by: i64) {
        if let Source::Manual(hands) = &self.0 {
            hands.turned.fetch_add(by, Ordering::AcqRel);
            hands.at.fetch_add(by, Ordering::AcqRel);
        }
    }
}

// === impl Timestamp ===

impl Timestamp {
    /// Whole seconds since the epoch, as JWT and `X-RateLimit-Reset` count.
    #[must_use]
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The same instant for calendar arithmetic; instants beyond chrono's range become its epoch.
    #[must_use]
    pub fn to_utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or_default()
    }

    /// How long from `earlier` to here; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This instant moved into the future.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This instant moved into the past.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// RFC 3339 in UTC with `Z`; milliseconds only where there are some.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = if self.0.rem_euclid(1000) == 0 { SecondsFormat::Secs } else { SecondsFormat::Millis };
        f.write_str(&self.to_utc().to_rfc3339_opts(form, true))
    }
}

/// RFC 3339 for people; in forms that only programs read, the number.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

/// From forms that only programs read: nobody reads back what was written for people.
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Clock, Timestamp};

    #[test]
    fn instants_are_written_as_rfc_3339() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp(1_790_000_000_123).to_string(), "2026-09-21T14:13:20.123Z");
        assert_eq!(Timestamp(-1).unix_seconds(), -1);
    }

    #[test]
    fn a_manual_clock_moves_only_by_hand_and_clones_move_together() {
        let clock = Clock::manual(Timestamp(1_000));
        let twin = clock.clone();
        twin.advance(Duration::from_secs(2));
        assert_eq!(clock.now(), Timestamp(3_000));
        let elapsed = clock.elapsed();
        twin.turn(-2_500);
        assert_eq!((clock.now(), clock.elapsed()), (Timestamp(500), elapsed));
        clock.set(Timestamp(5));
        assert_eq!(twin.now(), Timestamp(5));
    }
}
