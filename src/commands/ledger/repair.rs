//! `tollgate ledger repair`: carries out the remedies that `verify` names.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use serde_json::{Value, json};
use tollgate::control::{LedgerReport, date};
use tollgate::store::ledger::{self, Balance, BalanceKey, Repaired, Verified};
use tollgate::telemetry::printed::field;

use super::{count, differences, found, verified};
use crate::commands::desk::{Desk, Told};

/// What the ledger was, and what was done about it.
pub(super) struct Repair {
    /// As it is afterwards.
    report: LedgerReport,
    /// Differences that have a remedy, before.
    remediable: usize,
    /// `None`: a dry run.
    repaired: Option<Vec<Repaired>>,
}

/// Looks what can be repaired, of everyone or of one user, and repairs it where `is_applied`.
pub(super) async fn repair(desk: &Desk, username: Option<&str>, is_applied: bool) -> anyhow::Result<Repair> {
    let mut verified = found(desk, username).await?;
    let remediable = verified.differences.iter().filter(|difference| difference.remedy.is_some()).count();
    if !is_applied {
        return Ok(Repair { report: LedgerReport::of(&verified), remediable, repaired: None });
    }
    let mut repaired = Vec::new();
    // A walk tells a thousand differences at most.
    loop {
        let before = repaired.len();
        for key in keys(&verified) {
            let entry = desk.entry("ledger.repair", "", Value::Null);
            repaired.extend(ledger::repair(&desk.db, key, entry).await?);
        }
        if repaired.len() == before {
            break;
        }
        verified = found(desk, username).await?;
    }
    Ok(Repair { report: LedgerReport::of(&verified), remediable, repaired: Some(repaired) })
}

/// Balances with a remedy.
fn keys(verified: &Verified) -> BTreeSet<BalanceKey> {
    let with_remedy = verified.differences.iter().filter(|difference| difference.remedy.is_some());
    with_remedy.filter_map(ledger::Difference::key).collect()
}

// === impl Repair ===

impl Repair {
    /// Whether the ledger holds now.
    pub(super) fn holds(&self) -> bool {
        self.report.ok
    }

    /// What it has to say.
    pub(super) fn told(&self) -> anyhow::Result<Told> {
        let mut json = serde_json::to_value(&self.report)?;
        if let Value::Object(fields) = &mut json {
            let repaired: Vec<Value> = self.repaired.iter().flatten().map(as_json).collect();
            fields.insert("applied".to_owned(), json!(self.repaired.is_some()));
            fields.insert("repaired".to_owned(), json!(repaired));
        }
        Ok(Told { json, text: self.text()? })
    }

    fn text(&self) -> Result<String, fmt::Error> {
        let Some(repaired) = &self.repaired else { return self.plan() };
        let mut text = format!("Repaired: {}.", count(repaired.len() as u64, "balance"));
        for one in repaired {
            write!(text, "\n  {}", line(one))?;
        }
        write!(text, "\n\n{}", verified(&self.report)?)?;
        Ok(text)
    }

    fn plan(&self) -> Result<String, fmt::Error> {
        if self.report.ok {
            return Ok("The ledger holds: there is nothing to repair.".to_owned());
        }
        let mut text = format!(
            "{} found, {} of them with a remedy. Nothing was changed{}.",
            count(self.report.total, "difference"),
            self.remediable,
            if self.remediable > 0 { ": `tollgate ledger repair --apply` changes it" } else { "" },
        );
        differences(&mut text, &self.report.differences)?;
        Ok(text)
    }
}

fn as_json(of: &Repaired) -> Value {
    let remedies: Vec<&str> = of.remedies.iter().map(|remedy| remedy.as_str()).collect();
    json!({
        "user_id": of.user.to_string(), "username": of.username, "day": date(of.day), "epoch": of.epoch,
        "remedies": remedies, "before": of.before, "after": of.after,
    })
}

fn line(of: &Repaired) -> String {
    let user = of.username.as_deref().map_or_else(|| format!("(number {})", of.user).into(), field);
    let remedies: Vec<&str> = of.remedies.iter().map(|remedy| remedy.as_str()).collect();
    let changes = match (of.before, of.after) {
        (_, None) => "removed".to_owned(),
        (None, Some(after)) => format!("made with granted {}, charged {}", after.granted, after.charged),
        (Some(before), Some(after)) => changes(before, after),
    };
    format!("{user} on {}, epoch {}: {changes} ({})", date(of.day), of.epoch, remedies.join(", "))
}

fn changes(before: Balance, after: Balance) -> String {
    let columns = [
        ("granted", before.granted, after.granted),
        ("charged", before.charged, after.charged),
        ("refunded", before.refunded, after.refunded),
    ];
    let changed = columns.into_iter().filter(|(_, before, after)| before != after);
    let changed: Vec<String> =
        changed.map(|(name, before, after)| format!("{name} {before} → {after}")).collect();
    changed.join(", ")
}
