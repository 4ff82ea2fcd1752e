//! Promise 1, exact: with N conversations left, any number of simultaneous requests get exactly N
//! through.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::upstream::{Answer, Gate, PATIENCE, chat_answer};
use crate::wire::exchange;
use crate::world::{TEN_O_CLOCK, World, chat_request};

#[tokio::test]
async fn of_60_at_once_on_a_limit_of_10_exactly_10_pass_over_http_1() {
    exactly_ten_of_sixty(reqwest::Client::builder().http1_only(), http::Version::HTTP_11).await;
}

#[tokio::test]
async fn of_60_at_once_in_one_http_2_connection_exactly_10_pass() {
    exactly_ten_of_sixty(reqwest::Client::builder().http2_prior_knowledge(), http::Version::HTTP_2).await;
}

/// The model holds its answers until every refusal is out, so that all 60 are open at once.
async fn exactly_ten_of_sixty(client: reqwest::ClientBuilder, version: http::Version) {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let client = client.no_proxy().timeout(PATIENCE).build().unwrap();
    let gate = Gate::closed();
    world.upstream.on("/v1/chat/completions", Answer::json(&chat_answer("Hello")).hold_head(&gate));
    let mut calls = JoinSet::new();
    for _ in 0..60 {
        let call = world.post_with(&client, "/v1/chat/completions");
        calls.spawn(call.bearer(&ann.key).json(&chat_request()).send());
    }
    for refused in 0..50 {
        let answer = calls.join_next().await.unwrap().unwrap();
        assert_eq!(
            (answer.status, answer.version),
            (429, version),
            "after {refused} refusals: {}",
            answer.text()
        );
    }
    gate.open();
    while let Some(answer) = calls.join_next().await {
        assert_eq!(answer.unwrap().status, 200);
    }
    assert_eq!(world.upstream.hits(), 10);
    assert_eq!(world.left(&ann).await, 0);
    assert_eq!(world.rows(&world.admin().await).await.len(), 10);
}

#[tokio::test]
async fn who_was_led_years_ahead_by_a_clock_is_brought_back_by_a_reset() {
    let world = World::start().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    assert_eq!(world.chat(&ann).send().await.status, 200);
    world.clock.advance(Duration::from_hours(24 * 3000));
    for _ in 0..10 {
        assert_eq!(world.chat(&ann).send().await.status, 200);
    }
    world.clock.set(TEN_O_CLOCK);
    world.clock.advance(Duration::from_hours(24));
    assert_eq!(world.chat(&bob).send().await.status, 200, "who was not there is where they were");
    let held = world.chat(&ann).send().await;
    assert_eq!((held.status, held.header("x-ratelimit-remaining-requests")), (429, "0"));

    let reset = world.post("/api/v1/admin/reset-limits").bearer(&world.admin().await).send().await;
    assert_eq!(reset.status, 200);
    for person in [&ann, &bob] {
        let answer = world.chat(person).send().await;
        assert_eq!((answer.status, answer.header("x-ratelimit-remaining-requests")), (200, "9"));
    }
    world.clock.advance(Duration::from_hours(24));
    assert_eq!(world.chat(&ann).send().await.header("x-ratelimit-remaining-requests"), "9", "each day anew");
    let ledger = world.get("/api/v1/admin/ledger/verify").bearer(&world.admin().await).send().await.json();
    assert_eq!((&ledger["ok"], &ledger["total"]), (&json!(true), &json!(0)), "{ledger:#}");
}

#[tokio::test]
async fn what_is_left_goes_down_by_one_and_is_told_in_every_answer() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    for left in (0..10).rev() {
        let answer = world.chat(&ann).send().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-ratelimit-limit-requests"), "10");
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), left.to_string());
        assert_eq!(world.left(&ann).await, left);
    }
    assert_eq!(world.chat(&ann).send().await.status, 429);
    assert_eq!(world.left(&ann).await, 0);
    assert_eq!(world.upstream.hits(), 10);
}

#[tokio::test]
async fn a_new_day_begins_at_midnight_without_any_job() {
    let world = World::start().await;
    let ann = world.user_with("ann", json!({"limits": {"conversation_limit": 1, "reset": 3}})).await;
    assert_eq!(world.chat(&ann).send().await.status, 200);
    assert_eq!(world.chat(&ann).send().await.status, 429);
    world.clock.set(TEN_O_CLOCK.plus(Duration::from_secs(14 * 3600 - 1)));
    assert_eq!(world.chat(&ann).send().await.status, 429, "23:59:59");
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.left(&ann).await, 3, "00:00:00");
    assert_eq!(world.chat(&ann).send().await.status, 200);
    assert_eq!(world.left(&ann).await, 2);
}

#[tokio::test]
async fn midnight_is_looked_for_in_the_configured_zone() {
    let world = World::with(|setup| setup.add("[limits]\ntime_zone = \"Asia/Tokyo\"")).await;
    let ann = world.user("ann").await;
    assert_eq!(world.chat(&ann).send().await.status, 200);
    assert_eq!(world.left(&ann).await, 9);
    // 10:00 in Greenwich is 19:00 in Tokyo.
    world.clock.advance(Duration::from_hours(5));
    assert_eq!(world.left(&ann).await, 10);
}

#[tokio::test]
async fn the_admins_reset_begins_the_day_anew() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    assert_eq!(world.chat(&ann).send().await.status, 200);
    let reset = world.post("/api/v1/admin/reset-limits").bearer(&world.admin().await).send().await;
    assert_eq!(reset.status, 200, "{}", reset.text());
    assert_eq!(world.left(&ann).await, 10);
}

#[tokio::test]
async fn a_restart_neither_takes_nor_gives_conversations() {
    let mut world = World::start().await;
    let ann = world.user_with("ann", json!({"limits": {"conversation_limit": 40}})).await;
    for left in [37, 34] {
        for _ in 0..3 {
            assert_eq!(world.chat(&ann).send().await.status, 200);
        }
        assert_eq!(world.left(&ann).await, left);
        world.restart(|_| {}).await;
        assert_eq!(world.left(&ann).await, left);
    }
    let own = world.get("/api/v1/key").bearer(&ann.key).send().await.json();
    assert_eq!((&own["limit_remaining"], &own["usage_daily"]), (&json!(34), &json!(6)));
    assert!(world.folder.path().join("data/node").exists() || world.folder.path().join("node").exists());
}

#[tokio::test]
async fn only_what_the_route_charges_costs_a_conversation() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    assert_eq!(world.get("/v1/models").bearer(&ann.key).send().await.status, 200);
    let embed = json!({"model": "e", "input": "x"});
    assert_eq!(world.post("/v1/embeddings").bearer(&ann.key).json(&embed).send().await.status, 200);
    assert_eq!(world.left(&ann).await, 10);
}

#[tokio::test]
async fn verify_key_and_the_gate_draw_on_the_same_day() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    assert_eq!(world.chat(&ann).send().await.status, 200);
    let verified = world.post("/api/v1/auth/verify-key").bearer(&ann.key).send().await;
    assert_eq!(verified.json()["remaining_conversations"], 8, "{}", verified.text());
}

#[tokio::test]
async fn a_plan_has_its_own_number() {
    let world = World::start().await;
    let ann = world.user_with("ann", json!({"subscription_plan": "premium"})).await;
    assert_eq!(world.left(&ann).await, 1000);
    assert_eq!(world.chat(&ann).send().await.header("x-ratelimit-remaining-requests"), "999");
    world.clock.advance(Duration::from_hours(24));
    assert_eq!(world.left(&ann).await, 1000);
}

#[tokio::test]
async fn a_conversation_is_not_free_because_its_path_is_spelled_in_another_way() {
    let world = World::with(|setup| {
        let charge = "charge = [\"POST /v1/chat/completions\", \"POST /v1/x:ask\"]\nallow = [\"*\"]";
        setup.only_route(&format!("prefix = \"/v1\"\n{charge}"));
    })
    .await;
    let ann = world.user("ann").await;
    for path in
        ["/v1/chat/completions", "/v1/chat/completions/", "/v1/Chat/Completions", "/v1/x:ask", "/v1/x%3aask/"]
    {
        let left = world.left(&ann).await;
        let answer = world.post(path).bearer(&ann.key).json(&chat_request()).send().await;
        assert_eq!((answer.status, world.left(&ann).await), (200, left - 1), "{path}");
    }
    let hits = world.upstream.hits();
    for path in ["/v1/chat/completion%73", "/v1/%63hat/completions", "/v%31/chat/completions"] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: gate\r\nx-api-key: {}\r\ncontent-length: 2\r\n\r\n{{}}",
            ann.key
        );
        assert_eq!(exchange(world.addr, request).await.status(), 400, "{path}");
    }
    assert_eq!(world.upstream.hits(), hits);
    let disguised = world.post("/v1/models").bearer(&ann.key).json(&chat_request());
    let disguised = disguised.header("x-original-url", "/v1/chat/completions");
    assert_eq!(disguised.header("x-http-method-override", "PUT").send().await.status, 200);
    for name in ["x-original-url", "x-http-method-override"] {
        assert_eq!(world.upstream.last().header(name), None, "{name}");
    }
}
