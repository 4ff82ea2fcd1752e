//! Restarts behind a load balancer: readiness first, then the connections, then the listener.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use sqlx::{Connection, SqliteConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::child::{Child, PATIENCE, Site, route_to};
use crate::proof::ports::free_port;
use crate::upstream::{Answer, Gate, Upstream};

/// Longer than any story.
const DELAY: (&str, &str) = ("GATEWAY__SERVER__SHUTDOWN_DELAY", "1h");

async fn status(url: &str) -> Option<u16> {
    Some(reqwest::Client::new().get(url).send().await.ok()?.status().as_u16())
}

/// Asks on a connection that is kept; the head of the answer.
async fn ask(kept: &mut TcpStream, path: &str) -> String {
    kept.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut got = Vec::new();
    while !got.windows(4).any(|end| end == b"\r\n\r\n") {
        assert_ne!(kept.read_buf(&mut got).await.unwrap(), 0, "closed after {got:?}");
    }
    String::from_utf8_lossy(&got).to_lowercase()
}

#[tokio::test]
async fn while_readiness_is_red_everything_is_served_and_a_second_signal_ends_that() {
    let upstream = Upstream::start();
    let site = Site::new(&route_to(&upstream.url()));
    let mut child = site.serve(&[DELAY]).await;
    let (_, key) = site.user("ann").await;
    let mut kept = TcpStream::connect(site.addr).await.unwrap();
    assert!(!ask(&mut kept, "/livez").await.contains("connection: close"));
    let h2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let livez = site.url("/livez");
    assert_eq!(h2.get(&livez).send().await.unwrap().status(), 200);

    child.signal("TERM");
    while site.status("/readyz").await != Some(503) {}
    let told = ask(&mut kept, "/livez").await;
    assert!(told.starts_with("http/1.1 200 ") && told.contains("connection: close"), "{told}");
    assert_eq!(h2.get(&livez).send().await.unwrap().status(), 200);
    assert_eq!(site.status("/livez").await, Some(200), "the listener is open");
    let chat = json!({"model": "m", "messages": []});
    assert_eq!(site.post("/v1/chat/completions", Some(&key), &chat).await.0, 200);

    let gate = Gate::closed();
    upstream.next(Answer::sse(["data: 1\n\n"]).hold(&gate).send("data: [DONE]\n\n"));
    let call = h2.post(site.url("/v1/chat/completions")).bearer_auth(&key);
    let mut running = call.json(&json!({"model": "m", "stream": true, "messages": []})).send().await.unwrap();
    assert_eq!(running.chunk().await.unwrap().unwrap(), "data: 1\n\n");
    child.signal("INT");
    child.says("\"draining\"");
    while site.status("/livez").await.is_some() {}
    assert!(child.runs(), "a stream is running:\n{}", child.said());
    gate.open();
    assert_eq!(running.chunk().await.unwrap().unwrap(), "data: [DONE]\n\n");
    let (code, said) = child.ends();
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn by_default_only_a_gateway_that_was_probed_waits_for_its_probes() {
    for is_probed in [true, false] {
        let site = Site::new("");
        let file = site.folder.path().join("gateway.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("server.shutdown_delay = \"0s\"\n", "")).unwrap();
        let mut child = Child::tollgate(site.folder.path(), &["serve"], &[]);
        if is_probed {
            site.is_ready(&mut child).await;
        } else {
            while site.status("/livez").await.is_none() {
                assert!(child.runs(), "{}", child.said());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        child.signal("TERM");
        let (code, said) = child.ends();
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(said.contains("serving until the drain begins"), is_probed, "{said}");
    }
}

#[tokio::test]
async fn a_request_that_was_sent_before_its_client_could_know_is_answered() {
    let site = Site::new("");
    let mut child = site.serve(&[]).await;
    let mut idle = TcpStream::connect(site.addr).await.unwrap();
    ask(&mut idle, "/livez").await;
    let mut fresh = Vec::new();
    for _ in 0..20 {
        fresh.push(TcpStream::connect(site.addr).await.unwrap());
    }
    child.signal("TERM");
    for kept in std::iter::once(&mut idle).chain(&mut fresh) {
        let told = ask(kept, "/livez").await;
        assert!(told.starts_with("http/1.1 200 "), "{told}");
    }
    let (code, said) = child.ends();
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn the_admin_listener_answers_probes_until_the_last_row_is_written() {
    let upstream = Upstream::start();
    let admin = free_port();
    let site = Site::new(&format!("server.admin_listen = [\"{admin}\"]\n{}", route_to(&upstream.url())));
    let mut child = site.serve(&[]).await;
    let (_, key) = site.user("ann").await;
    let gate = Gate::closed();
    upstream.next(Answer::sse(["data: 1\n\n"]).hold(&gate).send("data: [DONE]\n\n"));
    let call = reqwest::Client::new().post(site.url("/v1/chat/completions")).bearer_auth(&key);
    let mut running = call.json(&json!({"model": "m", "stream": true, "messages": []})).send().await.unwrap();
    assert_eq!(running.chunk().await.unwrap().unwrap(), "data: 1\n\n");
    let url = |path: &str| format!("http://{admin}{path}");

    child.signal("TERM");
    while site.status("/livez").await.is_some() {}
    for (path, expected) in
        [("/livez", 200), ("/metrics", 200), ("/readyz", 503), ("/api/v1/admin/jobs", 401)]
    {
        assert_eq!(status(&url(path)).await, Some(expected), "while it drains: {path}");
    }
    // Whoever holds the write lock keeps the last rows from being written.
    let database = site.folder.path().join("data/tollgate.db");
    let mut lock = SqliteConnection::connect(&format!("sqlite://{}", database.display())).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut lock).await.unwrap();
    gate.open();
    assert_eq!(running.chunk().await.unwrap().unwrap(), "data: [DONE]\n\n");
    drop(running);
    let closed = async { while status(&url("/api/v1/admin/jobs")).await != Some(503) {} };
    tokio::time::timeout(PATIENCE, closed).await.expect("the admin's API closes after the drain");
    for (path, expected) in [("/livez", 200), ("/metrics", 200), ("/readyz", 503)] {
        assert_eq!(status(&url(path)).await, Some(expected), "while rows are written: {path}");
    }
    sqlx::query("ROLLBACK").execute(&mut lock).await.unwrap();
    let (code, said) = child.ends();
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("could not be written in time"), "{said}");
}

/// One of the gateways behind the balancer.
struct Backend {
    site: Site,
    key: String,
    /// What the balancer believes.
    is_up: AtomicBool,
}

/// Sends each request to a backend that was ready when it was last looked at, over connections that are
/// kept, and tries none again, as HAProxy with `retries 0`.
#[derive(Clone)]
struct Balancer {
    backends: Arc<[Backend; 2]>,
    client: reqwest::Client,
    answered: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
}

impl Balancer {
    async fn check(&self) {
        for backend in self.backends.iter() {
            backend.is_up.store(backend.site.status("/readyz").await == Some(200), Ordering::SeqCst);
        }
    }

    /// Sends one request after the other.
    async fn client(self, first: usize, stop: CancellationToken) {
        for n in first.. {
            if stop.is_cancelled() {
                return;
            }
            self.request(n).await;
        }
    }

    async fn request(&self, first: usize) {
        let backends = [&self.backends[first % 2], &self.backends[(first + 1) % 2]];
        let backend = backends.into_iter().find(|backend| backend.is_up.load(Ordering::SeqCst)).unwrap();
        let call = self.client.post(backend.site.url("/v1/chat/completions")).bearer_auth(&backend.key);
        match call.json(&json!({"model": "m", "messages": []})).send().await {
            Ok(answer) if answer.status() == 200 => drop(self.answered.fetch_add(1, Ordering::SeqCst)),
            Ok(answer) => self.failed.lock().unwrap().push(format!("{answer:?}")),
            Err(error) => self.failed.lock().unwrap().push(format!("{error:?}")),
        }
    }
}

#[tokio::test]
async fn behind_a_load_balancer_restarts_cost_no_request() {
    let upstream = Upstream::start();
    let (mut backends, mut children) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let more = format!("[plans.free]\nconversation_limit = 1000000\n{}", route_to(&upstream.url()));
        let site = Site::new(&more);
        children.push(site.serve(&[DELAY]).await);
        let (_, key) = site.user("ann").await;
        backends.push(Backend { site, key, is_up: AtomicBool::new(true) });
    }
    let Ok(backends) = <[Backend; 2]>::try_from(backends) else { panic!("two") };
    let balancer = Balancer {
        backends: Arc::new(backends),
        client: reqwest::Client::builder().retry(reqwest::retry::never()).build().unwrap(),
        answered: Arc::default(),
        failed: Arc::default(),
    };
    let stop = CancellationToken::new();
    let clients: Vec<_> =
        (0..8).map(|first| tokio::spawn(balancer.clone().client(first, stop.clone()))).collect();
    let goes_on = async || {
        let before = balancer.answered.load(Ordering::SeqCst);
        while balancer.answered.load(Ordering::SeqCst) < before + 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    for round in 0..6 {
        let (backend, child) = (&balancer.backends[round % 2], &mut children[round % 2]);
        goes_on().await;
        child.signal("TERM");
        // The next check sees it; the delay is long enough for that, however slow this machine is.
        while backend.is_up.load(Ordering::SeqCst) {
            balancer.check().await;
        }
        goes_on().await;
        child.signal("TERM");
        let (code, said) = child.ends();
        assert_eq!(code, Some(0), "{said}");
        *child = backend.site.serve(&[DELAY]).await;
        balancer.check().await;
    }
    stop.cancel();
    for client in clients {
        client.await.unwrap();
    }
    let failed = balancer.failed.lock().unwrap();
    assert!(
        failed.is_empty(),
        "{} of {}: {:?}",
        failed.len(),
        balancer.answered.load(Ordering::SeqCst),
        failed
    );
}

/// HAProxy before two gateways, with a check of `/readyz` each second and no second try of a request.
fn haproxy(folder: &std::path::Path, front: std::net::SocketAddr, backends: [&Site; 2]) -> Child {
    let [one, two] = backends.map(|site| site.addr);
    let text = format!(
        "defaults\n  mode http\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n  retries 0\n\
         frontend front\n  bind {front}\n  stats enable\n  stats uri /stats\n  default_backend gates\n\
         backend gates\n  balance roundrobin\n  http-reuse aggressive\n  option httpchk GET /readyz\n\
         default-server check inter 1s\n  server one {one}\n  server two {two}\n"
    );
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, text).unwrap();
    let mut command = std::process::Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file);
    Child::start(command)
}

#[tokio::test]
async fn behind_haproxy_restarts_cost_no_request() {
    let sites = [Site::new(""), Site::new("")];
    let mut children = [sites[0].serve(&[DELAY]).await, sites[1].serve(&[DELAY]).await];
    let (folder, front) = (tempfile::tempdir().unwrap(), free_port());
    let mut balancer = haproxy(folder.path(), front, [&sites[0], &sites[1]]);
    let stats = async |name: &str| -> String {
        let Ok(page) = reqwest::get(format!("http://{front}/stats;csv")).await else { return String::new() };
        let page = page.text().await.unwrap();
        let line = page.lines().find(|line| line.starts_with(&format!("gates,{name},")));
        line.and_then(|line| line.split(',').nth(17)).unwrap_or_default().to_owned()
    };
    let shows = async |balancer: &mut Child, name: &str, status: &str| {
        while stats(name).await != status {
            assert!(balancer.runs(), "{}", balancer.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    for name in ["one", "two"] {
        shows(&mut balancer, name, "UP").await;
    }
    let stop = CancellationToken::new();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let client = reqwest::Client::builder().retry(reqwest::retry::never()).build().unwrap();
                let mut answered = 0;
                while !stop.is_cancelled() {
                    let answer = client.get(format!("http://{front}/livez")).send().await.unwrap();
                    assert_eq!(answer.status(), 200, "after {answered}");
                    answered += 1;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                answered
            })
        })
        .collect();
    for (round, name) in ["one", "two", "one"].into_iter().enumerate() {
        let child = &mut children[round % 2];
        child.signal("TERM");
        shows(&mut balancer, name, "DOWN").await;
        child.signal("TERM");
        let (code, said) = child.ends();
        assert_eq!(code, Some(0), "{said}");
        *child = sites[round % 2].serve(&[DELAY]).await;
        shows(&mut balancer, name, "UP").await;
    }
    stop.cancel();
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
}
