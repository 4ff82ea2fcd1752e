//! Stories of accountability: the real binary under load, killed, starved and cut off, and afterwards
//! every balance as the books of the laboratory have it. They are the small versions of the programs in
//! `tests/lab`, which are run with larger numbers by hand.

mod chance;
mod hardship;

use crate::proof::gate::Plan;
use crate::proof::report::Report;

/// The binary, on the database of this run.
fn plan() -> Plan {
    let server = match std::env::var("TOLLGATE_TEST_DATABASE").as_deref() {
        Ok("postgres") => Some(std::env::var("TOLLGATE_TEST_POSTGRES").expect("the server's URL")),
        _ => None,
    };
    Plan::new(env!("CARGO_BIN_EXE_tollgate"), server)
}

/// The binary on SQLite, whatever the run's database: what the story is about is a file.
fn plan_on_a_file() -> Plan {
    Plan::new(env!("CARGO_BIN_EXE_tollgate"), None)
}

/// Every promise was kept.
fn kept(report: &Report) {
    assert!(report.is_kept(), "{}", report.table());
}
