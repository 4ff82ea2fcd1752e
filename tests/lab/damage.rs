//! Damage: files of the spool whose bytes are not what was written. The gate starts from each, says what
//! it lost, and its balances add up.

use std::time::Duration;

use super::crash::{Disk, Fate, Files};
use super::dice::Dice;
use super::gate::{Gate, Plan};
use super::power::{LOG, State, Sums, record, recover};
use super::report::Report;
use super::trace;

/// Length of the recorded run.
const TIME: Duration = Duration::from_millis(600);
/// Anything may be lost with the bytes that said it.
const BOUND: Duration = Duration::MAX;

/// Starts from `spools` damaged spools; the report.
pub(crate) async fn damage(plan: &Plan, spools: usize, seed: u64) -> Report {
    let mut report = Report::new(format!("damaged spools: {spools}, seed {seed}"));
    if !trace::is_possible() || !trace::may_bind() {
        report.broken("strace and unshare are needed, and the right to trace and to mount");
        return report;
    }
    let plan = plan.clone().saying(&LOG.replace("\"1s\"", "\"10m\"").replace("50", "100000"));
    let recorded = record(&plan, TIME, seed).await;
    // When the last client has its answer, and before the gate begins to stop.
    let last = recorded.last_answer();
    let ops = recorded.ops.iter().take_while(|timed| timed.done < last).count();
    let mut disk = Disk::with(&recorded.base);
    recorded.ops[..ops].iter().for_each(|timed| disk.apply(timed));
    let mut dice = Dice::new(seed);
    let whole = disk.crash(Fate::Kept, &mut dice);
    let mut gate = Gate::new(&plan, &recorded.origin.url()).await;
    let state = |files: Files| State { files, at: last, fate: Fate::Kept, ops };
    let mut sound = Sums::default();
    recover(&mut gate, &recorded, state(whole.clone()), BOUND, &mut sound).await;
    let mut sums = Sums::default();
    for n in 0..spools {
        let mut files = whole.clone();
        let how = hurt(&mut files, &mut dice);
        let before = sums.broken.len();
        recover(&mut gate, &recorded, state(files), BOUND, &mut sums).await;
        for broken in &mut sums.broken[before..] {
            *broken = format!("spool {n}, {how}: {broken}");
        }
    }
    report.figure("rows of the whole spool", sound.rows);
    report.figure("spools started from", sums.explored);
    report.figure("rows found, on average", sums.rows / sums.explored.max(1));
    report.figure("over-admitted", sums.over_admitted);
    report.figure("slowest start, ms", sums.slowest.as_millis());
    report.all_broken(sound.broken.into_iter().chain(sums.broken));
    report.all_broken(gate.panics());
    gate.clean_up().await;
    report
}

/// Does something to one file of the spool; what that was.
fn hurt(files: &mut Files, dice: &mut Dice) -> String {
    let mut names: Vec<String> = files
        .keys()
        .filter(|name| name.rsplit_once('.').is_some_and(|(_, kind)| kind == "seg"))
        .cloned()
        .collect();
    names.sort();
    assert!(!names.is_empty(), "nothing was in the spool");
    let name = names[dice.below(names.len() as u64) as usize].clone();
    let mut bytes = files.remove(&name).unwrap();
    let place = |dice: &mut Dice, bytes: &[u8]| dice.below(bytes.len().max(1) as u64) as usize;
    let how = match dice.below(5) {
        0 => {
            bytes.truncate(place(dice, &bytes));
            format!("{name} ends after {} bytes", bytes.len())
        }
        1 => {
            let flips = 1 + dice.below(16);
            for _ in 0..flips {
                let at = place(dice, &bytes);
                bytes[at] ^= 1 << dice.below(8);
            }
            format!("{flips} bits of {name} are turned")
        }
        2 => {
            let from = place(dice, &bytes);
            let to = (from + 1 + dice.below(4096) as usize).min(bytes.len());
            bytes[from..to].fill(0);
            format!("{from}..{to} of {name} is zero")
        }
        3 => return format!("{name} is gone"),
        _ => {
            // The sequence number is the last part of its name.
            let (run, _) = name.rsplit_once('-').unwrap();
            files.insert(format!("{run}-{:016x}.seg", 1000 + dice.below(1000)), bytes.clone());
            format!("{name} is there twice")
        }
    };
    files.insert(name, bytes);
    how
}
