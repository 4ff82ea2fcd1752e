//! Disk: it is full, or it fails, at every call in turn. Nobody who was answered loses anything, nothing
//! panics, the gate says how it is, and it goes on when the disk does.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Executor};

use super::books::{Books, Call, Heard, Strictness};
use super::canary::Canary;
use super::client::Line;
use super::dice::Dice;
use super::gate::{Database, Gate, Plan};
use super::load::{Load, Mix};
use super::origin::Origin;
use super::people::{Person, register};
use super::report::Report;
use super::told::Told;
use super::trace;

/// One way in which a disk fails, as strace's `inject` says it.
const FAILURES: [(&str, &str); 5] = [
    ("fdatasync", "error=EIO:when={n}"),
    ("fdatasync", "error=EIO:when={n}+"),
    ("pwrite64", "error=EIO:when={n}"),
    ("pwrite64", "error=ENOSPC:when={n}..{m}"),
    ("ftruncate,fallocate,fsync", "error=EIO:when={n}"),
];
const DAYS: [i64; 6] = [3, 25, 200, 1_000_000, 1_000_000, 1_000_000];
const CLIENTS: usize = 2;
/// Time under load with a failing disk.
const UNDER_LOAD: Duration = Duration::from_millis(400);
/// How long a gate whose disk fails may take to end.
const END: Duration = Duration::from_secs(20);
/// How soon all is well when there is space again.
const RECOVERY: Duration = Duration::from_secs(10);

/// A gate that has already met its users, and what was heard so far.
struct Run {
    origin: Origin,
    gate: Gate,
    people: Arc<Vec<Person>>,
    numbers: Arc<AtomicU32>,
    heard: Vec<Heard>,
    report: Report,
    readiness: [usize; 3],
}

/// A small file system, unmounted when dropped.
struct Small(PathBuf);

/// Lets the `n`-th call fail, for every `n` up to `rounds` by steps, in every way; the report.
pub(crate) async fn failing(plan: &Plan, rounds: u64, seed: u64) -> Report {
    let mut report = Report::new(format!("failing disk: {rounds} rounds, seed {seed}"));
    if !trace::is_possible() {
        report.broken("strace is needed, and the right to trace");
        return report;
    }
    let dice = Dice::new(seed);
    let mut run = Run::begin(plan, report).await;
    run.gate.stop().await;
    for round in 0..rounds {
        let (call, how) = FAILURES[(round % FAILURES.len() as u64) as usize];
        let mut dice = dice.fork(round);
        // Small numbers meet the start, large ones the load.
        let most = if dice.chance(30) { 12 } else { 150 };
        let n = 1 + dice.below(most);
        let how = how.replace("{n}", &n.to_string()).replace("{m}", &(n + 40).to_string());
        run.round(call, &how, dice).await;
    }
    run.gate.start().await;
    run.close(Strictness::Killed).await
}

/// A file system of 1 MiB that fills up with what waits for the database, and with what others put there.
pub(crate) async fn full(plan: &Plan, seed: u64) -> Report {
    let report = Report::new(format!("full disk of 1 MiB, seed {seed}"));
    let plan = Plan { beside: true, ..plan.clone() };
    let origin = Origin::start();
    let gate = Gate::new(&plan, &origin.url()).await;
    let small = match Small::mount(gate.folder.path().join("data"), "1m") {
        Ok(small) => small,
        Err(why) => {
            let mut report = report;
            report.broken(format!("no file system of 1 MiB can be mounted (run this as root): {why}"));
            return report;
        }
    };
    let mut run = Run::with(origin, gate, report).await;
    run.fill_up(seed).await;
    run.squeeze(&small).await;
    let report = run.close(Strictness::Exact).await;
    drop(small);
    full_for_both(&plan, report).await
}

/// A file system that others fill up, with the database on it as well.
async fn full_for_both(plan: &Plan, report: Report) -> Report {
    let plan = Plan { beside: false, ..plan.clone() };
    let origin = Origin::start();
    let gate = Gate::new(&plan, &origin.url()).await;
    let small = Small::mount(gate.folder.path().join("data"), "6m").expect("a second file system");
    let mut run = Run::with(origin, gate, report).await;
    for _ in 0..3 {
        run.squeeze_both(&small).await;
    }
    let report = run.close(Strictness::Exact).await;
    drop(small);
    report
}

// === impl Run ===

impl Run {
    async fn begin(plan: &Plan, report: Report) -> Self {
        let origin = Origin::start();
        let gate = Gate::new(plan, &origin.url()).await;
        Self::with(origin, gate, report).await
    }

    async fn with(origin: Origin, mut gate: Gate, report: Report) -> Self {
        gate.start().await;
        let people = register(&gate, 0, &DAYS).await;
        for person in &people {
            origin.expect(person.number, person.terms);
        }
        let numbers = Arc::new(AtomicU32::new(0));
        Self { origin, gate, people: Arc::new(people), numbers, heard: Vec::new(), report, readiness: [0; 3] }
    }

    async fn round(&mut self, call: &str, how: &str, dice: Dice) {
        let said = self.gate.said().len();
        let started = self.gate.start_with(|binary| trace::inject(binary, call, how)).await;
        match started {
            Ok(()) => {
                let load = self.load(Mix::EVERYTHING, dice);
                tokio::time::sleep(UNDER_LOAD).await;
                match self.gate.status("/readyz").await {
                    Some(200) => self.readiness[0] += 1,
                    Some(_) => self.readiness[1] += 1,
                    None => self.readiness[2] += 1,
                }
                if self.gate.ended().is_some() {
                    self.report
                        .broken(format!("{call} {how}: the gate ended by itself: {}", self.since(said)));
                }
                // Refusals end the load soon enough; what waits for a dead disk ends with the gate.
                let (heard, ()) = tokio::join!(load.stop(), async {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    if self.gate.ended().is_none() && self.gate.stop_within(END).await.is_none() {
                        self.report.broken(format!("{call} {how}: the gate does not end in {END:?}"));
                    }
                });
                self.heard.extend(heard);
            }
            Err(_) if self.gate.ended().is_some() => {
                if self.since(said).trim().is_empty() {
                    self.report.broken(format!("{call} {how}: refused to start and did not say why"));
                }
            }
            Err(why) => self.report.broken(format!("{call} {how}: {why}")),
        }
        self.gate.kill();
    }

    fn since(&self, said: usize) -> String {
        self.gate.said().get(said..).unwrap_or_default().to_owned()
    }

    fn load(&self, mix: Mix, dice: Dice) -> Load {
        Load::start(self.gate.addr, &self.people, mix, &self.numbers, (CLIENTS, dice))
    }

    /// The database is locked, so nothing is drained; notes come until there is no room.
    async fn fill_up(&mut self, seed: u64) {
        let Database::Sqlite(file) = &self.gate.database else { panic!("this experiment is one of SQLite") };
        let mut lock = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
        lock.execute("BEGIN IMMEDIATE").await.unwrap();
        let load = self.load(Mix::NOTES, Dice::new(seed));
        let refused = self.until("refused for want of room", async |run| run.note().await == 503).await;
        self.report.figure("full after, ms", refused.as_millis());
        let told =
            self.until("said by readyz", async |run| run.gate.status("/readyz").await == Some(503)).await;
        self.report.figure("readyz says so after, ms", told.as_millis());
        self.heard.extend(load.stop().await);
        lock.execute("ROLLBACK").await.unwrap();
        let again = self.until("taken again", async |run| run.note().await == 200).await;
        self.report.figure("well again after the database was back, ms", again.as_millis());
    }

    /// Somebody else takes all the space.
    async fn squeeze(&mut self, small: &Small) {
        small.fill();
        self.until("refused on a full disk", async |run| run.note().await == 503).await;
        let told =
            self.until("said by readyz", async |run| run.gate.status("/readyz").await == Some(503)).await;
        self.report.figure("others fill the disk; readyz says so after, ms", told.as_millis());
        self.gate.stop_within(END).await;
        // What was drained at the end left room.
        let filler = small.fill();
        self.gate.spawn(|binary| Command::new(binary));
        let refusal = self.until("refused to start", async |run| run.gate.ended().is_some()).await;
        self.report.figure("start refused on a full disk after, ms", refusal.as_millis());
        let said = self.gate.said();
        let last = said.lines().last().unwrap_or_default().to_owned();
        self.gate.kill();
        self.report.figure("it says", last);
        std::fs::remove_file(filler).unwrap();
        self.gate.start().await;
        let again = self.until("taken again", async |run| run.note().await == 200).await;
        self.report.figure("well again after there was space, ms", again.as_millis());
    }

    /// Somebody else takes all the space for a while, and the database needs some.
    async fn squeeze_both(&mut self, small: &Small) {
        let filler = small.fill();
        self.until("refused on a full disk", async |run| run.note().await == 503).await;
        self.until("not registered on a full disk", async |run| run.registered().await == 503).await;
        let told =
            self.until("said by readyz", async |run| run.gate.status("/readyz").await == Some(503)).await;
        self.report.figure("database on the full disk; readyz says so after, ms", told.as_millis());
        std::fs::remove_file(filler).unwrap();
        let again = self.until("well again", async |run| {
            let taken = run.note().await == 200 && run.registered().await == 201;
            taken && run.gate.status("/readyz").await == Some(200)
        });
        let again = again.await;
        self.report.figure("well again after there was space, ms", again.as_millis());
    }

    /// How a registration is answered, of another user each time.
    async fn registered(&self) -> u16 {
        let name = format!("late{}", self.numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let form = serde_json::json!({"username": name, "name": name, "email": format!("{name}@example.com"),
            "password": "password123", "confirm_password": "password123", "type": "Personal"});
        self.gate.post("/api/v1/auth/register", None, &form).await.0
    }

    async fn until(&mut self, what: &str, mut is: impl AsyncFnMut(&mut Self) -> bool) -> Duration {
        let begun = Instant::now();
        while !is(self).await {
            if begun.elapsed() > RECOVERY {
                self.report.broken(format!("not {what} within {RECOVERY:?}"));
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        begun.elapsed()
    }

    /// One large note; how it was answered.
    async fn note(&mut self) -> u16 {
        let number = self.numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let person = self.people[3].clone();
        let Some(mut line) = Line::open(self.gate.addr).await else { return 0 };
        let heard = line.log_message(&person, Canary { user: person.number, number }, 3000).await;
        let status = heard.status;
        self.heard.push(heard);
        status
    }

    async fn close(mut self, strictness: Strictness) -> Report {
        let users = self.people.iter().map(|person| (person.username.clone(), person.terms)).collect();
        let heard = std::mem::take(&mut self.heard);
        let whole = heard.iter().filter(|heard| heard.whole && heard.status == 200);
        let (answered, notes) =
            (whole.clone().count(), whole.filter(|heard| heard.call == Call::LogMessage).count());
        let books = Books { users, heard, seen: self.origin.seen(), exhausted: [].into(), strictness };
        let findings = books.audit(&Told::at_rest(&self.gate).await);
        let report = &mut self.report;
        report.figure("requests", books.heard.len());
        report.figure("answered 200 to the last byte / of them notes", format!("{answered} / {notes}"));
        let [ready, not, silent] = self.readiness;
        report.figure("readyz under load: 200 / other / none", format!("{ready} / {not} / {silent}"));
        report.figure("over-admitted", findings.over_admitted);
        report.figure("given back twice", findings.double_refunds);
        report.figure("finished conversations lost", findings.lost_finished);
        report.figure("acknowledged log-messages lost", findings.lost_notes);
        report.figure("reached the model and in no log", findings.unrecorded);
        report.all_broken(findings.broken);
        report.all_broken(self.origin.complaints());
        let status = self.gate.stop().await;
        if !status.success() {
            report.broken(format!("the gate ended with {status}"));
        }
        let panics = self.gate.panics();
        report.figure("panics", panics.len());
        report.all_broken(panics);
        self.gate.clean_up().await;
        self.report
    }
}

// === impl Small ===

impl Small {
    fn mount(folder: PathBuf, size: &str) -> Result<Self, String> {
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let mut command = Command::new("mount");
        let options = format!("size={size},mode=700");
        command.args(["-t", "tmpfs", "-o", &options, "tollgate-lab"]).arg(&folder);
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(Self(folder))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into())
        }
    }

    /// Takes all the space there is.
    fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.0.join("somebody-elses");
        let mut file = std::fs::File::options().create(true).append(true).open(&path).unwrap();
        while file.write_all(&[7; 512]).is_ok() {}
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
