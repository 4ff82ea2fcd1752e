//! The watch over secrets, kept in every story: what opens a door is in no log line, no error, no metric
//! and no column.
//!
//! A [`Watch`] belongs to one world. It knows the secrets of its configuration, and learns each one that
//! is handed out or shown in a call. Beside those it knows secrets by their looks, so one that no call
//! ever saw is found as well. Errors are searched as they are read; the log (of the whole process, at
//! TRACE), the metrics and the database when the world ends.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use memchr::memmem;
use serde_json::Value;

use crate::world::Reply;

mod columns;
mod log;

use columns::Column;
use log::Ear;

/// What one world keeps secret, and where that was found all the same.
pub(crate) struct Watch {
    secrets: Mutex<BTreeSet<String>>,
    found: Mutex<Vec<String>>,
    ear: Ear,
}

/// A secret known by its looks: how it begins, and how many letters follow at least.
struct Look {
    name: &'static str,
    begins: &'static str,
    more: usize,
    /// Where it may be, and nothing else: what is stored instead of the secret.
    home: &'static [&'static str],
}

const LOOKS: [Look; 5] = [
    Look { name: "a key", begins: "pe-", more: 32, home: &[] },
    Look { name: "a session token", begins: "eyJ", more: 33, home: &[] },
    Look { name: "a refresh token", begins: "tgr_", more: 43, home: &[] },
    Look {
        name: "a sealed secret",
        begins: "gAAAAA",
        more: 94,
        home: &["keys.sealed", "second_factors.sealed"],
    },
    Look {
        name: "a password's hash",
        begins: "$2b$",
        more: 3,
        home: &[
            "users.password_hash",
            "staff.password_hash",
            "admins.password_hash",
            "registrations.password_hash",
            // Of what is derived from a secret, never of a password.
            "secret_fingerprints.fingerprint",
        ],
    },
];
/// Members of bodies that hold a secret, or a list of them.
const SECRET_MEMBERS: [&str; 14] = [
    "password",
    "confirm_password",
    "current_password",
    "new_password",
    "confirm_new_password",
    "access_token",
    "refresh_token",
    "api_key",
    "new_key",
    "secret",
    "otpauth_url",
    "recovery_codes",
    "recovery_code",
    "token",
];
/// Keys of the configuration whose value is a secret.
const SECRET_SETTINGS: [&str; 6] =
    ["secret_key", "encryption_key", "admin_password", "password", "secret", "value"];
/// What is shorter stands in a text by chance.
const SHORTEST: usize = 10;

// === impl Watch ===

impl Watch {
    /// Listens from now on.
    pub(crate) fn begin() -> Self {
        Self { secrets: Mutex::default(), found: Mutex::default(), ear: Ear::open() }
    }

    /// From now on this is a secret, if it is long enough to be one.
    pub(crate) fn remember(&self, secret: &str) {
        let secret = secret.strip_prefix("Bearer ").unwrap_or(secret).trim();
        if secret.len() >= SHORTEST {
            lock(&self.secrets).insert(secret.to_owned());
        }
    }

    /// Whether this is a secret.
    pub(crate) fn knows(&self, secret: &str) -> bool {
        lock(&self.secrets).contains(secret)
    }

    /// Every secret of a body that is sent or was answered.
    pub(crate) fn learn(&self, body: &Value) {
        match body {
            Value::Array(all) => all.iter().for_each(|one| self.learn(one)),
            Value::Object(members) => {
                for (name, value) in members {
                    if SECRET_MEMBERS.contains(&name.as_str()) {
                        self.learn_all(value);
                    } else {
                        self.learn(value);
                    }
                }
            }
            _ => {}
        }
    }

    /// Every secret of a configuration and of its environment.
    pub(crate) fn learn_settings(&self, table: &toml::Table, vars: &[(String, String)]) {
        let of_vars = ["PASSWORD", "SECRET", "KEY"];
        for (name, value) in vars {
            if of_vars.iter().any(|word| name.contains(word)) {
                self.remember(value);
            }
        }
        for (name, value) in table {
            self.learn_setting(name, value);
        }
    }

    /// Learns from an answer that is good, and searches one that is not.
    pub(crate) fn read(&self, reply: &Reply) {
        if reply.status >= 400 {
            let place = format!("an answer of {}", reply.status);
            self.search(&place, &reply.body);
            for value in reply.headers.values() {
                self.search(&place, value.as_bytes());
            }
        } else if SECRET_MEMBERS.iter().any(|name| memmem::find(&reply.body, name.as_bytes()).is_some())
            && let Ok(body) = serde_json::from_slice(&reply.body)
        {
            self.learn(&body);
        }
    }

    /// Searches a text; what is found is kept with the name of its place.
    pub(crate) fn search(&self, place: &str, text: &[u8]) {
        for secret in lock(&self.secrets).iter() {
            if let Some(at) = memmem::find(text, secret.as_bytes()) {
                self.report(place, secret, text, at);
            }
        }
        for look in LOOKS.iter().filter(|look| !look.home.contains(&place)) {
            if let Some(at) = look.find(text) {
                self.report(place, look.name, text, at);
            }
        }
    }

    /// Searches what was logged since the world began.
    pub(crate) fn search_log(&self) {
        self.search("the log", &self.ear.heard());
    }

    /// Searches every column of the database at `url`.
    pub(crate) async fn search_columns(&self, url: &str) {
        for Column { name, bytes } in columns::read(url).await {
            self.search(&name, &bytes);
            let homes = LOOKS.iter().filter(|look| look.home.contains(&name.as_str()));
            for look in homes {
                let strange = bytes.split(|byte| *byte == b'\n').find(|line| !look.alone(line));
                if let Some(line) = strange {
                    self.report(&name, "something else than it holds", line, 0);
                }
            }
        }
    }

    /// What was found so far, and no longer kept.
    pub(crate) fn found(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.found))
    }

    fn learn_all(&self, value: &Value) {
        match value {
            Value::String(secret) => self.remember(secret),
            Value::Array(all) => all.iter().for_each(|one| self.learn_all(one)),
            _ => {}
        }
    }

    fn learn_setting(&self, name: &str, value: &toml::Value) {
        match value {
            toml::Value::String(text) if SECRET_SETTINGS.contains(&name) => self.remember(text),
            toml::Value::String(text) if name == "url" => {
                let word = text.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
                word.and_then(|(account, _)| account.split_once(':'))
                    .iter()
                    .for_each(|(_, w)| self.remember(w));
            }
            toml::Value::Array(all) => all.iter().for_each(|one| self.learn_setting(name, one)),
            toml::Value::Table(inner) => inner.iter().for_each(|(name, one)| self.learn_setting(name, one)),
            _ => {}
        }
    }

    fn report(&self, place: &str, what: &str, text: &[u8], at: usize) {
        let (from, to) = (at.saturating_sub(120), text.len().min(at + 120));
        let around = String::from_utf8_lossy(&text[from..to]);
        lock(&self.found).push(format!("{what} in {place}: …{around}…"));
    }
}

// === impl Look ===

impl Look {
    /// Where a word of this look begins. In the middle of a word of random letters it stands by chance: about
    /// one sealed key of a thousand has `pe-` in it, or `eyJ`.
    fn find(&self, text: &[u8]) -> Option<usize> {
        memmem::find_iter(text, self.begins).find(|at| {
            let (before, rest) = (&text[..*at], &text[at + self.begins.len()..]);
            let begins = !before.last().is_some_and(|byte| is_letter(*byte)) || before.ends_with(b"\\n");
            begins && rest.len() >= self.more && rest[..self.more].iter().all(|byte| is_word(*byte))
        })
    }

    /// Whether this line of a column is one of these, or nothing.
    fn alone(&self, line: &[u8]) -> bool {
        line.is_empty() || self.find(line) == Some(0)
    }
}

fn is_word(byte: u8) -> bool {
    is_letter(byte) || b"$./=".contains(&byte)
}

/// Of the alphabet keys, tokens and sealed secrets are written in.
fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_".contains(&byte)
}

fn lock<T>(what: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
