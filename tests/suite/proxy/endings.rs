//! Promise 2, accountable: every admitted conversation ends in exactly one of *charged* or *refunded*,
//! once, with a reason, in one row.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::upstream::{Answer, Gate, Upstream, chat_events};
use crate::wire::Wire;
use crate::world::{Person, World, chat_request};

const STREAM_HEAD: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}]}\n\n";

/// The one row says so, and the ledger agrees.
async fn settled(world: &World, ann: &Person, outcome: &str, verdict: &str) -> Value {
    let row = world.row().await;
    assert_eq!((row["outcome"].as_str(), row["verdict"].as_str()), (Some(outcome), Some(verdict)), "{row:#}");
    assert_eq!(world.left(ann).await, if verdict == "charged" { 9 } else { 10 });
    row
}

fn streamed(person: &Person) -> String {
    let mut request = chat_request();
    request["stream"] = true.into();
    let body = request.to_string();
    let (key, length) = (&person.key, body.len());
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn a_client_killed_in_mid_stream_is_charged_once_and_the_upstream_is_let_go_within_a_second() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    world.upstream.next(Answer::sse([STREAM_HEAD]).then_silence());
    let mut wire = Wire::connect(world.addr).await;
    wire.send(streamed(&ann)).await;
    wire.head().await;
    assert_eq!(wire.chunk().await.unwrap(), STREAM_HEAD.as_bytes());
    let killed = Instant::now();
    wire.kill();
    world.upstream.closed().await;
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
    let row = settled(&world, &ann, "client_disconnect", "charged").await;
    assert_eq!(row["answer"][0]["content"], "Hel", "what was said so far is kept");
    assert_eq!(world.upstream.hits(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_charged_once() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    world.upstream.next(Answer::silence());
    let mut wire = Wire::connect(world.addr).await;
    wire.send(streamed(&ann)).await;
    world.upstream.arrived(1).await;
    wire.kill();
    world.upstream.closed().await;
    settled(&world, &ann, "client_disconnect", "charged").await;
}

#[tokio::test]
async fn an_upstream_that_is_not_there_costs_nothing() {
    let world = World::with(|setup| {
        let nowhere = Upstream::nowhere();
        setup.add(&format!("[[upstreams]]\nname = \"model\"\nurl = \"http://{nowhere}\""));
    })
    .await;
    let ann = world.user("ann").await;
    let answer = world.chat(&ann).send().await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (502, Some("upstream_error")));
    assert_eq!(answer.header("x-tollgate-error-source"), "gateway");
    settled(&world, &ann, "upstream_error", "refunded").await;
}

#[tokio::test]
async fn an_upstream_that_dies_before_the_first_byte_costs_nothing() {
    for death in [Answer::cut(), Answer::reset()] {
        let world = World::start().await;
        let ann = world.user("ann").await;
        world.upstream.next(death);
        assert_eq!(world.chat(&ann).send().await.status, 502);
        assert_eq!(world.upstream.hits(), 1, "never asked twice");
        settled(&world, &ann, "upstream_eof", "refunded").await;
    }
}

#[tokio::test]
async fn an_upstream_that_dies_after_the_first_byte_is_charged_and_the_client_is_told() {
    for death in [Answer::sse([STREAM_HEAD]).then_cut(), Answer::sse([STREAM_HEAD]).then_reset()] {
        let world = World::start().await;
        let ann = world.user("ann").await;
        world.upstream.next(death);
        let mut wire = Wire::connect(world.addr).await;
        wire.send(streamed(&ann)).await;
        assert_eq!(wire.head().await.status, 200);
        let heard = String::from_utf8(wire.closed().await).unwrap();
        assert!(heard.contains(STREAM_HEAD), "{heard}");
        assert!(!heard.contains("[DONE]"), "{heard}");
        assert!(
            heard.contains("\"error\"") || !heard.ends_with("0\r\n\r\n"),
            "ended as if all were well: {heard}"
        );
        let row = settled(&world, &ann, "upstream_eof", "charged").await;
        assert_eq!(row["answer"][0]["content"], "Hel");
    }
}

#[tokio::test]
async fn a_document_cut_short_never_looks_whole() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    world.upstream.next(Answer::bytes("application/json", "{\"half\":").then_cut().send("true}"));
    let mut wire = Wire::connect(world.addr).await;
    wire.send(streamed(&ann)).await;
    let head = wire.head().await;
    let body = wire.closed().await;
    assert_eq!(head.header("content-length"), Some("13"));
    assert_eq!(body, b"{\"half\":");
    settled(&world, &ann, "upstream_eof", "charged").await;
}

#[tokio::test]
async fn what_the_upstream_refuses_is_given_back() {
    for statuses in [[400, 404, 422], [408, 429, 500]] {
        let world = World::start().await;
        let ann = world.user("ann").await;
        for status in statuses {
            world.upstream.next(Answer::bytes("text/plain", "no").status(status));
            assert_eq!(world.chat(&ann).send().await.status, status);
        }
        for (row, status) in world.rows_when(3).await.iter().zip(statuses.iter().rev()) {
            let (outcome, verdict) = (row["outcome"].as_str(), row["verdict"].as_str());
            assert_eq!((outcome, verdict), (Some("upstream_error"), Some("refunded")), "{row:#}");
            assert_eq!(row["status"], *status);
        }
        assert_eq!(world.left(&ann).await, 10);
    }
}

#[tokio::test]
async fn failures_cannot_be_farmed() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    world.upstream.on("/v1/chat/completions", Answer::bytes("text/plain", "no").status(500));
    for _ in 0..8 {
        assert_eq!(world.chat(&ann).send().await.status, 500);
        world.left(&ann).await; // waits for the refund under way
    }
    let rows = world.rows_when(8).await;
    let refunded = rows.iter().filter(|row| row["verdict"] == "refunded").count();
    assert_eq!(refunded, 5, "half of a day's ten");
    assert_eq!(world.left(&ann).await, 7);
}

#[tokio::test]
async fn a_route_may_charge_for_the_clients_own_mistakes() {
    let world = World::with(|setup| {
        setup.only_route("prefix = \"/v1\"\nrefund_client_errors = false");
    })
    .await;
    let ann = world.user("ann").await;
    world.upstream.next(Answer::bytes("text/plain", "no").status(422));
    assert_eq!(world.chat(&ann).send().await.status, 422);
    settled(&world, &ann, "upstream_error", "charged").await;
}

#[tokio::test]
async fn an_upstream_that_refuses_our_own_credential_is_our_fault() {
    for status in [401, 403] {
        let world = World::start().await;
        let ann = world.user("ann").await;
        world.upstream.next(Answer::bytes("text/plain", "wrong key sk-the-operators-own").status(status));
        let answer = world.chat(&ann).send().await;
        assert_eq!(answer.status, 502);
        assert!(!answer.text().contains("sk-the-operators-own"), "{}", answer.text());
        settled(&world, &ann, "upstream_error", "refunded").await;
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_in_time_costs_nothing() {
    let world = World::with(|setup| setup.upstream("first_byte_timeout = \"200ms\"")).await;
    let ann = world.user("ann").await;
    world.upstream.next(Answer::silence());
    let answer = world.chat(&ann).send().await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (504, Some("upstream_timeout")));
    world.upstream.closed().await;
    settled(&world, &ann, "timeout", "refunded").await;
}

#[tokio::test]
async fn a_stream_that_falls_silent_ends_with_an_error_and_is_charged() {
    let world = World::with(|setup| setup.upstream("idle_timeout = \"200ms\"")).await;
    let ann = world.user("ann").await;
    world.upstream.next(Answer::sse([STREAM_HEAD]).then_silence());
    let mut wire = Wire::connect(world.addr).await;
    wire.send(streamed(&ann)).await;
    wire.head().await;
    let heard = String::from_utf8(wire.until_the_end().await).unwrap();
    assert!(
        heard.contains(STREAM_HEAD) && heard.contains("\"error\"") && !heard.contains("[DONE]"),
        "{heard}"
    );
    world.upstream.closed().await;
    settled(&world, &ann, "timeout", "charged").await;
}

#[tokio::test]
async fn a_stream_that_never_ends_is_ended() {
    let world = World::with(|setup| setup.upstream("total_timeout = \"300ms\"")).await;
    let ann = world.user("ann").await;
    world.upstream.next(Answer::sse([STREAM_HEAD]).then_silence());
    let mut wire = Wire::connect(world.addr).await;
    wire.send(streamed(&ann)).await;
    let heard = String::from_utf8(wire.until_the_end().await).unwrap();
    assert!(heard.contains("\"error\"") && !heard.contains("[DONE]"), "{heard}");
    world.upstream.closed().await;
    settled(&world, &ann, "timeout", "charged").await;
}

#[tokio::test]
async fn a_client_that_hangs_up_after_the_last_event_was_served() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let gate = Gate::closed();
    world.upstream.next(Answer::sse(chat_events(&["Hello"])).hold(&gate));
    let mut wire = Wire::connect(world.addr).await;
    wire.send(streamed(&ann)).await;
    wire.head().await;
    while !wire.chunk().await.unwrap().starts_with(b"data: [DONE]") {}
    wire.kill();
    world.upstream.closed().await;
    settled(&world, &ann, "complete", "charged").await;
}

#[tokio::test]
async fn an_answer_that_hit_its_limit_says_length() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let mut cut = crate::upstream::chat_answer("Hel");
    cut["choices"][0]["finish_reason"] = "length".into();
    world.upstream.next(Answer::json(&cut));
    assert_eq!(world.chat(&ann).send().await.status, 200);
    let row = settled(&world, &ann, "length", "charged").await;
    assert_eq!(row["finish_reason"], "length");
}

#[tokio::test]
async fn a_refused_request_costs_nothing_and_leaves_no_row() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let bad = world.post("/v1/chat/completions").bearer(&ann.key).header("content-type", "application/json");
    assert_eq!(bad.body("{").send().await.status, 400);
    assert_eq!(world.left(&ann).await, 10);
    assert!(world.rows(&world.admin().await).await.is_empty());
    assert_eq!(world.upstream.hits(), 0);
}
