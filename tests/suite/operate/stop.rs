//! Stopping by signal: what runs is finished, what was logged is kept, and the exit is 0.

use std::path::Path;

use serde_json::json;

use super::child::{Child, Site, route_to};
use crate::upstream::{Answer, Gate, Upstream};

#[tokio::test]
async fn a_running_stream_outlives_the_signal_and_nothing_is_forgotten() {
    for signal in ["TERM", "INT", "QUIT", "PWR"] {
        let upstream = Upstream::start();
        let site = Site::new(&route_to(&upstream.url()));
        let mut child = site.serve(&[("ADMIN_PASSWORD", "correct-horse-7")]).await;
        let (_, key) = site.user("ann").await;
        let gate = Gate::closed();
        upstream.next(Answer::sse(["data: 1\n\n"]).hold(&gate).send("data: [DONE]\n\n"));
        let request = json!({"model": "m", "stream": true, "messages": []});
        let call =
            reqwest::Client::new().post(site.url("/v1/chat/completions")).bearer_auth(&key).json(&request);
        let mut running = call.send().await.unwrap();
        assert_eq!(running.chunk().await.unwrap().unwrap(), "data: 1\n\n");
        child.signal(signal);
        while reqwest::get(site.url("/livez")).await.is_ok() {}
        assert!(child.runs(), "a stream is still running:\n{}", child.said());
        gate.open();
        assert_eq!(running.chunk().await.unwrap().unwrap(), "data: [DONE]\n\n");
        let (code, said) = child.ends();
        assert_eq!(code, Some(0), "{said}");

        let _again = site.serve(&[("ADMIN_PASSWORD", "correct-horse-7")]).await;
        let admin = site.admin("correct-horse-7").await.unwrap();
        let (_, rows) = site.get("/api/v1/admin/message-logs", &admin).await;
        assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows}");
        let (_, user) = site.get("/api/v1/admin/users/ann", &admin).await;
        assert_eq!(user["limits"]["conversation_limit"], 9, "{user}");
    }
}

#[test]
fn told_to_stop_at_any_moment_of_its_start_it_ends_as_it_should() {
    for step in ["--", "data/spool", "data/tollgate.db", "data/tollgate.db-wal", "data/node"] {
        let site = Site::new("");
        let mut child = Child::tollgate(site.folder.path(), &["serve"], &[]);
        while step != "--" && child.runs() && !site.folder.path().join(step).exists() {
            std::thread::yield_now();
        }
        child.signal("TERM");
        let (code, said) = child.ends();
        // Before signals are caught it just ends, which is no code; in a start that takes long it is 143.
        assert!([None, Some(0), Some(143)].contains(&code), "{step}: {code:?} {said}");
        assert!(!said.contains("panicked"), "{step}: {said}");
    }
}

#[tokio::test]
async fn health_tells_a_container_what_is_up() {
    let site = Site::new("");
    let health = |folder: &Path| Child::tollgate(folder, &["health"], &[]).ends();
    let (code, said) = health(site.folder.path());
    assert_eq!(code, Some(1), "{said}");
    let child = site.serve(&[]).await;
    let (code, said) = health(site.folder.path());
    assert_eq!(code, Some(0), "{said}");
    drop(child);
}

#[tokio::test]
async fn an_address_in_use_is_a_failure_and_says_so() {
    let site = Site::new("");
    let _child = site.serve(&[]).await;
    let squatter = Site::new("");
    let file = squatter.folder.path().join("gateway.toml");
    std::fs::write(&file, format!("server.listen = [\"{}\"]\n", site.addr)).unwrap();
    let (code, said) = Child::tollgate(squatter.folder.path(), &["serve"], &[]).ends();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&site.addr.to_string()), "{said}");
}

#[test]
fn the_database_is_brought_up_to_date_by_hand_as_well() {
    let site = Site::new("");
    for _ in 0..2 {
        let (code, said) = Child::tollgate(site.folder.path(), &["migrate"], &[]).ends();
        assert_eq!(code, Some(0), "{said}");
    }
    assert!(site.folder.path().join("data/tollgate.db").exists());
}
