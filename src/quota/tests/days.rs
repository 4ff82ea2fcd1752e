//! Days begin and end, in every zone, and clocks are set.

use std::collections::HashMap;
use std::time::Duration;

use chrono_tz::Tz;
use futures_util::future::join_all;

use super::super::rehearsal::Hand;
use super::{BOOT, Clock, Day, NOW, Node, Timestamp, UserId, Verdict, at, balances, fresh, is_used_up, user};
use crate::plan::Allowance;
use crate::store::leases::Granted;

const HOUR: i64 = 3_600_000;
/// Where clocks are changed at midnight, by half an hour, or twice a year; on two such days each.
const CHANGES: [(Tz, [&str; 2]); 7] = [
    (Tz::Europe__Berlin, ["2026-03-29T12:00:00Z", "2026-10-25T12:00:00Z"]),
    (Tz::America__New_York, ["2026-03-08T17:00:00Z", "2026-11-01T17:00:00Z"]),
    (Tz::Australia__Lord_Howe, ["2026-04-05T01:00:00Z", "2026-10-04T01:00:00Z"]),
    (Tz::Asia__Beirut, ["2026-03-29T10:00:00Z", "2026-10-25T10:00:00Z"]),
    (Tz::Africa__Cairo, ["2026-04-24T10:00:00Z", "2026-10-30T10:00:00Z"]),
    (Tz::America__Sao_Paulo, ["2018-02-18T15:00:00Z", "2018-11-04T15:00:00Z"]),
    (Tz::Pacific__Apia, ["2011-12-30T22:00:00Z", "2011-09-24T22:00:00Z"]),
];

#[tokio::test]
async fn every_day_gives_exactly_its_limit_in_every_zone_and_when_clocks_are_set() {
    let database = fresh().await;
    let clock = Clock::manual(Timestamp(0));
    let node = Node::start(&database.db, &clock, "node", BOOT).await;
    for (zone, days) in CHANGES {
        for (n, noon) in days.iter().enumerate() {
            let user = user(&database.db, &format!("{}{n}", zone.name().replace('/', "_"))).await;
            let allowance = Allowance { per_day: 3, zone };
            let mut passed: HashMap<i64, usize> = HashMap::new();
            let mut latest = i64::MIN;
            // From hour to hour over three days, and now and then a day back, or ahead, for a moment.
            for hour in -36_i64..36 {
                let jump = match hour.rem_euclid(12) {
                    5 => -24 * HOUR,
                    11 => -HOUR,
                    _ => 0,
                };
                clock.set(Timestamp(at(noon).0 + hour * HOUR + jump));
                latest = latest.max(node.quota.today(zone).day);
                let answers = join_all((0..2).map(|_| node.quota.reserve(user, &allowance))).await;
                for mut one in answers.into_iter().flatten() {
                    assert_eq!(one.ledger().0, latest, "{zone} {noon} {hour}");
                    let resets_at = super::super::Window::of(latest, zone).resets_at;
                    assert_eq!(one.resets_at(), resets_at, "{zone} {noon} {hour}");
                    *passed.entry(latest).or_default() += 1;
                    one.settle(Verdict::Charged);
                }
            }
            // The first and the last were not there for long enough.
            let days: Vec<i64> = passed.keys().copied().collect();
            let (first, last) = (days.iter().min().unwrap(), days.iter().max().unwrap());
            for (day, passed) in &passed {
                assert!(*passed == 3 || (*passed < 3 && (day == first || day == last)), "{zone} {day}");
            }
            assert!(days.len() >= 3, "{zone}");
        }
    }
    balances(&database.db).await;
}

#[tokio::test]
async fn a_clock_that_ran_ahead_for_a_moment_opens_no_day_twice() {
    let mut day = Day::of(3).await;
    let noon = day.clock.now();
    let mut passed = Vec::new();
    for ahead in [0, 24, 0, -24, 24, 48, 0, 24, 48, 72] {
        day.clock.set(Timestamp(noon.0 + ahead * HOUR));
        day.node.tidy().await;
        let told = day.node.quota.left(day.user, &day.allowance).await.unwrap();
        let answers = join_all((0..5).map(|_| day.reserve())).await;
        let some = answers.into_iter().flatten();
        let days: Vec<i64> = some.map(|mut one| (one.ledger().0, one.settle(Verdict::Charged)).0).collect();
        assert_eq!(i64::try_from(days.len()).unwrap(), told.left);
        assert!(days.iter().all(|one| *one == told.day));
        passed.push(days.len());
    }
    assert_eq!(passed, [3, 3, 0, 0, 0, 3, 0, 0, 0, 3]);
    // Another zone, in which it is still yesterday.
    day.allowance.zone = Tz::Pacific__Pago_Pago;
    assert_eq!(day.left().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn midnight_comes_under_load() {
    let day = Day::of(40).await;
    let today = day.node.quota.today(Tz::UTC);
    day.clock.set(Timestamp(today.resets_at.0 - 1));
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..400_u64 {
        let (quota, user, allowance) = (day.node.quota.clone(), day.user, day.allowance.clone());
        let clock = day.clock.clone();
        calls.spawn(async move {
            tokio::time::sleep(Duration::from_millis(n / 8)).await;
            if n == 200 {
                clock.advance(Duration::from_millis(1));
            }
            let mut one = quota.reserve(user, &allowance).await.ok()?;
            let (day, _) = one.ledger();
            if n % 3 == 0 {
                // Some come back to a day that is over meanwhile.
                tokio::time::sleep(Duration::from_millis(20)).await;
                drop(one);
                return None;
            }
            one.dispatched();
            one.settle(Verdict::Charged);
            Some(day)
        });
    }
    let days: Vec<i64> = calls.join_all().await.into_iter().flatten().collect();
    let on = |day: i64| i64::try_from(days.iter().filter(|one| **one == day).count()).unwrap();
    assert!(on(today.day) <= 40 && on(today.day + 1) <= 40);
    let rest = join_all((0..50).map(|_| day.reserve())).await.into_iter().flatten().count();
    assert_eq!(on(today.day + 1) + i64::try_from(rest).unwrap(), 40);
    day.clock.advance(Duration::from_secs(3));
    day.node.tidy().await;
    let rows = balances(&day.database.db).await;
    assert_eq!((rows[0].day, rows[0].held), (today.day, on(today.day)), "what came back is back");
}

#[tokio::test]
async fn an_answer_of_yesterday_refuses_nobody_who_came_since_midnight() {
    let clock = Clock::manual(NOW);
    let (ann, terms) = (UserId(1), Allowance { per_day: 1, zone: Tz::UTC });
    let mut hand = Hand::new(&clock, 32);
    let mut yesterdays = hand.take(ann, &terms).err().unwrap();
    let users = hand.calls();
    let round = hand.round(users);
    clock.advance(Duration::from_hours(24));
    let mut todays = hand.take(ann, &terms).err().unwrap();
    let day = round.asks[0].day;
    let of = |day| Granted {
        user_id: ann,
        day,
        epoch: 0,
        reset: 1,
        allowance: 1,
        granted: 1,
        refunded: 0,
        units: 0,
    };
    hand.answered(&round, Some(&[of(day)]));
    assert!(yesterdays.word().is_none() && todays.word().is_none(), "today is asked for");
    let users = hand.calls();
    let round = hand.round(users);
    assert_eq!(round.asks[0].day, day + 1);
    hand.answered(&round, Some(&[Granted { units: 1, ..of(day + 1) }]));
    assert!(yesterdays.word().is_some_and(|word| word.is_ok()));
    assert!(is_used_up(&todays.word().unwrap()));
}
