//! A refusal speaks the dialect of the route, and carries the headers by which an SDK knows whether to
//! try again.

use std::time::Duration;

use http::HeaderMap;
use serde_json::{Value, json};

use crate::world::{Person, Reply, World};

const MESSAGE: &str = "Daily limit of 0 conversations reached; resets 2026-10-02T00:00:00+00:00 (UTC).";

/// Somebody whose day is used up before it began.
async fn used_up(world: &World) -> Person {
    world.user_with("ann", json!({"limits": {"conversation_limit": 0, "reset": 0}})).await
}

async fn ask(world: &World, person: &Person, path: &str) -> Reply {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    world.post(path).bearer(&person.key).json(&body).send().await
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_used_up_day_in_every_dialect() {
    let world = World::start().await;
    let ann = used_up(&world).await;
    for (path, expected) in [
        (
            "/v1/chat/completions",
            json!({"error": {"message": MESSAGE, "type": "insufficient_quota", "param": null, "code": "insufficient_quota"}}),
        ),
        (
            "/v1/messages",
            json!({"type": "error", "error": {"type": "rate_limit_error", "message": MESSAGE}, "request_id": "ID"}),
        ),
        ("/api/chat", json!({"error": MESSAGE})),
        (
            "/app/chat",
            json!({"error": {"message": MESSAGE, "type": "insufficient_quota", "code": "insufficient_quota"}, "request_id": "ID"}),
        ),
    ] {
        let answer = ask(&world, &ann, path).await;
        assert_eq!(answer.status, 429, "{path}");
        let mut body = answer.json();
        let id = answer.header("x-request-id");
        if let Some(named) = body.get_mut("request_id") {
            assert_eq!(named, id);
            *named = json!("ID");
        }
        assert_eq!(body, expected, "{path}");
        assert!(!id.is_empty() && answer.header("request-id") == id, "{path}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("x-should-retry"), "false");
        assert_eq!(answer.header("retry-after"), "50400", "fourteen hours to midnight");
        assert_eq!(answer.header("ratelimit"), "\"day\";r=0;t=50400");
        assert_eq!(answer.header("x-tollgate-error-source"), "gateway");
        assert_eq!(header(&answer.headers, "retry-after-ms"), None);
    }
    assert_eq!(world.upstream.hits(), 0);
}

#[tokio::test]
async fn a_rate_limit_says_when_to_come_again() {
    let world = World::with(|setup| setup.add("[plans.free]\nrate_limit_per_minute = 6\nburst = 1")).await;
    let ann = world.user("ann").await;
    assert_eq!(ask(&world, &ann, "/v1/chat/completions").await.status, 200);
    for (path, kind) in [
        ("/v1/chat/completions", ("/error/code", "rate_limit_exceeded")),
        ("/v1/chat/completions", ("/error/type", "requests")),
        ("/v1/messages", ("/error/type", "rate_limit_error")),
    ] {
        let answer = ask(&world, &ann, path).await;
        assert_eq!(answer.status, 429);
        assert_eq!(answer.json().pointer(kind.0).and_then(Value::as_str), Some(kind.1));
        assert_eq!(answer.header("retry-after"), "10");
        assert_eq!(answer.header("retry-after-ms"), "10000");
        assert_eq!(answer.header("ratelimit"), "\"minute\";r=0;t=10");
        assert_eq!(header(&answer.headers, "x-should-retry"), None, "this one may be tried again");
    }
    world.clock.advance(Duration::from_secs(10));
    assert_eq!(ask(&world, &ann, "/v1/chat/completions").await.status, 200);
    assert_eq!(world.left(&ann).await, 8, "refusals cost nothing");
}

#[tokio::test]
async fn a_bad_key_in_every_dialect() {
    let world = World::start().await;
    let stranger = Person { key: format!("pe-{}", "x".repeat(32)), ..world.user("ann").await };
    let message = "Incorrect API key provided.";
    for (path, expected) in [
        (
            "/v1/chat/completions",
            json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": "invalid_api_key"}}),
        ),
        (
            "/v1/messages",
            json!({"type": "error", "error": {"type": "authentication_error", "message": message}}),
        ),
        ("/api/chat", json!({"error": message})),
    ] {
        let answer = ask(&world, &stranger, path).await;
        let mut body = answer.json();
        body.as_object_mut().unwrap().remove("request_id");
        assert_eq!((answer.status, body), (401, expected), "{path}");
    }
}

#[tokio::test]
async fn an_anthropic_client_is_known_by_its_version_header() {
    let world = World::start().await;
    let call =
        world.get("/v1/models").header("anthropic-version", "2023-06-01").header("x-api-key", "pe-short");
    let answer = call.send().await;
    assert_eq!((answer.status, answer.json()["error"]["type"].as_str()), (401, Some("authentication_error")));
    assert_eq!(answer.json()["type"], "error");
}

#[tokio::test]
async fn too_many_at_once_of_one_key_are_refused_and_the_next_is_served() {
    let world = World::with(|setup| setup.add("[plans.free]\nmax_parallel_per_key = 1")).await;
    let ann = world.user("ann").await;
    let gate = crate::upstream::Gate::closed();
    world.upstream.next(crate::upstream::Answer::sse(["data: 1\n\n"]).hold(&gate).send("data: [DONE]\n\n"));
    let running = world.chat_streamed(&ann).begin().await;
    let refused = world.chat(&ann).send().await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"));
    gate.open();
    assert!(running.text().await.unwrap().ends_with("[DONE]\n\n"));
    assert_eq!(world.chat(&ann).send().await.status, 200);
    assert_eq!(world.left(&ann).await, 8);
}
