//! `tollgate clock …`: whether this machine's clock is believed, and saying that it is right.

use serde_json::json;
use tollgate::store::clock_marks;
use tollgate::timekeeper;

use super::ConfigFile;
use super::desk::{Desk, Told, at_the_desk};

/// The clock that days are counted by. A gateway does not follow a clock that jumps: it goes on from the
/// time it had, and its readiness is red, until the clock is set right or accepted.
#[derive(clap::Subcommand)]
pub(crate) enum ClockCommand {
    /// Compare this machine's clock with the database.
    Show(ConfigFile),
    /// Say that this machine's clock is right, as after a machine was paused. A running gateway follows
    /// within ten seconds.
    Accept(ConfigFile),
}

// === impl ClockCommand ===

impl ClockCommand {
    /// Runs the command.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Show(at) => at_the_desk(&at, async |desk| show(desk).await),
            Self::Accept(at) => at_the_desk(&at, async |desk| accept(desk).await),
        }
    }
}

async fn show(desk: &Desk) -> anyhow::Result<Told> {
    let opinion = timekeeper::consult(&desk.db, &desk.clock).await?;
    let (shown, now) = (desk.clock.wall(), desk.clock.now());
    let reason = opinion.disagreement.map(|why| why.to_string());
    let seconds = opinion.lead / 1000;
    let text = match &reason {
        None => format!("The clock is trusted: {shown} ({seconds} s ahead)."),
        Some(why) => format!("The clock shows {shown} and is not trusted: {why}. It is taken to be {now}."),
    };
    let json = json!({ "ok": true, "clock": shown, "now": now, "lead_seconds": seconds,
        "trusted": reason.is_none(), "reason": reason });
    Ok(Told { json, text })
}

async fn accept(desk: &Desk) -> anyhow::Result<Told> {
    let shown = desk.clock.wall();
    if let Some(database) = clock_marks::database_time(&desk.db).await? {
        let apart = shown.0.abs_diff(database.0) / 1000;
        anyhow::ensure!(
            apart <= 60,
            "the database's clock shows {database}, and this machine's {shown}: set the wrong one right"
        );
    }
    let detail = json!({ "clock": shown.to_string() });
    let entry = desk.entry("clock.accept", "", detail);
    clock_marks::accept(&desk.db, &timekeeper::mark_of(&desk.clock), &entry).await?;
    let json = json!({ "ok": true, "clock": shown });
    Ok(Told { json, text: format!("The clock is right from now on: {shown}.") })
}
