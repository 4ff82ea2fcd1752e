//! Cost: what counting and keeping a conversation takes, next to the same without them, to nginx, and
//! to a statement of SQL for each request.

#![expect(clippy::cast_precision_loss, reason = "what an experiment counts is small")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::proof::canary::{Act, Canary};
use super::proof::gate::{Gate, Plan};
use super::proof::origin::Origin;
use super::proof::people::{Person, register};
use super::proof::ports::free_port;
use super::proof::report::Report;
use super::proof::trace;

mod inside;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) rounds: usize,
    /// Requests of one measurement.
    pub(crate) requests: u32,
}

/// One way a request can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Through nginx, which only forwards.
    Nginx,
    /// Neither counted nor kept.
    Bare,
    /// Counted, not kept.
    Counted,
    /// Kept, not counted.
    Kept,
    /// Both.
    Both,
}

/// CPU of one measurement, in µs a request.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Until the last answer.
    answered: f64,
    /// Until every row is in the database as well.
    written: f64,
    rows_a_second: Option<f64>,
}

/// What is measured, and through what.
struct Bench {
    gate: Gate,
    nginx: Nginx,
    person: Person,
    requests: u32,
}

/// A web server that forwards. Ended when dropped.
struct Nginx {
    child: Option<Child>,
    addr: SocketAddr,
    _folder: TempDir,
}

/// Connections of a measurement.
const LINES: u32 = 32;
/// The clock of `/proc/PID/stat`.
const TICK: Duration = Duration::from_millis(10);
/// Requests with a statement for each.
const STATEMENTS: u32 = 2000;

/// Rows wait until they are asked for, so that how fast they go can be seen.
const ROUTES: &str = "
[[routes]]
prefix = \"/bare\"
strip_prefix = true
upstream = \"model\"
dialect = \"openai\"
charge = []
capture = \"off\"
[[routes]]
prefix = \"/counted\"
strip_prefix = true
upstream = \"model\"
dialect = \"openai\"
charge = [\"POST /counted/v1/chat/completions\"]
capture = \"off\"
[[routes]]
prefix = \"/kept\"
strip_prefix = true
upstream = \"model\"
dialect = \"openai\"
charge = []
capture = \"full\"
[message_log]
batch_interval = \"1h\"
batch_size = 100000
";

/// Runs it; the report.
pub(crate) async fn cost(plan: &Plan, size: Size) -> Report {
    let mut report = Report::new(format!("cost: {} rounds of {} requests", size.rounds, size.requests));
    ways(plan, size, &mut report).await;
    inside::inside(plan, size, &mut report).await;
    statements(&mut report).await;
    writes(plan, &mut report).await;
    report
}

async fn ways(plan: &Plan, size: Size, report: &mut Report) {
    let origin = Origin::start();
    let mut gate = Gate::new(&plan.clone().saying(ROUTES), &origin.url()).await;
    gate.start().await;
    let person = register(&gate, 0, &[1_000_000]).await.remove(0);
    let nginx = Nginx::start(origin.addr).await;
    let bench = Bench { gate, nginx, person, requests: size.requests };
    let ways = [Way::Nginx, Way::Bare, Way::Counted, Way::Kept, Way::Both];
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); ways.len()];
    bench.measure(Way::Both).await;
    for _ in 0..size.rounds {
        for (way, costs) in ways.iter().zip(&mut costs) {
            costs.push(bench.measure(*way).await);
        }
    }
    for (way, costs) in ways.iter().zip(&costs) {
        let answered = spread(costs.iter().map(|cost| cost.answered));
        let written = spread(costs.iter().map(|cost| cost.written));
        report.figure(format!("{way:?}: CPU µs a request"), answered);
        report.figure(format!("{way:?}: with its row in the database"), written);
    }
    let more = |a: usize, b: usize, of: fn(&Cost) -> f64| {
        spread(costs[a].iter().zip(&costs[b]).map(|(a, b)| of(a) - of(b)))
    };
    report.figure("counted and kept, more than bare", more(4, 1, |cost| cost.answered));
    report.figure("the same, with the row in the database", more(4, 1, |cost| cost.written));
    let rates: Vec<f64> = costs[4].iter().filter_map(|cost| cost.rows_a_second).collect();
    if !rates.is_empty() {
        report.figure("drain, rows a second", spread(rates.into_iter()));
    }
    bench.gate.clean_up().await;
}

/// `median [least–most]`
fn spread(values: impl Iterator<Item = f64>) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (least, most) = (values[0], values[values.len() - 1]);
    format!("{:.1} [{least:.1}–{most:.1}]", values[values.len() / 2])
}

/// CPU time that a process has used, all its threads together.
pub(crate) fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    let field = |n: usize| after_name.split(' ').nth(n).unwrap().parse::<u32>().unwrap();
    // utime and stime are the 14th and 15th; the name was the 2nd.
    TICK * (field(11) + field(12))
}

// === impl Way ===

impl Way {
    fn path(self) -> &'static str {
        match self {
            Self::Nginx | Self::Both => "/v1/chat/completions",
            Self::Bare => "/bare/v1/chat/completions",
            Self::Counted => "/counted/v1/chat/completions",
            Self::Kept => "/kept/v1/chat/completions",
        }
    }
}

// === impl Bench ===

impl Bench {
    async fn measure(&self, way: Way) -> Cost {
        let nginx = way == Way::Nginx;
        let (addr, pid) =
            if nginx { (self.nginx.addr, self.nginx.worker()) } else { (self.gate.addr, self.gate.pid()) };
        let before = cpu_of(pid);
        ask(addr, way.path(), &self.person, self.requests).await;
        let answered = cpu_of(pid).saturating_sub(before);
        let (mut written, mut rows_a_second) = (answered, None);
        if !nginx {
            let admin = self.gate.admin().await;
            let (_, health) = self.gate.get("/health", &admin).await;
            let waiting = health["message_buffer_size"].as_f64().unwrap_or(0.0);
            let begun = Instant::now();
            let (status, _) = self.gate.get("/api/v1/admin/message-logs?limit=1", &admin).await;
            assert_eq!(status, 200);
            rows_a_second = (waiting > 1000.0).then(|| waiting / begun.elapsed().as_secs_f64());
            written = cpu_of(pid).saturating_sub(before);
        }
        let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(self.requests);
        Cost { answered: each(answered), written: each(written), rows_a_second }
    }
}

/// `requests` over all lines, one after the other on each.
async fn ask(addr: SocketAddr, path: &str, person: &Person, requests: u32) {
    let lines = (0..LINES).map(async |line| {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut sender, connection) =
            http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.unwrap();
        let work = async {
            for number in 0..requests / LINES {
                let canary = Canary { user: 1_000_000 + line, number };
                let text = format!("{} {}", canary.says(Act::Quick), "word ".repeat(180));
                let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]}}"#);
                let request = Request::post(path)
                    .header("host", "gate")
                    .header("content-type", "application/json")
                    .header("authorization", format!("Bearer {}", person.key))
                    .body(Full::new(Bytes::from(body)))
                    .unwrap();
                let answer = sender.send_request(request).await.unwrap();
                assert_eq!(answer.status(), 200);
                answer.into_body().collect().await.unwrap();
            }
        };
        tokio::select! {
            _ = connection => panic!("a connection was closed"),
            () = work => {}
        }
    });
    join_all(lines).await;
}

/// The same with a database on the way: an update of the day and a row, in a transaction, for each request.
async fn statements(report: &mut Report) {
    let folder = TempDir::with_prefix("tollgate-lab-").unwrap();
    let mut connection = statements_schema(&folder.path().join("statements.db")).await;
    let (before, begun) = (cpu_of(std::process::id()), Instant::now());
    let said = "word ".repeat(180);
    for number in 0..STATEMENTS {
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let taken =
            sqlx::query("UPDATE quota SET granted = granted + 1 WHERE user_id = 1 AND granted < allowance");
        assert_eq!(taken.execute(&mut *tx).await.unwrap().rows_affected(), 1);
        let row = sqlx::query(
            "INSERT INTO exchanges (id, username, messages, answer, time) VALUES (?, 'ann', ?, ?, ?)",
        );
        row.bind(uuid::Uuid::now_v7()).bind(&said).bind(&said).bind(number).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    }
    let each = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e6 / f64::from(STATEMENTS));
    report.figure(
        "UPDATE and INSERT for each request: CPU µs",
        each(cpu_of(std::process::id()).saturating_sub(before)),
    );
    report.figure("UPDATE and INSERT for each request: wall µs", each(begun.elapsed()));
}

/// SQLite as the gate sets it up.
async fn statements_schema(file: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection = options.connect().await.unwrap();
    let schema = "CREATE TABLE quota (user_id BIGINT PRIMARY KEY, allowance BIGINT, granted BIGINT);
        CREATE TABLE exchanges (id BLOB PRIMARY KEY, username TEXT, messages TEXT, answer TEXT, time BIGINT);
        CREATE INDEX exchanges_by_time ON exchanges (time);
        CREATE INDEX exchanges_by_user ON exchanges (username, time);
        INSERT INTO quota VALUES (1, 1000000000, 0);";
    sqlx::raw_sql(schema).execute(&mut connection).await.unwrap();
    connection
}

/// Commits of the database for each conversation, counted by what the process asks of the disk.
async fn writes(plan: &Plan, report: &mut Report) {
    if plan.server.is_some() || !trace::is_possible() {
        report.figure("database commits a conversation", "not measured: needs SQLite and strace");
        return;
    }
    for (limit, users, each) in [(10, 100, 10), (100, 10, 100), (10_000, 1, 2000)] {
        let origin = Origin::start();
        let mut gate = Gate::new(plan, &origin.url()).await;
        let log = gate.folder.path().join("trace");
        gate.start_with(|binary| trace::record(binary, &log, "fdatasync,fsync")).await.unwrap();
        let people = register(&gate, 0, &vec![limit; users]).await;
        let admin = gate.admin().await;
        let flush = async || assert_eq!(gate.get("/api/v1/admin/message-logs?limit=1", &admin).await.0, 200);
        flush().await;
        let before = trace::count(&log, "tollgate.db-wal");
        for people in people.chunks(4) {
            join_all(people.iter().map(|person| async {
                for number in 0..each {
                    one_by_one(gate.addr, person, number).await;
                }
            }))
            .await;
        }
        let taken = trace::count(&log, "tollgate.db-wal");
        flush().await;
        let all = trace::count(&log, "tollgate.db-wal");
        let conversations = f64::from(each) * users as f64;
        let rate = |count: usize| (count - before) as f64 / conversations;
        report.figure(
            format!("commits a conversation, days of {limit}"),
            format!("{:.3} before the log is asked for, {:.3} after", rate(taken), rate(all)),
        );
        gate.clean_up().await;
    }
}

async fn one_by_one(addr: SocketAddr, person: &Person, number: u32) {
    let canary = Canary { user: person.number, number };
    let mut line = super::proof::client::Line::open(addr).await.unwrap();
    assert_eq!(line.chat(person, canary, Act::Quick).await.status, 200);
}

// === impl Nginx ===

impl Nginx {
    async fn start(origin: SocketAddr) -> Self {
        let folder = TempDir::with_prefix("tollgate-lab-").unwrap();
        let addr = free_port();
        let config = format!(
            "daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log stderr error;
             events {{ worker_connections 1024; }}
             http {{ access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3;
               uwsgi_temp_path t4; scgi_temp_path t5; keepalive_requests 1000000;
               upstream model {{ server {origin}; keepalive 64; keepalive_requests 1000000; }}
               server {{ listen {addr}; location / {{ proxy_pass http://model; proxy_http_version 1.1;
                 proxy_set_header Connection \"\"; proxy_set_header Authorization \"Bearer x\"; proxy_buffering off; }} }} }}"
        );
        std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder.path()).args(["-c", "nginx.conf"]);
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
        let child = command.stdin(Stdio::null()).spawn().expect("nginx, which is to be installed");
        let begun = Instant::now();
        while TcpStream::connect(addr).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10), "nginx does not listen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self { child: Some(child), addr, _folder: folder }
    }

    fn worker(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
