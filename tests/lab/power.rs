//! Power: a short run is recorded, call by call, and the disk is put together as it may be found had the
//! power gone at any moment. From each such disk the gate is started, and its books are looked at.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use super::books::{Books, Ended, Heard, Seen, Strictness, Terms};
use super::canary::Canary;
use super::crash::{Disk, Fate, Files, Timed};
use super::dice::Dice;
use super::gate::{Gate, Plan};
use super::load::{Load, Mix};
use super::origin::Origin;
use super::people::register;
use super::report::Report;
use super::strace_log;
use super::told::Told;
use super::trace;

/// What was recorded.
pub(crate) struct Recorded {
    pub(crate) base: Files,
    pub(crate) ops: Vec<Timed>,
    users: Vec<(String, Terms)>,
    heard: Vec<Heard>,
    seen: HashMap<Canary, Seen>,
    pub(crate) origin: Origin,
}

/// A disk as it may be found, and when the power went.
pub(crate) struct State {
    pub(crate) files: Files,
    pub(crate) at: f64,
    pub(crate) fate: Fate,
    pub(crate) ops: usize,
}

/// What the starts told.
#[derive(Default)]
pub(crate) struct Sums {
    pub(crate) explored: usize,
    by_fate: [usize; 4],
    pub(crate) lost: usize,
    oldest_lost: Duration,
    pub(crate) slowest: Duration,
    pub(crate) over_admitted: i64,
    pub(crate) rows: usize,
    pub(crate) broken: Vec<String>,
}

const DAYS: [i64; 5] = [3, 12, 60, 400, 100_000];
const CLIENTS: usize = 2;
/// Over the recorded calls, at most.
const PASSES: usize = 20;
/// In the order of `Sums::by_fate`.
const FATES: [Fate; 4] = [Fate::Kept, Fate::Dropped, Fate::Torn, Fate::Reordered];
/// How long something answered may be unsafe where it is not synced at once: twice the interval of 50 ms,
/// and what a sync takes under a tracer.
const BOUND: Duration = Duration::from_millis(250);
pub(crate) const LOG: &str = "\n[message_log]\nbatch_interval = \"1s\"\nbatch_size = 50\n";

/// Explores `states` disks, found after a run of `time`; the report. `strict` is the mode in which the
/// last byte of an answer waits for the disk.
pub(crate) async fn power(plan: &Plan, states: usize, (time, strict): (Duration, bool), seed: u64) -> Report {
    let mode = if strict { "strict" } else { "interval" };
    let mut report = Report::new(format!("power loss, {mode}: {states} states, seed {seed}"));
    if !trace::is_possible() || !trace::may_bind() {
        report.broken("strace and unshare are needed, and the right to trace and to mount");
        return report;
    }
    let plan = plan.clone().saying(LOG).saying(&format!("sync = \"{mode}\"\n"));
    let recorded = record(&plan, time, seed).await;
    let (ops, answered) =
        (recorded.ops.len(), recorded.heard.iter().filter(|heard| heard.status == 200).count());
    report.figure("calls recorded", ops);
    report.figure("answered 200 meanwhile", answered);
    let mut sums = Sums::default();
    explore(&plan, &recorded, states, &mut sums, (strict, Dice::new(seed))).await;
    report.figure("states explored, all different", sums.explored);
    let [kept, dropped, torn, reordered] = sums.by_fate;
    report.figure("kept / dropped / torn / reordered", format!("{kept} / {dropped} / {torn} / {reordered}"));
    report.figure("rows found, on average", sums.rows / sums.explored.max(1));
    report.figure("answered and lost, in all states together", sums.lost);
    report.figure("the oldest of them, ms before the power went", sums.oldest_lost.as_millis());
    report.figure("over-admitted", sums.over_admitted);
    report.figure("slowest start, ms", sums.slowest.as_millis());
    report.all_broken(sums.broken);
    report
}

/// A short life: users come, the gate stops in order; then it runs under a tracer, on a machine that was
/// booted at another time than ours.
pub(crate) async fn record(plan: &Plan, time: Duration, seed: u64) -> Recorded {
    let origin = Origin::start();
    let mut gate = Gate::new(plan, &origin.url()).await;
    gate.start().await;
    let people = Arc::new(register(&gate, 0, &DAYS).await);
    for person in people.iter() {
        origin.expect(person.number, person.terms);
    }
    gate.stop().await;
    let data = gate.folder.path().canonicalize().unwrap().join("data");
    let base = read(&data, "");
    let (log, boot) = (gate.folder.path().join("trace"), gate.folder.path().join("boot"));
    std::fs::write(&boot, "11111111-2222-4333-8444-555555555555\n").unwrap();
    gate.start_with(|binary| trace::record_on_other_boot(binary, &log, &boot)).await.unwrap();
    let numbers = Arc::new(AtomicU32::new(0));
    let load = Load::start(gate.addr, &people, Mix::EVERYTHING, &numbers, (CLIENTS, Dice::new(seed)));
    tokio::time::sleep(time).await;
    let heard = load.stop().await;
    gate.stop().await;
    let ops = strace_log::read(&log, &data);
    let users = people.iter().map(|person| (person.username.clone(), person.terms)).collect();
    Recorded { base, ops, users, heard, seen: origin.seen(), origin }
}

async fn explore(
    plan: &Plan,
    recorded: &Recorded,
    states: usize,
    sums: &mut Sums,
    (strict, dice): (bool, Dice),
) {
    // Fewer states than calls: not every call is followed by a crash.
    let every = (recorded.ops.len() / states.max(1)).max(1);
    let bound = if strict { Duration::ZERO } else { BOUND };
    let mut known = HashSet::new();
    let mut gate = Gate::new(plan, &recorded.origin.url()).await;
    // More than one pass where one does not find enough that differ.
    'passes: for pass in 0..PASSES {
        let mut disk = Disk::with(&recorded.base);
        for (at, timed) in recorded.ops.iter().enumerate() {
            disk.apply(timed);
            if !(at + pass).is_multiple_of(every) {
                continue;
            }
            for fate in fates(pass, at, every) {
                let mut dice = dice.fork((pass << 32 | at << 2 | fate as usize) as u64);
                let files = disk.crash(fate, &mut dice);
                let state = State { files, at: recorded.until_next(at), fate, ops: at + 1 };
                if known.insert(state.hash()) {
                    recover(&mut gate, recorded, state, bound, sums).await;
                }
            }
            if known.len() >= states {
                break 'passes;
            }
        }
    }
    sums.broken.extend(gate.panics());
    gate.clean_up().await;
}

/// Which fates are tried after this call.
fn fates(pass: usize, at: usize, every: usize) -> Vec<Fate> {
    match pass {
        _ if every > 1 => vec![FATES[(at / every + pass) % FATES.len()]],
        0 => FATES.to_vec(),
        _ => vec![Fate::Torn, Fate::Reordered],
    }
}

/// Starts from this disk, and holds what is then told against what was seen until the power went.
pub(crate) async fn recover(
    gate: &mut Gate,
    recorded: &Recorded,
    state: State,
    bound: Duration,
    sums: &mut Sums,
) {
    let data = gate.folder.path().join("data");
    let _ = std::fs::remove_dir_all(&data);
    write(&data, &state.files, &recorded.base);
    let name = format!("after {} calls, {:?}", state.ops, state.fate);
    let begun = std::time::Instant::now();
    if let Err(why) = gate.start_with(|binary| Command::new(binary)).await {
        sums.broken.push(format!("{name}: {why}"));
        gate.kill();
        return;
    }
    sums.slowest = sums.slowest.max(begun.elapsed());
    let at_rest = Told::at_rest(gate).await;
    let ended = gate.stop().await;
    if !ended.success() {
        let last = gate.said().lines().next_back().unwrap_or_default().to_owned();
        sums.broken.push(format!("{name}: the gate ended with {ended}, and said last: {last}"));
    }
    let told = Told { left: at_rest.left, ..Told::of_tables(&gate.database).await };
    let (books, lost) = recorded.until(state.at, bound, &told);
    let findings = books.audit(&told);
    sums.explored += 1;
    sums.by_fate[FATES.iter().position(|fate| *fate == state.fate).unwrap()] += 1;
    sums.rows += told.rows.len();
    sums.over_admitted += findings.over_admitted;
    sums.lost += lost.len();
    sums.oldest_lost = lost.into_iter().fold(sums.oldest_lost, Duration::max);
    sums.broken.extend(findings.broken.into_iter().map(|how| format!("{name}: {how}")));
    let (code, said) = gate.command(&["ledger", "verify"]).await;
    if code != Some(0) && !said.contains("unrecognized subcommand") {
        sums.broken.push(format!("{name}: ledger verify says {code:?}: {said}"));
    }
}

// === impl Recorded ===

impl Recorded {
    /// When the power goes after this call: before the next begins.
    fn until_next(&self, at: usize) -> f64 {
        let next = self.ops[at + 1..].iter().map(|next| next.begun).fold(f64::INFINITY, f64::min);
        next.max(self.ops[at].done)
    }

    /// When the last client had its answer.
    pub(crate) fn last_answer(&self) -> f64 {
        self.heard.iter().map(|heard| heard.at).fold(0.0, f64::max)
    }

    /// What was known when the power went, and how long before that each answer was heard that is lost
    /// within its bound.
    fn until(&self, at: f64, bound: Duration, told: &Told) -> (Books, Vec<Duration>) {
        let rows: HashSet<&str> = told.rows.iter().map(|row| row.request_id.as_str()).collect();
        let mut lost = Vec::new();
        let mut heard = Vec::new();
        for answer in self.heard.iter().filter(|heard| heard.at < at && heard.at > 0.0) {
            let is_lost = answer.status == 200 && answer.whole && !rows.contains(answer.request_id.as_str());
            if is_lost && at - answer.at < bound.as_secs_f64() {
                lost.push(Duration::from_secs_f64(at - answer.at));
                // It was had all the same.
                heard.push(Heard { whole: false, ..answer.clone() });
                continue;
            }
            heard.push(answer.clone());
        }
        let then = |seen: &Seen| {
            let ended = if seen.ended_at < at { seen.ended } else { Ended::Open };
            Seen { ended, ..seen.clone() }
        };
        let came = self.seen.iter().filter(|(_, seen)| seen.came_at < at);
        let seen = came.map(|(canary, seen)| (*canary, then(seen))).collect();
        let strictness = if bound == Duration::MAX { Strictness::Damaged } else { Strictness::PowerLost };
        let users = self.users.clone();
        (Books { users, heard, seen, exhausted: [].into(), strictness }, lost)
    }
}

// === impl State ===

impl State {
    fn hash(&self) -> u64 {
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort();
        let mut hasher = DefaultHasher::new();
        files.hash(&mut hasher);
        hasher.finish()
    }
}

/// Every file below `folder`, but for what SQLite shares by memory.
fn read(folder: &Path, below: &str) -> Files {
    let mut files = Files::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{below}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            files.extend(read(&path, &format!("{name}/")));
        } else if !name.ends_with("-shm") {
            files.insert(name, std::fs::read(path).unwrap());
        }
    }
    files
}

/// Folders that were there at first are there.
fn write(folder: &Path, files: &Files, base: &Files) {
    for name in base.keys().chain(files.keys()) {
        std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
    }
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    private(folder);
}

/// As the gate makes its folder and its secrets.
fn private(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        if path.is_dir() {
            private(&path);
        }
    }
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).unwrap();
}
