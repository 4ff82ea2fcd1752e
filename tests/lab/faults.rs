//! Faults: each write of the process, and each message to PostgreSQL, fails once, one after the other, in
//! the middle of the same work. After each, the work is done again at once: service is back, readiness
//! tells the truth, and at the end every balance is what clients got.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};

use super::books::{Books, Heard, Strictness};
use super::canary::{Act, Canary};
use super::client::Line;
use super::gate::{Database, Gate, Plan};
use super::origin::Origin;
use super::people::{Person, register};
use super::relay::{Fault, Relay};
use super::report::Report;
use super::told::Told;
use super::trace;

/// How far the faults go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// The last call or message of each kind that fails.
    pub(crate) most: u64,
    /// How soon everything must work again.
    pub(crate) back_within: Duration,
}

/// Calls that change a file, what they say when they fail, and on which files: SQLite's two alone, then all.
const CALLS: [(&str, &str, Files); 9] = [
    ("pwrite64", "EIO", Files::Log),
    ("pwrite64", "ENOSPC", Files::Log),
    ("fdatasync,fsync", "EIO", Files::Log),
    ("pwrite64", "EIO", Files::Database),
    ("fdatasync,fsync", "EIO", Files::Database),
    ("pwrite64", "EIO", Files::All),
    ("pwrite64", "ENOSPC", Files::All),
    ("fdatasync,fsync", "EIO", Files::All),
    ("ftruncate,fallocate", "EIO", Files::All),
];
const WIRE: [Fault; 3] = [Fault::Refused, Fault::Unsent, Fault::Unanswered];
/// Users, who take turns, so that each needs a grant when its turn comes.
const PEOPLE: usize = 24;
/// How long a disk that fails for good, or a lock, is looked at.
const OUTAGE: Duration = Duration::from_secs(12);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    /// SQLite's log.
    Log,
    /// SQLite's database.
    Database,
    /// Everything that the process writes, the spool too.
    All,
}

/// A running gate that meets one fault after the other.
struct Trial {
    gate: Gate,
    origin: Origin,
    people: Vec<Person>,
    admin: String,
    numbers: AtomicU32,
    heard: Vec<Heard>,
    report: Report,
    reach: Reach,
    faults: usize,
    red: usize,
    longest: Duration,
}

/// strace at work on the running gate.
struct Injection {
    tracer: Child,
    log: PathBuf,
}

/// Runs it; the report.
pub(crate) async fn faults(plan: &Plan, reach: Reach) -> Report {
    let mut report = Report::new(format!("a fault at each write, up to the {}th", reach.most));
    let Some(server) = &plan.server else {
        if !trace::is_possible() {
            report.broken("strace is needed, and the right to trace");
            return report;
        }
        let mut trial = Trial::begin(plan, reach, report).await;
        for (calls, error, files) in CALLS {
            trial.each_call(calls, error, files).await;
        }
        for (calls, error) in [("pwrite64", "EIO"), ("pwrite64", "ENOSPC"), ("fdatasync,fsync", "EIO")] {
            trial.for_good(calls, error).await;
        }
        return trial.close().await;
    };
    let addr = server.rsplit_once('@').map_or(server.as_str(), |(_, host)| host).trim_end_matches('/');
    let addr = addr.trim_start_matches("postgres://").parse().expect("the server's address");
    let relay = Arc::new(Relay::before(addr).await);
    let plan = Plan { through: Some(relay.addr), ..plan.clone() };
    let mut trial = Trial::begin(&plan, reach, report).await;
    for fault in WIRE {
        trial.each_message(&relay, fault).await;
    }
    trial.locked("quota").await;
    trial.close().await
}

// === impl Trial ===

impl Trial {
    async fn begin(plan: &Plan, reach: Reach, report: Report) -> Self {
        let origin = Origin::start();
        let mut gate = Gate::new(plan, &origin.url()).await;
        gate.start().await;
        let people = register(&gate, 0, &[1_000_000; PEOPLE]).await;
        for person in &people {
            origin.expect(person.number, person.terms);
        }
        let admin = gate.admin().await;
        let numbers = AtomicU32::new(0);
        let (heard, faults, red, longest) = (Vec::new(), 0, 0, Duration::ZERO);
        Self { gate, origin, people, admin, numbers, heard, report, reach, faults, red, longest }
    }

    /// A conversation of who has none in hand, a note, a change of a profile, and a look at the log, for
    /// which it is written; whether all of it was done.
    async fn work(&mut self) -> bool {
        let number = self.numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let person = self.people[number as usize % PEOPLE].clone();
        let canary = |number| Canary { user: person.number, number };
        let Some(mut line) = Line::open(self.gate.addr).await else { return false };
        let chat = line.chat(&person, canary(2 * number), Act::Quick).await;
        let note = line.log_message(&person, canary(2 * number + 1), 4000).await;
        let notes = json!({"additional_notes": format!("note {number}")});
        let path = format!("/api/v1/admin/users/{}", person.username);
        let (changed, _) = self.gate.put(&path, &self.admin, &notes).await;
        let (listed, _) = self.gate.get("/api/v1/admin/message-logs?limit=1", &self.admin).await;
        let all = [chat.status, note.status, changed, listed];
        for status in all {
            if ![200, 503].contains(&status) {
                self.report.broken(format!("answered {status} at a fault: {all:?}"));
            }
        }
        self.heard.extend([chat, note]);
        all == [200; 4]
    }

    async fn each_call(&mut self, calls: &str, error: &str, files: Files) {
        for n in 1..=self.reach.most {
            let injection = self.inject(calls, &format!("error={error}:when={n}"), files).await;
            let what = format!("{calls} {error} {files:?} #{n}");
            self.meet(&what, async || injection.met()).await;
            let met = injection.end();
            self.recover(&what).await;
            if !met {
                return;
            }
            self.faults += 1;
        }
    }

    async fn each_message(&mut self, relay: &Relay, fault: Fault) {
        for n in 1..=self.reach.most {
            relay.arm(n, fault);
            let what = format!("{fault:?} #{n}");
            self.meet(&what, async || relay.met()).await;
            let met = relay.met();
            relay.disarm();
            self.recover(&what).await;
            if !met {
                return;
            }
            self.faults += 1;
        }
    }

    /// Works until the fault was met, or twice in vain.
    async fn meet(&mut self, what: &str, met: impl AsyncFn() -> bool) {
        for _ in 0..2 {
            self.work().await;
            if met().await {
                break;
            }
        }
        match self.gate.status("/readyz").await {
            Some(200) => {}
            Some(503) => self.red += 1,
            other => self.report.broken(format!("{what}: readyz answers {other:?}")),
        }
    }

    /// Everything works again, and readiness says so.
    async fn recover(&mut self, what: &str) {
        let begun = Instant::now();
        while !(self.work().await && self.gate.status("/readyz").await == Some(200)) {
            if self.gate.ended().is_some() || begun.elapsed() > self.reach.back_within + OUTAGE {
                return self.report.broken(format!("{what}: not back: {}", self.last_words()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let took = begun.elapsed();
        if took > self.reach.back_within {
            self.report.broken(format!("{what}: back only after {took:?}"));
        }
        self.longest = self.longest.max(took);
    }

    /// Every such call fails, until it no longer does.
    async fn for_good(&mut self, calls: &str, error: &str) {
        let injection = self.inject(calls, &format!("error={error}"), Files::All).await;
        let what = format!("{calls} {error} for good");
        self.until_red(&what).await;
        injection.end();
        self.recover(&what).await;
    }

    async fn locked(&mut self, table: &str) {
        let Database::Postgres { url, .. } = &self.gate.database else { return };
        let mut other = PgConnection::connect(url).await.unwrap();
        let lock = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
        other.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(lock))).await.unwrap();
        self.until_red(&format!("{table} locked")).await;
        other.execute("ROLLBACK").await.unwrap();
        self.recover(&format!("{table} locked")).await;
    }

    async fn until_red(&mut self, what: &str) {
        let begun = Instant::now();
        while self.gate.status("/readyz").await == Some(200) {
            self.work().await;
            if begun.elapsed() > OUTAGE {
                return self.report.broken(format!("{what}: readyz is green"));
            }
        }
        self.report.figure(format!("{what}: readyz red after, ms"), begun.elapsed().as_millis());
    }

    async fn inject(&self, calls: &str, how: &str, files: Files) -> Injection {
        let file = match (&self.gate.database, files) {
            (Database::Sqlite(file), Files::Log) => Some(format!("{}-wal", file.display())),
            (Database::Sqlite(file), Files::Database) => Some(file.display().to_string()),
            _ => None,
        };
        let log = self.gate.folder.path().join("strace");
        let tracer = trace::attach(self.gate.pid(), &log, (calls, how), file.as_deref());
        let injection = Injection { tracer, log };
        injection.begun(self.gate.pid()).await;
        injection
    }

    fn last_words(&self) -> String {
        let said = self.gate.said();
        let lines: Vec<_> = said.lines().rev().take(3).collect();
        lines.join(" | ")
    }

    async fn close(self) -> Report {
        let Self { mut gate, origin, people, heard, mut report, faults, red, longest, .. } = self;
        let users = people.iter().map(|person| (person.username.clone(), person.terms)).collect();
        let (seen, strictness) = (origin.seen(), Strictness::Exact);
        let books = Books { users, heard, seen, exhausted: [].into(), strictness };
        let findings = books.audit(&Told::at_rest(&gate).await);
        report.figure("faults", faults);
        report.figure("of them seen by readyz", red);
        report.figure("everything works again after, at most, ms", longest.as_millis());
        report.figure("requests", books.heard.len());
        report.figure("over-admitted", findings.over_admitted);
        report.figure("finished conversations lost", findings.lost_finished);
        report.figure("acknowledged log-messages lost", findings.lost_notes);
        report.all_broken(findings.broken);
        report.all_broken(origin.complaints());
        let status = gate.stop().await;
        if !status.success() {
            report.broken(format!("the gate ended with {status}"));
        }
        let (code, said) = gate.command(&["ledger", "verify"]).await;
        if code != Some(0) {
            report.broken(format!("ledger verify says {code:?}: {said}"));
        }
        report.all_broken(gate.panics());
        gate.clean_up().await;
        report
    }
}

// === impl Injection ===

impl Injection {
    /// Waits until every thread is traced.
    async fn begun(&self, pid: u32) {
        let is_traced = |status: String| !status.contains("TracerPid:\t0\n");
        loop {
            let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let mut statuses = threads.map(|thread| std::fs::read_to_string(thread.path().join("status")));
            if statuses.all(|status| status.is_ok_and(is_traced)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn met(&self) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|log| log.contains("INJECTED"))
    }

    /// Lets the gate go on untraced; whether the fault was met.
    fn end(mut self) -> bool {
        self.stop();
        self.met()
    }

    fn stop(&mut self) {
        let pid = self.tracer.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).stderr(Stdio::null()).status();
        let _ = self.tracer.wait();
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        self.stop();
    }
}
