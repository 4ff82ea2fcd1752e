//! The rule: from what the clocks show to the time that is trusted. No I/O, and no clock is read here.

use std::fmt;
use std::time::Duration;

use crate::clock::{Clock, Timestamp, Trust};
use crate::store::clock_marks::Mark;

/// How the clock stands, in milliseconds.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// The trusted time less the uptime.
    anchor: i64,
    trust: Trust,
    /// Whether the machine's clock and the database's have agreed.
    was_confirmed: bool,
    /// Since when the time is provisional, if it is.
    doubted_since: Option<i64>,
    /// The newest entry, while the clock is behind it.
    newest: Option<i64>,
    /// Whether this start is the first after a boot, so that the clock may be set soon.
    is_first_of_boot: bool,
}

/// What clocks show, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// The machine's clock.
    pub(super) wall: i64,
    /// Since its boot.
    pub(super) uptime: i64,
    /// The database's clock, if it has one of its own.
    pub(super) database: Option<i64>,
}

/// What is known at a start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'k> {
    /// The machine's boot; empty where it is not known.
    pub(super) boot: &'k str,
    /// When the clock was trusted last.
    pub(super) mark: Option<&'k Mark>,
    /// The newest entry of a database without a mark, in milliseconds.
    pub(super) newest: Option<i64>,
}

/// What a comparison found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// By how much the machine's clock is ahead, in milliseconds; behind where it is negative.
    pub lead: i64,
    /// Why it is not trusted, if it is not.
    pub disagreement: Option<Disagreement>,
}

/// Why a clock is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disagreement {
    /// It jumped, by the machine's uptime.
    Jumped,
    /// The database's clock shows another time.
    Database,
    /// It jumped, and the database's clock with it.
    BothJumped,
    /// The database has newer entries.
    Entries,
}

/// A disagreement of more than a minute.
const TOLERATED: u64 = 60_000;
const DAY: i64 = 24 * 60 * 60 * 1000;
/// For so long after a boot a clock without a battery may be set forwards.
const SET_AFTER_BOOT: i64 = 5 * 60 * 1000;

// === impl Standing ===

impl Standing {
    /// How the clock stands at a start, before it is looked at.
    pub(super) fn first(reading: &Reading, known: &Known<'_>) -> Self {
        let Reading { wall, uptime, database } = *reading;
        let mut standing = Self {
            anchor: wall - uptime,
            trust: Trust::Confirmed,
            was_confirmed: false,
            doubted_since: None,
            newest: None,
            is_first_of_boot: false,
        };
        let ahead_of = |last: i64| (wall.saturating_sub(last) > DAY).then_some(wall);
        match (database, known.mark) {
            (Some(database), _) => standing.anchor = database - uptime,
            (None, Some(mark)) if is_same_boot(mark, known.boot, uptime) => {
                standing.anchor = mark.trusted_at.0 - mark.uptime;
                standing.doubted_since = mark.doubted_since.map(|since| since.0);
            }
            (None, Some(mark)) => {
                // Time has not gone back while the machine was off.
                standing.anchor = wall.max(mark.trusted_at.0) - uptime;
                let doubted = mark.doubted_since.map(|since| since.0);
                standing.doubted_since = doubted.or_else(|| ahead_of(mark.trusted_at.0));
                standing.is_first_of_boot = true;
            }
            (None, None) => {
                standing.newest = known.newest;
                standing.doubted_since = known.newest.and_then(ahead_of);
            }
        }
        standing
    }

    /// Compares the clocks, and follows the machine's where nothing speaks against it.
    pub(super) fn look(&mut self, reading: &Reading) -> Opinion {
        let Reading { wall, uptime, .. } = *reading;
        let opinion = self.compare(reading);
        match opinion.disagreement {
            None => {
                if self.is_first_of_boot && wall - uptime - self.anchor > DAY {
                    self.doubted_since = Some(wall);
                }
                self.anchor = wall - uptime;
                self.was_confirmed = true;
                self.newest = None;
                self.doubted_since = self.doubted_since.filter(|since| wall - since < DAY);
                let is_doubted = self.doubted_since.is_some();
                self.trust = if is_doubted { Trust::Provisional } else { Trust::Confirmed };
            }
            // Which of both is wrong is not known, and a clock that is behind begins no day.
            Some(Disagreement::Entries) => {
                self.anchor = wall - uptime;
                self.trust = Trust::Held;
            }
            Some(_) => self.trust = Trust::Held,
        }
        opinion
    }

    /// Follows the machine's clock because an operator says that it is right. A database whose clock shows
    /// another time is believed more.
    pub(super) fn accept(&mut self, reading: &Reading) -> Opinion {
        let Reading { wall, uptime, database } = *reading;
        (self.was_confirmed, self.doubted_since, self.newest) = (false, None, None);
        if database.is_none_or(|database| wall.abs_diff(database) <= TOLERATED) {
            self.anchor = wall - uptime;
        }
        self.look(reading)
    }

    /// Tells a clock.
    pub(super) fn tell(&self, clock: &Clock) {
        clock.anchor(Timestamp(self.anchor), Duration::ZERO);
        clock.set_trust(self.trust);
    }

    pub(super) fn doubted_since(&self) -> Option<i64> {
        self.doubted_since
    }

    fn compare(&self, reading: &Reading) -> Opinion {
        let Reading { wall, uptime, database } = *reading;
        let held = self.anchor.saturating_add(uptime);
        let own = wall.saturating_sub(held);
        let may_be_set = self.is_first_of_boot && uptime < SET_AFTER_BOOT && own > 0;
        let (lead, disagreement) = match database {
            Some(database) if wall.abs_diff(database) > TOLERATED => {
                (wall.saturating_sub(database), Some(Disagreement::Database))
            }
            Some(database) if self.was_confirmed && database.abs_diff(held) > TOLERATED => {
                (own, Some(Disagreement::BothJumped))
            }
            Some(database) => (wall.saturating_sub(database), None),
            None if own.unsigned_abs() > TOLERATED && !may_be_set => (own, Some(Disagreement::Jumped)),
            None => match self.newest {
                Some(newest) if newest.saturating_sub(wall) > TOLERATED.cast_signed() => {
                    (wall.saturating_sub(newest), Some(Disagreement::Entries))
                }
                _ => (own, None),
            },
        };
        Opinion { lead, disagreement }
    }
}

/// A container may have an uptime of its own: one that went back is of another boot.
fn is_same_boot(mark: &Mark, boot: &str, uptime: i64) -> bool {
    !boot.is_empty() && mark.boot == boot && mark.uptime <= uptime
}

// === impl Disagreement ===

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jumped => "the clock has jumped",
            Self::Database => "the database's clock shows another time",
            Self::BothJumped => "the clock has jumped, and the database's with it",
            Self::Entries => "the database has newer entries",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

    use super::Disagreement::{BothJumped, Database, Entries, Jumped};
    use super::{DAY, Disagreement, Known, Reading, Standing, TOLERATED};
    use crate::clock::{Timestamp, Trust};
    use crate::store::clock_marks::Mark;

    const NOON: i64 = 1_790_000_000_000;
    const UP: i64 = 40 * DAY;
    const MINUTE: i64 = TOLERATED.cast_signed();

    /// What is known and what clocks show; why the clock is not trusted, whether it is, and what time it is.
    type Case = (Reading, Option<Mark>, Option<i64>, Option<Disagreement>, Trust, i64);

    fn mark(boot: &str, uptime: i64, trusted_at: i64) -> Mark {
        let trusted_at = Timestamp(trusted_at);
        Mark { boot: boot.into(), uptime, trusted_at, doubted_since: None, accepted: 0 }
    }

    fn begun(reading: Reading, mark: Option<&Mark>, newest: Option<i64>) -> (Standing, Option<Disagreement>) {
        let mut standing = Standing::first(&reading, &Known { boot: "this", mark, newest });
        let opinion = standing.look(&reading);
        (standing, opinion.disagreement)
    }

    fn held(standing: &Standing, uptime: i64) -> i64 {
        standing.anchor + uptime
    }

    /// What may be found at a start: what is known, the clocks, and what is made of them.
    #[test]
    fn a_start_believes_what_speaks_for_the_clock() {
        let alone = |wall| Reading { wall, uptime: UP, database: None };
        let beside = |wall, database| Reading { wall, uptime: UP, database: Some(database) };
        let same = |at| Some(mark("this", UP - DAY, at));
        let other = |at| Some(mark("that", UP - DAY, at));
        let cases: [Case; 14] = [
            (alone(NOON), None, None, None, Trust::Confirmed, NOON),
            (alone(NOON), None, Some(NOON - 1000), None, Trust::Confirmed, NOON),
            (alone(NOON), None, Some(NOON - 90 * DAY), None, Trust::Provisional, NOON),
            (alone(NOON), None, Some(NOON + DAY), Some(Entries), Trust::Held, NOON),
            (alone(NOON), same(NOON - DAY), None, None, Trust::Confirmed, NOON),
            (alone(NOON + DAY), same(NOON - DAY), None, Some(Jumped), Trust::Held, NOON),
            (alone(NOON - DAY), same(NOON - DAY), None, Some(Jumped), Trust::Held, NOON),
            (alone(NOON), other(NOON - DAY / 2), None, None, Trust::Confirmed, NOON),
            (alone(NOON), other(NOON - 90 * DAY), None, None, Trust::Provisional, NOON),
            (alone(NOON), other(NOON + DAY), None, Some(Jumped), Trust::Held, NOON + DAY),
            // A container whose uptime began anew.
            (alone(NOON), Some(mark("this", UP + 1, NOON - DAY / 2)), None, None, Trust::Confirmed, NOON),
            (beside(NOON, NOON + 59_000), None, None, None, Trust::Confirmed, NOON),
            (beside(NOON + DAY, NOON), same(NOON), None, Some(Database), Trust::Held, NOON),
            (beside(NOON - DAY, NOON), None, None, Some(Database), Trust::Held, NOON),
        ];
        for (at, (reading, mark, newest, why, trust, now)) in cases.into_iter().enumerate() {
            let (standing, found) = begun(reading, mark.as_ref(), newest);
            assert_eq!((found, standing.trust, held(&standing, UP)), (why, trust, now), "case {at}");
        }
    }

    #[test]
    fn a_clock_without_a_battery_may_be_set_soon_after_its_boot_and_not_later() {
        let mark = mark("that", UP, NOON);
        for (after, why) in [(60_000, None), (6 * MINUTE, Some(Jumped))] {
            let reading = Reading { wall: 0, uptime: 1000, database: None };
            let (mut standing, found) = begun(reading, Some(&mark), None);
            assert_eq!((found, held(&standing, 1000)), (Some(Jumped), NOON), "no time before");
            let reading = Reading { wall: NOON + 7 * DAY, uptime: after, database: None };
            assert_eq!(standing.look(&reading).disagreement, why);
            assert_eq!(
                held(&standing, after),
                if why.is_none() { NOON + 7 * DAY } else { NOON - 1000 + after }
            );
            assert!(standing.trust != Trust::Confirmed, "a week is waited for, or not believed");
        }
    }

    #[test]
    fn after_a_day_a_late_clock_is_believed_and_after_a_word_at_once() {
        let mark = mark("that", UP, NOON - 90 * DAY);
        let at = |passed| Reading { wall: NOON + passed, uptime: UP + passed, database: None };
        let (mut standing, _) = begun(at(0), Some(&mark), None);
        standing.look(&at(DAY - 1));
        assert_eq!(standing.trust, Trust::Provisional);
        let mut other = standing.clone();
        standing.look(&at(DAY));
        assert_eq!(standing.trust, Trust::Confirmed);
        other.accept(&at(DAY - 1));
        assert_eq!(other.trust, Trust::Confirmed);
    }

    #[test]
    fn an_accepted_clock_is_followed_unless_the_database_says_otherwise() {
        let (mut standing, _) = begun(Reading { wall: NOON, uptime: UP, database: None }, None, None);
        let paused = Reading { wall: NOON + DAY, uptime: UP, database: None };
        assert_eq!(standing.look(&paused).disagreement, Some(Jumped));
        assert_eq!(standing.accept(&paused).disagreement, None);
        assert_eq!((held(&standing, UP), standing.trust), (NOON + DAY, Trust::Confirmed));

        let both = |wall, database| Reading { wall, uptime: UP, database: Some(database) };
        let (mut standing, _) = begun(both(NOON, NOON), None, None);
        let paused = both(NOON + DAY, NOON + DAY);
        assert_eq!(standing.look(&paused).disagreement, Some(BothJumped));
        assert_eq!(standing.accept(&paused).disagreement, None);
        assert_eq!(held(&standing, UP), NOON + DAY);
        let alone = both(NOON + 3 * DAY, NOON + DAY);
        assert_eq!(standing.accept(&alone).disagreement, Some(Database));
        assert_eq!(held(&standing, UP), NOON + DAY);
    }

    /// A second passes, and a clock is turned.
    fn event() -> impl Strategy<Value = (i64, i64)> {
        let turn = prop_oneof![
            4 => Just(0_i64),
            1 => MINUTE + 1..400 * DAY,
            1 => -400 * DAY..-MINUTE - 1,
        ];
        (turn.clone(), any::<bool>()).prop_map(|(turn, both)| (turn, if both { turn } else { 0 }))
    }

    proptest! {
        /// However clocks are turned, the trusted time is the time that has passed, to the minute.
        #[test]
        fn no_jump_is_followed(events in vec(event(), 1..40), has_database: bool) {
            let (mut wall, mut database, mut passed) = (NOON, NOON, 0);
            let reading = |wall, database, passed| {
                Reading { wall, uptime: UP + passed, database: has_database.then_some(database) }
            };
            let (mut standing, _) = begun(reading(wall, database, 0), None, None);
            for (turn, other) in events {
                passed += 1000;
                wall += 1000 + turn;
                database += 1000 + other;
                let opinion = standing.look(&reading(wall, database, passed));
                let off = held(&standing, UP + passed) - (NOON + passed);
                assert!(off.abs() <= MINUTE, "off by {off}");
                let is_right = (wall - NOON - passed).abs() <= MINUTE;
                assert!(is_right || opinion.disagreement.is_some(), "a wrong clock is trusted");
            }
        }
    }
}
