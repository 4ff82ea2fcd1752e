//! What is taken away, and given back.

use std::time::Duration;

use super::{kept, plan, plan_on_a_file};
use crate::proof::{away, disk, flood};

#[tokio::test]
async fn while_the_database_is_away_nothing_is_lost_and_nobody_is_a_stranger() {
    kept(&away::away(&plan(), Duration::from_secs(3), 1).await);
}

#[tokio::test]
async fn a_disk_that_fails_here_and_there_costs_nobody_an_answer() {
    kept(&disk::failing(&plan_on_a_file(), 10, 1).await);
}

#[tokio::test]
async fn hostile_users_cost_a_good_one_nothing() {
    let time = Duration::from_secs(8);
    // How long the good user waits is a figure of a quiet machine.
    let p99 = Duration::from_secs(20);
    let size = flood::Size { time, idle: 128, body: 2 << 20, p99, bcrypt_rounds: 4 };
    kept(&flood::flood(&plan(), size).await);
}
