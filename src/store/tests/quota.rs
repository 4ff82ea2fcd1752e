//! The day's conversations: exact under any number of callers.

use futures_util::future::join_all;

use super::{NOW, entry, fresh, user};
use crate::ids::UserId;
use crate::store::quota::{self, Asked, Granted, Left, Refund};
use crate::store::users::{self, QuotaChange, UserChange};
use crate::store::{Db, StoreError};

const TODAY: i64 = 20_000;

async fn reserve(db: &Db, user: UserId, limit: i64) -> Option<Granted> {
    quota::reserve(db, user, TODAY, limit, 1).await.unwrap()
}

async fn left(db: &Db, user: UserId, limit: i64) -> i64 {
    quota::left(db, user, TODAY, limit).await.unwrap().unwrap().left
}

async fn change(db: &Db, user: UserId, quota: QuotaChange, plan: Option<&str>) {
    let change = UserChange {
        quota: Some(quota),
        subscription_plan: plan.map(str::to_owned),
        ..UserChange::default()
    };
    users::update(db, user, &change, NOW, &entry("user.update")).await.unwrap();
}

fn to(left: Option<i64>, reset: Option<i64>, plan_limit: i64) -> QuotaChange {
    QuotaChange { day: TODAY, left, reset, plan_limit }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_60_at_once_on_a_limit_of_10_exactly_10_pass() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let db = world.db.clone();
        tasks.spawn(async move { reserve(&db, ada, 10).await });
    }
    let granted: Vec<Granted> = tasks.join_all().await.into_iter().flatten().collect();
    let mut counts: Vec<i64> = granted.iter().map(|one| one.granted).collect();
    counts.sort_unstable();
    assert_eq!(counts, (1..=10).collect::<Vec<_>>());
    assert_eq!(left(&world.db, ada, 10).await, 0);
}

#[tokio::test]
async fn what_is_reserved_is_gone_and_what_is_refunded_is_back() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    assert_eq!(left(&world.db, ada, 3).await, 3);
    let first = quota::reserve(&world.db, ada, TODAY, 3, 2).await.unwrap().unwrap();
    assert_eq!(first, Granted { epoch: 0, allowance: 3, granted: 2, refunded: 0 });
    assert_eq!(quota::reserve(&world.db, ada, TODAY, 3, 2).await.unwrap(), None, "all or none");
    assert_eq!(left(&world.db, ada, 3).await, 1);
    quota::refund(&world.db, &[]).await.unwrap();
    let one = Refund { user: ada, day: TODAY, epoch: 0, units: 1 };
    quota::refund(&world.db, &[one, one]).await.unwrap();
    let again = quota::reserve(&world.db, ada, TODAY, 3, 3).await.unwrap().unwrap();
    assert_eq!((again.granted, again.refunded), (3, 2));
    assert_eq!(reserve(&world.db, ada, 3).await, None);
    assert_eq!(
        quota::reserve(&world.db, ada, TODAY + 1, 3, 1).await.unwrap().unwrap().granted,
        1,
        "another day"
    );
}

#[tokio::test]
async fn too_many_refunds_give_no_more_than_was_taken() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    reserve(&world.db, ada, 3).await.unwrap();
    quota::refund(&world.db, &[Refund { user: ada, day: TODAY, epoch: 0, units: 9 }]).await.unwrap();
    assert_eq!(left(&world.db, ada, 3).await, 3);
}

#[tokio::test]
async fn none_for_nobody_and_none_of_nothing() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    assert_eq!(reserve(&world.db, UserId(404), 3).await, None);
    assert_eq!(quota::left(&world.db, UserId(404), TODAY, 3).await.unwrap(), None);
    assert_eq!(reserve(&world.db, ada, 0).await, None);
    assert_eq!(left(&world.db, ada, 0).await, 0);
}

#[tokio::test]
async fn an_admins_number_is_what_is_left_from_then_on() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    for _ in 0..3 {
        reserve(&world.db, ada, 3).await.unwrap();
    }
    change(&world.db, ada, to(Some(2), None, 3), None).await;
    assert_eq!(left(&world.db, ada, 3).await, 2);
    // What was reserved before comes back to its own epoch, not to this one.
    quota::refund(&world.db, &[Refund { user: ada, day: TODAY, epoch: 0, units: 3 }]).await.unwrap();
    assert_eq!(left(&world.db, ada, 3).await, 2);
    assert_eq!(reserve(&world.db, ada, 3).await.map(|g| (g.epoch, g.allowance)), Some((1, 2)));
    assert!(reserve(&world.db, ada, 3).await.is_some());
    assert_eq!(reserve(&world.db, ada, 3).await, None);
    change(&world.db, ada, to(Some(0), None, 3), None).await;
    assert_eq!((left(&world.db, ada, 3).await, reserve(&world.db, ada, 3).await), (0, None));
}

#[tokio::test]
async fn more_can_be_given_for_today_than_the_plan_gives() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    change(&world.db, ada, to(Some(2), None, 0), None).await;
    assert_eq!(quota::reserve(&world.db, ada, TODAY, 0, 2).await.unwrap().map(|g| g.granted), Some(2));
    assert_eq!(reserve(&world.db, ada, 0).await, None);
}

#[tokio::test]
async fn a_limit_of_their_own_holds_from_the_next_day() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    change(&world.db, ada, to(None, Some(50), 3), None).await;
    let today = quota::left(&world.db, ada, TODAY, 3).await.unwrap().unwrap();
    assert_eq!(today, Left { left: 3, allowance: 3, reset: 50 });
    let tomorrow = quota::left(&world.db, ada, TODAY + 1, 3).await.unwrap().unwrap();
    assert_eq!(tomorrow, Left { left: 50, allowance: 50, reset: 50 });
    change(&world.db, ada, to(Some(7), Some(9), 3), None).await;
    let today = quota::left(&world.db, ada, TODAY, 3).await.unwrap().unwrap();
    assert_eq!(today, Left { left: 7, allowance: 7, reset: 9 });
}

#[tokio::test]
async fn another_plan_holds_from_now_on_unless_they_have_their_own_limit() {
    let world = fresh().await;
    let (ada, bob) = (user(&world.db, "ada").await, user(&world.db, "bob").await);
    reserve(&world.db, ada, 3).await.unwrap();
    change(&world.db, ada, to(None, None, 10), Some("pro")).await;
    assert_eq!(left(&world.db, ada, 10).await, 9);
    change(&world.db, ada, to(None, None, 0), Some("none")).await;
    assert_eq!(left(&world.db, ada, 0).await, 0, "never less than nothing");

    change(&world.db, bob, to(None, None, 10), Some("pro")).await;
    reserve(&world.db, bob, 3).await.unwrap();
    assert_eq!(left(&world.db, bob, 3).await, 9, "though somebody still knows the old plan");
    change(&world.db, bob, to(Some(5), Some(5), 10), None).await;
    change(&world.db, bob, to(None, None, 100), Some("max")).await;
    assert_eq!(left(&world.db, bob, 100).await, 5);
}

#[tokio::test]
async fn resetting_all_gives_everybody_their_day_again() {
    let world = fresh().await;
    let (ada, bob) = (user(&world.db, "ada").await, user(&world.db, "bob").await);
    change(&world.db, bob, to(Some(0), Some(5), 3), None).await;
    reserve(&world.db, ada, 3).await.unwrap();
    assert_eq!(quota::reset_all(&world.db, &entry("limits.reset")).await.unwrap(), 2);
    assert_eq!((left(&world.db, ada, 3).await, left(&world.db, bob, 3).await), (3, 5));
    assert_eq!(reserve(&world.db, ada, 3).await.unwrap().epoch, 1);
}

#[tokio::test]
async fn a_page_of_users_is_asked_at_once_each_in_their_own_day() {
    let world = fresh().await;
    let (ada, bob, cy) =
        (user(&world.db, "ada").await, user(&world.db, "bob").await, user(&world.db, "cy").await);
    reserve(&world.db, ada, 3).await.unwrap();
    quota::reserve(&world.db, ada, TODAY + 1, 3, 3).await.unwrap().unwrap();
    reserve(&world.db, bob, 3).await.unwrap();
    let ask = |user, day| Asked { user, day, plan_limit: 3 };
    let asked = [ask(ada, TODAY), ask(bob, TODAY + 1), ask(cy, TODAY), ask(UserId(404), TODAY)];
    let answers = quota::left_many(&world.db, &asked).await.unwrap();
    assert_eq!(answers.len(), 3);
    assert_eq!([answers[&ada].left, answers[&bob].left, answers[&cy].left], [2, 3, 3]);
    assert!(quota::left_many(&world.db, &[]).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reserving_refunding_and_editing_at_once_never_overspends() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    reserve(&world.db, ada, 20).await.unwrap();
    let steps = (0..40).map(async |n| {
        if n == 20 {
            change(&world.db, ada, to(Some(4), None, 20), None).await;
            return Ok::<_, StoreError>((0, 0));
        }
        let Some(granted) = quota::reserve(&world.db, ada, TODAY, 20, 1).await? else { return Ok((0, 0)) };
        if n % 3 == 0 {
            quota::refund(&world.db, &[Refund { user: ada, day: TODAY, epoch: granted.epoch, units: 1 }])
                .await?;
            return Ok((0, 0));
        }
        Ok(if granted.epoch == 0 { (1, 0) } else { (0, 1) })
    });
    let kept: Vec<(i64, i64)> = join_all(steps).await.into_iter().map(Result::unwrap).collect();
    let (before, after): (i64, i64) = kept.iter().fold((0, 0), |(a, b), (x, y)| (a + x, b + y));
    assert!(before < 20 && after <= 4, "{before} {after}");
    assert_eq!(left(&world.db, ada, 20).await, 4 - after);
}
