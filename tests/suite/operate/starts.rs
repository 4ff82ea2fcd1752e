//! A start that takes long: alive from its first moments, not ready until its last.

use std::fs::File;
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::{Connection, SqliteConnection};

use super::child::{Child, PATIENCE, Site};
use crate::proof::ports::free_port;

/// The answer to a path, once somebody listens.
async fn asked(site: &Site, path: &str) -> (u16, Option<String>, Value) {
    let begun = Instant::now();
    loop {
        match reqwest::get(site.url(path)).await {
            Ok(answer) => {
                let wait = answer.headers().get("retry-after").map(|wait| wait.to_str().unwrap().to_owned());
                return (answer.status().as_u16(), wait, answer.json().await.unwrap_or_default());
            }
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{path}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Alive, not ready, and nothing else.
async fn is_starting(site: &Site) {
    assert_eq!(asked(site, "/livez").await.0, 200);
    for path in ["/readyz", "/health", "/v1/models", "/api/v1/info", "/metrics", "/"] {
        let begun = Instant::now();
        let (status, wait, body) = asked(site, path).await;
        assert_eq!((status, wait.as_deref()), (503, Some("2")), "{path}: {body}");
        assert!(begun.elapsed() >= Duration::from_millis(500), "{path}: most starts take less");
        assert_eq!(body["reasons"], serde_json::json!(["starting"]), "{path}: {body}");
    }
}

#[tokio::test]
async fn a_gate_is_alive_while_its_database_server_is_away() {
    let nobody = free_port();
    let site = Site::new(&format!("[database]\nurl = \"postgres://postgres@{nobody}/none\"\n"));
    let mut gate = Child::tollgate(site.folder.path(), &["serve"], &[]);
    is_starting(&site).await;
    let said = gate.says("waiting for the database");
    assert!(said.contains("PostgreSQL takes no connection"), "{said}");
    assert!(gate.runs());
    gate.signal("TERM");
    assert_eq!(gate.ends().0, Some(143));
}

#[tokio::test]
async fn a_gate_is_alive_while_another_process_migrates_its_file_and_opens_when_that_is_done() {
    let site = Site::new("");
    let data = site.folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let other = File::open(&data).unwrap();
    other.lock().unwrap();
    let gate = Child::tollgate(site.folder.path(), &["serve"], &[]);
    is_starting(&site).await;
    gate.says("waiting for another process that opens the database");
    other.unlock().unwrap();
    gate.says("the gate is open");
    assert_eq!(asked(&site, "/readyz").await.0, 200);
}

#[tokio::test]
async fn a_second_gate_on_the_same_folder_answers_nobody() {
    let site = Site::new("");
    let _first = site.serve(&[]).await;
    let elsewhere = [("GATEWAY__SERVER__LISTEN", free_port().to_string())];
    let elsewhere = elsewhere.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut second = Child::tollgate(site.folder.path(), &["serve"], &elsewhere);
    let (code, said) = second.ends();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another gateway runs") && !said.contains("listening"), "{said}");
    assert_eq!(asked(&site, "/readyz").await.0, 200);
}

#[tokio::test]
async fn a_file_is_not_migrated_while_a_gateway_of_another_version_runs_on_it() {
    let site = Site::new("");
    let mut gateway = site.serve(&[]).await;
    let file = site.folder.path().join("data/tollgate.db");
    let mut conn = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    let last = "SELECT MAX(version) FROM _sqlx_migrations";
    let forget = "UPDATE _sqlx_migrations SET version = -1 WHERE version = (SELECT MAX(version) FROM _sqlx_migrations)";
    let version: i64 = sqlx::query_scalar(last).fetch_one(&mut conn).await.unwrap();
    sqlx::query(forget).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    let commands: [&[&str]; 2] = [&["migrate"], &["user", "add", "ann", "--email", "ann@example.com"]];
    for command in commands {
        let (code, said) = Child::tollgate(site.folder.path(), command, &[]).ends();
        assert!(code == Some(1) && said.contains("another process uses it"), "{command:?}: {code:?} {said}");
    }
    assert_eq!(asked(&site, "/readyz").await.0, 200);
    gateway.signal("TERM");
    assert_eq!(gateway.ends().0, Some(0));
    let mut conn = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    let back = sqlx::query("UPDATE _sqlx_migrations SET version = $1 WHERE version = -1").bind(version);
    back.execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    let (code, said) = Child::tollgate(site.folder.path(), &["migrate"], &[]).ends();
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_at_once() {
    let site = Site::new("");
    let data = site.folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("tollgate.db"), "this is a text, and no database at all".repeat(200)).unwrap();
    let (code, said) = Child::tollgate(site.folder.path(), &["serve"], &[]).ends();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the database is corrupt"), "{said}");
}
