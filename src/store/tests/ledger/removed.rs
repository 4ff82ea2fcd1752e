//! What goes on purpose leaves no difference; what goes besides does.

use serde_json::json;

use super::{DAY, NOW, TODAY, fresh, keep, log, sql, told, user, verified};
use crate::clock::Timestamp;
use crate::ids::UserId;
use crate::store::SlowRead;
use crate::store::audit::{self, Entry, chain};
use crate::store::deleted::{self, Return};
use crate::store::users::{self, QuotaChange, UserChange};
use crate::store::{Db, carried, exchanges, quota};

fn entry(action: &'static str, detail: serde_json::Value) -> Entry {
    Entry { target: "ada".into(), detail, ..super::super::entry(action) }
}

#[tokio::test]
async fn days_the_log_has_forgotten_are_out_of_reach_and_said_to_be() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    for day in TODAY - 9..=TODAY {
        keep(&world.db, (ada, day, 0, [5, 3, 3, 1, 0]), &[]).await;
    }
    let noon = Timestamp((TODAY - 5) * DAY + DAY / 2);
    let forget = async || exchanges::forget(&world.db, noon, noon, NOW).await.unwrap();
    assert_eq!((forget().await, forget().await), (20, 0));
    let found = verified(&world.db).await;
    assert_eq!(told(&found), []);
    // At noon in UTC the next day had begun in the far east.
    assert_eq!((found.first_day, found.balances, found.out_of_reach), (Some(TODAY - 3), 10, 6));
    let recorded = audit::list(&SlowRead::alone(&world.db), 1, 0).await.unwrap().rows.remove(0);
    assert_eq!(
        (recorded.action.as_str(), &recorded.detail),
        ("message_log.forget", &json!({"before": noon, "last_day": TODAY - 4}))
    );
    assert_eq!(chain::walk(&SlowRead::alone(&world.db), None).await.unwrap().broken, None);
    assert_eq!(
        audit::list(&SlowRead::alone(&world.db), 9, 0).await.unwrap().total,
        2,
        "nothing to remove, nothing to record"
    );

    sql(&world.db, &format!("DELETE FROM exchanges WHERE quota_day = {}", TODAY - 3)).await;
    log(&world.db, (ada, TODAY - 9, 0), "charged", 4).await;
    let differences = [
        (ada.0, Some(TODAY - 9), Some(0), "charged", 4, 3),
        (ada.0, Some(TODAY - 3), Some(0), "charged", 0, 3),
        (ada.0, Some(TODAY - 3), Some(0), "refunded", 0, 1),
    ];
    assert_eq!(told(&verified(&world.db).await), differences);
}

#[tokio::test]
async fn rows_that_nobody_recorded_the_removal_of_are_missed() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    for day in [TODAY - 90, TODAY] {
        keep(&world.db, (ada, day, 0, [5, 1, 1, 0, 0]), &[]).await;
    }
    sql(&world.db, &format!("DELETE FROM exchanges WHERE quota_day = {}", TODAY - 90)).await;
    let missed = (ada.0, Some(TODAY - 90), Some(0), "charged", 0, 1);
    assert_eq!(told(&verified(&world.db).await), [missed]);
}

#[tokio::test]
async fn rows_of_the_log_may_outlive_a_balance_that_was_pruned() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    let days = [TODAY - 300, TODAY - quota::KEPT_DAYS - 1, TODAY - quota::KEPT_DAYS + 2, TODAY];
    for day in days {
        keep(&world.db, (ada, day, 0, [5, 1, 1, 1, 0]), &[]).await;
    }
    // The day may have begun already where the job runs.
    assert_eq!(quota::prune(&world.db, TODAY + 1 - quota::KEPT_DAYS).await.unwrap(), 2);
    let found = verified(&world.db).await;
    assert_eq!((told(&found), found.balances), (vec![], 2));
    sql(&world.db, "DELETE FROM quota").await;
    let whose = |day| (ada.0, Some(day), Some(0));
    let gone = [days[2], days[3]].map(whose).into_iter().flat_map(|(user, day, epoch)| {
        [
            (user, day, epoch, "charged_without_balance", 1, 0),
            (user, day, epoch, "refunded_without_balance", 1, 0),
        ]
    });
    assert_eq!(told(&verified(&world.db).await), gone.collect::<Vec<_>>());
}

async fn restore(db: &Db, ada: UserId, username: &str) {
    let kept = deleted::by_id(db, ada).await.unwrap().unwrap();
    let given = Return {
        username: Some(username.to_owned()),
        email: Some(format!("{username}@example.com")),
        password_hash: "$2b$12$new".into(),
        key: super::super::new_key(username),
    };
    let entry = Entry { target: username.into(), ..entry("user.restore", json!({"user_id": ada})) };
    deleted::restore(db, &kept, &given, &entry).await.unwrap();
}

#[tokio::test]
async fn who_is_deleted_restored_and_erased_leaves_no_difference() {
    let world = fresh().await;
    let (ada, bob) = (user(&world.db, "ada").await, user(&world.db, "bob").await);
    let delete = async || {
        let entry = entry("user.delete", json!({"user_id": ada}));
        assert!(deleted::delete(&world.db, ada, &carried::Names::default(), &entry).await.unwrap());
    };
    keep(&world.db, (ada, TODAY, 0, [5, 4, 2, 1, 1]), &[1]).await;
    keep(&world.db, (bob, TODAY, 0, [5, 1, 1, 0, 0]), &[]).await;
    delete().await;
    assert_eq!(told(&verified(&world.db).await), [], "deleted");
    // What was under way then is written, and belongs to no balance.
    log(&world.db, (ada, TODAY, 0), "charged", 1).await;
    restore(&world.db, ada, "ada").await;
    keep(&world.db, (ada, TODAY, 1, [5, 1, 1, 0, 0]), &[]).await;
    assert_eq!(told(&verified(&world.db).await), [], "restored");
    delete().await;
    user(&world.db, "ada").await;
    restore(&world.db, ada, "ada2").await;
    assert_eq!(told(&verified(&world.db).await), [], "restored by another name");

    keep(&world.db, (ada, TODAY, 2, [5, 1, 1, 0, 0]), &[]).await;
    sql(&world.db, &format!("DELETE FROM quota WHERE user_id IN ({ada}, {bob})")).await;
    let gone = |user: UserId, epoch| (user.0, Some(TODAY), Some(epoch), "charged_without_balance", 1, 0);
    assert_eq!(told(&verified(&world.db).await), [gone(ada, 2), gone(bob, 0)], "none of that explains this");
    sql(&world.db, &format!("DELETE FROM exchanges WHERE user_id = {bob} OR quota_epoch = 2")).await;
    delete().await;
    deleted::erase(&world.db, ada, 0, "proof", &entry("user.erase", json!({}))).await.unwrap().unwrap();
    assert_eq!(told(&verified(&world.db).await), [], "erased");
}

#[tokio::test]
async fn a_smaller_plan_explains_a_day_that_was_given_out_beyond_it() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    for day in [TODAY - 5, TODAY] {
        keep(&world.db, (ada, day, 0, [10, 8, 8, 0, 0]), &[]).await;
    }
    let quota = Some(QuotaChange { day: TODAY, left: None, reset: None, plan_limit: 3 });
    let change = UserChange { quota, subscription_plan: Some("small".into()), ..UserChange::default() };
    let moved = entry("user.update", json!({"fields": ["subscription_plan"]}));
    users::update(&world.db, ada, &change, NOW, &moved).await.unwrap();
    assert_eq!(told(&verified(&world.db).await), []);
    sql(&world.db, "UPDATE quota SET allowance = 3").await;
    let lowered = (ada.0, Some(TODAY - 5), Some(0), "above_allowance", 3, 8);
    assert_eq!(told(&verified(&world.db).await), [lowered], "another day is not explained");
}

#[tokio::test]
async fn what_is_of_a_later_day_than_is_recorded_stays() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    for day in [TODAY - 9, TODAY] {
        keep(&world.db, (ada, day, 0, [5, 2, 2, 0, 0]), &[]).await;
    }
    // As after a clock that went back: today's conversations began long ago.
    sql(&world.db, "UPDATE exchanges SET time = 1000").await;
    let noon = Timestamp((TODAY - 5) * DAY + DAY / 2);
    assert_eq!(exchanges::forget(&world.db, noon, noon, NOW).await.unwrap(), 2);
    let found = verified(&world.db).await;
    assert_eq!((told(&found), found.out_of_reach), (vec![], 1));
}
