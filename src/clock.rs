//! Time as an input. Nothing in the house reads the wall clock but [`Clock`], so a test decides what
//! day it is.
//!
//! [`Clock::now`] does not follow a jump of the machine's clock: it follows that clock only as far as it
//! agrees with the time that has passed by the machine's uptime. The timekeeper compares the machine's
//! clock with others and moves the anchor where it was right to jump.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::{ContextV7, Uuid};

/// An instant: milliseconds since 1970-01-01T00:00:00Z, the form every database column uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct Timestamp(pub i64);

/// The wall clock, or one that a test moves by hand. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Source,
    /// The trusted time less the uptime, in milliseconds.
    anchor: AtomicI64,
    trust: AtomicU8,
    /// Of the names that [`Clock::uuid`] makes.
    order: Mutex<ContextV7>,
}

#[derive(Debug)]
enum Source {
    System { started: Instant },
    Manual(Hands),
}

/// Of a clock that is moved by hand, in milliseconds.
#[derive(Debug)]
struct Hands {
    /// What it shows.
    at: AtomicI64,
    /// By how much more it shows than has passed: it was turned.
    turned: AtomicI64,
    /// By how much more the clocks of other machines show than has passed.
    others: AtomicI64,
}

/// Whether the time of a [`Clock`] is known to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Another clock agrees, or nothing speaks against it.
    Confirmed,
    /// The machine was off for long, if its clock is right: days begin by it, and nothing is removed by it
    /// yet.
    Provisional,
    /// The machine's clock disagrees by more than a minute: [`Clock::now`] goes on from when it was trusted.
    Held,
}

/// The machine's clock is followed as far as it is no further than this from the trusted time.
const FOLLOWED: i64 = 1_000;

// === impl Clock ===

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Source::System { started: Instant::now() })
    }

    /// A clock that stands at `start` until it is moved. Clones are the same clock.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        let at = AtomicI64::new(start.0);
        Self::new(Source::Manual(Hands { at, turned: AtomicI64::new(0), others: AtomicI64::new(0) }))
    }

    fn new(source: Source) -> Self {
        let trust = AtomicU8::new(Trust::Confirmed as u8);
        let inner = Inner { source, anchor: AtomicI64::new(0), trust, order: Mutex::default() };
        let clock = Self(Arc::new(inner));
        clock.anchor(clock.wall(), clock.uptime());
        clock
    }

    /// Now, in UTC: what the machine's clock shows, unless it has jumped since it was trusted; then the time
    /// it would show had it not.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let (wall, held) = (self.wall(), self.held());
        if wall.0.abs_diff(held.0) <= FOLLOWED.unsigned_abs() { wall } else { held }
    }

    /// What the machine's clock shows, right or wrong.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the Clock")]
    pub fn wall(&self) -> Timestamp {
        match &self.0.source {
            Source::System { .. } => Timestamp(Utc::now().timestamp_millis()),
            Source::Manual(hands) => Timestamp(hands.at.load(Ordering::Acquire)),
        }
    }

    /// The trusted time, by the uptime alone.
    #[must_use]
    pub fn held(&self) -> Timestamp {
        let anchor = self.0.anchor.load(Ordering::Acquire);
        Timestamp(anchor.saturating_add(millis(self.uptime())))
    }

    /// For how long the machine has been up, suspended or not: it goes on evenly whatever is done to the
    /// clock, and means the same to every process until the next boot. Where the system does not say, since
    /// the clock was made.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        match &self.0.source {
            Source::System { started } => since_boot().unwrap_or_else(|| started.elapsed()),
            Source::Manual(_) => self.elapsed(),
        }
    }

    /// From now on the clock is taken to have shown `at` when the machine had been up for `uptime`.
    pub fn anchor(&self, at: Timestamp, uptime: Duration) {
        self.0.anchor.store(at.0.saturating_sub(millis(uptime)), Ordering::Release);
    }

    /// Whether the time is known to be right.
    #[must_use]
    pub fn trust(&self) -> Trust {
        match self.0.trust.load(Ordering::Acquire) {
            code if code == Trust::Confirmed as u8 => Trust::Confirmed,
            code if code == Trust::Provisional as u8 => Trust::Provisional,
            _ => Trust::Held,
        }
    }

    /// Says whether the time is known to be right; the timekeeper's to call.
    pub fn set_trust(&self, trust: Trust) {
        self.0.trust.store(trust as u8, Ordering::Release);
    }

    /// A UUIDv7 of the trusted time, later than every one that clones of this clock made before.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        let now = self.now().0.max(0).unsigned_abs();
        let nanos = u32::try_from(now % 1000 * 1_000_000).unwrap_or(0);
        Uuid::new_v7(uuid::Timestamp::from_unix(&self.0.order, now / 1000, nanos))
    }

    /// Time that never runs backwards, for rates and ages: since the clock was made, or, by hand,
    /// since the epoch.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match &self.0.source {
            Source::System { started } => started.elapsed(),
            Source::Manual(hands) => {
                let turned = Timestamp(hands.turned.load(Ordering::Acquire));
                Timestamp(hands.at.load(Ordering::Acquire)).since(turned)
            }
        }
    }

    /// Moves a manual clock; the machine's clock cannot be moved and ignores this.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(hands) = &self.0.source {
            hands.at.fetch_add(millis(by), Ordering::AcqRel);
        }
    }

    /// Sets a manual clock, backwards too, as if the time between had passed; the machine's clock ignores
    /// this.
    pub fn set(&self, to: Timestamp) {
        if let Source::Manual(hands) = &self.0.source {
            hands.at.store(to.0, Ordering::Release);
        }
    }

    /// Turns a manual clock by so many milliseconds, as somebody does who sets a clock on the wall: what it
    /// shows is another time, and none has passed. The machine's clock ignores this.
    pub fn turn(&self, by: i64) {
        if let Source::Manual(hands) = &self.0.source {
            hands.turned.fetch_add(by, Ordering::AcqRel);
            hands.at.fetch_add(by, Ordering::AcqRel);
        }
    }

    /// Turns the clocks of all other machines, such as the database's, as a manual clock plays them.
    pub fn turn_others(&self, by: i64) {
        if let Source::Manual(hands) = &self.0.source {
            hands.others.fetch_add(by, Ordering::AcqRel);
        }
    }

    /// What the clocks of other machines show where a manual clock plays them; `None`: ask them.
    #[must_use]
    pub fn others(&self) -> Option<Timestamp> {
        let Source::Manual(hands) = &self.0.source else { return None };
        Some(Timestamp(millis(self.elapsed()).saturating_add(hands.others.load(Ordering::Acquire))))
    }
}

/// By the kernel's clock that no one can set.
#[cfg(target_os = "linux")]
fn since_boot() -> Option<Duration> {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Some(Duration::new(u64::try_from(at.tv_sec).ok()?, u32::try_from(at.tv_nsec).ok()?))
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Option<Duration> {
    None
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
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
        Self(self.0.saturating_add(millis(by)))
    }

    /// This instant moved into the past.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
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
        assert_eq!((clock.wall(), clock.elapsed()), (Timestamp(500), elapsed));
        twin.turn(2_500);
        clock.set(Timestamp(5));
        assert_eq!(twin.now(), Timestamp(5));
    }

    #[test]
    fn a_jump_is_not_followed_and_the_way_back_is_none() {
        let clock = Clock::manual(Timestamp(1_000_000));
        for jump in [86_400_000, -86_400_000, 101 * 86_400_000, -1_001, 1_001] {
            let before = clock.now();
            clock.turn(jump);
            assert_eq!(clock.now(), before, "{jump}");
            clock.advance(Duration::from_secs(3));
            assert_eq!(clock.now(), before.plus(Duration::from_secs(3)), "{jump}");
            clock.turn(-jump);
            assert_eq!(clock.now(), clock.wall(), "{jump}");
        }
        // What slews is followed.
        clock.turn(-900);
        assert_eq!(clock.now(), clock.wall());
        clock.turn(5_000);
        clock.anchor(clock.wall(), clock.uptime());
        assert_eq!(clock.now(), clock.wall());
    }

    #[test]
    fn names_are_of_the_trusted_time_and_in_order() {
        let clock = Clock::manual(Timestamp(1_790_000_000_123));
        let mut last = clock.uuid();
        for jump in [0, 86_400_000, -2 * 86_400_000, 0] {
            clock.turn(jump);
            let next = clock.uuid();
            assert!(next > last);
            let (seconds, nanos) = next.get_timestamp().unwrap().to_unix();
            assert_eq!((seconds, nanos / 1_000_000), (1_790_000_000, 123));
            last = next;
        }
    }

    #[test]
    fn the_machines_uptime_goes_on() {
        let clock = Clock::system();
        let (uptime, now) = (clock.uptime(), clock.now());
        assert!(clock.uptime() >= uptime && clock.now() >= now && clock.others().is_none());
        assert!(clock.wall().0.abs_diff(clock.held().0) < 60_000);
    }
}
