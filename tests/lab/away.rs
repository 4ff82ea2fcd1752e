//! Away: the database does not answer while clients go on asking. What cannot be decided is refused with
//! 503, nothing that was answered is lost, memory stays bounded, and afterwards every balance is exact.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection};

use super::books::{Act, Books, Canary, Heard, Strictness};
use super::client::Line;
use super::dice::Dice;
use super::gate::{Database, Gate, Plan};
use super::load::{Load, Mix};
use super::origin::Origin;
use super::people::{Person, register};
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

/// What keeps the database away.
enum Outage {
    /// Another process has begun to write, and does not end.
    Lock(SqliteConnection),
    /// Nothing comes through.
    Relay(Relay, Wire),
}

/// Runs it; the report.
pub(crate) async fn away(plan: &Plan, time: Duration, chance: u64) -> Report {
    let mut report = Report::new(format!("database away for {time:?}, seed {chance}"));
    let (plan, relay) = behind_relay(plan).await;
    let origin = Origin::start();
    let mut gate = Gate::new(&plan, &origin.url()).await;
    gate.start().await;
    let people = register(&gate, 0, &DAYS).await;
    let strangers = register(&gate, u32::try_from(DAYS.len()).unwrap(), &[10; STRANGERS]).await;
    for person in people.iter().chain(&strangers) {
        origin.expect(person.number, person.terms);
    }
    let mut wires = vec![Wire::Silent];
    if relay.is_some() {
        wires.push(Wire::Cut);
    }
    let numbers = Arc::new(AtomicU32::new(0));
    let regulars = Arc::new(people.clone());
    let load = Load::start(gate.addr, &regulars, Mix::EVERYTHING, &numbers, (CLIENTS, Dice::new(chance)));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut heard = Vec::new();
    let mut outage = Outage::new(&gate.database, relay).await;
    for wire in wires {
        outage.begin(wire).await;
        let during = watch(&gate, time, &strangers, &mut heard, &mut report).await;
        report.figure(format!("{}: memory, MiB", outage.name()), during);
        outage.end().await;
        recover(&gate, &outage, &mut report).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    heard.extend(load.stop().await);
    answers(&heard, &mut report);
    let everybody = people.iter().chain(&strangers).map(|person| (person.username.clone(), person.terms));
    let users = everybody.collect();
    let strictness = if plan.server.is_some() { Strictness::Severed } else { Strictness::Exact };
    let (seen, exhausted) = (origin.seen(), [].into());
    let books = Books { users, heard, seen, exhausted, strictness };
    let findings = books.audit(&Told::at_rest(&gate).await);
    report.figure("over-admitted", findings.over_admitted);
    report.figure("finished conversations lost", findings.lost_finished);
    report.figure("acknowledged log-messages lost", findings.lost_notes);
    report.all_broken(findings.broken);
    report.all_broken(origin.complaints());
    report.figure("units out of reach until the gate ends", findings.out_of_reach);
    let status = gate.stop().await;
    let books = Books { strictness: Strictness::Exact, ..books };
    report.all_broken(books.audit(&Told::of_tables(&gate.database).await).broken);
    if !status.success() {
        report.broken(format!("the gate ended with {status}"));
    }
    report.all_broken(gate.panics());
    gate.clean_up().await;
    report
}

async fn behind_relay(plan: &Plan) -> (Plan, Option<Relay>) {
    let Some(server) = &plan.server else { return (plan.clone(), None) };
    let place = server.rsplit('@').next().unwrap_or_default().trim_end_matches('/');
    let place: SocketAddr =
        place.parse().expect("a server's URL such as postgres://postgres@127.0.0.1:5432/");
    let relay = Relay::before(place).await;
    (Plan { through: Some(relay.addr), ..plan.clone() }, Some(relay))
}

/// What is seen while the database is away; memory at the beginning and at most.
async fn watch(
    gate: &Gate,
    time: Duration,
    strangers: &[Person],
    heard: &mut Vec<Heard>,
    report: &mut Report,
) -> String {
    let (begun, before) = (Instant::now(), gate.memory());
    let mut most = before;
    let mut number = 1_000_000_000 + u32::try_from(heard.len()).unwrap();
    let mut line = Line::open(gate.addr).await.expect("a connection");
    while begun.elapsed() < time {
        for person in strangers {
            number += 1;
            heard.push(line.chat(person, Canary { user: person.number, number }, Act::Quick).await);
        }
        most = most.max(gate.memory());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if most > before + GROWTH {
        report.broken(format!("memory grew from {before} to {most} KiB"));
    }
    format!("{} before, {} at most", before >> 10, most >> 10)
}

async fn recover(gate: &Gate, outage: &Outage, report: &mut Report) {
    let begun = Instant::now();
    while gate.status("/readyz").await != Some(200) {
        if begun.elapsed() > RECOVERY {
            report.broken(format!("not ready {RECOVERY:?} after the database was back"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    report.figure(format!("{}: ready again after, ms", outage.name()), begun.elapsed().as_millis());
}

fn answers(heard: &[Heard], report: &mut Report) {
    let of = |status: u16| heard.iter().filter(|heard| heard.status == status).count();
    report.figure("requests", heard.len());
    report.figure(
        "answered 200 / 429 / 500 / 503",
        format!("{} / {} / {} / {}", of(200), of(429), of(500), of(503)),
    );
    let longest = heard.iter().map(|heard| heard.took).max().unwrap_or_default();
    report.figure("longest answer, ms", longest.as_millis());
    if longest > LONGEST {
        report.broken(format!("an answer took {longest:?}"));
    }
    for wrong in heard.iter().filter(|heard| ![200, 429, 500, 503].contains(&heard.status)) {
        report.broken(format!("{} ({:?}) was answered {}", wrong.canary, wrong.call, wrong.status));
    }
}

// === impl Outage ===

impl Outage {
    async fn new(database: &Database, relay: Option<Relay>) -> Self {
        match (database, relay) {
            (Database::Sqlite(file), _) => {
                Self::Lock(SqliteConnectOptions::new().filename(file).connect().await.unwrap())
            }
            (_, Some(relay)) => Self::Relay(relay, Wire::Whole),
            (Database::Postgres { .. }, None) => panic!("a server is reached through a relay"),
        }
    }

    async fn begin(&mut self, wire: Wire) {
        match self {
            Self::Lock(connection) => {
                connection.execute("PRAGMA busy_timeout = 20000").await.unwrap();
                connection.execute("BEGIN IMMEDIATE").await.unwrap();
            }
            Self::Relay(relay, state) => {
                relay.set(wire);
                *state = wire;
            }
        }
    }

    async fn end(&mut self) {
        match self {
            Self::Lock(connection) => {
                connection.execute("ROLLBACK").await.unwrap();
                connection.ping().await.unwrap();
            }
            Self::Relay(relay, _) => relay.set(Wire::Whole),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Lock(_) => "locked",
            Self::Relay(_, Wire::Cut) => "cut off",
            Self::Relay(..) => "silent",
        }
    }
}
