//! What the log tells an operator whose limits do not fit the network in front of the gate.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::child::{PATIENCE, Site};

/// The first line of the answer to a request on a kept connection; nothing where the gate closed it.
async fn ask(addr: SocketAddr, fields: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // A connection that is refused may be closed before the request is written.
    let _ = stream.write_all(format!("GET /health HTTP/1.1\r\nhost: gate\r\n{fields}\r\n").as_bytes()).await;
    let mut heard = [0; 12];
    let read = stream.read_exact(&mut heard).await;
    let line = read.map(|_| String::from_utf8_lossy(&heard).into_owned()).unwrap_or_default();
    (stream, line)
}

/// `tollgate_connections_refused_total`, where there is a place to ask for it.
async fn refusals_told(site: &Site) -> Option<f64> {
    let metrics = reqwest::get(site.url("/metrics")).await.ok()?.text().await.ok()?;
    let line = metrics.lines().find(|line| line.starts_with("tollgate_connections_refused_total"))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn an_address_with_all_its_connections_and_an_unknown_proxy_are_told_once() {
    let site = Site::new("server.connections.max_per_address = 3\n");
    let mut child = site.serve(&[]).await;
    let mut kept = Vec::new();
    let mut refused = 0;
    while refused < 3 {
        let (stream, line) = ask(site.addr, "x-forwarded-for: 203.0.113.7\r\n").await;
        match line.as_str() {
            "" => refused += 1,
            line => assert_eq!(line, "HTTP/1.1 200"),
        }
        kept.push(stream);
        assert!(kept.len() <= 6, "three are served, and others are refused");
    }
    kept.clear();
    let begun = Instant::now();
    while refusals_told(&site).await.is_none_or(|count| count < 3.0) {
        assert!(begun.elapsed() < PATIENCE, "the refusals are not counted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    child.signal("TERM");
    assert_eq!(child.ends().0, Some(0));
    let said = child.said();
    for setting in ["server.connections.max_per_address", "server.trusted_proxies"] {
        let lines: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("WARN") && line.contains(&format!("\"setting\":\"{setting}\"")))
            .collect();
        assert_eq!(lines.len(), 1, "{setting}:\n{said}");
    }
}
