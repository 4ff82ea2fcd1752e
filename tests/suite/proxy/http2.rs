//! Upstreams over HTTP/2: what is sent again, what is charged, and whose answers wait for whose.
//!
//! The first table ([`FAILURES`]) says of every way in which an HTTP/2 upstream may fail what the client
//! gets, how often the upstream read the request, and whether it is charged.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::tls::{acceptor, certificate};
use crate::upstream::{ANSWER, FrameModel, Gate, PATIENCE, Play};
use crate::wire::Wire;
use crate::world::{Person, World, chat_request};

/// One way to fail, met by the second of three requests.
struct Failure {
    name: &'static str,
    /// What the model does with the second request, each time that it reads it.
    plays: fn() -> Vec<Play>,
    client: Client,
    /// How often the model read the second request.
    read: usize,
    verdict: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Client {
    Answer,
    Refused,
    BrokenBody,
}
use Client::{Answer, BrokenBody, Refused};

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;
const HTTP_1_1_REQUIRED: u32 = 13;
/// A last stream that leaves this request out.
const OUT: i32 = -2;

fn go_away(offset: i32, code: u32, rest: Play) -> Play {
    Play::GoAway(offset, code, Box::new(rest))
}

/// A failure after which the request is sent again, once, and answered.
const fn again(name: &'static str, plays: fn() -> Vec<Play>) -> Failure {
    Failure { name, plays, client: Answer, read: 2, verdict: "charged", outcome: "complete" }
}

/// A failure that the client sees as 502 and that costs nothing.
const fn refused(name: &'static str, plays: fn() -> Vec<Play>, outcome: &'static str) -> Failure {
    Failure { name, plays, client: Refused, read: 1, verdict: "refunded", outcome }
}

const fn broken(name: &'static str, plays: fn() -> Vec<Play>) -> Failure {
    let (verdict, outcome) = ("charged", "upstream_eof");
    Failure { name, plays, client: BrokenBody, read: 1, verdict, outcome }
}

#[rustfmt::skip]
const FAILURES: &[Failure] = &[
    Failure { read: 1, ..again("an answer", || vec![Play::Answer]) },
    Failure { read: 1, ..again("GOAWAY that includes it, then its answer", || vec![go_away(0, NO_ERROR, Play::Answer)]) },
    Failure { read: 1, ..again("GOAWAY with an error that includes it, then its answer", || vec![go_away(0, INTERNAL_ERROR, Play::Answer)]) },
    again("GOAWAY that leaves it out", || vec![go_away(OUT, NO_ERROR, Play::Leave)]),
    again("GOAWAY that leaves it out, on a connection that stays open", || vec![go_away(OUT, NO_ERROR, go_away(OUT, NO_ERROR, Play::Reset(CANCEL)))]),
    again("GOAWAY in two steps that leaves it out", || vec![go_away(i32::MAX, NO_ERROR, go_away(OUT, NO_ERROR, Play::Leave))]),
    again("GOAWAY with PROTOCOL_ERROR that leaves it out", || vec![go_away(OUT, PROTOCOL_ERROR, Play::Leave)]),
    again("GOAWAY with ENHANCE_YOUR_CALM that leaves it out", || vec![go_away(OUT, ENHANCE_YOUR_CALM, Play::Leave)]),
    again("REFUSED_STREAM", || vec![Play::Reset(REFUSED_STREAM)]),
    Failure { read: 3, ..again("REFUSED_STREAM twice", || vec![Play::Reset(REFUSED_STREAM); 2]) },
    Failure { read: 3, ..again("REFUSED_STREAM, then GOAWAY that leaves it out", || vec![Play::Reset(REFUSED_STREAM), go_away(OUT, NO_ERROR, Play::Leave)]) },
    Failure { read: 3, ..refused("REFUSED_STREAM each time", || vec![Play::Reset(REFUSED_STREAM); 3], "upstream_error") },
    Failure { read: 3, ..refused("GOAWAY each time", || vec![go_away(OUT, NO_ERROR, Play::Leave); 3], "upstream_error") },
    refused("GOAWAY that includes it, then the end", || vec![go_away(0, NO_ERROR, Play::Leave)], "upstream_eof"),
    refused("GOAWAY with an error that includes it, then the end", || vec![go_away(0, INTERNAL_ERROR, Play::Leave)], "upstream_eof"),
    refused("CANCEL", || vec![Play::Reset(CANCEL)], "upstream_eof"),
    refused("INTERNAL_ERROR", || vec![Play::Reset(INTERNAL_ERROR)], "upstream_eof"),
    refused("NO_ERROR", || vec![Play::Reset(NO_ERROR)], "upstream_eof"),
    refused("ENHANCE_YOUR_CALM", || vec![Play::Reset(ENHANCE_YOUR_CALM)], "upstream_eof"),
    refused("HTTP_1_1_REQUIRED", || vec![Play::Reset(HTTP_1_1_REQUIRED)], "upstream_eof"),
    refused("the end of the connection", || vec![Play::Leave], "upstream_eof"),
    broken("CANCEL after the head", || vec![Play::BeginThenReset(CANCEL)]),
    broken("REFUSED_STREAM after the head", || vec![Play::BeginThenReset(REFUSED_STREAM)]),
    broken("GOAWAY that includes it, then the head and CANCEL", || vec![go_away(0, NO_ERROR, Play::BeginThenReset(CANCEL))]),
    broken("the end of the connection after the head", || vec![Play::BeginThenLeave]),
];

/// A world before this address, whose certificate `authority` vouches for.
async fn before(addr: SocketAddr, authority: &str, keys: &str) -> World {
    let ca_file = std::env::temp_dir().join(format!("tollgate-{}.pem", uuid::Uuid::new_v4()));
    std::fs::write(&ca_file, authority).unwrap();
    let world = World::with(|setup| {
        let (port, ca_file) = (addr.port(), ca_file.display());
        setup.add("[server]\nworkers = 1\n[plans.free]\nconversation_limit = 1000");
        setup.add(&format!(
            "[[upstreams]]\nname = \"model\"\nurl = \"https://localhost:{port}\"\nca_file = \"{ca_file}\"\n{keys}"
        ));
    })
    .await;
    std::fs::remove_file(ca_file).unwrap();
    world
}

async fn stage(allowed: Option<u32>, keys: &str) -> (World, FrameModel, Person) {
    let (chain, key, authority) = certificate();
    let model = FrameModel::start(acceptor(&chain, &key, "h2"), allowed).await;
    let world = before(model.addr, &authority, keys).await;
    let ann = world.user("ann").await;
    (world, model, ann)
}

async fn chat(world: &World, ann: &Person) -> Client {
    match world.chat(ann).attempt().await {
        Ok(body) if body == ANSWER => Answer,
        Ok(body) => {
            let told: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(told["error"]["code"], "upstream_error");
            Refused
        }
        // The answer may break off before its head has left the gate.
        Err(_) => BrokenBody,
    }
}

#[tokio::test]
async fn each_way_to_fail_is_sent_again_only_where_nothing_was_done_and_charged_once() {
    for failure in FAILURES {
        let (world, model, ann) = stage(None, "").await;
        assert_eq!(chat(&world, &ann).await, Answer, "{}: before", failure.name);
        for play in (failure.plays)() {
            model.next(play);
        }
        assert_eq!(chat(&world, &ann).await, failure.client, "{}", failure.name);
        assert_eq!(model.seen().len(), 1 + failure.read, "{}: read {:?}", failure.name, model.seen());
        assert_eq!(chat(&world, &ann).await, Answer, "{}: after", failure.name);
        let rows = world.rows_when(3).await;
        let told = (rows[1]["verdict"].as_str(), rows[1]["outcome"].as_str());
        assert_eq!(told, (Some(failure.verdict), Some(failure.outcome)), "{}", failure.name);
        let charged = rows.iter().filter(|row| row["verdict"] == "charged").count();
        assert_eq!(world.left(&ann).await, 1000 - i64::try_from(charged).unwrap(), "{}", failure.name);
    }
}

/// Chats that run at once, each with a connection of its own.
fn at_once(world: &World, ann: &Person, count: usize) -> JoinSet<u16> {
    let (body, addr, key) = (chat_request().to_string(), world.addr, ann.key.clone());
    let mut running = JoinSet::new();
    for _ in 0..count {
        let ask = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        running.spawn(async move {
            let mut wire = Wire::connect(addr).await;
            wire.send(ask).await;
            wire.answer().await.status()
        });
    }
    running
}

async fn until(what: &str, mut enough: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !enough() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain for {what}");
}

#[tokio::test]
async fn beyond_the_peers_streams_other_connections_are_opened_as_many_as_it_takes() {
    let (world, model, ann) = stage(Some(2), "").await;
    let gate = Gate::closed();
    (0..7).for_each(|_| model.next(Play::AnswerAfter(gate.clone())));
    let running = at_once(&world, &ann, 7);
    until("seven requests", || model.seen().len() == 7).await;
    assert_eq!(model.connections(), 4, "two streams each: {:?}", model.seen());
    let most = (1..=4).map(|n| model.seen().iter().filter(|one| **one == n).count()).max();
    assert_eq!(most, Some(2));
    gate.open();
    assert_eq!(running.join_all().await, vec![200; 7]);
}

#[tokio::test]
async fn a_cold_start_opens_one_connection_and_not_one_for_each_request() {
    let (world, model, ann) = stage(Some(100), "").await;
    let gate = Gate::closed();
    (0..30).for_each(|_| model.next(Play::AnswerAfter(gate.clone())));
    let running = at_once(&world, &ann, 30);
    until("thirty requests", || model.seen().len() == 30).await;
    assert_eq!(model.connections(), 1);
    gate.open();
    assert_eq!(running.join_all().await, vec![200; 30]);
}

#[tokio::test]
async fn a_limit_lowered_while_streams_run_is_kept_to_from_then_on() {
    for lowered in [0, 1] {
        let (world, model, ann) = stage(Some(10), "").await;
        let gate = Gate::closed();
        model.next(Play::Allow(lowered, Box::new(Play::AnswerAfter(gate.clone()))));
        let running = at_once(&world, &ann, 1);
        until("the lower limit", || model.settled() == 2).await;
        assert_eq!(world.chat(&ann).send().await.status, 200, "lowered to {lowered}");
        assert_eq!(model.seen(), [1, 2], "the second has a connection of its own");
        gate.open();
        assert_eq!(running.join_all().await, [200]);
    }
}

#[tokio::test]
async fn a_peer_that_allows_no_stream_costs_nothing() {
    let (world, model, ann) = stage(Some(0), "connect_timeout = \"300ms\"").await;
    let refused = world.chat(&ann).send().await;
    assert_eq!((refused.status, model.seen().len()), (504, 0), "{}", refused.text());
    assert_eq!(world.left(&ann).await, 1000);
    model.allow(1);
    assert_eq!(chat(&world, &ann).await, Answer);
}

#[tokio::test]
async fn a_client_who_leaves_while_an_untouched_request_finds_no_connection_is_not_charged() {
    let (world, model, ann) = stage(None, "connect_timeout = \"1h\"").await;
    assert_eq!(chat(&world, &ann).await, Answer);
    // From now on each connection that is opened allows no stream: the resend waits.
    model.allow(0);
    model.next(go_away(OUT, NO_ERROR, Play::Leave));
    let running = at_once(&world, &ann, 1);
    until("the connection that allows nothing", || model.connections() == 2).await;
    drop(running);
    let rows = world.rows_when(2).await;
    assert_eq!(rows[0]["verdict"], "refunded", "{:#}", rows[0]);
    assert_eq!(world.left(&ann).await, 999);
}

/// A model that answers 12 MiB at once to `/v1/chat/completions` with `stream`, and a few bytes otherwise.
async fn generous() -> (SocketAddr, String) {
    let (chain, key, authority) = certificate();
    let acceptor = acceptor(&chain, &key, "h2");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let big = Arc::new(Bytes::from(vec![b'x'; 12 << 20]));
                let service = service_fn(move |request: Request<Incoming>| {
                    let big = Arc::clone(&big);
                    async move {
                        let asked = request.into_body().collect().await.unwrap().to_bytes();
                        let streamed = memchr::memmem::find(&asked, b"\"stream\":true").is_some();
                        let said = if streamed { Bytes::clone(&big) } else { Bytes::from_static(b"short") };
                        Ok::<_, Infallible>(Response::new(Full::new(said)))
                    }
                });
                let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ =
                    server.max_concurrent_streams(200).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (addr, authority)
}

#[tokio::test]
async fn answers_that_are_not_read_hold_up_no_other() {
    let (addr, authority) = generous().await;
    let world = before(addr, &authority, "").await;
    let ann = world.user("ann").await;
    let mut request = chat_request();
    request["stream"] = true.into();
    let body = request.to_string();
    let mut unread = Vec::new();
    for _ in 0..40 {
        let mut wire = Wire::connect(world.addr).await;
        wire.send(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            ann.key,
            body.len()
        ))
        .await;
        wire.head().await;
        unread.push(wire);
    }
    for _ in 0..20 {
        let answer =
            tokio::time::timeout(PATIENCE, world.chat(&ann).send()).await.expect("it is not held up");
        assert_eq!((answer.status, answer.text().as_str()), (200, "short"));
    }
    drop(unread);
}
