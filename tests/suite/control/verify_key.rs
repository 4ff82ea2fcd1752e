//! Apps that are not behind the gate ask for one conversation at a time.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::world::World;

#[tokio::test]
async fn a_good_key_takes_one_conversation_and_leaves_a_row() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let reply = world.post("/api/v1/auth/verify-key").bearer(&ann.key).send().await;
    let expected =
        json!({"valid": true, "username": "ann", "email": "ann@example.com", "remaining_conversations": 9});
    assert_eq!(reply.json(), expected);
    assert_eq!(reply.header("x-ratelimit-limit"), "10");
    assert_eq!(reply.header("x-ratelimit-remaining"), "9");
    assert_eq!(world.left(&ann).await, 9);
    let row = world.row().await;
    assert_eq!((&row["call"], &row["verdict"]), (&json!("verify-key"), &json!("charged")));
}

#[tokio::test]
async fn of_60_at_once_exactly_10_pass() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let mut calls = JoinSet::new();
    for _ in 0..60 {
        calls.spawn(world.post("/api/v1/auth/verify-key").header("x-api-key", &ann.key).send());
    }
    let answers = calls.join_all().await;
    let with = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((with(200), with(429)), (10, 50));
    assert_eq!(world.left(&ann).await, 0);
}

#[tokio::test]
async fn a_day_that_is_used_up_says_when_the_next_begins() {
    let world = World::start().await;
    let ann = world.user_with("ann", json!({"limits": {"conversation_limit": 1}})).await;
    assert_eq!(world.post("/api/v1/auth/verify-key").bearer(&ann.key).send().await.status, 200);
    let refused = world.post("/api/v1/auth/verify-key").bearer(&ann.key).send().await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), (14 * 60 * 60).to_string());
    assert_eq!(refused.header("x-ratelimit-remaining"), "0");
    assert_eq!(refused.header("x-ratelimit-reset"), "1790899200");
    assert_eq!(refused.json()["type"], "urn:tollgate:problem:insufficient_quota");
    world.clock.advance(Duration::from_hours(14));
    let next_day = world.post("/api/v1/auth/verify-key").bearer(&ann.key).send().await;
    assert_eq!(next_day.json()["remaining_conversations"], 9);
}

#[tokio::test]
async fn unknown_and_malformed_keys_are_one_to_whoever_shows_them() {
    let world = World::start().await;
    let bad = ["pe-0123456789abcdefghijABCDEFGHIJ01", "pe-short", "sk-somebody-elses"];
    for key in bad {
        let refused = world.post("/api/v1/auth/verify-key").bearer(key).send().await;
        assert_eq!(refused.status, 401, "{key}");
        assert_eq!(refused.json()["detail"], "The API key is missing or not valid.");
        assert!(!refused.text().contains(key));
    }
    assert_eq!(world.post("/api/v1/auth/verify-key").send().await.status, 401);
}

#[tokio::test]
async fn an_address_outside_the_rules_and_a_disabled_account_are_forbidden() {
    let world = World::start().await;
    let ann = world.user_with("ann", json!({"allowed_ips": ["203.0.113.0/24"]})).await;
    let verify = async || world.post("/api/v1/auth/verify-key").bearer(&ann.key).send().await;
    let refused = verify().await;
    assert_eq!(
        (refused.status, &refused.json()["type"]),
        (403, &json!("urn:tollgate:problem:ip_not_allowed"))
    );
    world.change("ann", json!({"allowed_ips": ["127.0.0.0/8"]})).await;
    assert_eq!(verify().await.status, 200);
    world.change("ann", json!({"is_active": false})).await;
    let refused = verify().await;
    assert_eq!(
        (refused.status, &refused.json()["type"]),
        (403, &json!("urn:tollgate:problem:account_disabled"))
    );
}
