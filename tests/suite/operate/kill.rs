//! `kill -9`: what was answered is in the log, once; what was running is charged and called cut.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::child::{Child, PATIENCE, Site, route_to};
use crate::proof::ports::free_port;
use crate::upstream::{Answer, Gate, Upstream};

const ADMIN: [(&str, &str); 1] = [("ADMIN_PASSWORD", "correct-horse-7")];

fn chat(site: &Site, key: &str, stream: bool) -> reqwest::RequestBuilder {
    let request = json!({"model": "m", "stream": stream, "messages": [{"role": "user", "content": "Hi"}]});
    reqwest::Client::new().post(site.url("/v1/chat/completions")).bearer_auth(key).json(&request)
}

/// The log, and what is left of ann's day.
async fn told(site: &Site) -> (Vec<Value>, i64) {
    let admin = site.admin("correct-horse-7").await.unwrap();
    let (status, rows) = site.get("/api/v1/admin/message-logs?limit=100", &admin).await;
    assert_eq!(status, 200, "{rows}");
    let (_, user) = site.get("/api/v1/admin/users/ann", &admin).await;
    (rows.as_array().unwrap().clone(), user["limits"]["conversation_limit"].as_i64().unwrap())
}

/// Waits until these bytes stand in a file of the spool.
async fn stands_in_the_spool(site: &Site, words: &str) {
    let folder = site.folder.path().join("data/spool");
    let begun = Instant::now();
    while !segments(&folder).iter().any(|bytes| String::from_utf8_lossy(bytes).contains(words)) {
        assert!(begun.elapsed() < PATIENCE, "{words:?} never came to the disk");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn segments(folder: &Path) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let segments = files.filter(|path| path.extension().is_some_and(|kind| kind == "seg"));
    segments.filter_map(|path| std::fs::read(path).ok()).collect()
}

#[tokio::test]
async fn a_stream_that_was_running_is_charged_once_and_keeps_what_was_said() {
    let upstream = Upstream::start();
    let site = Site::new(&route_to(&upstream.url()));
    let mut child = site.serve(&ADMIN).await;
    let (_, key) = site.user("ann").await;
    let gate = Gate::closed();
    let event = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"so far, so good\"}}]}\n\n";
    upstream.next(Answer::sse([event]).hold(&gate));
    let mut running = chat(&site, &key, true).send().await.unwrap();
    assert_eq!(running.chunk().await.unwrap().unwrap(), event);
    stands_in_the_spool(&site, "so far, so good").await;
    child.signal("KILL");
    child.ends();
    gate.open();

    for _ in 0..2 {
        let mut child = site.serve(&ADMIN).await;
        let (rows, left) = told(&site).await;
        assert_eq!(rows.len(), 1, "{rows:#?}");
        let row = &rows[0];
        assert_eq!(
            (&row["outcome"], &row["verdict"]),
            (&json!("gateway_stopped"), &json!("charged")),
            "{row:#}"
        );
        assert_eq!((&row["truncated"], &row["reason"]), (&json!(true), &json!("gateway_stopped")), "{row:#}");
        assert_eq!(row["answer"][0]["content"], "so far, so good", "{row:#}");
        assert_eq!(row["messages"][0]["content"], "Hi", "{row:#}");
        assert_eq!(left, 9);
        child.signal("KILL");
        child.ends();
    }
}

#[tokio::test]
async fn what_was_answered_is_in_the_log_once() {
    let upstream = Upstream::start();
    let site = Site::new(&route_to(&upstream.url()));
    let mut child = site.serve(&ADMIN).await;
    let (_, key) = site.user("ann").await;
    for n in 0..6 {
        let answer = chat(&site, &key, n % 2 == 0).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap();
    }
    let bearer = Some(key.as_str());
    let message = json!({"model": "told", "messages": [{"role": "user", "content": "elsewhere"}]});
    let (status, logged) = site.post("/api/v1/auth/log-message", bearer, &message).await;
    assert_eq!(status, 200, "{logged}");
    let (status, verified) = site.post("/api/v1/auth/verify-key", bearer, &json!({})).await;
    assert_eq!((status, &verified["remaining_conversations"]), (200, &json!(3)), "{verified}");
    child.signal("KILL");
    child.ends();

    let _child = site.serve(&ADMIN).await;
    let (rows, left) = told(&site).await;
    let charged = rows.iter().filter(|row| row["verdict"] == "charged").count();
    assert_eq!((rows.len(), charged, left), (8, 7, 3), "{rows:#?}");
    assert!(rows.iter().any(|row| row["id"] == logged["log_id"]), "{rows:#?}");
    assert!(rows.iter().all(|row| row["outcome"] == "complete"), "{rows:#?}");
}

#[tokio::test]
async fn an_orderly_stop_leaves_nothing_in_the_spool() {
    let upstream = Upstream::start();
    let site = Site::new(&route_to(&upstream.url()));
    let mut child = site.serve(&ADMIN).await;
    let (_, key) = site.user("ann").await;
    for _ in 0..3 {
        chat(&site, &key, true).send().await.unwrap().bytes().await.unwrap();
    }
    let folder = site.folder.path().join("data/spool");
    assert!(!segments(&folder).is_empty(), "rows wait there");
    child.signal("TERM");
    let (code, said) = child.ends();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(segments(&folder).len(), 0, "{said}");
    let _again = site.serve(&ADMIN).await;
    assert_eq!(told(&site).await.0.len(), 3);
}

#[tokio::test]
async fn two_gateways_on_one_folder_are_one_too_many() {
    let site = Site::new("");
    let _child = site.serve(&ADMIN).await;
    let file = site.folder.path().join("gateway.toml");
    let other = free_port();
    let text = std::fs::read_to_string(&file).unwrap().replace(&site.addr.to_string(), &other.to_string());
    std::fs::write(&file, text).unwrap();
    let (code, said) = Child::tollgate(site.folder.path(), &["serve"], &ADMIN).ends();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another gateway runs on this data folder"), "{said}");
}

/// How long each `fdatasync` of the gateway takes.
const SLOW: Duration = Duration::from_millis(300);

#[tokio::test]
async fn in_strict_mode_the_last_byte_waits_for_the_disk() {
    let upstream = Upstream::start();
    let site = Site::new(&format!("message_log.sync = \"strict\"\n{}", route_to(&upstream.url())));
    // With -D the gateway is our child, and not strace, so that it can be signalled.
    let mut slowly = Command::new("strace");
    slowly.args(["-D", "-f", "-o", "/dev/null", "-e", "trace=fdatasync"]);
    slowly.args(["-e", &format!("inject=fdatasync:delay_enter={}", SLOW.as_micros())]);
    slowly.args([env!("CARGO_BIN_EXE_tollgate"), "serve"]).current_dir(site.folder.path()).env_clear();
    slowly.env("PATH", std::env::var("PATH").unwrap()).envs(ADMIN);
    let mut child = Child::start(slowly);
    site.is_ready(&mut child).await;
    let (_, key) = site.user("ann").await;
    for streamed in [false, true] {
        let gate = Gate::closed();
        upstream.next(Answer::sse(["data: {}\n\n"]).hold(&gate).send("data: [DONE]\n\n"));
        let mut answer = chat(&site, &key, streamed).send().await.unwrap();
        assert_eq!(answer.chunk().await.unwrap().unwrap(), "data: {}\n\n");
        let last = Instant::now();
        gate.open();
        while answer.chunk().await.unwrap().is_some() {}
        assert!(last.elapsed() >= SLOW, "it ended {:?} after it could", last.elapsed());
    }
    let message = json!({"model": "told", "messages": [{"role": "user", "content": "elsewhere"}]});
    let told = Instant::now();
    let (status, logged) = site.post("/api/v1/auth/log-message", Some(&key), &message).await;
    assert_eq!(status, 200, "{logged}");
    assert!(told.elapsed() >= SLOW, "answered after {:?}", told.elapsed());
}
