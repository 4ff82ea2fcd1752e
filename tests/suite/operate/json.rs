//! `--json`, for programs: one document on standard output and nothing else, whatever happens.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use serde_json::Value;

use super::child::Site;
use crate::world::Database;

/// A command that is done, and the same one refused.
const COMMANDS: [(&str, Option<&str>, &str); 29] = [
    ("check", None, "wrong"),
    ("migrate", None, "wrong"),
    ("health", None, "nobody"),
    ("user-add", Some("user add ann --email ann@example.com"), "user add ann --email bob@example.com"),
    ("user-list", None, "wrong"),
    ("user-show", Some("user show ann"), "user show nobody"),
    ("user-key", Some("user key ann"), "user key nobody"),
    ("user-limit", Some("user limit ann --left 3"), "user limit nobody --left 3"),
    ("user-reset-limits", Some("user reset-limits"), "wrong"),
    ("user-disable", Some("user disable ann"), "user disable nobody"),
    ("user-enable", Some("user enable ann"), "user enable nobody"),
    ("user-reset-totp", Some("user reset-totp ann"), "user reset-totp nobody"),
    ("staff-add", Some("staff add sue --email sue@example.com"), "staff add sue --email s@example.com"),
    ("staff-list", None, "wrong"),
    ("staff-disable", Some("staff disable sue"), "staff disable nobody"),
    ("staff-enable", Some("staff enable sue"), "staff enable nobody"),
    ("staff-reset-totp", Some("staff reset-totp sue"), "staff reset-totp nobody"),
    ("admin-add", Some("admin add root"), "admin add root"),
    ("admin-list", None, "wrong"),
    ("admin-disable", Some("admin disable root"), "admin disable nobody"),
    ("admin-enable", Some("admin enable root"), "admin enable nobody"),
    ("admin-reset-totp", Some("admin reset-totp root"), "admin reset-totp nobody"),
    ("admin-delete", Some("admin delete root"), "admin delete nobody"),
    ("audit-verify", None, "wrong"),
    ("clock-show", Some("clock show"), "wrong"),
    ("clock-accept", Some("clock accept"), "wrong"),
    ("ledger-verify", None, "wrong"),
    ("ledger-repair", None, "wrong"),
    ("ledger-explain", Some("ledger explain ann"), "ledger explain nobody"),
];

struct Place(Site);

impl Place {
    fn run(&self, line: &str, json: bool) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(line.split(' ')).args(json.then_some("--json")).current_dir(self.0.folder.path());
        command.env_clear().env("ADMIN_PASSWORD", "correct-horse-7").output().unwrap()
    }

    /// Runs it; the one document it prints.
    fn told(&self, line: &str, code: i32) -> Value {
        let done = self.run(line, true);
        let (out, err) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
        assert_eq!(done.status.code(), Some(code), "{line}: {out}{err}");
        assert_eq!(
            err.is_empty(),
            code == 0,
            "{line}: people are told of errors, and of nothing else: {err}"
        );
        assert!(out.ends_with('\n') && out.lines().count() == 1, "{line}: {out}");
        let told: Value = serde_json::from_str(&out).unwrap_or_else(|wrong| panic!("{line}: {wrong}: {out}"));
        assert_eq!(told["ok"], code == 0, "{line}: {told}");
        told
    }

    fn refused(&self, line: &str, code: i32) {
        let told = self.told(line, code);
        let why = told["error"].as_str().or_else(|| told["mistakes"][0]["message"].as_str());
        assert!(why.is_some_and(|why| !why.is_empty()), "{line}: {told}");
    }
}

#[tokio::test]
async fn each_command_prints_one_document_also_of_an_error() {
    let database = Database::from_env().await;
    let url = database.as_ref().map(|database| format!("database.url = \"{}\"\n", database.url()));
    let place = Place(Site::new(&url.unwrap_or_default()));
    // The last admin stays, and the first command makes the database.
    place.told("user add first --email first@example.com", 0);
    place.told("admin add keeper", 0);
    for (name, done, refused) in COMMANDS {
        if name != "health" {
            place.told(done.unwrap_or(&name.replace('-', " ")), 0);
        }
        match refused {
            "wrong" => {}
            "nobody" => place.refused(name, 1),
            // 1 says that the ledger does not hold.
            line if line.starts_with("ledger") => place.refused(line, 2),
            line => place.refused(line, 1),
        }
    }
    {
        let _gateway = place.0.serve(&[("ADMIN_PASSWORD", "correct-horse-7")]).await;
        place.told("health", 0);
        place.told("admin reset-password keeper", 0);
        place.refused("admin reset-password nobody", 1);
    }
    std::fs::write(place.0.folder.path().join("gateway.toml"), "wrong = 1\n").unwrap();
    for (name, _, _) in COMMANDS.iter().filter(|(_, _, refused)| ["wrong", "nobody"].contains(refused)) {
        place.refused(&name.replacen('-', " ", 1), 78);
    }
    if let Some(database) = database {
        database.remove().await;
    }
}

#[test]
fn every_command_that_takes_json_is_run_here() {
    let place = Place(Site::new(""));
    assert!(place.run("man --dir pages", false).status.success());
    let mut takes_it = BTreeSet::new();
    for page in std::fs::read_dir(place.0.folder.path().join("pages")).unwrap() {
        let page = page.unwrap();
        if std::fs::read_to_string(page.path()).unwrap().contains("\\-\\-json") {
            let name = page.file_name().into_string().unwrap();
            takes_it.insert(name.trim_start_matches("tollgate-").trim_end_matches(".1").to_owned());
        }
    }
    let run = COMMANDS.iter().map(|(name, _, _)| (*name).to_owned());
    assert_eq!(takes_it, run.chain(["admin-reset-password".to_owned()]).collect());
}
