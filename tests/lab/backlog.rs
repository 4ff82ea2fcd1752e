//! Backlog: a killed gate leaves gigabytes of rows that are not in the database. How long is the next start
//! shut, how long until they are written, and what memory does that take?

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use super::books::{Books, Call, Strictness};
use super::dice::Dice;
use super::gate::{Gate, Plan};
use super::load::{Load, Mix};
use super::origin::Origin;
use super::people::register;
use super::report::Report;
use super::told::Told;

/// Nothing is written to the database before it is told to.
const NEVER: &str = "
[message_log]
batch_interval = \"24h\"
batch_size = 100000
memory_threshold = \"1TiB\"
max_spool = \"64GiB\"
";
const DAYS: [i64; 4] = [1_000_000; 4];
const CLIENTS: usize = 4;
/// What is read in the sitting of one start must fit into so much memory, in KiB.
const MEMORY: u64 = 256 << 10;
/// The gate is open within this, whatever it finds.
const OPEN: Duration = Duration::from_secs(5);
/// How long it may take until a gibibyte is written.
const PATIENCE: Duration = Duration::from_mins(10);

/// Runs it with so many mebibytes, in notes of so many kibibytes and conversations; the report.
pub(crate) async fn backlog(plan: &Plan, (mebibytes, note): (u64, usize), seed: u64) -> Report {
    let mut report = Report::new(format!("backlog: {mebibytes} MiB, notes of {note} KiB, seed {seed}"));
    let origin = Origin::start();
    let mut gate = Gate::new(&plan.clone().saying(NEVER), &origin.url()).await;
    gate.start().await;
    let people = Arc::new(register(&gate, 0, &DAYS).await);
    let mix = Mix { notes: 70, bulk: note << 10, ..Mix::EVERYTHING };
    let spool = gate.folder.path().join("data/spool");
    let load = Load::start(gate.addr, &people, mix, &Arc::new(AtomicU32::new(0)), (CLIENTS, Dice::new(seed)));
    while bytes_in(&spool) < mebibytes << 20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    gate.kill();
    let heard = load.stop().await;
    report.figure("spool found, MiB", bytes_in(&spool) >> 20);

    let begun = Instant::now();
    gate.start().await;
    let open = begun.elapsed();
    let before = gate.memory();
    let mut most = before;
    while bytes_in(&spool) > 1 << 20 && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
        most = most.max(gate.memory());
    }
    let written = begun.elapsed();
    report.figure("open after, ms", open.as_millis());
    report.figure("all written after, s", format!("{:.1}", written.as_secs_f64()));
    report.figure("memory when open, MiB", before >> 10);
    report.figure("most memory, MiB", most >> 10);
    if open > OPEN {
        report.broken(format!("the gate was shut for {open:?}"));
    }
    if most > before + MEMORY {
        report.broken(format!("memory grew from {before} to {most} KiB"));
    }

    let users = people.iter().map(|person| (person.username.clone(), person.terms)).collect();
    let notes = heard.iter().filter(|heard| heard.call == Call::LogMessage && heard.status == 200).count();
    let books = Books {
        users,
        heard,
        seen: origin.seen(),
        exhausted: HashSet::new(),
        strictness: Strictness::Killed,
    };
    let findings = books.audit(&Told::at_rest(&gate).await);
    report.figure("rows", findings.rows);
    report.figure("rows a second", (findings.rows as f64 / written.as_secs_f64()).round());
    report.figure("of them log-messages that were acknowledged", notes);
    report.figure("acknowledged and lost", findings.lost_notes + findings.lost_finished);
    report.all_broken(findings.broken);
    report.all_broken(gate.panics());
    let status = gate.stop().await;
    if !status.success() {
        report.broken(format!("the gate ended with {status}"));
    }
    gate.clean_up().await;
    report
}

/// What the files of the spool hold.
fn bytes_in(spool: &Path) -> u64 {
    let files = std::fs::read_dir(spool).into_iter().flatten().flatten();
    let files = files.filter(|file| file.path().extension().is_some_and(|kind| kind == "seg"));
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}
