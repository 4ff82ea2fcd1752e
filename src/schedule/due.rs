//! When a job is due, in a zone whose clocks may be changed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta};
use chrono_tz::Tz;
use croner::Cron;
use thiserror::Error;

use crate::clock::Timestamp;

/// When a job is due.
#[derive(Clone, Debug)]
pub struct When(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Cron { text: &'static str, cron: Box<Cron> },
    Every(Duration),
}

/// The text is no pattern of cron.
#[derive(Debug, Error)]
#[error("{text}: {cause}")]
pub struct NotACron {
    text: &'static str,
    cause: croner::errors::CronError,
}

/// The longest time between two hours of a pattern: no job is due more seldom than weekly.
const LONGEST: TimeDelta = TimeDelta::days(8);
/// More than clocks are ever set back at once.
const SET_BACK: TimeDelta = TimeDelta::hours(3);
/// When a pattern is never due again, which no pattern of ours is.
const NEVER: Timestamp = Timestamp(i64::MAX);

// === impl When ===

impl When {
    /// At a fixed hour, such as `0 1 * * *`, minute first. An hour that clocks jump over is made up
    /// for at the first instant after it; one that comes twice counts once.
    ///
    /// # Errors
    /// [`NotACron`].
    pub fn cron(text: &'static str) -> Result<Self, NotACron> {
        let cron = Cron::from_str(text).map_err(|cause| NotACron { text, cause })?;
        Ok(Self(Kind::Cron { text, cron: Box::new(cron) }))
    }

    /// At each multiple of `interval` (a millisecond at least) since 1970, in no zone.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self(Kind::Every(interval.max(Duration::from_millis(1))))
    }

    /// The first due time later than `now`.
    #[must_use]
    pub fn next_after(&self, now: Timestamp, zone: Tz) -> Timestamp {
        match &self.0 {
            Kind::Every(interval) => {
                let interval = millis(*interval);
                Timestamp(now.0.div_euclid(interval).saturating_add(1).saturating_mul(interval))
            }
            Kind::Cron { cron, .. } => next(cron, now.to_utc().with_timezone(&zone)).map_or(NEVER, instant),
        }
    }

    /// The last due time up to `now`, itself included.
    #[must_use]
    pub fn last_until(&self, now: Timestamp, zone: Tz) -> Option<Timestamp> {
        match &self.0 {
            Kind::Every(interval) => {
                let interval = millis(*interval);
                Some(Timestamp(now.0.div_euclid(interval) * interval))
            }
            // Looked for forwards, so that it is one of those that were found forwards.
            Kind::Cron { cron, .. } => {
                let now = now.to_utc().with_timezone(&zone);
                let mut last = None;
                let mut at = now.checked_sub_signed(LONGEST)?;
                while let Some(due) = next(cron, at).filter(|due| *due <= now) {
                    (last, at) = (Some(due), due);
                }
                last.map(instant)
            }
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Cron { text, .. } => f.write_str(text),
            Kind::Every(interval) => write!(f, "every {interval:?}"),
        }
    }
}

/// croner keeps the fraction of a second it is asked with, so it is asked without. And it searches by
/// local time, so within an hour that comes twice it may answer with the first time when that is past
/// already: then it is asked from beyond.
fn next(cron: &Cron, after: DateTime<Tz>) -> Option<DateTime<Tz>> {
    let after = after.trunc_subsecs(0);
    let found = cron.find_next_occurrence(&after, false).ok()?;
    if found > after {
        return Some(found);
    }
    let beyond = after.checked_add_signed(SET_BACK)?;
    cron.find_next_occurrence(&beyond, false).ok().filter(|found| *found > after)
}

fn instant(at: DateTime<Tz>) -> Timestamp {
    Timestamp(at.timestamp_millis())
}

fn millis(interval: Duration) -> i64 {
    i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono_tz::Tz;

    use super::When;
    use crate::clock::Timestamp;

    fn at(instant: &str) -> Timestamp {
        Timestamp(chrono::DateTime::parse_from_rfc3339(instant).unwrap().timestamp_millis())
    }

    fn following(pattern: &'static str, zone: Tz, from: &str, count: usize) -> Vec<String> {
        let when = When::cron(pattern).unwrap();
        let mut now = at(from);
        let due = std::iter::repeat_with(|| {
            now = when.next_after(now, zone);
            now.to_string()
        });
        due.take(count).collect()
    }

    #[test]
    fn midnight_is_the_zones_on_days_of_23_24_and_25_hours() {
        let berlin = Tz::Europe__Berlin;
        let spring = following("0 0 * * *", berlin, "2026-03-28T12:00:00Z", 3);
        assert_eq!(spring, ["2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", "2026-03-30T22:00:00Z"]);
        let autumn = following("0 0 * * *", berlin, "2026-10-24T12:00:00Z", 3);
        assert_eq!(autumn, ["2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", "2026-10-26T23:00:00Z"]);
    }

    #[test]
    fn an_hour_that_is_jumped_over_is_made_up_for_right_after_it() {
        // 2026-03-29: 02:00 becomes 03:00 in Berlin. 2026-03-08 likewise in New York.
        let berlin = following("0 2 * * SUN", Tz::Europe__Berlin, "2026-03-23T00:00:00Z", 2);
        assert_eq!(berlin, ["2026-03-29T01:00:00Z", "2026-04-05T00:00:00Z"]);
        let york = following("30 2 * * *", Tz::America__New_York, "2026-03-08T00:00:00Z", 2);
        assert_eq!(york, ["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"]);
        // 2024-04-26: 00:00 becomes 01:00 in Cairo, so the day begins at one.
        let cairo = following("0 0 * * *", Tz::Africa__Cairo, "2024-04-25T12:00:00Z", 2);
        assert_eq!(cairo, ["2024-04-25T22:00:00Z", "2024-04-26T21:00:00Z"]);
    }

    #[test]
    fn an_hour_that_comes_twice_counts_once() {
        // 2026-11-01: 02:00 becomes 01:00 in New York.
        let york = following("0 1 * * *", Tz::America__New_York, "2026-10-31T12:00:00Z", 2);
        assert_eq!(york, ["2026-11-01T05:00:00Z", "2026-11-02T06:00:00Z"]);
        for within_the_second in ["2026-11-01T06:00:00Z", "2026-11-01T06:10:00Z", "2026-11-01T06:59:59Z"] {
            let later = following("30 1 * * *", Tz::America__New_York, within_the_second, 1);
            assert_eq!(later, ["2026-11-02T06:30:00Z"], "{within_the_second}");
        }
    }

    #[test]
    fn a_moment_before_midnight_midnight_is_next() {
        for almost in ["2026-10-01T23:59:59Z", "2026-10-01T23:59:59.001Z", "2026-10-01T23:59:59.999Z"] {
            assert_eq!(following("0 0 * * *", Tz::UTC, almost, 1), ["2026-10-02T00:00:00Z"], "{almost}");
        }
    }

    #[test]
    fn of_every_day_of_years_there_is_one_and_the_last_agrees_with_the_next() {
        let zones =
            [Tz::UTC, Tz::Europe__Berlin, Tz::America__Sao_Paulo, Tz::Asia__Beirut, Tz::Africa__Cairo];
        for zone in zones {
            for pattern in ["0 0 * * *", "0 1 * * *", "30 2 * * *"] {
                let when = When::cron(pattern).unwrap();
                let mut now = at("2015-01-01T12:00:00Z");
                for _ in 0..1500 {
                    let due = when.next_after(now, zone);
                    let hours = due.since(now).as_secs_f64() / 3600.0;
                    assert!(hours > 0.0 && hours <= 26.0, "{zone} {pattern} {now} {due}");
                    assert_eq!(when.last_until(due, zone), Some(due), "{zone} {pattern}");
                    let before = when.last_until(Timestamp(due.0 - 1), zone).unwrap();
                    assert!(before < due && when.next_after(before, zone) == due, "{zone} {pattern} {due}");
                    now = due;
                }
            }
        }
    }

    #[test]
    fn an_interval_begins_at_its_multiples() {
        let when = When::every(Duration::from_mins(2));
        assert_eq!(when.next_after(at("2026-10-01T10:00:00Z"), Tz::UTC), at("2026-10-01T10:02:00Z"));
        assert_eq!(when.next_after(at("2026-10-01T10:01:59.999Z"), Tz::UTC), at("2026-10-01T10:02:00Z"));
        assert_eq!(when.last_until(at("2026-10-01T10:03:00Z"), Tz::UTC), Some(at("2026-10-01T10:02:00Z")));
        assert_eq!(when.to_string(), "every 120s");
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", "every day", "61 0 * * *", "0 0 * *"] {
            assert!(When::cron(bad).is_err(), "{bad}");
        }
    }
}
