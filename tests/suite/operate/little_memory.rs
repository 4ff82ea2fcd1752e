//! With little address space: what one client or one upstream says does not end the process.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use super::child::{Child, PATIENCE, Site, route_to};
use crate::upstream::{Answer, Upstream};

/// Of address space, in KiB.
const LIMIT: u64 = 1_000 << 10;
/// What the process may have in memory some seconds afterwards, in KiB.
const RESIDENT: u64 = 224 << 10;

async fn serve(site: &Site) -> Child {
    let mut command = Command::new("bash");
    let run = format!("ulimit -v {LIMIT} && exec {} serve", env!("CARGO_BIN_EXE_tollgate"));
    command.args(["-c", &run]).current_dir(site.folder.path()).env_clear();
    command.env("PATH", std::env::var("PATH").unwrap()).env("ADMIN_PASSWORD", "correct-horse-7");
    let mut child = Child::start(command);
    let begun = Instant::now();
    while !reqwest::get(site.url("/readyz")).await.is_ok_and(|answer| answer.status() == 200) {
        assert!(child.runs() && begun.elapsed() < PATIENCE, "does not serve:\n{}", child.said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    child
}

/// Ten mebibytes, nearly, of what takes much more as a tree of values.
fn bombs() -> Vec<String> {
    const SIZE: usize = (10 << 20) - 1000;
    let many = |piece: &str| piece.repeat(SIZE / piece.len());
    let deep = format!("{}0{},", "{\"\":".repeat(60), "}".repeat(60));
    vec![
        format!(r#"{{"model":"m","messages":[{}{{}}]}}"#, many("{\"a\":0},")),
        format!(r#"{{"model":"m","messages":[{}0]}}"#, many(&deep)),
        format!(r#"{{"model":"m","messages":[{}[]]}}"#, many("[],")),
    ]
}

#[tokio::test]
async fn one_free_request_or_its_answer_cannot_end_the_process() {
    let upstream = Upstream::start();
    let site = Site::new(&route_to(&upstream.url()));
    let mut child = serve(&site).await;
    let (_, key) = site.user("ann").await;
    let client = reqwest::Client::new();
    let bombs = bombs();
    for bomb in &bombs {
        upstream.next(Answer::bytes("application/json", bomb.replacen("messages", "answer", 1)));
        let call = client.post(site.url("/v1/moderations")).bearer_auth(&key).body(bomb.clone());
        let answer = call.header("content-type", "application/json").send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", child.said());
        assert!(answer.bytes().await.unwrap().len() > 9 << 20);
    }
    let admin = site.admin("correct-horse-7").await.unwrap();
    let begun = Instant::now();
    loop {
        // The last one has its row.
        let (status, rows) = site.get("/api/v1/admin/message-logs?limit=1&offset=2", &admin).await;
        // 503: rows are still on their way.
        assert!(matches!(status, 200 | 503), "{status}: {}", child.said());
        if rows[0].is_object() {
            assert_eq!(rows[0]["verdict"], json!("free"));
            break;
        }
        assert!(child.runs() && begun.elapsed() < PATIENCE, "no row:\n{}", child.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (status, ledger) = site.get("/api/v1/admin/ledger/verify", &admin).await;
    assert_eq!((status, &ledger["ok"]), (200, &json!(true)));
    assert!(child.runs(), "{}", child.said());
    let begun = Instant::now();
    while child.resident() > RESIDENT {
        assert!(begun.elapsed() < PATIENCE, "{} KiB are not given back", child.resident());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    child.signal("KILL");
    child.ends();
    let mut again = serve(&site).await;
    assert!(again.runs());
}
