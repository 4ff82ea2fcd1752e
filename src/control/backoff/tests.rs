use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::table::MOST_TRACKED;
use super::{Backoff, Guarded, Problem};
use crate::clock::{Clock, Timestamp};

const ANN: &str = "user:ann@example.com";

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn clock() -> Clock {
    Clock::manual(Timestamp(1_790_848_800_000))
}

/// A wrong attempt; how long it has to wait where it is refused.
async fn fails(
    backoff: &Backoff,
    what: Guarded,
    account: &str,
    from: IpAddr,
    clock: &Clock,
) -> Option<Duration> {
    match backoff.admit(what, account, from, clock).await {
        Ok(attempt) => {
            drop(attempt);
            None
        }
        Err(Problem::TooManyLogins { retry_after }) => Some(retry_after),
        Err(other) => panic!("{other:?}"),
    }
}

async fn wrong(backoff: &Backoff, account: &str, from: IpAddr, clock: &Clock) -> Option<Duration> {
    fails(backoff, Guarded::Password, account, from, clock).await
}

async fn right(backoff: &Backoff, what: Guarded, from: IpAddr, clock: &Clock) -> bool {
    let admitted = backoff.admit(what, ANN, from, clock).await;
    admitted.map(super::Attempt::succeeded).is_ok()
}

#[tokio::test]
async fn five_failures_of_a_network_in_five_minutes_and_then_one_a_minute() {
    let (backoff, clock) = (Backoff::default(), clock());
    for _ in 0..5 {
        assert_eq!(wrong(&backoff, ANN, ip(1), &clock).await, None);
    }
    let minute = Duration::from_mins(1);
    assert_eq!(wrong(&backoff, "user:ANN@example.com", ip(1), &clock).await, Some(minute));
    assert_eq!(wrong(&backoff, "user:bob@example.com", ip(1), &clock).await, None, "others are free");
    clock.advance(minute);
    assert_eq!(wrong(&backoff, ANN, ip(1), &clock).await, None);
    assert_eq!(wrong(&backoff, ANN, ip(1), &clock).await, Some(minute));
}

#[tokio::test]
async fn the_owner_elsewhere_is_never_refused_whatever_a_stranger_does() {
    for what in [Guarded::Password, Guarded::MailToken] {
        let (backoff, clock) = (Backoff::default(), clock());
        for second in 0..60 {
            fails(&backoff, what, ANN, ip(1), &clock).await;
            if second % 10 == 0 {
                assert!(right(&backoff, what, ip(2), &clock).await, "{what:?} after {second} s");
            }
            clock.advance(Duration::from_secs(1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn failures_from_many_networks_slow_an_account_by_two_seconds_and_not_the_owners_own_network() {
    let (backoff, clock) = (Backoff::default(), clock());
    assert!(right(&backoff, Guarded::Password, ip(200), &clock).await);
    for n in 0..100 {
        assert_eq!(wrong(&backoff, ANN, ip(n), &clock).await, None);
    }
    let begun = tokio::time::Instant::now();
    assert!(right(&backoff, Guarded::Password, ip(201), &clock).await, "a network that is new");
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
    let begun = tokio::time::Instant::now();
    assert!(right(&backoff, Guarded::Password, ip(200), &clock).await, "one that is known");
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn codes_are_refused_from_everywhere_but_where_the_owner_was_before() {
    let (backoff, clock) = (Backoff::default(), clock());
    assert!(right(&backoff, Guarded::Code, ip(200), &clock).await);
    for n in 0..5 {
        assert_eq!(fails(&backoff, Guarded::Code, ANN, ip(n), &clock).await, None);
    }
    assert!(fails(&backoff, Guarded::Code, ANN, ip(9), &clock).await.is_some(), "five guesses in all");
    assert!(right(&backoff, Guarded::Code, ip(200), &clock).await);
}

#[tokio::test]
async fn a_network_fails_at_twenty_accounts_and_who_was_there_before_still_gets_in() {
    for (inside, outside) in
        [(ip(1), ip(2)), ("2001:db8::1".parse().unwrap(), "2001:db8:0:1::1".parse().unwrap())]
    {
        let (backoff, clock) = (Backoff::default(), clock());
        assert!(right(&backoff, Guarded::Password, inside, &clock).await);
        let mut admitted = 0;
        for n in 0..30 {
            admitted += u32::from(wrong(&backoff, &format!("user:{n}"), inside, &clock).await.is_none());
        }
        assert_eq!(admitted, 20);
        assert!(right(&backoff, Guarded::Password, inside, &clock).await);
        assert_eq!(wrong(&backoff, "user:x", outside, &clock).await, None);
    }
}

#[tokio::test]
async fn the_networks_of_one_ipv6_prefix_fail_a_hundred_times_together() {
    let (backoff, clock) = (Backoff::default(), clock());
    let mut admitted = 0;
    for n in 0..200 {
        let from = format!("2001:db8:0:{n:x}::1").parse().unwrap();
        admitted += u32::from(wrong(&backoff, &format!("user:{n}"), from, &clock).await.is_none());
    }
    assert_eq!(admitted, 100);
}

#[tokio::test]
async fn who_knows_the_password_is_never_slowed_down_however_many_come_at_once() {
    let (backoff, clock) = (Arc::new(Backoff::default()), clock());
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (backoff, clock) = (Arc::clone(&backoff), clock.clone());
        running.spawn(async move {
            let attempt = backoff.admit(Guarded::Password, ANN, ip(1), &clock).await;
            tokio::task::yield_now().await;
            attempt.map(super::Attempt::succeeded).is_ok()
        });
    }
    assert!(running.join_all().await.into_iter().all(|was_admitted| was_admitted));
    assert_eq!(wrong(&backoff, ANN, ip(1), &clock).await, None);
}

#[tokio::test]
async fn guesses_at_once_are_no_more_guesses() {
    let (backoff, clock) = (Arc::new(Backoff::default()), clock());
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (backoff, clock) = (Arc::clone(&backoff), clock.clone());
        running.spawn(async move {
            let attempt = backoff.admit(Guarded::Password, ANN, ip(1), &clock).await;
            tokio::task::yield_now().await;
            attempt.is_ok()
        });
    }
    assert_eq!(running.join_all().await.into_iter().filter(|was_admitted| *was_admitted).count(), 5);
}

#[tokio::test]
async fn a_flood_of_names_and_networks_is_bounded_and_forgets_no_exhausted_pair() {
    let (backoff, clock) = (Backoff::default(), clock());
    for _ in 0..5 {
        assert_eq!(wrong(&backoff, ANN, ip(1), &clock).await, None);
    }
    for n in 0..200_000_u32 {
        let from = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        wrong(&backoff, &format!("user:{n}"), from, &clock).await;
    }
    let pairs = backoff.state().pairs.len();
    let tracked = (pairs, backoff.state().networks.len());
    assert!(tracked.0 <= MOST_TRACKED && tracked.1 <= MOST_TRACKED, "{tracked:?}");
    assert!(wrong(&backoff, ANN, ip(1), &clock).await.is_some());
    assert_eq!(wrong(&backoff, ANN, ip(2), &clock).await, None);
}

#[tokio::test]
async fn an_attempt_that_is_refused_does_not_cost_its_network() {
    let (backoff, clock) = (Backoff::default(), clock());
    for _ in 0..50 {
        let _ = wrong(&backoff, ANN, ip(1), &clock).await;
    }
    assert_eq!(wrong(&backoff, "user:bob", ip(1), &clock).await, None);
}
