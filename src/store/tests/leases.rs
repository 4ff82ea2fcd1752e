//! Units in the hands of runs: exact under any number of callers, and never lost from sight.

use futures_util::future::join_all;
use uuid::Uuid;

use super::{NOW, RUN, balances, entry, exchange, fresh, granted, take, user};
use crate::clock::Timestamp;
use crate::ids::{RunId, UserId};
use crate::store::exchanges::{self, Exchange, UNSEEN, Verdict};
use crate::store::leases::{Ask, Granted, Held, LeaseError, give_back, grant};
use crate::store::runs::{self, Fate, Run};
use crate::store::users::{self, QuotaChange, UserChange};
use crate::store::{Db, StoreError, quota};

const TODAY: i64 = 20_000;
const OTHER: RunId = RunId(Uuid::from_u128(2));

fn ask(user: UserId, plan_limit: i64, need: i64, most: i64) -> Ask {
    Ask { user, day: TODAY, plan_limit, need, most }
}

fn held(user: UserId, units: i64) -> Held {
    Held { user, day: TODAY, epoch: 0, units }
}

fn row(user: UserId, verdict: Verdict) -> Exchange {
    Exchange { user_id: Some(user), verdict, quota_day: Some(TODAY), quota_epoch: Some(0), ..exchange(1) }
}

fn run(id: RunId, node: &str, at: i64) -> Run {
    Run { id, node: node.into(), boot: "boot".into(), started_at: Timestamp(at), folder: None }
}

async fn left(db: &Db, user: UserId, limit: i64) -> i64 {
    quota::left(db, user, TODAY, limit).await.unwrap().unwrap().left
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_60_at_once_on_a_limit_of_10_exactly_10_pass() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..60 {
        let db = world.db.clone();
        // A run goes one errand at a time.
        let run = RunId(Uuid::from_u128(n));
        tasks.spawn(async move { granted(&db, run, &[ask(ada, 10, 1, 1)]).await[0] });
    }
    let all: Vec<Granted> = tasks.join_all().await.into_iter().filter(|one| one.units > 0).collect();
    let mut counts: Vec<i64> = all.iter().map(|one| one.granted).collect();
    counts.sort_unstable();
    assert_eq!(counts, (1..=10).collect::<Vec<_>>());
    assert_eq!(left(&world.db, ada, 10).await, 0);
    assert_eq!(balances(&world.db).await[0].held, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_of_many_users_from_two_nodes_at_once_grant_what_is_there_and_no_more() {
    let world = fresh().await;
    let people: Vec<UserId> =
        join_all((0..60).map(async |n| user(&world.db, &format!("user{n}")).await)).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..24 {
        let (db, run) = (world.db.clone(), RunId(Uuid::from_u128(n as u128)));
        // Each in another order.
        let mut asks: Vec<Ask> = people.iter().map(|user| ask(*user, 15, 1, 1)).collect();
        asks.rotate_left(n * 7 % 60);
        tasks.spawn(async move { granted(&db, run, &asks).await });
    }
    let answers: Vec<Granted> = tasks.join_all().await.concat();
    assert_eq!(answers.len(), 24 * 60);
    for person in &people {
        let units: i64 = answers.iter().filter(|one| one.user_id == *person).map(|one| one.units).sum();
        assert_eq!(units, 15);
    }
    assert!(balances(&world.db).await.iter().all(|row| (row.granted, row.held) == (15, 15)));
}

#[tokio::test]
async fn as_many_as_are_needed_an_eighth_of_what_is_left_and_never_more_than_that() {
    let world = fresh().await;
    let people: Vec<UserId> = join_all((0..7).map(async |n| user(&world.db, &format!("u{n}")).await)).await;
    let asks = [
        ask(people[0], 10_000, 1, 32),
        ask(people[1], 100, 1, 32),
        ask(people[2], 10, 3, 32),
        ask(people[3], 2, 5, 32),
        ask(people[4], 0, 1, 32),
        ask(people[5], 9, 0, 32),
        ask(people[6], 10_000, 40, 32),
        ask(UserId(404), 9, 1, 32),
    ];
    let units = async || -> Vec<i64> {
        let answers = granted(&world.db, RUN, &asks).await;
        people.iter().map(|user| answers.iter().find(|one| one.user_id == *user).unwrap().units).collect()
    };
    assert_eq!(units().await, [32, 12, 3, 2, 0, 0, 71], "some ahead, however many wait");
    assert_eq!(units().await, [32, 11, 3, 0, 0, 0, 71]);
    assert_eq!(left(&world.db, people[0], 10_000).await, 10_000 - 64);
    balances(&world.db).await;
}

#[tokio::test]
async fn what_is_given_back_is_there_again_and_never_more_than_was_held() {
    let world = fresh().await;
    let (ada, bob) = (user(&world.db, "ada").await, user(&world.db, "bob").await);
    take(&world.db, ada, TODAY, 9, 5).await.unwrap();
    take(&world.db, bob, TODAY, 9, 1).await.unwrap();
    assert_eq!(give_back(&world.db, RUN, &[]).await.unwrap(), 0);
    let some = [held(bob, 4), held(ada, 1), held(ada, 2), held(UserId(404), 1)];
    assert_eq!(give_back(&world.db, RUN, &some).await.unwrap(), 4);
    assert_eq!((left(&world.db, ada, 9).await, left(&world.db, bob, 9).await), (7, 9));
    assert_eq!(give_back(&world.db, OTHER, &[held(ada, 2)]).await.unwrap(), 0, "another run's");
    assert_eq!(give_back(&world.db, RUN, &[held(ada, 9)]).await.unwrap(), 2);
    assert_eq!(left(&world.db, ada, 9).await, 9);
    assert!(balances(&world.db).await.iter().all(|row| row.held == 0));
}

#[tokio::test]
async fn a_row_moves_what_its_run_held_once() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    take(&world.db, ada, TODAY, 9, 4).await.unwrap();
    let rows = [row(ada, Verdict::Charged), row(ada, Verdict::Refunded), row(ada, Verdict::Charged)];
    for _ in 0..2 {
        exchanges::append(&world.db, RUN, &rows).await.unwrap();
        let day = balances(&world.db).await.remove(0);
        assert_eq!((day.granted, day.charged, day.refunded, day.held), (4, 2, 1, 2));
    }
}

#[tokio::test]
async fn a_run_that_was_killed_gives_back_what_it_held_or_forfeits_it() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    let (old, new) = (run(OTHER, "node", 1), run(RUN, "node", 2));
    for run in [&old, &new] {
        runs::begin(&world.db, run).await.unwrap();
    }
    runs::begin(&world.db, &run(RunId(Uuid::from_u128(3)), "elsewhere", 1)).await.unwrap();
    assert_eq!(runs::earlier(&world.db, &new).await.unwrap(), [old]);
    for (fate, left, forfeited) in [(Fate::Returned, 1, 0), (Fate::Forfeited, 5, 3)] {
        granted(&world.db, OTHER, &[ask(ada, 9, 3, 1)]).await;
        take(&world.db, ada, TODAY, 9, 1).await.unwrap();
        assert_eq!(runs::close(&world.db, OTHER, fate).await.unwrap(), 3);
        assert_eq!(runs::close(&world.db, OTHER, fate).await.unwrap(), 0);
        let day = balances(&world.db).await.remove(0);
        assert_eq!((day.granted, day.forfeited), (left, forfeited), "{fate:?}");
    }
    assert_eq!(runs::earlier(&world.db, &new).await.unwrap(), []);
}

#[tokio::test]
async fn rows_that_come_when_their_run_was_given_up_are_charged_all_the_same() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    take(&world.db, ada, TODAY, 9, 3).await.unwrap();
    runs::close(&world.db, RUN, Fate::Forfeited).await.unwrap();
    exchanges::append(&world.db, RUN, &[row(ada, Verdict::Charged)]).await.unwrap();
    let day = balances(&world.db).await.remove(0);
    assert_eq!((day.user_id, day.granted, day.charged, day.forfeited), (ada, 3, 1, 2));
    // More than anybody was ever granted: said as it is.
    let rows: Vec<Exchange> = (0..4).map(|_| row(ada, Verdict::Charged)).collect();
    exchanges::append(&world.db, RUN, &rows).await.unwrap();
    let day = balances(&world.db).await.remove(0);
    assert_eq!((day.granted, day.charged, day.forfeited), (5, 5, 0));
}

#[tokio::test]
async fn what_nobody_saw_the_end_of_is_charged_while_there_is_a_unit_for_it() {
    let world = fresh().await;
    let unseen = |user| Exchange { outcome: UNSEEN.into(), status: None, ..row(user, Verdict::Charged) };
    for (held, seen, found) in [(3, 1, 2), (2, 1, 1), (1, 1, 0), (1, 0, 1)] {
        for (n, fate) in [None, Some(Fate::Forfeited)].into_iter().enumerate() {
            let ann = user(&world.db, &format!("user-{held}-{seen}-{n}")).await;
            take(&world.db, ann, TODAY, 3, held).await.unwrap();
            if let Some(fate) = fate {
                runs::close(&world.db, RUN, fate).await.unwrap();
            }
            let mut rows: Vec<Exchange> = (0..seen).map(|_| row(ann, Verdict::Charged)).collect();
            let answered = Exchange { status: Some(200), ..unseen(ann) };
            rows.extend([unseen(ann), answered.clone()]);
            for _ in 0..2 {
                exchanges::append(&world.db, RUN, &rows).await.unwrap();
            }
            let kept = rows.iter().map(|row| exchanges::by_id(&world.db, row.id));
            let kept = join_all(kept).await.into_iter().map(|row| row.unwrap().unwrap());
            let (charged, refunded): (Vec<_>, Vec<_>) = kept.partition(|row| row.verdict == Verdict::Charged);
            let count = |rows: &Vec<Exchange>| i64::try_from(rows.len()).unwrap();
            assert_eq!(count(&charged), seen + found, "{held} {fate:?}");
            assert!(refunded.iter().all(|row| row.outcome == UNSEEN && row.verdict == Verdict::Refunded));
            assert!(found == 0 || charged.iter().any(|row| row.id == answered.id));
            let days = balances(&world.db).await;
            if let Some(day) = days.iter().find(|day| day.user_id == ann) {
                assert_eq!((day.granted, day.charged), (held, seen + found), "{fate:?}");
                assert_eq!(day.refunded, count(&refunded));
            }
        }
    }
}

#[tokio::test]
async fn a_run_ends_when_it_holds_nothing_and_a_silent_one_is_found() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    let ours = run(RUN, "node", 1);
    runs::begin(&world.db, &ours).await.unwrap();
    take(&world.db, ada, TODAY, 9, 1).await.unwrap();
    assert!(!runs::end(&world.db, RUN).await.unwrap(), "it holds something");
    exchanges::append(&world.db, RUN, &[row(ada, Verdict::Charged)]).await.unwrap();
    assert!(runs::beat(&world.db, RUN, NOW).await.unwrap());
    runs::sweep(&world.db, RUN).await.unwrap();
    assert_eq!(runs::silent(&world.db, NOW, "other").await.unwrap(), []);
    let later = Timestamp(NOW.0 + 1);
    assert_eq!(runs::silent(&world.db, later, "node").await.unwrap(), [], "nobody gives up themselves");
    assert_eq!(runs::silent(&world.db, later, "other").await.unwrap(), [ours]);
    assert!(runs::end(&world.db, RUN).await.unwrap());
    assert_eq!(runs::silent(&world.db, later, "other").await.unwrap(), []);
    balances(&world.db).await;
}

#[tokio::test]
async fn a_run_that_is_fenced_or_closed_is_granted_nothing_and_its_heartbeat_is_refused() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    let ours = run(RUN, "node", 1);
    runs::begin(&world.db, &ours).await.unwrap();
    take(&world.db, ada, TODAY, 9, 2).await.unwrap();
    let pulse = |pulses: Vec<runs::Pulse>| pulses.into_iter().find(|pulse| pulse.id == RUN).unwrap();
    let seen = pulse(runs::pulses(&world.db).await.unwrap());
    assert!(runs::beat(&world.db, RUN, NOW).await.unwrap());
    assert!(!runs::fence(&world.db, &seen, NOW).await.unwrap(), "it has given a sign of life since");
    let seen = pulse(runs::pulses(&world.db).await.unwrap());
    assert!(runs::fence(&world.db, &seen, NOW).await.unwrap());
    let again = [ask(ada, 9, 1, 1)];
    for _ in 0..2 {
        assert!(!runs::beat(&world.db, RUN, NOW).await.unwrap());
        assert!(matches!(grant(&world.db, RUN, &again).await, Err(LeaseError::Fenced)));
        let day = balances(&world.db).await.remove(0);
        assert_eq!((day.granted, day.allowance), (2, 9));
        runs::close(&world.db, RUN, Fate::Forfeited).await.unwrap();
    }
    assert!(runs::pulses(&world.db).await.unwrap().is_empty(), "nothing has entered it again");
    // What it recorded before is charged from what was forfeited.
    exchanges::append(&world.db, RUN, &[row(ada, Verdict::Charged)]).await.unwrap();
    let day = balances(&world.db).await.remove(0);
    assert_eq!((day.granted, day.charged, day.forfeited), (2, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn granting_giving_back_charging_and_editing_at_once_never_overspends() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    take(&world.db, ada, TODAY, 20, 1).await.unwrap();
    let edit = QuotaChange { day: TODAY, left: Some(4), reset: None, plan_limit: 20 };
    let edit = UserChange { quota: Some(edit), ..UserChange::default() };
    let steps = (0..40).map(async |n| {
        if n == 20 {
            users::update(&world.db, ada, &edit, NOW, &entry("user.update")).await.unwrap();
            return Ok::<_, StoreError>((0, 0));
        }
        let run = RunId(Uuid::from_u128(n));
        let granted = granted(&world.db, run, &[ask(ada, 20, 1, 1)]).await[0];
        let one = Held { epoch: granted.epoch, ..held(ada, granted.units) };
        match n % 3 {
            0 => drop(give_back(&world.db, run, &[one]).await.unwrap()),
            1 if granted.units > 0 => {
                let row = Exchange { quota_epoch: Some(granted.epoch), ..row(ada, Verdict::Charged) };
                exchanges::append(&world.db, run, &[row]).await?;
            }
            _ => {}
        }
        let kept = if n % 3 == 0 { 0 } else { granted.units };
        Ok(if granted.epoch == 0 { (kept, 0) } else { (0, kept) })
    });
    let kept: Vec<(i64, i64)> = join_all(steps).await.into_iter().map(Result::unwrap).collect();
    let (before, after): (i64, i64) = kept.iter().fold((0, 0), |(a, b), (x, y)| (a + x, b + y));
    assert!(before < 20 && after <= 4, "{before} {after}");
    assert_eq!(left(&world.db, ada, 20).await, 4 - after);
    balances(&world.db).await;
}
