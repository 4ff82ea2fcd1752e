//! `flood`: hostile users do everything at once that costs a gateway more than it costs them, while a good
//! user works.
//!
//! Large bodies in the shape of trees, slow bodies, bodies beyond a used-up day, slow readers, large uncharged
//! calls and log-messages, wrong logins and taken names, heads that drip, and connections that ask nothing.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use super::canary::{Act, Canary};
use super::gate::{Gate, Plan};
use super::origin::Origin;
use super::people::{self, Person};
use super::report::Report;

/// How long, and how many of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) time: Duration,
    /// Connections that ask nothing; everything else is a part of this.
    pub(crate) idle: usize,
    /// Bytes of a large body.
    pub(crate) body: usize,
    /// What the good user may wait for an answer, of a hundred the slowest left out.
    pub(crate) p99: Duration,
    /// Cost of a password's hash.
    pub(crate) bcrypt_rounds: u32,
}

/// What hostile clients know.
#[derive(Clone)]
struct Hostile {
    addr: SocketAddr,
    /// With conversations left.
    rich: String,
    /// With none left.
    poor: String,
    /// Whose password is guessed.
    victim: String,
    body: usize,
    done: Arc<[AtomicU64; KINDS.len()]>,
    until: Instant,
}

/// What the good user met.
#[derive(Default)]
struct Met {
    took: Vec<Duration>,
    refused: Vec<String>,
    charged: i64,
}

const KINDS: [&str; 8] = [
    "tree-shaped bodies",
    "slow bodies",
    "bodies beyond a used-up day",
    "slow readers",
    "uncharged bodies and log-messages",
    "wrong logins and taken names",
    "dripping heads",
    "idle connections",
];

const MOST_MEMORY: u64 = 512 << 10;
/// The good user's address.
const GOOD: u8 = 1;
/// How long a client waits for any answer.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn flood(plan: &Plan, size: Size) -> Report {
    let origin = Origin::start();
    let mut gate = Gate::new(plan, &origin.url()).await;
    with_defaults(&gate, size.bcrypt_rounds);
    gate.start().await;
    let people = people::register(&gate, 1, &[1_000_000, 1_000_000, 0]).await;
    let [good, rich, poor] = people.try_into().expect("three");
    let hostile = Hostile {
        addr: gate.addr,
        rich: rich.key,
        poor: poor.key,
        victim: good.username.clone(),
        body: size.body,
        done: Arc::default(),
        until: Instant::now() + size.time,
    };
    let (attacks, idle) = (hostile.clone(), size.idle);
    let attack = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, attacks.all(idle));
    });

    let (met, memory) = watched(&gate, work(&gate, &good, hostile.until)).await;
    attack.join().unwrap();
    let report = judge(&mut gate, (&size, &hostile), met, memory).await;
    gate.clean_up().await;
    report
}

/// What `work` gives, and the most memory meanwhile.
async fn watched<T>(gate: &Gate, work: impl Future<Output = T>) -> (T, u64) {
    let mut work = std::pin::pin!(work);
    let mut memory = gate.memory();
    loop {
        tokio::select! {
            done = &mut work => return (done, memory),
            () = sleep(Duration::from_millis(100)) => memory = memory.max(gate.memory()),
        }
    }
}

/// The laboratory's own settings lift limits that are the point here.
fn with_defaults(gate: &Gate, bcrypt_rounds: u32) {
    let file = gate.folder.path().join("gateway.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let lifted = ["server.connections.", "limits.max_parallel", "security.bcrypt_rounds"];
    let kept = text.lines().filter(|line| !lifted.iter().any(|key| line.starts_with(key)));
    let text = kept.collect::<Vec<_>>().join("\n");
    std::fs::write(file, format!("security.bcrypt_rounds = {bcrypt_rounds}\n{text}\n")).unwrap();
}

async fn judge(gate: &mut Gate, (size, hostile): (&Size, &Hostile), mut met: Met, memory: u64) -> Report {
    let mut report = Report::new(format!("flood, {} s", size.time.as_secs()));
    met.took.sort_unstable();
    let of = |hundredth: usize| met.took.get(met.took.len() * hundredth / 100).copied().unwrap_or_default();
    report.figure("calls of the good user", met.took.len());
    report.figure("their p50, p99, longest", format!("{:?}, {:?}, {:?}", of(50), of(99), met.took.last()));
    report.figure("most memory", format!("{} MiB", memory >> 10));
    for (kind, done) in KINDS.iter().zip(hostile.done.iter()) {
        report.figure(*kind, done.load(Ordering::Relaxed));
    }
    if met.took.len() < 10 {
        report.broken(format!("only {} calls of the good user came to an end", met.took.len()));
    }
    if of(99) > size.p99 {
        report.broken(format!("p99 of the good user is {:?}", of(99)));
    }
    report.all_broken(met.refused.into_iter().map(|how| format!("the good user was refused: {how}")));
    if memory > MOST_MEMORY {
        report.broken(format!("{} MiB of memory", memory >> 10));
    }
    report.all_broken(gate.panics());
    if gate.ended().is_some() {
        report.broken(format!("the gate ended:\n{}", gate.said()));
        return report;
    }
    gate.stop().await;
    let (code, said) = gate.command(&["ledger", "verify"]).await;
    if code != Some(0) {
        report.broken(format!("ledger verify: {said}"));
    }
    gate.start().await;
    let admin = gate.admin().await;
    let (_, user) = gate.get(&format!("/api/v1/admin/users/{}", hostile.victim), &admin).await;
    let left = user["limits"]["conversation_limit"].as_i64();
    report.figure("conversations charged to the good user", met.charged);
    if left != Some(1_000_000 - met.charged) {
        report.broken(format!("{left:?} left of 1000000, and {} were answered", met.charged));
    }
    report
}

/// The good user: conversations, and a login now and then, one after the other.
async fn work(gate: &Gate, good: &Person, until: Instant) -> Met {
    let mut met = Met::default();
    let mut number = 0;
    while Instant::now() < until {
        number += 1;
        let is_login = number % 50 == 10;
        let request = if is_login {
            post("/api/v1/auth/login", None, &login(&good.username, "password123"))
        } else {
            let says = Canary { user: good.number, number }.says(Act::Quick);
            let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{says} "}}]}}"#);
            post("/v1/chat/completions", Some(&good.key), &body)
        };
        let begun = Instant::now();
        let answer = ask(gate.addr, GOOD, request.as_bytes()).await;
        met.took.push(begun.elapsed());
        match answer {
            Ok(status) if status == "200" => met.charged += i64::from(!is_login),
            Ok(status) => met.refused.push(format!("{status} ({})", if is_login { "login" } else { "chat" })),
            Err(error) => met.refused.push(error.to_string()),
        }
        sleep(Duration::from_millis(100)).await;
    }
    met
}

// === impl Hostile ===

impl Hostile {
    async fn all(self, idle: usize) {
        let mut attacks = JoinSet::new();
        let few = (idle / 128).max(1);
        for number in 0..few.min(4) {
            attacks.spawn_local(self.clone().trees(number));
            attacks.spawn_local(self.clone().fill(number));
            attacks.spawn_local(self.clone().guess(number));
        }
        for number in 0..few * 5 {
            attacks.spawn_local(self.clone().slow_body(number));
            attacks.spawn_local(self.clone().slow_reader(number));
            attacks.spawn_local(self.clone().dripping_head(number));
        }
        for number in 0..few * 20 {
            attacks.spawn_local(self.clone().beyond_the_day(number));
        }
        for number in 0..idle {
            attacks.spawn_local(self.clone().idle(number));
        }
        while attacks.join_next().await.is_some() {}
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    fn count(&self, kind: usize) {
        self.done[kind].fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for the end of the flood at most.
    async fn pause(&self, span: Duration) {
        sleep(span.min(self.until.saturating_duration_since(Instant::now()))).await;
    }

    /// Bodies that take many times their size as a tree of values, to a path that costs nothing.
    async fn trees(self, number: usize) {
        let flat = repeated(r#"{"model":"m","messages":["#, r#"{"a":0},"#, r#"{"a":0}]}"#, self.body);
        let nested = r#"{"":"#.repeat(50) + "0" + &"}".repeat(50) + ",";
        let deep = repeated(r#"{"model":"m","messages":["#, &nested, "0]}", self.body);
        while !self.is_over() {
            for body in [&flat, &deep] {
                let request = post("/v1/embeddings", Some(&self.rich), body);
                if ask(self.addr, 10, request.as_bytes()).await.is_ok() {
                    self.count(0);
                }
                self.pause(Duration::from_millis(700 + 100 * number as u64)).await;
            }
        }
    }

    /// Fast at first, then a byte every twelve seconds.
    async fn slow_body(self, number: usize) {
        while !self.is_over() {
            let length = self.body - 1000;
            let head = head("/v1/chat/completions", Some(&self.rich), length);
            let most = vec![b'x'; length - 100];
            let Ok(mut stream) = connect(self.addr, 11).await else { continue };
            let begun = r#"{"model":"m","messages":[{"role":"user","content":""#;
            let _ = stream.write_all((head + begun).as_bytes()).await;
            let _ = timeout(PATIENCE, stream.write_all(&most)).await;
            while !self.is_over() && timeout(Duration::from_secs(12), read_some(&mut stream)).await.is_err() {
                let _ = stream.write_all(b"x").await;
            }
            self.count(1);
            self.pause(Duration::from_millis(200 + number as u64)).await;
        }
    }

    /// Bodies under a key that has nothing left, which never end.
    async fn beyond_the_day(self, number: usize) {
        while !self.is_over() {
            let head = head("/v1/chat/completions", Some(&self.poor), 9_000_000);
            let Ok(mut stream) = connect(self.addr, 20 + (number % 5) as u8).await else { continue };
            let _ = stream.write_all(head.as_bytes()).await;
            while !self.is_over() && timeout(Duration::from_secs(1), read_some(&mut stream)).await.is_err() {
                let _ = stream.write_all(&[b'x'; 1400]).await;
            }
            self.count(2);
            self.pause(Duration::from_millis(500)).await;
        }
    }

    /// Asks for megabytes and takes a byte now and then.
    async fn slow_reader(self, _number: usize) {
        while !self.is_over() {
            let Ok(mut stream) = connect(self.addr, 12).await else { continue };
            let ask = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
            let _ = stream.write_all(ask.as_bytes()).await;
            let mut byte = [0; 1];
            while !self.is_over() && matches!(stream.read(&mut byte).await, Ok(1)) {
                self.pause(Duration::from_secs(1)).await;
            }
            self.count(3);
        }
    }

    /// What is logged and costs nothing.
    async fn fill(self, _number: usize) {
        let text = repeated(
            r#"{"model":"m","messages":[{"role":"user","content":""#,
            "words ",
            r#""}]}"#,
            self.body,
        );
        let note = repeated(
            r#"{"model":"m","messages":[{"role":"user","content":""#,
            "words ",
            r#""}]}"#,
            1_000_000,
        );
        while !self.is_over() {
            for (path, body) in [("/v1/embeddings", &text), ("/api/v1/auth/log-message", &note)] {
                if ask(self.addr, 13, post(path, Some(&self.rich), body).as_bytes()).await.is_ok() {
                    self.count(4);
                }
            }
            self.pause(Duration::from_millis(500)).await;
        }
    }

    /// Guesses at the good user's password, and registrations of their name.
    async fn guess(self, number: usize) {
        let email = format!("{}@example.com", self.victim);
        let taken = format!(
            r#"{{"username":"{}","name":"x","email":"{email}","password":"password123","confirm_password":"password123","type":"Personal"}}"#,
            self.victim
        );
        while !self.is_over() {
            let wrong = login(&self.victim, "not-the-password-1");
            for (path, body) in [("/api/v1/auth/login", &wrong), ("/api/v1/auth/register", &taken)] {
                if ask(self.addr, 14 + (number % 4) as u8, post(path, None, body).as_bytes()).await.is_ok() {
                    self.count(5);
                }
            }
            self.pause(Duration::from_millis(250)).await;
        }
    }

    async fn dripping_head(self, _number: usize) {
        while !self.is_over() {
            let Ok(mut stream) = connect(self.addr, 18).await else { continue };
            let mut drip = b"GET / HTTP/1.1\r\nx: ".iter().chain(std::iter::repeat(&b'x'));
            while !self.is_over() {
                let byte = *drip.next().unwrap();
                if stream.write_all(&[byte]).await.is_err() {
                    break;
                }
                self.pause(Duration::from_secs(1)).await;
            }
            self.count(6);
        }
    }

    async fn idle(self, number: usize) {
        while !self.is_over() {
            if let Ok(mut stream) = connect(self.addr, 30 + (number % 5) as u8).await {
                self.count(7);
                let _ = timeout(self.until - Instant::now(), read_some(&mut stream)).await;
            }
            self.pause(Duration::from_secs(1)).await;
        }
    }
}

/// `begin`, as many of `piece` as make about `length` bytes, `end`.
fn repeated(begin: &str, piece: &str, end: &str, length: usize) -> String {
    let rest = length.saturating_sub(begin.len() + end.len());
    begin.to_owned() + &piece.repeat(rest / piece.len()) + end
}

fn login(username: &str, password: &str) -> String {
    format!(r#"{{"email":"{username}@example.com","password":"{password}"}}"#)
}

fn head(path: &str, key: Option<&str>, length: usize) -> String {
    let key = key.map_or_else(String::new, |key| format!("authorization: Bearer {key}\r\n"));
    format!(
        "POST {path} HTTP/1.1\r\nhost: gate\r\n{key}content-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    )
}

fn post(path: &str, key: Option<&str>, body: &str) -> String {
    head(path, key, body.len()) + body
}

async fn connect(addr: SocketAddr, from: u8) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, from)), 0))?;
    let connected = timeout(PATIENCE, socket.connect(addr)).await;
    if !matches!(connected, Ok(Ok(_))) {
        sleep(Duration::from_millis(200)).await;
    }
    connected.map_err(|_| Error::from(ErrorKind::TimedOut))?
}

/// Reads something, or the end.
async fn read_some(stream: &mut TcpStream) -> usize {
    let mut some = [0; 4096];
    stream.read(&mut some).await.unwrap_or(0)
}

/// Sends a request; the status of its answer, which must come whole.
async fn ask(addr: SocketAddr, from: u8, request: &[u8]) -> std::io::Result<String> {
    let talk = async {
        let mut stream = connect(addr, from).await?;
        let (mut read, mut write) = stream.split();
        let mut heard = Vec::new();
        let (_, ended) = tokio::join!(write.write_all(request), read.read_to_end(&mut heard));
        ended?;
        let status = String::from_utf8_lossy(&heard).split(' ').nth(1).map(str::to_owned);
        status.ok_or_else(|| Error::new(ErrorKind::UnexpectedEof, "closed without an answer"))
    };
    timeout(PATIENCE, talk).await.map_err(|_| Error::new(ErrorKind::TimedOut, "no answer"))?
}
