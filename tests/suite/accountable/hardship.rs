//! What is taken away, and given back.

use std::time::Duration;

use super::{kept, plan, plan_on_a_file};
use crate::proof::faults::{Reach, faults};
use crate::proof::{away, disk};

#[tokio::test]
async fn while_the_database_is_away_nothing_is_lost_and_nobody_is_a_stranger() {
    kept(&away::away(&plan(), Duration::from_secs(3), 1).await);
}

#[tokio::test]
async fn a_disk_that_fails_here_and_there_costs_nobody_an_answer() {
    kept(&disk::failing(&plan_on_a_file(), 10, 1).await);
}

#[tokio::test]
async fn after_each_write_that_fails_everything_goes_on() {
    // The machine may be slow: that it comes back is the story here, how soon is the laboratory's.
    kept(&faults(&plan(), Reach { most: 3, back_within: Duration::from_secs(20) }).await);
}
