//! Promise 3, untouched: the client's bytes are the upstream's, the upstream's are the client's.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::upstream::{Answer, Gate, chat_answer, chat_events};
use crate::wire::{Wire, exchange};
use crate::world::{Person, World, chat_request};

/// A chat request as bytes; without a key it goes to the model directly.
fn request(person: Option<&Person>, body: &str) -> String {
    let key = person.map_or(String::new(), |person| format!("authorization: Bearer {}\r\n", person.key));
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gate\r\n{key}content-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn streamed_answers_are_equal_with_and_without_the_gate_however_they_are_split() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let mut chance = StdRng::seed_from_u64(7);
    let odd = ": comment\r\n\r\nevent: x\r\ndata:no space\r\ndata: two lines\r\n\r\ndata: {\"é\": \"🚪\"}\n\nid: 1\n\n";
    for round in 0..8 {
        let whole =
            chat_events(&["Gr", "üß", "e, 🚪", "\u{0}\\n"]).concat() + odd + "data: no last blank line";
        let mut pieces = Vec::new();
        let mut rest = whole.as_bytes();
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(chance.random_range(1..=rest.len().min(40)));
            pieces.push(piece.to_vec());
            rest = more;
        }
        world.upstream.on("/v1/chat/completions", Answer::sse(pieces));
        let body = json!({"model": "m", "stream": true, "messages": []}).to_string();
        let with = exchange(world.addr, request(Some(&ann), &body)).await;
        let without = exchange(world.upstream.addr, request(None, &body)).await;
        assert_eq!(with.status(), 200);
        assert_eq!(with.body, without.body, "round {round}");
        assert_eq!(with.body, whole.as_bytes(), "round {round}");
    }
}

#[tokio::test]
async fn each_piece_of_a_stream_arrives_before_the_next_is_sent() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let (first, second) = (Gate::closed(), Gate::closed());
    let answer =
        Answer::sse(["data: 1\n\n"]).hold(&first).send("data: 2\n\n").hold(&second).send("data: 3\n\n");
    world.upstream.next(answer);
    let mut wire = Wire::connect(world.addr).await;
    wire.send(request(Some(&ann), "{\"model\":\"m\",\"stream\":true}")).await;
    let head = wire.head().await;
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(head.header("content-length"), None);
    assert_eq!(head.header("cache-control"), Some("no-store"));
    assert_eq!(head.header("x-accel-buffering"), Some("no"));
    assert_eq!(wire.chunk().await.unwrap(), b"data: 1\n\n");
    first.open();
    assert_eq!(wire.chunk().await.unwrap(), b"data: 2\n\n");
    second.open();
    assert_eq!(wire.chunk().await.unwrap(), b"data: 3\n\n");
    assert_eq!(wire.chunk().await, None);
}

#[tokio::test]
async fn request_bodies_go_on_byte_for_byte() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let odd = "{ \"model\" :\t\"m\",\r\n \"messages\":[], \"x\": 1.0e2, \"\\u00e9\": null , \"big\": 12345678901234567890123 }\n";
    assert_eq!(exchange(world.addr, request(Some(&ann), odd)).await.status(), 200);
    assert_eq!(world.upstream.last().body, odd);
    assert_eq!(world.upstream.last().header("content-type").as_deref(), Some("application/json"));
}

#[tokio::test]
async fn status_and_errors_of_the_upstream_pass_and_say_whose_they_are() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let error = json!({"error": {"message": "bad temperature", "type": "invalid_request_error", "param": "t", "code": null}});
    world.upstream.next(Answer::json(&error).status(422).header("x-own", "kept"));
    let answer = world.chat(&ann).send().await;
    assert_eq!((answer.status, answer.json()), (422, error));
    assert_eq!(answer.header("x-tollgate-error-source"), "upstream");
    assert_eq!(answer.header("x-own"), "kept");
}

#[tokio::test]
async fn an_answer_up_until_the_end_of_the_connection_is_whole() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    world.upstream.next(Answer::bytes("text/plain", "to the end").until_close());
    let answer = world.chat(&ann).send().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "to the end"));
}

#[tokio::test]
async fn uploads_stream_through_unread() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let body = [
        b"--x\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\n".as_slice(),
        &vec![0xff; 3 << 20],
        b"\r\n--x--\r\n",
    ]
    .concat();
    let upload = world.post("/v1/audio/transcriptions").bearer(&ann.key).body(body.clone());
    let answer = upload.header("content-type", "multipart/form-data; boundary=x").send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = world.upstream.last();
    assert_eq!(seen.header("content-type").as_deref(), Some("multipart/form-data; boundary=x"));
    assert!(seen.body == body, "{} bytes instead of {}", seen.body.len(), body.len());
}

#[tokio::test]
async fn a_compressed_answer_passes_as_it_is_and_is_read_for_the_log() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(chat_answer("squeezed").to_string().as_bytes()).unwrap();
    let squeezed = gzip.finish().unwrap();
    world
        .upstream
        .next(Answer::bytes("application/json", squeezed.clone()).header("content-encoding", "gzip"));
    let answer = world.chat(&ann).send().await;
    assert_eq!(answer.header("content-encoding"), "gzip");
    assert_eq!(answer.body, squeezed);
    let row = world.row().await;
    assert_eq!(row["answer"][0]["content"], "squeezed", "{row:#}");
    assert_eq!(row["total_tokens"], 12);
}

#[tokio::test]
async fn a_line_of_20_megabytes_is_forwarded_whole_and_its_capture_is_cut() {
    let world = World::with(|setup| setup.add("[message_log]\nmax_answer_size = \"1MiB\"")).await;
    let ann = world.user("ann").await;
    let huge = "x".repeat(20 << 20);
    let event = chat_events(&[&huge]).concat();
    let pieces: Vec<Vec<u8>> = event.as_bytes().chunks(1 << 16).map(<[u8]>::to_vec).collect();
    world.upstream.next(Answer::sse(pieces));
    let answer = world.chat_streamed(&ann).send().await;
    assert!(answer.body == event.as_bytes(), "{} bytes instead of {}", answer.body.len(), event.len());
    let row = world.row().await;
    assert_eq!(
        (&row["truncated"], &row["outcome"]),
        (&json!(true), &json!("complete")),
        "{}",
        row["outcome"]
    );
    assert!(row.to_string().len() < 3 << 20);
}

#[tokio::test]
async fn answers_never_mix_and_a_doubtful_one_is_the_last_of_its_connection() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let both = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n\
                HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    world.upstream.next(Answer::raw(both));
    let first = world.chat(&ann).attempt().await;
    assert!(first.is_err() || first.unwrap().len() < 300, "a refusal or the five bytes");
    for _ in 0..3 {
        let next = world.chat(&ann).send().await;
        assert!(!next.text().contains("poison"), "{}", next.text());
    }
}

#[tokio::test]
async fn interim_answers_of_the_upstream_are_not_the_answer() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let storm = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".repeat(5);
    world.upstream.next(Answer::raw(storm + "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"));
    let answer = world.chat(&ann).send().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
}

#[tokio::test]
async fn nothing_is_asked_twice_of_the_upstream() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    // The connection dies with the second request on it already written.
    assert_eq!(world.chat(&ann).send().await.status, 200);
    world.upstream.next(Answer::reset());
    assert_eq!(world.chat(&ann).json(&chat_request()).send().await.status, 502);
    assert_eq!(world.upstream.hits(), 2);
}

#[tokio::test]
async fn the_upstreams_version_of_http_is_not_the_clients() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let old = "HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {}\n\n";
    world.upstream.next(Answer::raw(old).then_cut());
    let answer = world.chat(&ann).send().await;
    assert_eq!((answer.status, answer.version), (200, http::Version::HTTP_11));
    assert_eq!((answer.text().as_str(), answer.header("transfer-encoding")), ("data: {}\n\n", "chunked"));
}

#[tokio::test]
async fn with_little_memory_for_the_log_answers_pass_and_are_kept_all_the_same() {
    let world = World::with(|setup| {
        setup.add(
            "[message_log]\nmemory_threshold = \"1MiB\"\nmax_memory = \"1MiB\"\nmax_answer_size = \"1MiB\"",
        );
    })
    .await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let gate = Gate::closed();
    let (first, second) = (chat_events(&[&"x".repeat(600 << 10)]), chat_events(&[&"y".repeat(600 << 10)]));
    world.upstream.next(Answer::sse(first.clone()).hold(&gate));
    let mut running = world.chat_streamed(&ann).begin().await;
    let mut heard = Vec::new();
    while heard.len() < first.concat().len() {
        heard.extend_from_slice(&running.chunk().await.unwrap().unwrap());
    }
    world.upstream.next(Answer::sse(second.clone()));
    assert_eq!(world.chat_streamed(&bob).send().await.text(), second.concat());
    gate.open();
    assert_eq!((heard, running.chunk().await.unwrap()), (first.concat().into_bytes(), None));
    let rows = world.rows_when(2).await;
    let of = |name: &str| rows.iter().find(|row| row["username"] == name).unwrap();
    assert_eq!(
        (&of("ann")["truncated"], &of("bob")["truncated"]),
        (&json!(false), &json!(false)),
        "{rows:#?}"
    );
    assert_eq!((world.left(&ann).await, world.left(&bob).await), (9, 9));
}
