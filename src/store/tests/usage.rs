//! Sums of days, and what is forgotten by age.

use super::{NOW, RUN, balances, digest, exchange, fresh, new_key, take, user};
use crate::clock::Timestamp;
use crate::ids::UserId;
use crate::store::SlowRead;
use crate::store::exchanges::{Exchange, Verdict, append};
use crate::store::usage::{
    By, Day, Question, Usage, forget_person, hour, last_day, late, note_late, settle_late, sum_up, sums,
};
use crate::store::{keys, quota};

const HOUR: i64 = 3_600_000;

fn day(day: i64) -> Day {
    Day { day, since: Timestamp(day * 24 * HOUR), until: Timestamp((day + 1) * 24 * HOUR) }
}

fn said(day: i64, username: &str, model: &str, verdict: Verdict) -> Exchange {
    Exchange {
        username: username.into(),
        model: model.into(),
        verdict,
        total_tokens: Some(3),
        ..exchange(day * 24 * HOUR + HOUR)
    }
}

fn asked(by: By, live: Vec<Day>) -> Question {
    Question { by, from: 0, to: 9, username: None, model: None, live }
}

fn shown(sums: &[Usage]) -> Vec<(&str, i64, i64, i64, i64)> {
    sums.iter()
        .map(|sum| (sum.name.as_str(), sum.requests, sum.conversations, sum.refunded, sum.total_tokens))
        .collect()
}

#[tokio::test]
async fn a_day_is_summed_up_by_whatever_is_asked_and_twice_is_once() {
    let world = fresh().await;
    let rows = [
        said(1, "ada", "big", Verdict::Charged),
        said(1, "ada", "big", Verdict::Refunded),
        said(1, "bob", "small", Verdict::Charged),
        said(2, "bob", "small", Verdict::Free),
        Exchange { outcome: "upstream_error".into(), ..said(3, "ada", "big", Verdict::Refunded) },
    ];
    append(&world.db, RUN, &rows).await.unwrap();
    assert_eq!(last_day(&world.db).await.unwrap(), None);
    for _ in 0..2 {
        assert_eq!(sum_up(&world.db, day(1)).await.unwrap(), 2);
        assert_eq!(sum_up(&world.db, day(2)).await.unwrap(), 1);
    }
    assert_eq!(last_day(&world.db).await.unwrap(), Some(2));
    let of = async |by| sums(&SlowRead::alone(&world.db), &asked(by, vec![day(3)])).await.unwrap();
    assert_eq!(shown(&of(By::Day).await), [("1", 3, 2, 1, 9), ("2", 1, 0, 0, 3), ("3", 1, 0, 1, 3)]);
    assert_eq!(shown(&of(By::Model).await), [("big", 3, 1, 2, 9), ("small", 2, 1, 0, 6)]);
    assert_eq!(shown(&of(By::User).await), [("ada", 3, 1, 2, 9), ("bob", 2, 1, 0, 6)]);
    assert_eq!(shown(&of(By::Route).await), [("/v1", 5, 2, 2, 15)]);
    assert_eq!(shown(&of(By::Outcome).await), [("complete", 4, 2, 1, 12), ("upstream_error", 1, 0, 1, 3)]);
}

#[tokio::test]
async fn a_day_that_is_summed_live_counts_once_and_filters_hold_for_both() {
    let world = fresh().await;
    append(&world.db, RUN, &[said(1, "ada", "big", Verdict::Charged)]).await.unwrap();
    sum_up(&world.db, day(1)).await.unwrap();
    append(&world.db, RUN, &[said(1, "ada", "small", Verdict::Charged)]).await.unwrap();
    let kept = sums(&SlowRead::alone(&world.db), &asked(By::Day, vec![])).await.unwrap();
    assert_eq!(shown(&kept), [("1", 1, 1, 0, 3)]);
    let live = sums(&SlowRead::alone(&world.db), &asked(By::Day, vec![day(1)])).await.unwrap();
    assert_eq!(shown(&live), [("1", 2, 2, 0, 6)]);
    let only = Question { model: Some("small".into()), ..asked(By::User, vec![day(1)]) };
    assert_eq!(shown(&sums(&SlowRead::alone(&world.db), &only).await.unwrap()), [("ada", 1, 1, 0, 3)]);
    let nobody = Question { username: Some("bob".into()), ..only };
    assert_eq!(sums(&SlowRead::alone(&world.db), &nobody).await.unwrap(), []);
}

#[tokio::test]
async fn who_is_erased_leaves_the_sums_as_large_as_they_were() {
    let world = fresh().await;
    let of = |user: i64, name: &str, verdict| Exchange {
        user_id: Some(UserId(user)),
        ..said(1, name, "big", verdict)
    };
    let rows = [
        of(1, "ada", Verdict::Charged),
        of(2, "bob", Verdict::Charged),
        of(3, "cid", Verdict::Refunded),
        of(4, "ada", Verdict::Free),
    ];
    append(&world.db, RUN, &rows).await.unwrap();
    sum_up(&world.db, day(1)).await.unwrap();
    for user in [1, 2, 1] {
        forget_person(&world.db, UserId(user)).await.unwrap();
    }
    let users = sums(&SlowRead::alone(&world.db), &asked(By::User, vec![])).await.unwrap();
    assert_eq!(shown(&users), [("erased", 2, 2, 0, 6), ("ada", 1, 0, 0, 3), ("cid", 1, 0, 1, 3)]);
}

#[tokio::test]
async fn old_days_of_quota_and_keys_revoked_long_ago_are_forgotten() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    for day in 1..=5 {
        take(&world.db, ada, day, 10, 1).await;
    }
    assert_eq!(quota::prune(&world.db, 4).await.unwrap(), 3);
    assert_eq!(quota::prune(&world.db, 4).await.unwrap(), 0);
    assert_eq!(balances(&world.db).await.len(), 2);
    assert_eq!(quota::left(&world.db, ada, 4, 10).await.unwrap().unwrap().left, 9);
    let replaced = super::entry("key.regenerate");
    keys::replace(&world.db, ada, &new_key("other"), NOW, &replaced).await.unwrap();
    assert_eq!(keys::forget_revoked(&world.db, NOW).await.unwrap(), 0);
    assert_eq!(keys::forget_revoked(&world.db, Timestamp(NOW.0 + 1)).await.unwrap(), 1);
    assert!(keys::holder(&world.db, &digest("other")).await.unwrap().is_some());
}

#[tokio::test]
async fn hours_that_rows_came_late_for_stay_noted_until_they_are_summed_up() {
    let world = fresh().await;
    let hours = [hour(NOW), hour(Timestamp(NOW.0 - 5 * HOUR))];
    assert!(hours[0].0 <= NOW.0 && NOW.0 - hours[0].0 < HOUR && hours[0].0 % HOUR == 0);
    note_late(&world.db, &hours.into()).await.unwrap();
    let seen = late(&world.db).await.unwrap();
    assert_eq!(seen, [(hours[1], 1), (hours[0], 1)]);
    note_late(&world.db, &[hours[0]].into()).await.unwrap();
    settle_late(&world.db, &seen).await.unwrap();
    assert_eq!(late(&world.db).await.unwrap(), [(hours[0], 2)], "more came meanwhile");
}
