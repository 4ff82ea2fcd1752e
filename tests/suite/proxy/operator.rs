//! What an operator reads off a running data plane, and that it counts what happened.

use serde_json::json;

use crate::upstream::Answer;
use crate::world::{World, chat_request};

#[tokio::test]
async fn metrics_count_what_passed_what_was_refused_and_what_was_given_back() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    assert_eq!(world.chat(&ann).send().await.status, 200);
    world.upstream.next(Answer::bytes("text/plain", "no").status(500));
    assert_eq!(world.chat(&ann).send().await.status, 500);
    let stranger = world.post("/v1/chat/completions").bearer("pe-nobody").json(&chat_request());
    assert_eq!(stranger.send().await.status, 401);
    for (line, count) in [
        ("tollgate_requests_total{route=\"/v1\",status=\"200\",source=\"upstream\"}", 1.0),
        ("tollgate_requests_total{route=\"/v1\",status=\"500\",source=\"upstream\"}", 1.0),
        ("tollgate_denied_total{reason=\"invalid_api_key\"}", 1.0),
        ("tollgate_quota_reserved_total", 2.0),
        ("tollgate_quota_refunded_total{reason=\"upstream_server_error\"}", 1.0),
        ("tollgate_inflight_streams", 0.0),
        ("tollgate_upstream_up{upstream=\"model\"}", 1.0),
    ] {
        assert!((world.metric(line) - count).abs() < 0.5, "{line}: {}", world.metric(line));
    }
}

#[tokio::test]
async fn metrics_name_nobody() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let secret = json!({"model": "a-secret-model", "messages": []});
    world.post("/v1/chat/completions").bearer(&ann.key).json(&secret).send().await;
    let metrics = world.get("/metrics").send().await;
    assert_eq!(metrics.status, 200);
    for private in [ann.key.as_str(), "ann", "a-secret-model", "example.com"] {
        let named = metrics.text().lines().any(|line| line.contains(&format!("\"{private}")));
        assert!(!named, "{private} is in:\n{}", metrics.text());
    }
}
