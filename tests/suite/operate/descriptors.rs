//! A low limit of open files: fewer clients at a time, and no failures.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::child::{Child, Site, route_to};
use crate::upstream::{Answer, Gate, Upstream};

/// `tollgate serve` with these limits of open files, once it is ready.
fn serve(site: &Site, soft: u32, hard: u32) -> Child {
    let mut command = Command::new("sh");
    let limits = format!("ulimit -Sn {soft}; ulimit -Hn {hard}; exec \"$0\" serve");
    command.args(["-c", &limits, env!("CARGO_BIN_EXE_tollgate")]).current_dir(site.folder.path());
    command.env_clear().env("PATH", std::env::var("PATH").unwrap()).env("ADMIN_PASSWORD", "correct-horse-7");
    let child = Child::start(command);
    child.says("the gate is open");
    child
}

/// A connection from an address of its own, as far as 127.0.0.0/8 has them.
async fn connect(addr: SocketAddr, from: u8) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, from)), 0))?;
    socket.connect(addr).await
}

async fn chat(addr: SocketAddr, from: u8, key: &str) -> String {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut heard = Vec::new();
    let talk = async {
        let mut stream = connect(addr, from).await?;
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_end(&mut heard).await
    };
    let talked = tokio::time::timeout(Duration::from_mins(1), talk).await;
    assert!(matches!(talked, Ok(Ok(_))), "{talked:?}: {}", String::from_utf8_lossy(&heard));
    String::from_utf8_lossy(&heard).chars().take(12).collect()
}

#[tokio::test]
async fn with_256_files_200_conversations_wait_for_each_other_and_none_fails() {
    const ASKED: usize = 200;
    let upstream = Upstream::start();
    let more = "limits.max_parallel_per_user = 0\nplans.free.conversation_limit = 1000\n";
    let site = Site::new(&(more.to_owned() + &route_to(&upstream.url())));
    let child = serve(&site, 256, 256);
    let said = child.said();
    assert!(said.contains("server.connections.max lowered") && said.contains("\"limit\":256,"), "{said}");
    let (_, key) = site.user("ann").await;
    let gate = Gate::closed();
    for _ in 0..40 {
        upstream.next(Answer::json(&json!({"choices": []})).hold_head(&gate));
    }
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..ASKED {
        let (addr, key) = (site.addr, key.clone());
        // No address has more than a quarter of the places.
        let from = 2 + u8::try_from(number % 20).unwrap();
        asked.spawn(async move { chat(addr, from, &key).await });
    }
    upstream.arrived(40).await;
    gate.open();
    let answers = asked.join_all().await;
    assert_eq!(answers.iter().filter(|status| *status == "HTTP/1.1 200").count(), ASKED, "{answers:?}");
    assert_eq!(upstream.hits(), ASKED);

    let admin = site.admin("correct-horse-7").await.unwrap();
    let (_, user) = site.get("/api/v1/admin/users/ann", &admin).await;
    assert_eq!(user["limits"]["conversation_limit"], 1000 - ASKED, "{user}");
    let (_, rows) = site.get("/api/v1/admin/message-logs?limit=1000", &admin).await;
    assert_eq!(rows.as_array().map(Vec::len), Some(ASKED));
    let said = child.said();
    assert!(!said.contains("ERROR"), "{said}");
}

#[tokio::test]
async fn the_soft_limit_is_raised_to_the_hard_one() {
    let site = Site::new("");
    let child = serve(&site, 256, 8192);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert!(files.split_whitespace().nth(3) == Some("8192"), "{files}");
    let said = child.said();
    assert!(said.contains("server.connections.max lowered") && said.contains("\"limit\":8192,"), "{said}");
}

#[tokio::test]
async fn idle_clients_of_five_addresses_shut_nobody_out() {
    let upstream = Upstream::start();
    let site = Site::new(&route_to(&upstream.url()));
    let _child = serve(&site, 512, 512);
    let (_, key) = site.user("ann").await;
    let mut idle = Vec::new();
    for number in 0..600 {
        if let Ok(stream) = connect(site.addr, 10 + u8::try_from(number % 5).unwrap()).await {
            idle.push(stream);
        }
        if number % 60 == 0 {
            assert_eq!(chat(site.addr, 99, &key).await, "HTTP/1.1 200", "beside {number} idle clients");
        }
    }
    assert!(idle.len() > 300, "{}", idle.len());
}

#[tokio::test]
async fn a_limit_that_leaves_no_room_is_refused_in_numbers() {
    let site = Site::new("");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 80; exec \"$0\" serve", env!("CARGO_BIN_EXE_tollgate")]);
    command.current_dir(site.folder.path()).env_clear().env("PATH", std::env::var("PATH").unwrap());
    let (code, said) = Child::start(command).ends();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the limit of open files is 80") && said.contains("at least"), "{said}");
}
