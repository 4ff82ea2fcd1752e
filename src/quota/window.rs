//! Which day it is, and when the next begins, in an IANA zone.

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, TimeDelta, TimeZone};
use chrono_tz::Tz;

use crate::clock::Timestamp;

/// One calendar day in a zone: 23, 24 or 25 hours long where clocks are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Days since 1970-01-01 in the zone.
    pub day: i64,
    /// Its first instant.
    pub starts_at: Timestamp,
    /// The first instant of the next.
    pub resets_at: Timestamp,
}

// === impl Window ===

impl Window {
    /// The day that `now` falls into in `zone`.
    #[must_use]
    pub fn at(now: Timestamp, zone: Tz) -> Self {
        let today = now.to_utc().with_timezone(&zone).date_naive();
        let tomorrow = today.checked_add_days(Days::new(1)).unwrap_or(NaiveDate::MAX);
        let day = i64::from(today.num_days_from_ce()) - i64::from(NaiveDate::default().num_days_from_ce());
        Self { day, starts_at: first_instant(today, zone), resets_at: first_instant(tomorrow, zone) }
    }

    /// The day of this number in `zone`. Days that chrono cannot count to are its last.
    #[must_use]
    pub fn of(day: i64, zone: Tz) -> Self {
        let date = |day: i64| {
            let after = u64::try_from(day)
                .ok()
                .and_then(|days| NaiveDate::default().checked_add_days(Days::new(days)));
            after.unwrap_or(NaiveDate::MAX)
        };
        let next = date(day.saturating_add(1));
        Self { day, starts_at: first_instant(date(day), zone), resets_at: first_instant(next, zone) }
    }
}

/// Where clocks jump over midnight, the day begins with the first minute there is.
fn first_instant(date: NaiveDate, zone: Tz) -> Timestamp {
    let midnight = date.and_time(NaiveTime::MIN);
    let mut minutes = (0..=24 * 60).map(|minute| midnight + TimeDelta::minutes(minute));
    let first = minutes.find_map(|local| zone.from_local_datetime(&local).earliest());
    Timestamp(first.as_ref().map_or(midnight.and_utc().timestamp_millis(), DateTime::timestamp_millis))
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;

    use super::Window;
    use crate::clock::Timestamp;

    fn at(instant: &str) -> Timestamp {
        Timestamp(chrono::DateTime::parse_from_rfc3339(instant).unwrap().timestamp_millis())
    }

    #[test]
    fn the_epoch_is_day_zero() {
        let window = Window::at(Timestamp(0), Tz::UTC);
        assert_eq!((window.day, window.starts_at.0, window.resets_at.0), (0, 0, 86_400_000));
        assert_eq!(Window::at(Timestamp(-1), Tz::UTC).day, -1);
    }

    #[test]
    fn a_day_is_the_same_by_its_number_as_by_its_hour() {
        for zone in [Tz::UTC, Tz::Europe__Berlin, Tz::Asia__Beirut] {
            for noon in (0..40_000).step_by(7).map(|day| Timestamp(day * 86_400_000 + 43_200_000)) {
                let window = Window::at(noon, zone);
                assert_eq!(Window::of(window.day, zone), window, "{zone}");
            }
        }
    }

    #[test]
    fn a_day_is_as_long_as_its_zone_makes_it() {
        let hours = |instant: &str, zone| {
            let window = Window::at(at(instant), zone);
            (window.resets_at.0 - window.starts_at.0) / 3_600_000
        };
        assert_eq!(hours("2026-03-29T12:00:00Z", Tz::Europe__Berlin), 23);
        assert_eq!(hours("2026-10-25T12:00:00Z", Tz::Europe__Berlin), 25);
        assert_eq!(hours("2026-10-26T12:00:00Z", Tz::Europe__Berlin), 24);
    }

    #[test]
    fn days_follow_one_another_without_gap_or_overlap() {
        let zones = [Tz::America__Sao_Paulo, Tz::Asia__Beirut, Tz::Pacific__Apia, Tz::Africa__Cairo];
        for zone in zones {
            let mut window = Window::at(at("2010-01-01T00:00:00Z"), zone);
            for _ in 0..3000 {
                let next = Window::at(window.resets_at, zone);
                assert!(next.day > window.day, "{zone} {window:?}");
                assert_eq!(next.starts_at, window.resets_at, "{zone} {window:?}");
                assert_eq!(Window::at(Timestamp(window.resets_at.0 - 1), zone), window, "{zone}");
                window = next;
            }
        }
    }
}
