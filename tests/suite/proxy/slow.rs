//! Slow clients cost little, and only themselves.

use serde_json::json;

use crate::wire::{Heard, Wire};
use crate::world::{Person, World};

const ALMOST: &str = "{\"model\":\"gpt-test\",\"messages\":[{\"role\":\"user\",\"content\":\"";

/// Begins a conversation whose body announces `length` bytes, of which `sent` come now.
async fn begin(world: &World, key: &str, length: usize, sent: usize) -> Wire {
    let mut wire = Wire::connect(world.addr).await;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{ALMOST}"
    );
    wire.send(head).await;
    wire.send("x".repeat(sent.saturating_sub(ALMOST.len()))).await;
    wire
}

fn code(answer: &Heard) -> (u16, String) {
    (answer.status(), answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// Waits until so many bytes of bodies are in memory.
async fn bodies_hold(world: &World, bytes: f64) {
    let begun = std::time::Instant::now();
    while world.metric("tollgate_body_memory_bytes") < bytes {
        assert!(
            begun.elapsed() < crate::upstream::PATIENCE,
            "{}",
            world.metric("tollgate_body_memory_bytes")
        );
        tokio::task::yield_now().await;
    }
}

async fn second_key(world: &World, person: &Person) -> String {
    let form = json!({"name": "second"});
    let made = world.post("/api/v1/auth/keys").bearer(&person.jwt).json(&form).send().await;
    made.json()["api_key"].as_str().unwrap_or_else(|| panic!("{}", made.text())).to_owned()
}

#[tokio::test]
async fn a_day_that_is_used_up_is_refused_before_the_body() {
    let world = World::start().await;
    let ann = world.user_with("ann", json!({"limits": {"conversation_limit": 1, "reset": 1}})).await;
    assert_eq!(world.chat(&ann).send().await.status, 200);
    // Known from memory, then asked of the database.
    for _ in 0..2 {
        let mut wire = begin(&world, &ann.key, 9 << 20, 100).await;
        assert_eq!(code(&wire.answer().await), (429, "insufficient_quota".to_owned()));
        world.clock.advance(std::time::Duration::from_secs(30));
    }
    let mut waits = Wire::connect(world.addr).await;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gate\r\nx-api-key: {}\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 9000\r\n\r\n",
        ann.key
    );
    waits.send(head).await;
    assert!(waits.exactly(12).await.starts_with(b"HTTP/1.1 429"), "no 100 Continue comes first");
    assert_eq!(world.upstream.hits(), 1);
}

#[tokio::test]
async fn a_body_on_its_way_takes_no_place_of_the_gateways() {
    let world = World::with(|setup| setup.add("[limits]\nmax_parallel = 1")).await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let _slow = [begin(&world, &bob.key, 9 << 20, 100).await, begin(&world, &bob.key, 9 << 20, 100).await];
    bodies_hold(&world, 200.0).await;
    assert_eq!(world.chat(&ann).send().await.status, 200);
    assert_eq!(world.chat(&bob).send().await.status, 200);
}

#[tokio::test]
async fn requests_of_all_keys_of_a_user_count_together_their_bodies_included() {
    let world = World::with(|setup| setup.add("[limits]\nmax_parallel_per_user = 2")).await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let other_key = second_key(&world, &bob).await;
    let first = begin(&world, &bob.key, 9 << 20, 100).await;
    let _second = begin(&world, &other_key, 9 << 20, 100).await;
    bodies_hold(&world, 200.0).await;
    for key in [&bob.key, &other_key] {
        let mut refused = begin(&world, key, 9 << 20, 100).await;
        assert_eq!(code(&refused.answer().await), (429, "too_many_parallel_requests".to_owned()));
    }
    assert_eq!(world.chat(&ann).send().await.status, 200);
    first.kill();
    let begun = std::time::Instant::now();
    while world.chat(&bob).send().await.status != 200 {
        assert!(begun.elapsed() < crate::upstream::PATIENCE, "the place is free again");
    }
}

#[tokio::test]
async fn bodies_under_way_have_a_budget_of_bytes_for_a_user_and_in_all() {
    let limits = "[limits]\nmax_body_size = \"1MiB\"\nmax_body_memory = \"3MiB\"\nmax_body_memory_per_user = \"1536KiB\"";
    let world = World::with(|setup| setup.add(limits)).await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let mut held = Vec::new();
    for (person, most) in [(&bob, 1.0), (&ann, 2.0)] {
        held.push(begin(&world, &person.key, 1 << 20, 1_000_000).await);
        bodies_hold(&world, most * 1_000_000.0).await;
        let mut refused = begin(&world, &person.key, 1 << 20, 1_000_000).await;
        assert_eq!(code(&refused.answer().await), (429, "rate_limit_exceeded".to_owned()));
    }
    let eve = world.user("eve").await;
    held.push(begin(&world, &eve.key, 1 << 20, 900_000).await);
    let mut refused = begin(&world, &world.user("mal").await.key, 1 << 20, 1_000_000).await;
    assert_eq!(code(&refused.answer().await), (503, "service_unavailable".to_owned()));
    drop(held);
    let begun = std::time::Instant::now();
    while world.metric("tollgate_body_memory_bytes") > 0.0 {
        assert!(begun.elapsed() < crate::upstream::PATIENCE, "the bytes are given back");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_body_of_the_rest_api_that_stops_coming_is_408() {
    let world = World::with(|setup| setup.add("[server.connections]\nbody_idle_timeout = \"200ms\"")).await;
    for path in ["/api/v1/auth/login", "/api/v1/auth/register", "/api/v1/admin/login"] {
        let mut wire = Wire::connect(world.addr).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: gate\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{\"email\""
        );
        wire.send(head).await;
        assert_eq!(wire.answer().await.status(), 408, "{path}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_rest_api_does_not_reset_an_http_2_client_that_still_sends() {
    use futures_util::StreamExt as _;
    const PIECES: usize = 64;
    let world = World::start().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    for (path, content_type, refusal) in [
        ("/api/v1/auth/login", "text/plain", 415),
        ("/api/v1/auth/login", "application/json", 413),
        ("/api/v1/auth/log-message", "application/json", 401),
    ] {
        let (sent, mut count) = tokio::sync::watch::channel(0);
        let pieces = futures_util::stream::iter(0..PIECES).map(move |piece| {
            sent.send_replace(piece + 1);
            std::io::Result::Ok(vec![b' '; 16 << 10])
        });
        let call = world.post_with(&client, path).header("content-type", content_type);
        let answer = call.body(reqwest::Body::wrap_stream(pieces)).send().await;
        assert_eq!(answer.status, refusal, "{path}");
        let all =
            tokio::time::timeout(crate::upstream::PATIENCE, count.wait_for(|sent| *sent == PIECES)).await;
        assert!(all.is_ok_and(|sent| sent.is_ok()), "{path}: the stream was reset");
    }
}
