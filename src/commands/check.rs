//! `tollgate check`: every mistake of a configuration, and what is weak in it.

use std::io::Write;
use std::path::Path;

use tollgate::app;
use tollgate::config::{Config, Finding, Options, Secrets, Vars};

use super::print_json;

/// Prints what is weak and what the next start will do; mistakes are the error.
pub(crate) fn check(file: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let options = Options { secrets: Secrets::ReadOnly, ..Options::default() };
    let config = match Config::load(file, &Vars::from_process(), &options) {
        Ok(mut config) => {
            config.warnings.extend(app::weaknesses(&config));
            config
        }
        Err(error) if json => {
            print_json(&serde_json::json!({ "ok": false, "mistakes": listed(error.findings()) }))?;
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    };
    if json {
        let (warnings, notes) = (listed(&config.warnings), listed(&config.notes));
        return print_json(&serde_json::json!({ "ok": true, "warnings": warnings, "notes": notes,
            "configuration": config.source(), "database": config.database.location.to_string() }));
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "configuration: {}; database: {}", config.source(), config.database.location)?;
    for warning in &config.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    for note in &config.notes {
        writeln!(out, "note: {note}")?;
    }
    writeln!(out, "The configuration is good.")?;
    Ok(())
}

fn listed(findings: &[Finding]) -> Vec<serde_json::Value> {
    findings.iter().map(|f| serde_json::json!({ "path": f.path, "message": f.message })).collect()
}
