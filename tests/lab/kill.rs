//! Kill: `kill -9` at random moments under load, and a start on the same folder, many times over. Then
//! the books are balanced.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::books::{Books, Call, Findings, Heard, Strictness};
use super::canary::{Act, Canary};
use super::client::Line;
use super::dice::Dice;
use super::gate::{Gate, Plan};
use super::load::{Load, Mix};
use super::origin::Origin;
use super::people::{Person, register};
use super::report::Report;
use super::told::Told;

/// Days of those who are there from the beginning.
const REGULARS: [i64; 8] = [10, 30, 100, 300, 1_000, 3_000, 10_000, 1_000_000];
/// Days of those who come in each round.
const NEWCOMERS: [i64; 2] = [3, 25];
/// Connections under load.
const CLIENTS: usize = 4;
/// Longest time under load, in milliseconds.
const LONGEST: u64 = 300;
/// Who has at most so many left is asked to use them up at the end.
const SMALL: i64 = 400;
/// How long a unit may be missing after the last start.
const PATIENCE: Duration = Duration::from_secs(15);

/// One experiment under way.
struct Run {
    origin: Origin,
    gate: Gate,
    people: Vec<Person>,
    numbers: Arc<AtomicU32>,
    heard: Vec<Heard>,
    report: Report,
    slowest_start: Duration,
    verified: usize,
}

/// Runs it; the report.
pub(crate) async fn kill(plan: &Plan, rounds: u64, seed: u64) -> Report {
    let dice = Dice::new(seed);
    let mut run = Run::begin(plan, Report::new(format!("kill -9: {rounds} rounds, seed {seed}"))).await;
    for round in 0..rounds {
        run.round(round, dice.fork(round)).await;
    }
    let exhausted = run.use_up().await;
    run.close(exhausted).await
}

// === impl Run ===

impl Run {
    async fn begin(plan: &Plan, report: Report) -> Self {
        let origin = Origin::start();
        let mut gate = Gate::new(plan, &origin.url()).await;
        gate.start().await;
        let numbers = Arc::new(AtomicU32::new(0));
        let mut run = Self {
            origin,
            gate,
            people: Vec::new(),
            numbers,
            heard: Vec::new(),
            report,
            slowest_start: Duration::ZERO,
            verified: 0,
        };
        run.welcome(&REGULARS).await;
        run
    }

    async fn welcome(&mut self, limits: &[i64]) {
        let first = u32::try_from(self.people.len()).unwrap();
        let people = register(&self.gate, first, limits).await;
        for person in &people {
            self.origin.expect(person.number, person.terms);
        }
        self.people.extend(people);
    }

    async fn round(&mut self, round: u64, mut dice: Dice) {
        self.welcome(&NEWCOMERS).await;
        // The latest and the regulars: of those before nothing is left.
        let near = self.people.len().saturating_sub(6).max(REGULARS.len());
        let now = [&self.people[..REGULARS.len()], &self.people[near..]].concat();
        let load = Load::start(
            self.gate.addr,
            &Arc::new(now),
            Mix::EVERYTHING,
            &self.numbers,
            (CLIENTS, dice.fork(1)),
        );
        // Some die while they are still starting.
        tokio::time::sleep(Duration::from_millis(1 + dice.below(LONGEST))).await;
        self.gate.kill();
        self.heard.extend(load.stop().await);
        self.verify_ledger(round, "after the kill").await;
        if dice.chance(15) {
            let binary_dies_after = Duration::from_millis(dice.below(60));
            self.gate.spawn(|binary| std::process::Command::new(binary));
            tokio::time::sleep(binary_dies_after).await;
            self.gate.kill();
        }
        let begun = Instant::now();
        self.gate.start().await;
        self.slowest_start = self.slowest_start.max(begun.elapsed());
        self.verify_ledger(round, "after the start").await;
    }

    /// The product's own opinion, from outside.
    async fn verify_ledger(&mut self, round: u64, when: &str) {
        let (code, said) = self.gate.command(&["ledger", "verify"]).await;
        match code {
            Some(0) => self.verified += 1,
            _ => self.report.broken(format!("round {round}, {when}: ledger verify says {code:?}: {said}")),
        }
    }

    /// Everybody with little left uses it up.
    async fn use_up(&mut self) -> HashSet<u32> {
        let mut exhausted = HashSet::new();
        let mut line = Line::open(self.gate.addr).await.expect("a connection");
        for person in self.people.clone() {
            if self.at_most_left(&person) > SMALL {
                continue;
            }
            let begun = Instant::now();
            loop {
                let canary =
                    Canary { user: person.number, number: self.numbers.fetch_add(1, Ordering::Relaxed) };
                let heard = line.chat(&person, canary, Act::Quick).await;
                let status = heard.status;
                self.heard.push(heard);
                if status == 429 && (self.at_most_left(&person) <= 0 || begun.elapsed() > PATIENCE) {
                    exhausted.insert(person.number);
                    break;
                }
                if status != 200 {
                    assert!(begun.elapsed() < 2 * PATIENCE, "{canary} is answered {status}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                // Charged without being seen: nothing is left, and only the rows know.
                if status == 429 && self.says_used_up(&person).await {
                    exhausted.insert(person.number);
                    break;
                }
            }
        }
        exhausted
    }

    async fn says_used_up(&self, person: &Person) -> bool {
        let told = Told::at_rest(&self.gate).await;
        let charged =
            told.rows.iter().filter(|row| row.username == person.username && row.verdict == "charged");
        charged.count() as i64 >= person.terms.limit
    }

    fn at_most_left(&self, person: &Person) -> i64 {
        let (arrived, failed) = self.origin.tally(person.number);
        let verified = |heard: &&Heard| {
            heard.canary.user == person.number && heard.call == Call::VerifyKey && heard.status == 200
        };
        let verified = self.heard.iter().filter(verified).count() as i64;
        person.terms.limit - arrived - verified + failed.min(person.terms.refunds)
    }

    async fn close(mut self, exhausted: HashSet<u32>) -> Report {
        let users = self.people.iter().map(|person| (person.username.clone(), person.terms)).collect();
        let heard = std::mem::take(&mut self.heard);
        let seen = self.origin.seen();
        let books = Books { users, heard, seen, exhausted, strictness: Strictness::Killed };
        let findings = books.audit(&Told::at_rest(&self.gate).await);
        self.tell(&books, &findings);
        self.report.all_broken(self.origin.complaints());
        let status = self.gate.stop().await;
        if !status.success() {
            self.report.broken(format!("the gate ended with {status}"));
        }
        self.verify_ledger(u64::MAX, "after the end").await;
        let after = books.audit(&Told::of_tables(&self.gate.database).await);
        let known: HashSet<String> = findings.broken.into_iter().collect();
        self.report.all_broken(known.iter().cloned());
        self.report.all_broken(after.broken.into_iter().filter(|how| !known.contains(how)));
        self.report.all_broken(self.gate.panics());
        self.gate.clean_up().await;
        self.report
    }

    fn tell(&mut self, books: &Books, findings: &Findings) {
        let whole = books.heard.iter().filter(|heard| heard.whole && heard.status == 200);
        let notes = whole.clone().filter(|heard| heard.call == Call::LogMessage).count();
        let cut = books.heard.iter().filter(|heard| !heard.whole).count();
        let report = &mut self.report;
        report.figure("requests", books.heard.len());
        report.figure("answered 200 to the last byte", whole.count());
        report.figure("of them log-message", notes);
        report.figure("cut off", cut);
        report.figure("reached the model", books.seen.len());
        report.figure("users who used up their day", books.exhausted.len());
        report.figure("over-spent", findings.over_admitted);
        report.figure("given back twice", findings.double_refunds);
        report.figure("finished conversations lost", findings.lost_finished);
        report.figure("acknowledged log-messages lost", findings.lost_notes);
        report.figure("reached the model and in no log", findings.unrecorded);
        report.figure("under-served", findings.under_admitted);
        report.figure("charged, never reached the model", findings.charged_unseen);
        report.figure("ledger verify clean, after kills and after starts", self.verified);
        report.figure("slowest start, ms", self.slowest_start.as_millis());
    }
}
