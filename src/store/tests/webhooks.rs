//! What waits to be told: with the change or not at all, taken by one, and bounded.

use futures_util::future::join_all;
use serde_json::Value;

use super::{NOW, RUN, entry, exchange, fresh, new_key, new_user, take, user};
use crate::clock::Timestamp;
use crate::config::WebhookEvent;
use crate::ids::UserId;
use crate::store::exchanges::{self, Exchange, Verdict};
use crate::store::webhooks::{self, MOST_WAITING, Waiting};
use crate::store::{Db, audit, keys, users};

async fn told(db: &Db) -> Vec<(String, Value)> {
    let waiting = webhooks::waiting(db, 100).await.unwrap();
    let read = |one: Waiting| (one.event, serde_json::from_str::<Value>(&one.payload).unwrap());
    waiting.into_iter().map(read).collect()
}

fn of(action: &'static str, name: &str) -> audit::Entry {
    audit::Entry { target: name.into(), ..entry(action) }
}

#[tokio::test]
async fn an_event_is_told_with_its_change_or_not_at_all() {
    let world = fresh().await;
    user(&world.db, "early").await;
    assert!(told(&world.db).await.is_empty(), "nobody wants to know yet");
    webhooks::want(&world.db, &WebhookEvent::ALL).await.unwrap();
    let register = async |name: &str| {
        users::insert(&world.db, &new_user(name), &new_key(name), NOW, &of("user.register", name)).await
    };
    let ada = register("ada").await.unwrap();
    assert!(register("ADA").await.is_err());
    assert!(
        keys::replace(&world.db, UserId(404), &new_key("x"), NOW, &of("key.regenerate", "ada"))
            .await
            .is_err()
    );
    keys::replace(&world.db, ada, &new_key("k2"), NOW, &of("key.regenerate", "ada")).await.unwrap();
    let events = told(&world.db).await;
    let names: Vec<_> = events.iter().map(|(event, _)| event.as_str()).collect();
    assert_eq!(names, ["user_created", "key_regenerated"]);
    assert!(events.iter().all(|(_, payload)| payload["data"]["username"] == "ada"));
    webhooks::want(&world.db, &[]).await.unwrap();
    register("bob").await.unwrap();
    assert_eq!(told(&world.db).await.len(), 2);
}

#[tokio::test]
async fn the_last_conversation_of_a_day_is_told_once_also_when_its_row_is_written_twice() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    webhooks::want(&world.db, &[WebhookEvent::QuotaReached]).await.unwrap();
    for _ in 0..3 {
        take(&world.db, ada, 20_000, 3, 1).await.unwrap();
    }
    let row = || Exchange {
        user_id: Some(ada),
        verdict: Verdict::Charged,
        quota_day: Some(20_000),
        quota_epoch: Some(0),
        ..exchange(1)
    };
    exchanges::append(&world.db, RUN, &[row()]).await.unwrap();
    assert!(told(&world.db).await.is_empty());
    let last = [row(), row()];
    exchanges::append(&world.db, RUN, &last).await.unwrap();
    exchanges::append(&world.db, RUN, &last).await.unwrap();
    let events = told(&world.db).await;
    assert_eq!(events.len(), 1);
    assert_eq!(
        (&events[0].1["data"]["limit"], &events[0].1["data"]["day"]),
        (&3.into(), &"2024-10-04".into())
    );
}

#[tokio::test]
async fn a_long_conversation_is_told_without_its_words_and_a_full_queue_takes_no_more() {
    let world = fresh().await;
    webhooks::want(&world.db, &[WebhookEvent::MessageLogged]).await.unwrap();
    let long = Exchange { messages: Some(format!("[\"{}\"]", "x".repeat(70_000))), ..exchange(1) };
    exchanges::append(&world.db, RUN, &[long]).await.unwrap();
    let (_, payload) = told(&world.db).await.remove(0);
    assert_eq!((&payload["data"]["messages"], &payload["data"]["truncated"]), (&Value::Null, &true.into()));
    let most = usize::try_from(MOST_WAITING).unwrap();
    let rows: Vec<Exchange> = (0..most + 10).map(|_| exchange(2)).collect();
    exchanges::append(&world.db, RUN, &rows).await.unwrap();
    assert_eq!(webhooks::due(&world.db, NOW).await.unwrap(), (MOST_WAITING, MOST_WAITING));
}

#[tokio::test]
async fn what_one_has_taken_no_other_gets_until_its_time_is_over() {
    let world = fresh().await;
    webhooks::want(&world.db, &[WebhookEvent::MessageLogged]).await.unwrap();
    let rows: Vec<Exchange> = (0..20).map(|_| exchange(1)).collect();
    exchanges::append(&world.db, RUN, &rows).await.unwrap();
    let take_some =
        async |now: i64| webhooks::take(&world.db, Timestamp(now), Timestamp(now + 100), 5).await.unwrap();
    let taken = join_all((0..8).map(|_| take_some(10))).await.concat();
    let mut ids: Vec<_> = taken.iter().map(|one| one.id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), taken.len(), "none was given out twice");
    while !take_some(10).await.is_empty() {}
    assert_eq!(webhooks::due(&world.db, Timestamp(109)).await.unwrap().0, 0);
    let again = take_some(110).await;
    assert_eq!((again.len(), again[0].attempts), (5, 2));
    webhooks::remove(&world.db, &again[0].id).await.unwrap();
    webhooks::postpone(&world.db, &again[1].id, Timestamp(10_000)).await.unwrap();
    assert_eq!(webhooks::due(&world.db, Timestamp(9_999)).await.unwrap().0, 18);
}
