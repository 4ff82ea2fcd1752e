//! What each command does, a file for each family of them.

use std::io::Write;
use std::path::PathBuf;

use tollgate::telemetry::printed;

mod admin;
mod audit;
mod check;
mod clock;
mod desk;
mod health;
mod installation;
mod ledger;
mod migrate;
mod openapi;
mod papers;
mod serve;
mod staff;
mod user;

pub(super) use admin::AdminCommand;
pub(super) use audit::AuditCommand;
pub(super) use check::check;
pub(super) use clock::ClockCommand;
pub(super) use health::health;
pub(super) use installation::NoInstallation;
pub(super) use ledger::{LedgerCommand, Unreadable};
pub(super) use migrate::migrate;
pub(super) use openapi::openapi;
pub(super) use papers::{completions, man};
pub(super) use serve::{demo, serve};
pub(super) use staff::StaffCommand;
pub(super) use user::UserCommand;

/// Which installation is meant, and how its answer is printed.
#[derive(clap::Args)]
pub(super) struct ConfigFile {
    /// The file; else $GATEWAY_CONFIG, ./gateway.toml, /etc/tollgate/gateway.toml.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print one JSON document and nothing else, also of an error: `ok` says which.
    #[arg(long)]
    pub(super) json: bool,
}

/// Tells a person what went wrong, and why.
pub(super) fn tell(error: &anyhow::Error) {
    tollgate::telemetry::say(&format!("{error:#}\n"));
}

/// Passes the outcome of a command on that has nothing else to say; with `json` it is printed too.
fn told(json: bool, done: anyhow::Result<()>) -> anyhow::Result<()> {
    if json {
        print_json(&match &done {
            Ok(()) => serde_json::json!({ "ok": true }),
            Err(error) => refusal(error),
        })?;
    }
    done
}

/// What programs are told of an error; people read it on standard error in any case.
fn refusal(error: &anyhow::Error) -> serde_json::Value {
    serde_json::json!({ "ok": false, "error": format!("{error:#}") })
}

fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    print(&value.to_string())
}

/// Prints lines on standard output. Every command prints by this, so that no text from outside reaches a
/// terminal raw; a value within a line is a [`printed::field`].
fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{}", printed::lines(text))?;
    Ok(())
}

/// Writes on standard error what does not end the command. It goes on too where nothing reads that.
fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", printed::lines(text));
}
