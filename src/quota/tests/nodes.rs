//! Several nodes, nodes that are killed, and changes from elsewhere.

use std::time::Duration;

use futures_util::future::join_all;

use super::{BOOT, Day, Node, Reservation, Verdict, balances, is_used_up, row};
use crate::store::exchanges;
use crate::store::tests::{NOW, entry};
use crate::store::users::{self, QuotaChange, UserChange};
use crate::store::{carried, deleted, quota};

async fn change(day: &Day, left: Option<i64>, reset: Option<i64>, plan: Option<(&str, i64)>) {
    let today = day.node.quota.today(day.allowance.zone).day;
    let plan_limit = plan.map_or(day.allowance.per_day, |(_, limit)| limit);
    let change = UserChange {
        quota: Some(QuotaChange { day: today, left, reset, plan_limit }),
        subscription_plan: plan.map(|(name, _)| name.to_owned()),
        ..UserChange::default()
    };
    users::update(&day.database.db, day.user, &change, NOW, &entry("user.update")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_together_admit_exactly_the_limit() {
    for limit in [1_usize, 10, 100, 1000] {
        let day = Day::of(i64::try_from(limit).unwrap()).await;
        let other = Node::start(&day.database.db, &day.clock, "other", BOOT).await;
        let nodes = [&day.node, &other];
        let mut kept: Vec<Reservation> = Vec::new();
        // In waves, so that both have units in hand when the other wants them.
        for wave in 0_usize.. {
            let size = if wave % 3 == 0 { 1 } else { limit / 7 + 1 };
            let asked = (0..size).map(|n| nodes[(n + wave) % 2].quota.reserve(day.user, &day.allowance));
            let answers = join_all(asked).await;
            let refused = answers.iter().filter(|one| is_used_up(one)).count();
            kept.extend(answers.into_iter().filter_map(Result::ok));
            assert!(kept.len() <= limit);
            if refused == size {
                // What the other holds and does not use is there after a few seconds.
                day.clock.advance(Duration::from_secs(3));
                day.node.tidy().await;
                other.tidy().await;
                if quota::left(&day.database.db, day.user, 0, 0).await.unwrap().unwrap().left == 0 {
                    break;
                }
            }
        }
        assert_eq!(kept.len(), limit);
        assert_eq!(balances(&day.database.db).await[0].held, i64::try_from(limit).unwrap());
    }
}

#[tokio::test]
async fn a_killed_node_gives_back_what_it_did_not_use_unless_the_power_failed() {
    for (boot, left, forfeited) in [(BOOT, 93, 0), ("another", 85, 8)] {
        let mut day = Day::of(100).await;
        for _ in 0..6 {
            day.converse(Verdict::Charged).await.unwrap();
        }
        let mut under_way = day.reserve().await.unwrap();
        under_way.dispatched();
        let undispatched = day.reserve().await.unwrap();
        assert_eq!(balances(&day.database.db).await[0].held, 15, "8 used, and 7 in hand");
        let mut rows = std::mem::take(&mut day.node.rows);
        rows.push(row(day.user, under_way.ledger(), Verdict::Charged));
        let run = day.node.run.id;

        day.node = Node::start_in_front_of_recovery(&day.database.db, &day.clock, "node", boot).await;
        drop((under_way, undispatched));
        // The next run finds what was under way in the files of the last.
        exchanges::append(&day.database.db, run, &rows).await.unwrap();
        day.node.quota.recover().await;
        let row = balances(&day.database.db).await.remove(0);
        assert_eq!((row.charged, row.forfeited, row.held), (7, forfeited, 0), "{boot}");
        assert_eq!(day.left().await, left, "{boot}");
    }
}

#[tokio::test]
async fn nobody_is_told_that_nothing_is_left_before_the_last_run_is_looked_into() {
    let day = Day::of(4).await;
    let open = join_all((0..4).map(|_| day.reserve())).await;
    let next = Node::start_in_front_of_recovery(&day.database.db, &day.clock, "node", BOOT).await;
    let recovering = async {
        tokio::task::yield_now().await;
        next.quota.recover().await;
    };
    let (reserved, left, ()) = futures_util::join!(
        next.quota.reserve(day.user, &day.allowance),
        next.quota.left(day.user, &day.allowance),
        recovering
    );
    assert!(reserved.is_ok() && left.unwrap().left >= 3);
    drop(open);
    balances(&day.database.db).await;
}

#[tokio::test]
async fn a_change_here_holds_before_it_is_answered_and_one_from_elsewhere_within_seconds() {
    let day = Day::of(1000).await;
    let other = Node::start(&day.database.db, &day.clock, "other", BOOT).await;
    for node in [&day.node, &other] {
        for _ in 0..10 {
            node.quota.reserve(day.user, &day.allowance).await.unwrap().settle(Verdict::Charged);
        }
    }
    change(&day, Some(2), None, None).await;
    day.node.quota.forget(day.user);
    assert_eq!(day.left().await, 2);
    day.reserve().await.unwrap().settle(Verdict::Charged);
    day.clock.advance(Duration::from_secs(5));
    other.quota.reserve(day.user, &day.allowance).await.unwrap().settle(Verdict::Charged);
    assert!(is_used_up(&other.quota.reserve(day.user, &day.allowance).await));
    assert!(is_used_up(&day.reserve().await));
    for node in [&day.node, &other] {
        day.clock.advance(Duration::from_secs(3));
        node.tidy().await;
    }
    let rows = balances(&day.database.db).await;
    assert_eq!((rows[0].held, rows[1].held), (20, 2), "what was in hand of the old epoch is back");
}

#[tokio::test]
async fn a_smaller_plan_stops_what_is_in_hand_and_a_larger_one_opens_more() {
    let mut day = Day::of(1000).await;
    for _ in 0..20 {
        day.converse(Verdict::Charged).await.unwrap();
    }
    change(&day, None, None, Some(("small", 21))).await;
    day.node.quota.forget(day.user);
    assert_eq!(day.left().await, 1);
    let answers = join_all((0..5).map(|_| day.reserve())).await;
    assert_eq!(answers.iter().filter(|one| one.is_ok()).count(), 1);
    change(&day, None, None, Some(("none", 0))).await;
    day.node.quota.forget(day.user);
    assert!(day.left().await == 0 && is_used_up(&day.reserve().await));
    drop(answers);
    assert!(day.left().await == 0 && is_used_up(&day.reserve().await));
    change(&day, None, None, Some(("large", 30))).await;
    day.node.quota.forget(day.user);
    assert_eq!(join_all((0..15).map(|_| day.reserve())).await.iter().filter(|one| one.is_ok()).count(), 10);
    day.node.drain().await;
    balances(&day.database.db).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_and_resets_racing_with_traffic_give_each_epoch_its_limit_and_no_more() {
    let day = Day::of(50).await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..600 {
        let (quota, user, allowance) = (day.node.quota.clone(), day.user, day.allowance.clone());
        calls.spawn(async move {
            for _ in 0..n % 17 {
                tokio::task::yield_now().await;
            }
            let mut one = quota.reserve(user, &allowance).await.ok()?;
            one.dispatched();
            let ledger = one.ledger();
            (one.settle(Verdict::Charged) == Verdict::Charged).then_some(ledger)
        });
        if n % 100 == 50 {
            match n / 100 % 2 {
                0 => change(&day, Some(7), None, None).await,
                _ => drop(quota::reset_all(&day.database.db, &entry("limits.reset")).await.unwrap()),
            }
            day.node.quota.forget_all();
            let fresh = day.left().await;
            assert!(fresh <= 50);
        }
    }
    let ledgers: Vec<(i64, i64)> = calls.join_all().await.into_iter().flatten().collect();
    for row in balances(&day.database.db).await {
        let used = ledgers.iter().filter(|(_, epoch)| *epoch == row.epoch).count();
        assert!(i64::try_from(used).unwrap() <= row.allowance, "{row:?} {used}");
    }
    assert_eq!(join_all((0..60).map(|_| day.reserve())).await.into_iter().flatten().count(), {
        let last = balances(&day.database.db).await.pop().unwrap();
        let used = ledgers.iter().filter(|(_, epoch)| *epoch == last.epoch).count();
        usize::try_from(last.allowance).unwrap() - used
    });
}

#[tokio::test]
async fn a_deleted_user_leaves_nothing_and_one_who_comes_back_has_a_whole_day() {
    let mut day = Day::of(10).await;
    let open = day.reserve().await.unwrap();
    day.converse(Verdict::Charged).await.unwrap();
    deleted::delete(&day.database.db, day.user, &carried::Names::default(), &entry("user.delete"))
        .await
        .unwrap();
    day.node.quota.forget(day.user);
    assert_eq!(day.reserve().await.err(), Some(super::QuotaError::NoSuchUser));
    let kept = deleted::by_id(&day.database.db, day.user).await.unwrap().unwrap();
    let key = crate::store::tests::new_key("k2");
    let back = deleted::Return { username: None, email: None, password_hash: "$2b$".into(), key };
    deleted::restore(&day.database.db, &kept, &back, &entry("user.restore")).await.unwrap();
    day.node.quota.forget(day.user);
    drop(open);
    day.node.drain().await;
    assert_eq!(day.left().await, 10);
    assert_eq!(join_all((0..12).map(|_| day.reserve())).await.into_iter().flatten().count(), 10);
    day.node.tidy().await;
    balances(&day.database.db).await;
}
