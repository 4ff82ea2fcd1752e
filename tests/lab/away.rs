//! Away: the database does not answer while clients go on asking. What cannot be decided is refused with
//! 503, nothing that was answered is lost, memory stays bounded, and afterwards every balance is exact.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection};

use super::books::{Books, Heard, Strictness};
use super::canary::{Act, Canary};
use super::client::Line;
use super::dice::Dice;
use super::gate::{Database, Gate, Plan};
use super::load::{Load, Mix};
use super::origin::Origin;
use super::people::{Person, register};
use super::postgres::Server;
use super::relay::{Relay, Wire};
use super::report::Report;
use super::told::Told;

/// Days of those who ask.
const DAYS: [i64; 10] = [5, 20, 100, 500, 1_000_000, 1_000_000, 1_000_000, 1_000_000, 1_000_000, 1_000_000];
/// How many come for the first time while the database is away.
const STRANGERS: usize = 5;
const CLIENTS: usize = 4;
/// Memory may grow by so much, in KiB.
const GROWTH: u64 = 256 << 10;
/// How soon all is well again.
const RECOVERY: Duration = Duration::from_secs(10);
/// Longest answer: a refusal that takes longer is an outage of its own.
const LONGEST: Duration = Duration::from_secs(10);

/// How the database is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absence {
    /// Another process has begun to write, and does not end.
    Locked,
    /// A server that is stopped in its tracks.
    Silent,
    /// Its connections are closed, new ones at once.
    CutOff,
    /// The server is ended, in the middle of what it does, and nobody listens.
    Stopped,
}

/// What keeps it away.
enum Outage {
    Lock(SqliteConnection),
    Relay(Relay),
    Server(Arc<Server>),
}

/// A gate under load.
struct Trial {
    gate: Gate,
    outage: Outage,
    people: Vec<Person>,
    strangers: Vec<Person>,
    heard: Vec<Heard>,
    report: Report,
}

/// Runs it; the report. What is away is a PostgreSQL of its own, where `plan` names any.
pub(crate) async fn away(plan: &Plan, time: Duration, chance: u64) -> Report {
    let mut report = Report::new(format!("database away for {time:?}, seed {chance}"));
    let dice = Dice::new(chance);
    if plan.server.is_none() {
        return trial((plan, None), &[Absence::Locked], (time, dice), report).await;
    }
    let server = Arc::new(behind(Server::start).await);
    let plan = Plan { server: Some(server.url()), ..plan.clone() };
    let relay = Relay::before(server.addr).await;
    let relayed = Plan { through: Some(relay.addr), ..plan.clone() };
    let outage = Some(Outage::Relay(relay));
    let wires = [Absence::Silent, Absence::CutOff];
    report = trial((&relayed, outage), &wires, (time, dice.fork(1)), report).await;
    let outage = Some(Outage::Server(server));
    trial((&plan, outage), &[Absence::Stopped], (time, dice.fork(2)), report).await
}

/// One gate, and each absence in its turn.
async fn trial(
    (plan, outage): (&Plan, Option<Outage>),
    absences: &[Absence],
    (time, dice): (Duration, Dice),
    report: Report,
) -> Report {
    let origin = Origin::start();
    let mut gate = Gate::new(plan, &origin.url()).await;
    gate.start().await;
    let people = register(&gate, 0, &DAYS).await;
    let strangers = register(&gate, u32::try_from(DAYS.len()).unwrap(), &[10; STRANGERS]).await;
    for person in people.iter().chain(&strangers) {
        origin.expect(person.number, person.terms);
    }
    let outage = match outage {
        Some(outage) => outage,
        None => Outage::lock(&gate.database).await,
    };
    let numbers = Arc::new(AtomicU32::new(0));
    let regulars = Arc::new(people.clone());
    let load = Load::start(gate.addr, &regulars, Mix::EVERYTHING, &numbers, (CLIENTS, dice));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut trial = Trial { gate, outage, people, strangers, heard: Vec::new(), report };
    for absence in absences {
        trial.outage.begin(*absence).await;
        trial.watch(*absence, time).await;
        trial.outage.end().await;
        trial.recover(*absence).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    trial.heard.extend(load.stop().await);
    let names: Vec<&str> = absences.iter().map(|absence| absence.name()).collect();
    trial.close(&names.join(", "), &origin).await
}

/// Runs what waits for another process where the clients do not wait for it.
async fn behind<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

// === impl Trial ===

impl Trial {
    /// What is seen while the database is away, and how memory grows.
    async fn watch(&mut self, absence: Absence, time: Duration) {
        let (begun, before) = (Instant::now(), self.gate.memory());
        let mut most = before;
        let mut number = 1_000_000_000 + u32::try_from(self.heard.len()).unwrap();
        let mut line = Line::open(self.gate.addr).await.expect("a connection");
        while begun.elapsed() < time {
            for person in &self.strangers {
                number += 1;
                self.heard.push(line.chat(person, Canary { user: person.number, number }, Act::Quick).await);
            }
            most = most.max(self.gate.memory());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let memory = format!("{} before, {} at most", before >> 10, most >> 10);
        self.report.figure(format!("{}: memory, MiB", absence.name()), memory);
        if most > before + GROWTH {
            self.report.broken(format!("memory grew from {before} to {most} KiB"));
        }
    }

    async fn recover(&mut self, absence: Absence) {
        let begun = Instant::now();
        while self.gate.status("/readyz").await != Some(200) {
            if begun.elapsed() > RECOVERY {
                self.report.broken(format!("not ready {RECOVERY:?} after the database was back"));
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let took = begun.elapsed().as_millis();
        self.report.figure(format!("{}: ready again after, ms", absence.name()), took);
    }

    async fn close(self, of: &str, origin: &Origin) -> Report {
        let Self { mut gate, people, strangers, heard, mut report, .. } = self;
        answers(of, &heard, &mut report);
        let everybody = people.iter().chain(&strangers).map(|person| (person.username.clone(), person.terms));
        let users = everybody.collect();
        let (seen, exhausted, strictness) = (origin.seen(), [].into(), Strictness::Exact);
        let books = Books { users, heard, seen, exhausted, strictness };
        let findings = books.audit(&Told::at_rest(&gate).await);
        report.figure(format!("{of}: over-admitted"), findings.over_admitted);
        report.figure(format!("{of}: finished conversations lost"), findings.lost_finished);
        report.figure(format!("{of}: acknowledged log-messages lost"), findings.lost_notes);
        report.all_broken(findings.broken);
        report.all_broken(origin.complaints());
        let status = gate.stop().await;
        report.all_broken(books.audit(&Told::of_tables(&gate.database).await).broken);
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

fn answers(of: &str, heard: &[Heard], report: &mut Report) {
    let number = |status: u16| heard.iter().filter(|heard| heard.status == status).count();
    report.figure(format!("{of}: requests"), heard.len());
    report.figure(
        format!("{of}: answered 200 / 429 / 500 / 503"),
        format!("{} / {} / {} / {}", number(200), number(429), number(500), number(503)),
    );
    let longest = heard.iter().map(|heard| heard.took).max().unwrap_or_default();
    report.figure(format!("{of}: longest answer, ms"), longest.as_millis());
    if longest > LONGEST {
        report.broken(format!("an answer took {longest:?}"));
    }
    for wrong in heard.iter().filter(|heard| ![200, 429, 500, 503].contains(&heard.status)) {
        report.broken(format!("{} ({:?}) was answered {}", wrong.canary, wrong.call, wrong.status));
    }
}

// === impl Absence ===

impl Absence {
    fn name(self) -> &'static str {
        match self {
            Self::Locked => "locked",
            Self::Silent => "silent",
            Self::CutOff => "cut off",
            Self::Stopped => "stopped",
        }
    }
}

// === impl Outage ===

impl Outage {
    async fn lock(database: &Database) -> Self {
        let Database::Sqlite(file) = database else { panic!("a server has no lock to be held") };
        Self::Lock(SqliteConnectOptions::new().filename(file).connect().await.unwrap())
    }

    async fn begin(&mut self, absence: Absence) {
        match self {
            Self::Lock(connection) => {
                connection.execute("PRAGMA busy_timeout = 20000").await.unwrap();
                connection.execute("BEGIN IMMEDIATE").await.unwrap();
            }
            Self::Relay(relay) if absence == Absence::Silent => relay.set(Wire::Silent),
            Self::Relay(relay) => relay.set(Wire::Cut),
            Self::Server(server) => {
                let server = Arc::clone(server);
                behind(move || server.stop()).await;
            }
        }
    }

    async fn end(&mut self) {
        match self {
            Self::Lock(connection) => {
                connection.execute("ROLLBACK").await.unwrap();
                connection.ping().await.unwrap();
            }
            Self::Relay(relay) => relay.set(Wire::Whole),
            Self::Server(server) => {
                let server = Arc::clone(server);
                behind(move || server.again()).await;
            }
        }
    }
}
