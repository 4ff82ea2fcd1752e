//! `tollgate check`: every mistake of a configuration, and what is weak in it.

use std::fmt::{Display, Write};
use std::path::Path;

use tokio::runtime::Runtime;
use tollgate::app;
use tollgate::clock::Clock;
use tollgate::config::{Config, ConfigError, Finding, Options, Route, Secrets, Vars};
use tollgate::secrets::{self, SecretsError};
use tollgate::store::{Db, SlowRead, StoreError, keys};
use tollgate::telemetry::printed::field;

use super::{print, print_json};

/// Prints what is weak and what the next start will do; mistakes are the error.
pub(crate) fn check(file: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let options = Options { secrets: Secrets::ReadOnly, ..Options::default() };
    let loaded = Config::load(file, &Vars::from_process(), &options);
    let config = match loaded.and_then(against_the_database) {
        Ok((mut config, v1_keys)) => {
            config.warnings.extend(app::weaknesses(&config, Clock::system().now()));
            config.notes.extend(app::changes(&config));
            config.notes.extend(v1_keys.map(|keys| app::v1_keys(&config, keys)));
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
        let routes: Vec<_> = config.routes.iter().map(described).collect();
        return print_json(
            &serde_json::json!({ "ok": true, "warnings": warnings, "notes": notes, "routes": routes,
            "configuration": config.source(), "database": config.database.location.to_string() }),
        );
    }
    let mut text = format!("configuration: {}; database: {}\n", config.source(), config.database.location);
    for warning in &config.warnings {
        writeln!(text, "warning: {warning}")?;
    }
    for note in &config.notes {
        writeln!(text, "note: {note}")?;
    }
    for route in &config.routes {
        let (charge, free, allow) = (lines(&route.charge), lines(&route.free), lines(&route.allow));
        let prefix = field(shown(&route.prefix));
        writeln!(text, "route {prefix}: charge = [{charge}]; free = [{free}]; allow = [{allow}]")?;
        let work = route.free_work();
        if !work.is_empty() {
            writeln!(
                text,
                "route {prefix}: costs nothing, though a model works for it: {}",
                work.join(", ")
            )?;
        }
    }
    text.push_str("The configuration is good.");
    print(&text)
}

/// Holds the secrets against the database, where that can be asked; with it how many keys there have no checksum.
fn against_the_database(mut config: Config) -> Result<(Config, Option<i64>), ConfigError> {
    let asked = Runtime::new().map_err(|error| StoreError::Unavailable(error.into())).and_then(|runtime| {
        runtime.block_on(async {
            let Some(db) = Db::peek(&config.database).await? else { return Ok((Vec::new(), None)) };
            let strangers = secrets::strangers(&db, &config.security).await;
            let v1_keys = keys::count_v1(&SlowRead::alone(&db)).await;
            db.close().await;
            Ok((strangers?, v1_keys.ok()))
        })
    });
    match asked {
        Ok((strangers, v1_keys)) if strangers.is_empty() => Ok((config, v1_keys)),
        Ok((strangers, _)) => {
            let refusal = SecretsError::Strangers(strangers.clone()).to_string();
            let of = |name: secrets::Name| format!("security.{}", name.as_str());
            let mistake = |one: &secrets::Stranger| Finding { path: of(one.name), message: refusal.clone() };
            Err(ConfigError::Mistakes(strangers.iter().take(1).map(mistake).collect()))
        }
        Err(error) => {
            let message = format!("cannot be asked whether the secrets are its own: {error}");
            config.notes.push(Finding { path: "database".to_owned(), message });
            Ok((config, None))
        }
    }
}

fn listed(findings: &[Finding]) -> Vec<serde_json::Value> {
    findings.iter().map(|f| serde_json::json!({ "path": f.path, "message": f.message })).collect()
}

fn described(route: &Route) -> serde_json::Value {
    serde_json::json!({ "prefix": shown(&route.prefix), "host": route.host, "charge": texts(&route.charge),
        "free": texts(&route.free), "allow": texts(&route.allow), "free_work": route.free_work() })
}

fn shown(prefix: &str) -> &str {
    if prefix.is_empty() { "/" } else { prefix }
}

fn texts<C: Display>(calls: &[C]) -> Vec<String> {
    calls.iter().map(ToString::to_string).collect()
}

/// Calls as the configuration writes them.
fn lines<C: Display>(calls: &[C]) -> String {
    texts(calls).iter().map(|call| format!("\"{call}\"")).collect::<Vec<_>>().join(", ")
}
