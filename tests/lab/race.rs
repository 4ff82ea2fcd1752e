//! Race: every conversation of a day is asked for many times at once, over HTTP/2. Exactly the day's
//! number passes, with failures of the model in between that give some back.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::books::{Books, Findings, Heard, Strictness};
use super::canary::{Act, Canary};
use super::client::Line;
use super::dice::Dice;
use super::gate::{Gate, Plan};
use super::origin::Origin;
use super::people::{Person, register};
use super::report::Report;
use super::told::Told;

/// The size of a race.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) users: usize,
    /// Requests of each user, all at once.
    pub(crate) burst: u32,
    /// Users who race at the same time.
    pub(crate) group: usize,
    /// Largest day of a user.
    pub(crate) limit: u64,
}

/// One who races.
struct Racer {
    person: Person,
    dice: Dice,
    /// Whether some of the requests are failed by the model.
    mixed: bool,
    next: u32,
    heard: Vec<Heard>,
    broken: Vec<String>,
}

/// Connections of one user.
const LINES: usize = 2;
/// How long a unit that was given back may take to be there again.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs it; the report.
pub(crate) async fn race(plan: &Plan, size: Size, seed: u64) -> Report {
    let dice = Dice::new(seed);
    let origin = Origin::start();
    let mut gate = Gate::new(plan, &origin.url()).await;
    gate.start().await;
    let mut throws = dice.fork(0);
    let limits: Vec<i64> = (0..size.users).map(|_| 1 + throws.below(size.limit) as i64).collect();
    let people = register(&gate, 0, &limits).await;
    for person in &people {
        origin.expect(person.number, person.terms);
    }
    let begun = Instant::now();
    let mut racers: Vec<Racer> =
        people.into_iter().map(|person| Racer::new(person, dice.fork(1 + throws.throw()))).collect();
    for group in racers.chunks_mut(size.group) {
        join_all(group.iter_mut().map(|racer| racer.run(&gate, &origin, size.burst))).await;
    }
    let took = begun.elapsed();
    let mut report =
        Report::new(format!("race: {} users, {} at once each, seed {seed}", size.users, size.burst));
    let books = close(&mut racers, &origin, &mut report);
    tell(&books, took, &mut report);
    let findings = books.audit(&Told::at_rest(&gate).await);
    judge(&findings, &mut report);
    let status = gate.stop().await;
    if !status.success() {
        report.broken(format!("the gate ended with {status}"));
    }
    let known: HashSet<String> = findings.broken.into_iter().collect();
    let after = books.audit(&Told::of_tables(&gate.database).await).broken;
    report.all_broken(after.into_iter().filter(|how| !known.contains(how)));
    report.all_broken(gate.panics());
    gate.clean_up().await;
    report
}

fn close(racers: &mut [Racer], origin: &Origin, report: &mut Report) -> Books {
    let mut heard = Vec::new();
    for racer in racers.iter_mut() {
        heard.append(&mut racer.heard);
        report.all_broken(std::mem::take(&mut racer.broken));
    }
    report.all_broken(origin.complaints());
    let users = racers.iter().map(|racer| (racer.person.username.clone(), racer.person.terms)).collect();
    let exhausted: HashSet<u32> = racers.iter().map(|racer| racer.person.number).collect();
    Books { users, heard, seen: origin.seen(), exhausted, strictness: Strictness::Exact }
}

fn tell(books: &Books, took: Duration, report: &mut Report) {
    let of = |status: u16| books.heard.iter().filter(|heard| heard.status == status).count();
    report.figure("requests", books.heard.len());
    report.figure("a second, set-up aside", (books.heard.len() as f64 / took.as_secs_f64()).round());
    report.figure("passed on to the model", books.seen.len());
    report.figure(
        "answered 200 / 500 / 429 / 503",
        format!("{} / {} / {} / {}", of(200), of(500), of(429), of(503)),
    );
    report.figure("not answered", of(0));
    if of(0) > 0 {
        report.broken(format!("{} requests were not answered", of(0)));
    }
}

fn judge(findings: &Findings, report: &mut Report) {
    report.figure("over-admitted", findings.over_admitted);
    report.figure("under-admitted", findings.under_admitted);
    report.figure("given back twice", findings.double_refunds);
    report.figure("finished and not in the log", findings.lost_finished);
    report.figure("rows", findings.rows);
    report.all_broken(findings.broken.iter().cloned());
}

// === impl Racer ===

impl Racer {
    fn new(person: Person, mut dice: Dice) -> Self {
        let mixed = dice.chance(40);
        Self { person, dice, mixed, next: 0, heard: Vec::new(), broken: Vec::new() }
    }

    async fn run(&mut self, gate: &Gate, origin: &Origin, burst: u32) {
        let mut lines = Vec::new();
        for _ in 0..LINES {
            lines.push(Line::open(gate.addr).await.expect("a connection"));
        }
        let mut calls = Vec::with_capacity(burst as usize);
        for n in 0..burst {
            let (canary, act) = self.question();
            calls.push(lines[n as usize % LINES].chat(&self.person, canary, act));
        }
        let heard = join_all(calls).await;
        let decided = heard.iter().all(|heard| heard.status != 503 && heard.status != 0);
        self.heard.extend(heard);
        let (name, limit) = (&self.person.username, self.person.terms.limit);
        let passed = origin.tally(self.person.number).0;
        if !self.mixed && decided && passed != limit.min(i64::from(burst)) {
            self.broken.push(format!("{name}: of {burst} at once {passed} passed, on a day of {limit}"));
        }
        self.use_up(&mut lines[0], origin).await;
    }

    /// One after the other, until the day is used up; then once more.
    async fn use_up(&mut self, line: &mut Line, origin: &Origin) {
        let mut refused_since = None;
        loop {
            let free = self.free(origin);
            let (canary, _) = self.question();
            let heard = line.chat(&self.person, canary, Act::Quick).await;
            let (status, remaining) = (heard.status, heard.remaining);
            self.heard.push(heard);
            let after = free - i64::from(status == 200);
            if !self.mixed && remaining != Some(after) && status != 503 {
                self.broken
                    .push(format!("{canary}: {status}, {remaining:?} left in its header, should be {after}"));
            }
            match (status, free) {
                (200, _) => refused_since = None,
                (429, ..=0) => return,
                _ => {
                    let since: &mut Instant = refused_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > PATIENCE {
                        self.broken.push(format!("{canary}: {status}, though {free} are left"));
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    fn free(&self, origin: &Origin) -> i64 {
        let (arrived, failed) = origin.tally(self.person.number);
        self.person.terms.limit - arrived + failed.min(self.person.terms.refunds)
    }

    fn question(&mut self) -> (Canary, Act) {
        let canary = Canary { user: self.person.number, number: self.next };
        self.next += 1;
        let act = match self.dice.below(10) {
            0..3 if self.mixed => Act::Fail,
            0..5 => Act::Slow,
            _ => Act::Quick,
        };
        (canary, act)
    }
}
