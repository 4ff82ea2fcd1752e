//! How fast: per client address and per key, burst and sustained, on a clock moved by hand.

use std::time::Duration;

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn an_address_has_a_burst_and_then_a_steady_rate() {
    let world = World::with(|setup| {
        setup.add("[limits]\nrate_limit_per_minute = 60\nburst = 20\n[server]\ntrusted_proxies = [\"127.0.0.1/32\"]");
    })
    .await;
    let ann = world.user_with("ann", json!({"subscription_plan": "premium"})).await;
    let from = |address: &'static str| world.chat(&ann).header("x-forwarded-for", address).send();
    for _ in 0..20 {
        assert_eq!(from("203.0.113.7").await.status, 200);
    }
    let refused = from("203.0.113.7").await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"), "{}", refused.text());
    assert_eq!(from("203.0.113.8").await.status, 200, "a neighbour has a bucket of their own");
    world.clock.advance(Duration::from_secs(2));
    assert_eq!(from("203.0.113.7").await.status, 200);
    assert_eq!(from("203.0.113.7").await.status, 200);
    assert_eq!(from("203.0.113.7").await.status, 429);
    assert_eq!(world.upstream.hits(), 23);
}

#[tokio::test]
async fn an_ipv6_network_shares_one_bucket() {
    let world = World::with(|setup| {
        setup.add("[limits]\nrate_limit_per_minute = 60\nburst = 20\n[server]\ntrusted_proxies = [\"127.0.0.1/32\"]");
    })
    .await;
    let ann = world.user_with("ann", json!({"subscription_plan": "premium"})).await;
    for i in 0..20 {
        let answer = world.chat(&ann).header("x-forwarded-for", &format!("2001:db8:0:1::{i:x}")).send().await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(world.chat(&ann).header("x-forwarded-for", "2001:db8:0:1::ffff").send().await.status, 429);
    assert_eq!(world.chat(&ann).header("x-forwarded-for", "2001:db8:0:2::1").send().await.status, 200);
}

#[tokio::test]
async fn a_spoofed_address_has_no_bucket_of_its_own() {
    let world = World::with(|setup| setup.add("[limits]\nrate_limit_per_minute = 60\nburst = 20")).await;
    let ann = world.user("ann").await;
    let mut refused = 0;
    for i in 0..40 {
        let answer =
            world.get("/v1/models").bearer(&ann.key).header("x-forwarded-for", &format!("203.0.113.{i}"));
        refused += usize::from(answer.send().await.status == 429);
    }
    assert!(refused >= 20, "{refused} of 40 were refused");
}

#[tokio::test]
async fn a_plan_sets_the_rate_of_each_of_its_keys() {
    let world = World::with(|setup| {
        setup.add("[plans.slow]\nconversation_limit = 100\nrate_limit_per_minute = 30\nburst = 2");
    })
    .await;
    let ann = world.user_with("ann", json!({"subscription_plan": "slow"})).await;
    let bob = world.user_with("bob", json!({"subscription_plan": "slow"})).await;
    for person in [&ann, &bob] {
        for status in [200, 200, 429] {
            assert_eq!(world.chat(person).send().await.status, status, "{}", person.username);
        }
    }
    world.clock.advance(Duration::from_secs(2));
    assert_eq!(world.chat(&ann).send().await.status, 200);
    assert_eq!(world.chat(&ann).send().await.status, 429);
    assert_eq!(world.left(&ann).await, 97);
}
