//! The desk of commands that change a database without asking the gateway: it may be running, on this
//! machine or another, or not.
//!
//! Every change is recorded as the system's. A running gateway notices by itself: sessions read their
//! account at each call, and a key is believed for five seconds at most.

use std::io::{Read, Write};

use anyhow::Context;
use secrecy::SecretString;
use serde_json::Value;
use tokio::runtime::Runtime;
use tollgate::clock::{Clock, Timestamp};
use tollgate::config::{Config, Options, Vars};
use tollgate::credential::password::{self, Password, PasswordHash};
use tollgate::store::Db;
use tollgate::store::audit::{Actor, Entry};

use super::{ConfigFile, print_json, refusal};

/// An installation's configuration and its database, open.
pub(super) struct Desk {
    pub(super) config: Config,
    pub(super) db: Db,
    pub(super) now: Timestamp,
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

/// Does `work` at the desk, and prints what it has to say.
pub(super) fn at_the_desk(
    at: &ConfigFile,
    work: impl AsyncFnOnce(&Desk) -> anyhow::Result<Told>,
) -> anyhow::Result<()> {
    let done = open(at, work);
    match &done {
        Ok(told) if at.json => print_json(&told.json)?,
        Ok(told) => writeln!(std::io::stdout(), "{}", told.text)?,
        Err(error) if at.json => print_json(&refusal(error))?,
        Err(_) => {}
    }
    done.map(drop)
}

fn open(at: &ConfigFile, work: impl AsyncFnOnce(&Desk) -> anyhow::Result<Told>) -> anyhow::Result<Told> {
    let config = Config::load(at.config.as_deref(), &Vars::from_process(), &Options::default())?;
    Runtime::new()?.block_on(async {
        let db = Db::connect_beside(&config.database).await?;
        let desk = Desk { config, db, now: Clock::system().now() };
        let told = work(&desk).await;
        desk.db.close().await;
        told
    })
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
