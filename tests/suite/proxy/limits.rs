//! Promises 4 and 5, bounded and closed: sizes, times, and requests with more than one reading.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;

use crate::upstream::{Answer, PATIENCE};
use crate::wire::{Heard, Wire, exchange};
use crate::world::{Person, World};

/// Sends these bytes; the answer, and whether the connection was closed after it.
async fn told(world: &World, bytes: impl AsRef<[u8]>) -> Heard {
    exchange(world.addr, bytes).await
}

fn head(line: &str, person: &Person, more: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer {}\r\n{more}\r\n", person.key)
}

fn post(person: &Person, more: &str, body: &str) -> String {
    head("POST /v1/chat/completions", person, &format!("content-type: application/json\r\n{more}")) + body
}

#[tokio::test]
async fn a_path_with_two_readings_is_refused_and_nobody_is_asked() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    for path in [
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/./chat/completions",
        "/v1/../v1/chat/completions",
        "/app/../api/v1/admin/users",
        "/v1/%2e%2e/chat/completions",
        "/v1/%2E%2E%2Fapi/v1/admin/users",
        "/v1%2fchat/completions",
        "/v1%5cchat",
        "/v1\\chat",
        "/v1/chat%00",
        "/v1/%252e%252e/x",
        "/v1/;x/chat",
        "/v1/%zz",
        "http://evil.example/v1/chat/completions",
        "http://gate/v1/chat/completions",
    ] {
        for line in [format!("POST {path}"), format!("GET {path}")] {
            let answer = told(&world, head(&line, &ann, "content-length: 0\r\n")).await;
            assert_eq!(answer.status(), 400, "{line}: {:?}", String::from_utf8_lossy(&answer.body));
        }
    }
    assert_eq!(world.upstream.hits(), 0);
    assert_eq!(world.upstream.connections(), 0);
    assert_eq!(world.left(&ann).await, 10);
}

#[tokio::test]
async fn a_doubtful_path_is_refused_in_http_2_as_well() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    for path in ["//v1/chat/completions", "/v1/%2e%2e%2fapi", "/v1%2fchat", "/v1/chat%00"] {
        let answer = world.post_with(&client, path).bearer(&ann.key).json(&json!({})).send().await;
        assert_eq!(answer.status, 400, "{path}");
    }
    assert_eq!(world.upstream.hits(), 0);
}

#[tokio::test]
async fn a_head_of_64_kib_is_431_and_64_headers_are_enough() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let large = format!("x-large: {}\r\n", "x".repeat(64 << 10));
    assert_eq!(told(&world, head("GET /v1/models", &ann, &large)).await.status(), 431);
    let many = "x-one-of-many: y\r\n".repeat(100);
    assert_eq!(told(&world, head("GET /v1/models", &ann, &many)).await.status(), 431);
    assert_eq!(world.upstream.hits(), 0);
    let several = format!("x-one-of-some: {}\r\n", "y".repeat(500)).repeat(20);
    assert_eq!(told(&world, head("GET /v1/models", &ann, &several)).await.status(), 200);
}

#[tokio::test]
async fn a_target_longer_than_8_kib_is_414() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let long = format!("GET /v1/models?{}", "x".repeat(9 << 10));
    assert_eq!(told(&world, head(&long, &ann, "")).await.status(), 414);
    assert_eq!(world.upstream.hits(), 0);
}

#[tokio::test]
async fn what_is_not_one_json_object_is_400() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let deep = format!("{{\"model\":\"m\",\"messages\":{}{}}}", "[".repeat(100), "]".repeat(100));
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"x\"",
        "{\"model\":\"m\"}x",
        "{\"model\": 1}",
        "{'model':'m'}",
        "\u{1}",
        &deep,
    ] {
        let length = format!("content-length: {}\r\n", body.len());
        let answer = told(&world, post(&ann, &length, body)).await;
        assert_eq!(answer.status(), 400, "{body}");
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
        assert!(answer.json()["error"]["code"].is_null() || answer.json()["error"]["code"].is_string());
    }
    assert_eq!(world.upstream.hits(), 0);
    assert_eq!(world.left(&ann).await, 10);
}

#[tokio::test]
async fn a_field_that_decides_may_stand_only_once() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    for body in [
        r#"{"model":"a","model":"b"}"#,
        r#"{"stream":true,"stream":false}"#,
        r#"{"r_type":"bpe","r_type":"x"}"#,
        r#"{"model":"a","mod\u0065l":"b"}"#,
    ] {
        let length = format!("content-length: {}\r\n", body.len());
        assert_eq!(told(&world, post(&ann, &length, body)).await.status(), 400, "{body}");
    }
    assert_eq!(world.upstream.hits(), 0);
}

#[tokio::test]
async fn a_body_of_50_mb_is_413_whether_announced_or_found_out() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let announced = told(&world, post(&ann, "content-length: 52428800\r\n", "{\"model\":")).await;
    assert_eq!(
        (announced.status(), announced.json()["error"]["code"].as_str()),
        (413, Some("request_too_large"))
    );
    let body = format!("{{\"model\":\"m\",\"messages\":\"{}\"}}", "x".repeat(50 << 20));
    let whole =
        world.post("/v1/chat/completions").bearer(&ann.key).header("content-type", "application/json");
    // The gate may close while the client still writes; it must not have accepted.
    if let Ok(answer) = whole.body(body.clone()).attempt().await {
        assert!(String::from_utf8_lossy(&answer).contains("request_too_large"));
    }
    let mut wire = Wire::connect(world.addr).await;
    wire.send(post(&ann, "transfer-encoding: chunked\r\n", "")).await;
    let chunk = [b"100000\r\n", &body.as_bytes()[..1 << 20], b"\r\n"].concat();
    for _ in 0..11 {
        wire.send(&chunk).await;
    }
    assert_eq!(wire.answer().await.status(), 413);
    assert_eq!(world.upstream.hits(), 0);
    assert_eq!(world.left(&ann).await, 10);
}

#[tokio::test]
async fn framing_with_two_readings_is_refused_and_closed() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let hidden = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\r\n", ann.key);
    for framing in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: +5\r\n",
        "content-length: 0x5\r\n",
        "content-length: 5,6\r\n",
        "content-length: \r\n",
        "transfer-encoding: chunked, cow\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "transfer-encoding:\u{b}chunked\r\n",
        " content-length: 5\r\n",
        "content-length : 5\r\n",
    ] {
        let mut wire = Wire::connect(world.addr).await;
        wire.send(post(&ann, framing, &format!("0\r\n\r\n{hidden}"))).await;
        let heard = String::from_utf8_lossy(&wire.closed().await).into_owned();
        let answers = heard.matches("HTTP/1.1 ").count();
        assert!(answers <= 1 && !heard.contains(" 200 "), "{framing:?}: {heard}");
    }
    for request in world.upstream.requests() {
        let framed =
            (request.header("content-length").is_some(), request.header("transfer-encoding").is_some());
        assert_ne!(framed, (true, true), "{request:?}");
    }
    assert_eq!(world.upstream.hits(), 0);
}

#[tokio::test]
async fn a_request_hidden_in_a_refused_body_is_never_served() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let hidden = format!("GET /v1/models HTTP/1.1\r\nhost: gate\r\nx-api-key: {}\r\n\r\n", ann.key);
    let length = hidden.len();
    let stranger = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gate\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{hidden}"
    );
    let mut wire = Wire::connect(world.addr).await;
    wire.send(&stranger).await;
    assert_eq!(wire.answer().await.status(), 401);
    wire.send("GET /livez HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n").await;
    wire.closed().await;
    assert_eq!(world.upstream.hits(), 0);
}

#[tokio::test]
async fn no_host_or_two_is_400() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    for host in ["", "host: a\r\nhost: b\r\n", "host: user@gate\r\n"] {
        let request = format!("GET /v1/models HTTP/1.1\r\n{host}x-api-key: {}\r\n\r\n", ann.key);
        assert_eq!(told(&world, request).await.status(), 400, "{host:?}");
    }
}

#[tokio::test]
async fn methods_that_open_tunnels_or_echo_are_refused() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    for line in ["CONNECT evil.example:443", "TRACE /v1/models", "CONNECT /v1/models"] {
        let status = told(&world, head(line, &ann, "")).await.status();
        assert!(matches!(status, 400 | 405), "{line}: {status}");
    }
    assert_eq!(world.upstream.hits(), 0);
}

#[tokio::test]
async fn an_unknown_path_is_404() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let answer = told(&world, head("GET /v2/models", &ann, "")).await;
    assert_eq!((answer.status(), answer.json()["error"]["code"].as_str()), (404, Some("unknown_path")));
}

#[tokio::test]
async fn a_head_that_does_not_come_to_an_end_is_cut() {
    let world = World::with(|setup| setup.add("[server.connections]\nhead_timeout = \"200ms\"")).await;
    let mut wire = Wire::connect(world.addr).await;
    wire.send("GET /v1/models HTTP/1.1\r\nhost: ga").await;
    let heard = wire.closed().await;
    assert!(heard.is_empty() || heard.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&heard));
}

#[tokio::test]
async fn a_body_that_stops_coming_is_cut() {
    let world = World::with(|setup| setup.add("[server.connections]\nbody_idle_timeout = \"200ms\"")).await;
    let ann = world.user("ann").await;
    let mut wire = Wire::connect(world.addr).await;
    wire.send(post(&ann, "content-length: 100\r\n", "{\"model\"")).await;
    assert_eq!(wire.answer().await.status(), 408);
    assert_eq!(world.upstream.hits(), 0);
    assert_eq!(world.left(&ann).await, 10);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let world = World::with(|setup| setup.add("[server.connections]\nkeep_alive_timeout = \"300ms\"")).await;
    let ann = world.user("ann").await;
    let mut wire = Wire::connect(world.addr).await;
    for _ in 0..2 {
        wire.send(head("GET /v1/models", &ann, "")).await;
        assert_eq!(wire.answer().await.status(), 200);
    }
    assert!(wire.closed().await.is_empty());
}

#[tokio::test]
async fn more_connections_than_allowed_are_not_served() {
    let world = World::with(|setup| {
        setup.add("[server]\nworkers = 1\n[server.connections]\nmax_per_address = 12");
    })
    .await;
    let mut wires = Vec::new();
    for _ in 0..12 {
        let mut wire = Wire::connect(world.addr).await;
        wire.send("GET /livez HTTP/1.1\r\nhost: gate\r\n\r\n").await;
        if wire.answer().await.status() == 200 {
            wires.push(wire);
        }
    }
    let mut one_too_many = Wire::connect(world.addr).await;
    one_too_many.send("GET /livez HTTP/1.1\r\nhost: gate\r\n\r\n").await;
    let heard = one_too_many.closed().await;
    assert!(!heard.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&heard));
    drop(wires.pop());
    // Its place is free as soon as the gate has noticed; until then newcomers are turned away.
    let served = async {
        loop {
            let mut wire = Wire::connect(world.addr).await;
            wire.send("GET /livez HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n").await;
            if wire.closed().await.starts_with(b"HTTP/1.1 200") {
                return;
            }
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(5), served).await.is_ok());
}

#[tokio::test]
async fn expect_continue_is_answered_by_the_gate() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let body = "{\"model\":\"m\"}";
    let mut wire = Wire::connect(world.addr).await;
    wire.send(post(&ann, &format!("expect: 100-continue\r\ncontent-length: {}\r\n", body.len()), "")).await;
    let interim = wire.exactly(25).await;
    assert_eq!(interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    wire.send(body).await;
    assert_eq!(wire.answer().await.status(), 200);
    assert_eq!(world.upstream.last().header("expect"), None);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_and_the_upstream_let_go() {
    let world = World::with(|setup| setup.add("[server.connections]\nwrite_stall_timeout = \"300ms\"")).await;
    let ann = world.user("ann").await;
    let endless = vec![vec![b'x'; 1 << 20]; 64];
    world.upstream.next(Answer::sse(endless).then_silence());
    let mut wire = Wire::connect(world.addr).await;
    let body = "{\"model\":\"m\",\"stream\":true}";
    wire.send(post(&ann, &format!("content-length: {}\r\n", body.len()), body)).await;
    world.upstream.closed().await;
    assert_eq!(world.left(&ann).await, 9);
}

#[tokio::test]
async fn a_refusal_on_http_2_does_not_reset_a_client_that_is_still_sending() {
    const PIECES: usize = 64;
    let world = World::with(|setup| setup.add("[limits]\nmax_body_size = \"256KiB\"")).await;
    let ann = world.user("ann").await;
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    for (key, refusal) in [("pe-nobodys", 401), (ann.key.as_str(), 413)] {
        let (sent, mut count) = tokio::sync::watch::channel(0);
        let pieces = futures_util::stream::iter(0..PIECES).map(move |piece| {
            sent.send_replace(piece + 1);
            std::io::Result::Ok(vec![b' '; 16 << 10])
        });
        let call = world.post_with(&client, "/v1/chat/completions").bearer(key);
        let answer = call.body(reqwest::Body::wrap_stream(pieces)).send().await;
        assert_eq!(answer.status, refusal);
        let all = tokio::time::timeout(PATIENCE, count.wait_for(|sent| *sent == PIECES)).await;
        assert!(all.is_ok_and(|sent| sent.is_ok()), "{refusal}: the stream was reset");
    }
}
