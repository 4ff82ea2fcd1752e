//! `tollgate ledger …`: whether the balances are right, and what somebody's day went to.

use std::fmt::{self, Write};

use anyhow::{Context, bail};
use chrono::{DateTime, NaiveDate};
use chrono_tz::Tz;
use tollgate::config::ConfigError;
use tollgate::control::{DayReport, LedgerDifference, LedgerEpoch, LedgerReport, Whose};
use tollgate::quota::Window;
use tollgate::store::SlowRead;
use tollgate::store::ledger::{self, Asked, Question, Verified};
use tollgate::store::users::{self, User};
use tollgate::telemetry::printed::field;

use super::desk::{Desk, Told, at_the_desk};
use super::{ConfigFile, NoInstallation};

mod repair;

use repair::repair;

/// Compare every user's balances with the message log, explain them, and repair them. A running gateway
/// goes on with its work.
#[derive(clap::Subcommand)]
pub(crate) enum LedgerCommand {
    /// Compute every balance again from the rows it is made of; exit code 1 when one differs, 2 when it
    /// cannot be told.
    Verify {
        /// The balances of this user only.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        #[command(flatten)]
        at: ConfigFile,
    },
    /// Show what `verify` finds and what can be done about it; with `--apply` do it, recorded in the audit
    /// trail. Exit code 1 when the ledger does not hold (afterwards), 2 when it cannot be told.
    Repair {
        /// The balances of this user only.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// Change the balances that have a remedy, one transaction each.
        #[arg(long)]
        apply: bool,
        #[command(flatten)]
        at: ConfigFile,
    },
    /// Print each conversation of a user's day, why it was charged or not, and what is left.
    Explain {
        /// Whose.
        #[arg(value_name = "USER")]
        username: String,
        /// Which day, in the zone of their plan; else today.
        #[arg(long, value_name = "YYYY-MM-DD", value_parser = day_number)]
        day: Option<i64>,
        #[command(flatten)]
        at: ConfigFile,
    },
}

/// Nobody can say whether the ledger holds.
#[derive(Debug)]
pub(crate) struct Unreadable;

/// Conversations of a day that are printed: more than any limit allows.
const MOST_LINES: i64 = 2_000_000;

// === impl LedgerCommand ===

impl LedgerCommand {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut holds = true;
        let done = match &self {
            Self::Verify { user, at } => at_the_desk(at, async |desk| {
                let report = LedgerReport::of(&found(desk, user.as_deref()).await?);
                holds = report.ok;
                Ok(Told { json: serde_json::to_value(&report)?, text: verified(&report)? })
            }),
            Self::Repair { user, apply, at } => at_the_desk(at, async |desk| {
                let done = repair(desk, user.as_deref(), *apply).await?;
                holds = done.holds();
                done.told()
            }),
            Self::Explain { username, day, at } => at_the_desk(at, async |desk| {
                let (report, zone) = explain(desk, username, *day).await?;
                holds = report.ok;
                Ok(Told { json: serde_json::to_value(&report)?, text: explained(&report, zone)? })
            }),
        };
        match done {
            Err(error) if !error.is::<ConfigError>() && !error.is::<NoInstallation>() => {
                Err(error.context(Unreadable))
            }
            Ok(()) if !holds => bail!("the ledger does not hold"),
            other => other,
        }
    }
}

async fn found(desk: &Desk, username: Option<&str>) -> anyhow::Result<Verified> {
    let only = match username {
        Some(username) => Some(named(desk, username).await?.id),
        None => None,
    };
    let question = Question { only, after: None, patience: None, now: desk.now };
    Ok(ledger::verify(&SlowRead::alone(&desk.db), &question).await?)
}

async fn explain(desk: &Desk, username: &str, day: Option<i64>) -> anyhow::Result<(DayReport, Tz)> {
    let User { id: user, username, subscription_plan, level, .. } = named(desk, username).await?;
    let zone = desk.config.plans.resolve(&subscription_plan, &level).allowance.zone;
    let window = day.map_or_else(|| Window::at(desk.now, zone), |day| Window::of(day, zone));
    let asked = Asked {
        user,
        day: window.day,
        between: (window.starts_at, window.resets_at),
        page: (MOST_LINES, 0),
        patience: None,
        now: desk.now,
    };
    let told = ledger::explain(&SlowRead::alone(&desk.db), &asked).await?;
    Ok((DayReport::of(Whose { user, username, zone, window }, told), zone))
}

async fn named(desk: &Desk, username: &str) -> anyhow::Result<User> {
    let found = users::by_username(&desk.db, username).await?;
    found.with_context(|| format!("there is no user {username}"))
}

fn day_number(text: &str) -> Result<i64, String> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").map_err(|_| "a date such as 2026-10-01")?;
    Ok(date.signed_duration_since(DateTime::UNIX_EPOCH.date_naive()).num_days())
}

fn verified(report: &LedgerReport) -> Result<String, fmt::Error> {
    let LedgerReport { out_of_reach, total, .. } = report;
    let mut text = if report.ok {
        "The ledger holds.".to_owned()
    } else {
        format!("THE LEDGER DOES NOT HOLD: {}.", count(*total, "difference"))
    };
    let (rows, balances) = (count(report.conversations, "conversation"), count(report.balances, "balance"));
    let users = count(report.users, "user");
    write!(text, "\nCounted again: {rows}, for {balances} of {users}.")?;
    if let Some(first) = &report.first_day {
        write!(
            text,
            "\nThe log has forgotten rows of the days before {first}. Their balances ({out_of_reach}) could not \
             be counted again; what else is known of them was looked at."
        )?;
    }
    differences(&mut text, &report.differences)?;
    let untold = total.saturating_sub(report.differences.len() as u64);
    if untold > 0 {
        write!(text, "\n… and {untold} more.")?;
    }
    if report.differences.iter().any(|difference| difference.remedy.is_some()) {
        text.push_str(
            "\n\n`tollgate ledger repair` shows what it would change, and changes it with `--apply`.",
        );
    }
    Ok(text)
}

fn differences(text: &mut String, differences: &[LedgerDifference]) -> fmt::Result {
    if differences.is_empty() {
        return Ok(());
    }
    write!(
        text,
        "\n\n{:<30}  {:<10}  {:>5}  {:>8}  {:>8}  {:<8}  what",
        "user", "day", "epoch", "expected", "found", "remedy"
    )?;
    for difference in differences {
        let LedgerDifference { user_id, username, day, epoch, what, expected, found, remedy } = difference;
        let user = username.as_deref().map_or_else(|| format!("(number {user_id})").into(), field);
        let (day, epoch) = (day.as_deref().unwrap_or("none"), shown(*epoch));
        let (meant, remedy) = (meaning(what), remedy.unwrap_or("none"));
        write!(
            text,
            "\n{user:<30}  {day:<10}  {epoch:>5}  {expected:>8}  {found:>8}  {remedy:<8}  {what}: {meant}"
        )?;
    }
    text.push('\n');
    let mut remedies: Vec<_> = differences.iter().map(|difference| difference.remedy).collect();
    remedies.sort_unstable();
    remedies.dedup();
    for remedy in remedies {
        write!(text, "\n{:<8}  {}", remedy.unwrap_or("none"), done_by(remedy))?;
    }
    Ok(())
}

/// What is held against what, for whoever has not read the manual.
fn meaning(what: &str) -> &'static str {
    match what {
        "charged" => "quota.charged against charged rows of the log",
        "refunded" => "quota.refunded against refunded rows of the log",
        "granted" => "quota.granted against charged + leases + forfeited",
        "above_allowance" => "quota.granted is above quota.allowance, and no smaller plan explains it",
        "later_epoch" => "quota.epoch is later than users.quota_epoch",
        "no_user" => "a balance or a lease of a user who is not there",
        "lease_without_balance" => "leases of a day that quota has no row of",
        "charged_without_balance" => "charged rows of the log whose day quota has no row of",
        "refunded_without_balance" => "refunded rows of the log whose day quota has no row of",
        _ => "a number of units is below zero",
    }
}

/// What a remedy changes.
fn done_by(remedy: Option<&str>) -> &'static str {
    match remedy {
        Some("recount") => "set charged and refunded to the numbers of rows of the log, and granted to match",
        Some("regrant") => "set granted to charged + leases + forfeited",
        Some("restore") => "make the balance of a day that is over again from its rows",
        Some("remove") => "remove the balance and the leases of a user who is not there",
        _ => {
            "there is no remedy: what was granted beyond an allowance was used, what the log has forgotten \
             cannot be counted, and a day that is not over first needs its next conversation"
        }
    }
}

fn explained(report: &DayReport, zone: Tz) -> Result<String, fmt::Error> {
    let DayReport { username, day, time_zone, total, .. } = report;
    let rows = count(u64::try_from(*total).unwrap_or(0), "conversation");
    let mut text = format!("{} on {day} ({time_zone}): {rows}", field(username));
    if !report.conversations.is_empty() {
        write!(
            text,
            "\n\n{:<8}  {:>5}  {:<8}  {:>5}  {:>6}  {:<16}  {:<20}  {:<48}  {:<36}  request",
            "time", "epoch", "verdict", "left", "status", "call", "model", "why", "id"
        )?;
    }
    for line in &report.conversations {
        let time = line.time.to_utc().with_timezone(&zone).format("%H:%M:%S");
        let (epoch, left, status) = (shown(line.epoch), shown(line.left), shown(line.status));
        let (id, why, call) = (line.id.to_string(), field(&line.why), field(&line.call));
        write!(
            text,
            "\n{time:<8}  {epoch:>5}  {:<8}  {left:>5}  {status:>6}  {call:<16}  {:<20}  {why:<48}  {id:<36}  {}",
            line.verdict,
            field(&line.model),
            field(&line.request_id)
        )?;
    }
    for epoch in &report.epochs {
        balance(&mut text, epoch)?;
    }
    if report.epochs.is_empty() {
        write!(text, "\n\nNo conversation of that day was ever given out, or its balance was pruned.")?;
    }
    differences(&mut text, &report.differences)?;
    Ok(text)
}

fn balance(text: &mut String, of: &LedgerEpoch) -> fmt::Result {
    let now = if of.live { ", which is in force" } else { ", which is over" };
    write!(text, "\n\nepoch {}{now}", of.epoch)?;
    let lines = [
        ("charged", of.charged, ""),
        ("held by runs", of.held, "  kept ready, in use, or used and not yet written"),
        ("forfeited", of.forfeited, ""),
        ("left", of.left, ""),
        ("allowance", of.allowance, "  the sum of these"),
        ("given back", of.refunded, "  in none of these"),
    ];
    for (name, units, note) in lines {
        write!(text, "\n  {name:<12}  {units:>8}{note}")?;
    }
    Ok(())
}

fn count(number: u64, of: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {of}{plural}")
}

fn shown(number: Option<i64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

// === impl Unreadable ===

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ledger cannot be read")
    }
}

#[cfg(test)]
mod tests {
    use super::day_number;

    #[test]
    fn a_day_is_a_date() {
        assert_eq!(day_number("2026-10-01"), Ok(20_727));
        assert!(day_number("yesterday").is_err());
    }
}
