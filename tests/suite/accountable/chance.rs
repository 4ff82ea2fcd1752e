//! What happens at once, and what happens at any moment.

use super::{kept, plan, plan_on_a_file};
use crate::proof::{kill, power, race};
use std::time::Duration;

#[tokio::test]
async fn of_a_day_asked_for_many_times_at_once_exactly_the_days_number_passes() {
    // A hundred thousand requests, twenty thousand of them queued before the first is sent. A quarter of a
    // minute on two cores, most of it frames of HTTP/2: what is over the day is refused without a question.
    let size = race::Size { users: 100, burst: 1000, group: 10, limit: 40 };
    kept(&race::race(&plan(), size, 1).await);
}

#[tokio::test]
async fn killed_25_times_it_spends_nothing_twice_and_loses_nothing_that_was_answered() {
    kept(&kill::kill(&plan(), 25, 1).await);
}

#[tokio::test]
async fn when_the_power_goes_what_was_answered_in_strict_mode_is_there() {
    kept(&power::power(&plan_on_a_file(), 40, (Duration::from_millis(500), true), 1).await);
}

#[tokio::test]
async fn when_the_power_goes_no_more_is_lost_than_an_interval_and_nothing_is_had_twice() {
    kept(&power::power(&plan_on_a_file(), 40, (Duration::from_millis(500), false), 2).await);
}
