//! The laboratory: experiments on the real binary that prove, or break, what the README promises.
//!
//!     cargo run --release --example lab -- race
//!
//! Each prints a table, and exits with 1 when a promise was broken. See tests/lab/README.md.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "an experiment stops at the first surprise, and is no part of the product"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

mod cost;
#[path = "proof.rs"]
mod proof;

use proof::gate::Plan;
use proof::postgres::Server;
use proof::report::Report;
use proof::{away, backlog, damage, disk, flood, kill, power, race};

/// Experiments that prove, or break, what the README promises.
#[derive(Parser)]
struct Lab {
    #[command(subcommand)]
    experiment: Experiment,
    /// The binary; built anew when left out.
    #[arg(long, global = true)]
    binary: Option<PathBuf>,
    /// `sqlite`, the URL of a PostgreSQL server that ends in a slash, or `postgres`: one that is started
    /// for the experiment.
    #[arg(long, global = true, default_value = "sqlite")]
    database: String,
    /// The same seed, the same chance.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// One JSON object instead of a table.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Experiment {
    /// Every conversation of a day is asked for many times at once.
    Race {
        #[arg(long, default_value_t = 1000)]
        users: usize,
        /// Requests of each user, all at once.
        #[arg(long, default_value_t = 1000)]
        burst: u32,
        /// Users who race at the same time.
        #[arg(long, default_value_t = 25)]
        group: usize,
        /// Largest day of a user.
        #[arg(long, default_value_t = 40)]
        limit: u64,
    },
    /// `kill -9` at random moments under load.
    Kill {
        #[arg(long, default_value_t = 500)]
        rounds: u64,
    },
    /// The database does not answer while clients go on asking.
    Away {
        /// How long it is away, each time.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Writes and syncs fail, each in its turn.
    Disk {
        #[arg(long, default_value_t = 200)]
        rounds: u64,
    },
    /// A disk of 1 MiB is full, and has space again. Needs root.
    Full,
    /// The power goes, at any moment of a recorded run. SQLite only.
    Power {
        /// Disks to start from.
        #[arg(long, default_value_t = 5000)]
        states: usize,
        /// Length of the recorded run.
        #[arg(long, default_value_t = 1500)]
        milliseconds: u64,
        /// In the mode in which an answer's last byte waits for the disk.
        #[arg(long)]
        strict: bool,
    },
    /// The spool's files are torn, flipped, lost or doubled. SQLite only.
    Damage {
        /// Spools to start from.
        #[arg(long, default_value_t = 2000)]
        spools: usize,
    },
    /// A killed gate leaves rows that are not in the database; the next start finds them.
    Backlog {
        /// How many, at least.
        #[arg(long, default_value_t = 1024)]
        mebibytes: u64,
        /// Kibibytes of each log-message.
        #[arg(long, default_value_t = 16)]
        note: usize,
    },
    /// Hostile users do everything at once that costs a gateway more than it costs them; a good user works.
    Flood {
        #[arg(long, default_value_t = 120)]
        seconds: u64,
        /// Connections that ask nothing; the number of everything else follows it.
        #[arg(long, default_value_t = 1250)]
        idle: usize,
    },
    /// CPU of counting and keeping, next to nginx and to SQL for each request.
    Cost {
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Requests of one measurement.
        #[arg(long, default_value_t = 20_000)]
        requests: u32,
    },
}

fn main() -> ExitCode {
    let lab = Lab::parse();
    let binary = lab.binary.clone().unwrap_or_else(build);
    let own = (lab.database == "postgres").then(Server::start);
    let server = own.as_ref().map(Server::url);
    let server = server.or_else(|| (lab.database != "sqlite").then(|| lab.database.clone()));
    let plan = Plan::new(binary.canonicalize().expect("the binary"), server);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(async {
        let mut told = signal(SignalKind::terminate()).unwrap();
        // What was begun is dropped: the gates end, and their folders go.
        tokio::select! {
            report = run(&lab, &plan) => Some(report),
            _ = told.recv() => None,
            _ = tokio::signal::ctrl_c() => None,
        }
    });
    let Some(report) = report else { return ExitCode::from(130) };
    if lab.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    if report.is_kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(lab: &Lab, plan: &Plan) -> Report {
    match lab.experiment {
        Experiment::Race { users, burst, group, limit } => {
            race::race(plan, race::Size { users, burst, group, limit }, lab.seed).await
        }
        Experiment::Away { seconds } => away::away(plan, Duration::from_secs(seconds), lab.seed).await,
        Experiment::Disk { rounds } => disk::failing(plan, rounds, lab.seed).await,
        Experiment::Full => disk::full(plan, lab.seed).await,
        Experiment::Power { states, milliseconds, strict } => {
            let run = (Duration::from_millis(milliseconds), strict);
            power::power(plan, states, run, lab.seed).await
        }
        Experiment::Damage { spools } => damage::damage(plan, spools, lab.seed).await,
        Experiment::Cost { rounds, requests } => cost::cost(plan, cost::Size { rounds, requests }).await,
        Experiment::Backlog { mebibytes, note } => backlog::backlog(plan, (mebibytes, note), lab.seed).await,
        Experiment::Flood { seconds, idle } => {
            let time = Duration::from_secs(seconds);
            let size =
                flood::Size { time, idle, body: 10 << 20, p99: Duration::from_secs(2), bcrypt_rounds: 12 };
            flood::flood(plan, size).await
        }
        Experiment::Kill { rounds } => kill::kill(plan, rounds, lab.seed).await,
    }
}

/// Builds the gate as we were built, so that no stale one is judged.
fn build() -> PathBuf {
    let folder = std::env::current_exe().unwrap();
    let folder = folder.parent().and_then(Path::parent).expect("target/PROFILE/examples").to_owned();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet", "--bin", "tollgate"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if folder.ends_with("release") {
        command.arg("--release");
    }
    assert!(command.status().unwrap().success(), "the gate cannot be built");
    folder.join("tollgate")
}
