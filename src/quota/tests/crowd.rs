//! Many at once, and what it costs.

use std::collections::HashMap;
use std::task::Poll;

use futures_util::future::join_all;
use futures_util::poll;

use super::{BOOT, Clock, Day, NOW, Node, Verdict, balances, fresh, is_used_up, user};
use crate::ids::UserId;
use crate::plan::Allowance;
use crate::store::SlowRead;
use crate::store::ledger::{Question, verify};

#[tokio::test]
async fn as_many_pass_as_are_left_however_many_come_at_once() {
    let mut day = Day::of(10).await;
    let all = join_all((0..60).map(|_| day.reserve())).await;
    let passed: Vec<_> = all.into_iter().filter_map(Result::ok).collect();
    assert_eq!(passed.len(), 10);
    let mut told: Vec<i64> = passed.iter().map(super::Reservation::left).collect();
    told.sort_unstable();
    assert_eq!(told, (0..10).collect::<Vec<_>>());
    for one in passed {
        assert_eq!(day.node.settle(day.user, one, Verdict::Charged), Verdict::Charged);
    }
    assert_eq!((day.left().await, day.used().await), (0, 10));
    assert!(is_used_up(&day.reserve().await));
    day.node.drain().await;
    let row = balances(&day.database.db).await.remove(0);
    assert_eq!((row.granted, row.charged, row.held), (10, 10, 0));
    let all = Question { only: None, after: None, patience: None, now: NOW };
    assert!(verify(&SlowRead::alone(&day.database.db), &all).await.unwrap().holds());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_200_users_each_gets_exactly_theirs() {
    let database = fresh().await;
    let people: Vec<UserId> =
        join_all((0..200).map(async |n| user(&database.db, &format!("user{n}")).await)).await;
    let node = Node::start(&database.db, &Clock::manual(NOW), "node", BOOT).await;
    let allowance = Allowance { per_day: 15, zone: chrono_tz::Tz::UTC };
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..200 * 20 {
        let (quota, user, allowance) = (node.quota.clone(), people[n % 200], allowance.clone());
        calls.spawn(async move { quota.reserve(user, &allowance).await.map(|one| (user, one)) });
    }
    let mut passed: HashMap<UserId, Vec<super::Reservation>> = HashMap::new();
    for (user, one) in calls.join_all().await.into_iter().flatten() {
        passed.entry(user).or_default().push(one);
    }
    assert!(people.iter().all(|user| passed[user].len() == 15));
    assert!(balances(&database.db).await.iter().all(|row| row.held == 15));
    let listed: Vec<_> = people.iter().map(|user| (*user, allowance.clone())).collect();
    let left = node.quota.left_many(&listed).await.unwrap();
    assert!(left.len() == 200 && left.values().all(|left| left.left == 0));
    drop(passed);
    let left = node.quota.left_many(&listed).await.unwrap();
    assert!(left.values().all(|left| left.left == 15), "what nobody forwarded is free again");
}

#[tokio::test]
async fn a_limit_of_any_size_is_met_exactly() {
    for limit in [0_usize, 1, 2, 7, 10, 100, 10_000] {
        let per_day = i64::try_from(limit).unwrap();
        let day = Day::of(per_day).await;
        let all = join_all((0..limit + 20).map(|_| day.reserve())).await;
        let passed: Vec<_> = all.into_iter().filter_map(Result::ok).collect();
        assert_eq!((passed.len(), day.left().await), (limit, 0));
        assert!(is_used_up(&day.reserve().await));
        balances(&day.database.db).await;
    }
}

#[tokio::test]
async fn one_after_another_a_busy_user_costs_few_statements() {
    for (limit, most) in [(10, 1.0), (100, 0.4), (10_000, 0.06)] {
        let mut day = Day::of(limit).await;
        for left in (0..limit).rev() {
            let one = day.reserve().await.unwrap();
            assert_eq!(one.left(), left);
            if left % 97 == 0 {
                assert_eq!((day.left().await, day.used().await), (left, limit - left));
            }
            day.node.settle(day.user, one, Verdict::Charged);
        }
        assert!(is_used_up(&day.reserve().await));
        // The last was the question that found nothing.
        let asked = day.node.metrics.grants.get() - 1;
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let share = asked as f64 / limit as f64;
        assert!(share <= most, "{asked} statements for {limit} conversations");
        day.node.drain().await;
        let row = balances(&day.database.db).await.remove(0);
        assert_eq!((row.granted, row.charged, row.held), (limit, limit, 0));
    }
}

#[tokio::test]
async fn what_nobody_uses_goes_back_and_nobody_is_remembered() {
    let day = Day::of(1000).await;
    for _ in 0..20 {
        drop(day.reserve().await.unwrap());
    }
    assert!(balances(&day.database.db).await[0].held > 0);
    day.clock.advance(std::time::Duration::from_secs(3));
    day.node.tidy().await;
    assert_eq!(balances(&day.database.db).await[0].held, 0);
    day.node.tidy().await;
    assert_eq!((day.node.quota.holdings.len(), day.left().await), (0, 1000));
}

#[tokio::test]
async fn a_conversation_in_hand_is_taken_without_waiting_for_anybody() {
    let day = Day::of(1_000_000).await;
    let (mut at_once, rounds) = (0, 3_200);
    for _ in 0..rounds {
        let mut reserving = Box::pin(day.reserve());
        let reservation = match poll!(reserving.as_mut()) {
            Poll::Ready(reserved) => {
                at_once += 1;
                reserved
            }
            Poll::Pending => reserving.await,
        };
        assert_eq!(reservation.unwrap().settle(Verdict::Charged), Verdict::Charged);
    }
    let asked = i32::try_from(day.node.metrics.lease_misses.get()).unwrap();
    assert_eq!(at_once + asked, rounds);
    assert!(asked <= rounds / 32 + 5, "{asked}");
}
