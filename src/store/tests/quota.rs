//! What is left of a day, and what admins make of it.

use super::{NOW, RUN, balances, entry, fresh, take, user};
use crate::ids::UserId;
use crate::store::Db;
use crate::store::leases::{self, Granted, Held};
use crate::store::quota::{self, Asked};
use crate::store::users::{self, QuotaChange, UserChange};

const TODAY: i64 = 20_000;

async fn reserve(db: &Db, user: UserId, limit: i64) -> Option<Granted> {
    take(db, user, TODAY, limit, 1).await
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
    // What was granted before goes back to its own epoch, not to this one.
    let before = Held { user: ada, day: TODAY, epoch: 0, units: 3 };
    assert_eq!(leases::give_back(&world.db, RUN, &[before]).await.unwrap(), 3);
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
    assert_eq!(take(&world.db, ada, TODAY, 0, 2).await.map(|g| g.granted), Some(2));
    assert_eq!(reserve(&world.db, ada, 0).await, None);
}

#[tokio::test]
async fn a_limit_of_their_own_holds_from_the_next_day() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    change(&world.db, ada, to(None, Some(50), 3), None).await;
    let on = async |day| {
        let found = quota::left(&world.db, ada, day, 3).await.unwrap().unwrap();
        (found.day, found.left, found.allowance, found.reset)
    };
    assert_eq!(on(TODAY).await, (TODAY, 3, 3, 50));
    assert_eq!(on(TODAY + 1).await, (TODAY + 1, 50, 50, 50));
    change(&world.db, ada, to(Some(7), Some(9), 3), None).await;
    assert_eq!(on(TODAY).await, (TODAY, 7, 7, 9));
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
    reserve(&world.db, bob, 3).await.unwrap();
    let ask = |user, day| Asked { user, day, plan_limit: 3 };
    let asked = [ask(ada, TODAY), ask(bob, TODAY + 1), ask(cy, TODAY), ask(UserId(404), TODAY)];
    let answers = quota::left_many(&world.db, &asked).await.unwrap();
    assert_eq!(answers.len(), 3);
    assert_eq!([answers[&ada].left, answers[&bob].left, answers[&cy].left], [2, 3, 3]);
    assert!(quota::left_many(&world.db, &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_day_that_has_begun_is_not_left_for_an_older_one() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    take(&world.db, ada, TODAY + 1, 3, 2).await.unwrap();
    // The clock is set back, or the plan's zone is one further west.
    let found = quota::left(&world.db, ada, TODAY, 3).await.unwrap().unwrap();
    assert_eq!((found.day, found.left), (TODAY + 1, 1));
    assert_eq!(take(&world.db, ada, TODAY, 3, 5).await.map(|g| (g.day, g.units)), Some((TODAY + 1, 1)));
    assert_eq!(take(&world.db, ada, TODAY - 9, 3, 1).await, None);
    // An admin's number is for the day that the user is in.
    change(&world.db, ada, to(Some(4), None, 3), None).await;
    assert_eq!(take(&world.db, ada, TODAY, 3, 9).await.map(|g| (g.day, g.units)), Some((TODAY + 1, 4)));
    change(&world.db, ada, to(None, None, 5), Some("pro")).await;
    assert_eq!(take(&world.db, ada, TODAY, 5, 9).await.map(|g| (g.day, g.units)), Some((TODAY + 1, 1)));
    assert_eq!(balances(&world.db).await.len(), 2);
}

#[tokio::test]
async fn a_reset_leaves_a_day_that_a_clock_ran_ahead_to() {
    let world = fresh().await;
    let (ada, bob) = (user(&world.db, "ada").await, user(&world.db, "bob").await);
    for user in [ada, bob] {
        take(&world.db, user, TODAY + 3000, 3, 3).await.unwrap();
    }
    quota::reset_all(&world.db, &entry("limits.reset")).await.unwrap();
    let today = async |user| quota::left(&world.db, user, TODAY, 3).await.unwrap().map(|l| (l.day, l.left));
    assert_eq!(today(ada).await, Some((TODAY, 3)));
    assert_eq!(take(&world.db, ada, TODAY, 3, 2).await.map(|g| (g.day, g.units)), Some((TODAY, 2)));
    // Nor do later changes lead back there, of who came here and of who did not yet.
    for (user, limit) in [(ada, to(Some(2), None, 3)), (bob, to(Some(2), None, 3)), (bob, to(None, None, 5))]
    {
        change(&world.db, user, limit, None).await;
        assert_eq!(today(user).await, Some((TODAY, 2)));
    }
    take(&world.db, ada, TODAY + 1, 3, 1).await.unwrap();
    assert_eq!(today(ada).await, Some((TODAY + 1, 2)), "and from here on as ever");
}

#[tokio::test]
async fn the_last_two_days_of_a_user_are_not_forgotten_by_any_clock() {
    let world = fresh().await;
    let (ada, bob) = (user(&world.db, "ada").await, user(&world.db, "bob").await);
    for day in [TODAY - 200, TODAY - 1, TODAY] {
        take(&world.db, ada, day, 3, 1).await.unwrap();
    }
    take(&world.db, bob, TODAY - 300, 3, 1).await.unwrap();
    for days in [101, 400, 100_000] {
        quota::prune(&world.db, TODAY + days - quota::KEPT_DAYS).await.unwrap();
    }
    let kept: Vec<_> = balances(&world.db).await.iter().map(|row| (row.user_id, row.day)).collect();
    assert_eq!(kept, [(ada, TODAY - 1), (ada, TODAY), (bob, TODAY - 300)]);
    assert_eq!(left(&world.db, ada, 3).await, 2, "today has begun and is not begun again");
}
