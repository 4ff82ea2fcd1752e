//! The desk of commands that change a database without asking the gateway: it may be running, on this
//! machine or another, or not.
//!
//! Every change is recorded as the system's. A running gateway notices by itself: sessions read their
//! account at each call, and changes of users and keys are read from the audit trail as they are committed.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tollgate::clock::{Clock, Timestamp};
use tollgate::config::Config;
use tollgate::credential::password::{self, Password, PasswordHash};
use tollgate::secrets;
use tollgate::store::audit::{Actor, Entry};
use tollgate::store::sessions::Owner;
use tollgate::store::{A_WHILE, Db, StoreError, second_factors};
use tollgate::timekeeper::{self, Disagreement};

use super::installation::{Missing, NoInstallation, configuration, whole};
use super::{ConfigFile, print_json, refusal, warn};

/// An installation's configuration and its database, open.
pub(super) struct Desk {
    pub(super) config: Config,
    pub(super) db: Db,
    /// What time it is, as a gateway would have it.
    pub(super) now: Timestamp,
    pub(super) clock: Clock,
}

/// What a command has to say, for programs and for people.
pub(super) struct Told {
    pub(super) json: Value,
    pub(super) text: String,
}

/// How a password comes to an account: never by an argument, which every process of the machine sees.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct PasswordFrom {
    /// Read the password from standard input; else one is made and printed.
    #[arg(long)]
    password_stdin: bool,
}

/// A password on its way to an account.
pub(super) struct Chosen {
    pub(super) hash: PasswordHash,
    /// What is to be printed: the password, when we made it.
    pub(super) made: Option<SecretString>,
}

/// Most bytes read from standard input.
const MOST_INPUT: u64 = 4096;

/// Does `work` on an installation that is there, and prints what it has to say.
pub(super) fn at_the_desk(
    at: &ConfigFile,
    work: impl AsyncFnOnce(&Desk) -> anyhow::Result<Told>,
) -> anyhow::Result<()> {
    print(at, open(at, Missing::Refused, work))
}

/// Does `work` on an installation that is made where there is none, and prints what it has to say.
pub(super) fn at_a_new_desk(
    at: &ConfigFile,
    work: impl AsyncFnOnce(&Desk) -> anyhow::Result<Told>,
) -> anyhow::Result<()> {
    print(at, open(at, Missing::Made, work))
}

fn print(at: &ConfigFile, done: anyhow::Result<Told>) -> anyhow::Result<()> {
    match &done {
        Ok(told) if at.json => print_json(&told.json)?,
        Ok(told) => super::print(&told.text)?,
        Err(error) if at.json => print_json(&refusal(error))?,
        Err(_) => {}
    }
    done.map(drop)
}

fn open(
    at: &ConfigFile,
    missing: Missing,
    work: impl AsyncFnOnce(&Desk) -> anyhow::Result<Told>,
) -> anyhow::Result<Told> {
    let config = configuration(at, missing)?;
    Runtime::new()?.block_on(async {
        let said = AtomicBool::new(false);
        let waits = |reason: &StoreError| {
            if !said.swap(true, Ordering::Relaxed) {
                say_wait(reason);
            }
        };
        let db = match missing {
            Missing::Made => Db::connect_or_make(&config.database, &waits).await?,
            Missing::Refused => {
                let found = Db::connect_beside(&config.database, &waits).await?;
                let db = found.ok_or_else(|| NoInstallation::in_database(&config))?;
                whole(&config)?;
                db
            }
        };
        let clock = Clock::system();
        let opinion = timekeeper::consult(&db, &clock).await?;
        if let Some(why) = opinion.disagreement {
            doubt(&clock, opinion.lead, why);
        }
        let desk = Desk { config, db, now: clock.now(), clock };
        let told = work(&desk).await;
        desk.db.close().await;
        told
    })
}

/// Warns that the machine's clock is not believed.
fn doubt(clock: &Clock, lead: i64, why: Disagreement) {
    let (shown, now) = (clock.wall(), clock.now());
    warn(&format!(
        "warning: the clock of this machine shows {shown}, which is off by {} seconds: {why}. \
         This command takes it to be {now}. Set the clock right, or, if it is, run `tollgate clock accept`.",
        lead.unsigned_abs() / 1000,
    ));
}

/// Says why the command does not answer yet.
fn say_wait(reason: &StoreError) {
    let seconds = A_WHILE.as_secs();
    warn(&format!("waiting up to {seconds} s for the database: {reason}"));
}

// === impl Desk ===

impl Desk {
    /// What the audit trail keeps of a change made here.
    pub(super) fn entry(&self, action: &'static str, target: &str, detail: Value) -> Entry {
        let login = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
        Entry {
            actor: Actor::System,
            actor_name: login
                .map_or_else(|| "command line".into(), |login| format!("command line ({login})")),
            action,
            target: target.to_owned(),
            detail,
            request_id: String::new(),
            client_ip: None,
            at: self.now,
        }
    }

    /// The encryption key, once it is certain that it is the database's.
    pub(super) async fn encryption_key(&self) -> anyhow::Result<SecretString> {
        let mut security = self.config.security.clone();
        secrets::settle(&self.db, &mut security, false, self.now).await?;
        Ok(security.encryption_key)
    }

    /// Removes the second factor of an account, ends its sessions, and records it. An account without one stays
    /// as it is.
    pub(super) async fn reset_totp(&self, owner: Owner, username: &str) -> anyhow::Result<Told> {
        let entry = self.entry("totp.reset", username, json!({ "role": owner.audience.as_str() }));
        let removed = second_factors::reset(&self.db, owner, &entry).await?;
        let text = if removed {
            format!(
                "The second factor of {username} is removed; the password alone logs in until another is enrolled."
            )
        } else {
            format!("{username} has no second factor.")
        };
        Ok(Told { json: json!({ "ok": true, "username": username, "removed": removed }), text })
    }

    /// The password of an account, made or read, held to the rule and hashed.
    pub(super) fn password(&self, from: PasswordFrom) -> anyhow::Result<Chosen> {
        let given = if from.password_stdin { Some(read_password()?) } else { None };
        let made = given.is_none().then(password::random_password);
        let text = given.or_else(|| made.clone()).context("no password")?;
        let hash = password::hash(&Password::check(text)?, self.config.security.bcrypt_rounds)?;
        Ok(Chosen { hash, made })
    }
}

/// The first line of standard input.
fn read_password() -> anyhow::Result<SecretString> {
    let mut text = String::new();
    std::io::stdin().take(MOST_INPUT).read_to_string(&mut text).context("standard input")?;
    let line = text.lines().next().unwrap_or_default();
    anyhow::ensure!(!line.is_empty(), "standard input has no password in its first line");
    Ok(SecretString::from(line))
}
