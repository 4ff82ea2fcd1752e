//! The environment over the file: `GATEWAY__SECTION__KEY` for every key, the seed's own names, and
//! `${NAME}` inside strings.
//!
//! The process environment is read in one place, [`Vars::from_process`]; all else takes [`Vars`].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::Finding;

/// Environment variables by name.
#[derive(Clone, Default)]
pub struct Vars(BTreeMap<String, String>);

/// What variables say about keys, by dotted key in lower case (`upstreams.0.url`).
#[derive(Default)]
pub(super) struct Overlay {
    given: BTreeMap<String, Entry>,
    used: RefCell<BTreeSet<String>>,
}

/// One variable and its value.
pub(super) struct Entry {
    /// Its name, for findings.
    pub(super) variable: String,
    /// Its value, in the form of the key.
    pub(super) value: String,
}

/// How a seed variable's value becomes that of a key.
#[derive(Clone, Copy)]
enum Form {
    AsIs,
    /// An empty one says nothing: the seed's own file has such.
    UnlessEmpty,
    Minutes,
    Mebibytes,
}

const PREFIX: &str = "GATEWAY__";

const SEED_NAMES: [(&str, &str, Form); 25] = [
    ("SECRET_KEY", "security.secret_key", Form::AsIs),
    ("SECRET_KEY_FILE", "security.secret_key_file", Form::AsIs),
    ("ACCESS_TOKEN_EXPIRE_MINUTES", "security.access_token_ttl", Form::Minutes),
    ("DATABASE_URL", "database.url", Form::AsIs),
    ("DATABASE_URL_FILE", "database.url_file", Form::AsIs),
    ("BCRYPT_ROUNDS", "security.bcrypt_rounds", Form::AsIs),
    ("ENCRYPTION_KEY", "security.encryption_key", Form::AsIs),
    ("ENCRYPTION_KEY_FILE", "security.encryption_key_file", Form::AsIs),
    ("ADMIN_USERNAME", "security.admin_username", Form::AsIs),
    ("ADMIN_PASSWORD", "security.admin_password", Form::AsIs),
    ("ADMIN_PASSWORD_FILE", "security.admin_password_file", Form::AsIs),
    ("ENABLE_IP_WHITELIST", "access.enable_ip_whitelist", Form::AsIs),
    ("WHITELISTED_IPS", "access.whitelisted_ips", Form::AsIs),
    ("RATE_LIMIT_PER_MINUTE", "limits.rate_limit_per_minute", Form::AsIs),
    ("BATCH_LOG_INTERVAL_MINUTES", "message_log.batch_interval", Form::Minutes),
    ("MEMORY_THRESHOLD_MB", "message_log.memory_threshold", Form::Mebibytes),
    ("DEBUG", "server.debug", Form::AsIs),
    ("WEBHOOK_URL", "webhooks.url", Form::UnlessEmpty),
    ("WEBHOOK_SECRET", "webhooks.secret", Form::UnlessEmpty),
    ("WEBHOOK_SECRET_FILE", "webhooks.secret_file", Form::UnlessEmpty),
    ("SMTP_HOST", "mail.host", Form::UnlessEmpty),
    ("SMTP_PORT", "mail.port", Form::UnlessEmpty),
    ("SMTP_USERNAME", "mail.username", Form::UnlessEmpty),
    ("SMTP_PASSWORD", "mail.password", Form::UnlessEmpty),
    ("SMTP_PASSWORD_FILE", "mail.password_file", Form::UnlessEmpty),
];

// === impl Vars ===

impl Vars {
    /// The process's own environment; names or values that are not Unicode are left out.
    #[must_use]
    pub fn from_process() -> Self {
        let unicode = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(unicode).collect())
    }

    /// The value of a variable; an empty one is a value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Vars {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

// === impl Overlay ===

impl Overlay {
    /// What `vars` say, and what is wrong in them.
    pub(super) fn new(vars: &Vars) -> (Self, Vec<Finding>) {
        let (mut overlay, mut mistakes) = (Self::default(), Vec::new());
        for (name, value) in &vars.0 {
            if let Some(key) = name.strip_prefix(PREFIX) {
                overlay.add(name, key.to_ascii_lowercase().replace("__", "."), value, &mut mistakes);
            }
        }
        for (name, key, form) in SEED_NAMES {
            let Some(value) = vars.get(name) else { continue };
            if matches!(form, Form::UnlessEmpty) && value.is_empty() {
                continue;
            }
            match form.convert(value) {
                Ok(value) => overlay.add(name, key.to_owned(), &value, &mut mistakes),
                Err(message) => mistakes.push(Finding { path: name.to_owned(), message }),
            }
        }
        if vars.get("ALGORITHM").is_some_and(|algorithm| algorithm.trim() != "HS256") {
            let message = "only HS256 is supported: remove it, or set HS256".to_owned();
            mistakes.push(Finding { path: "ALGORITHM".to_owned(), message });
        }
        (overlay, mistakes)
    }

    /// The variable that sets `key`, which from now on counts as known.
    pub(super) fn take(&self, key: &str) -> Option<&Entry> {
        let key = key.to_ascii_lowercase();
        let entry = self.given.get(&key)?;
        self.used.borrow_mut().insert(key);
        Some(entry)
    }

    /// Whether a variable sets something below `key`.
    pub(super) fn reaches_below(&self, key: &str) -> bool {
        let prefix = format!("{}.", key.to_ascii_lowercase());
        self.given.keys().any(|given| given.starts_with(&prefix))
    }

    /// The tables right below `key` that variables speak of.
    pub(super) fn names_below(&self, key: &str) -> BTreeSet<String> {
        let prefix = format!("{}.", key.to_ascii_lowercase());
        let below = self.given.keys().filter_map(|given| given.strip_prefix(&prefix));
        below.filter_map(|rest| Some(rest.split_once('.')?.0.to_owned())).collect()
    }

    /// The variable behind a finding's path, so that a mistake is named where it was made.
    pub(super) fn variable_of(&self, path: &str) -> Option<&str> {
        let key = path.to_ascii_lowercase().replace('[', ".").replace(']', "");
        let of_list = || key.rsplit_once('.').filter(|(_, last)| last.bytes().all(|b| b.is_ascii_digit()));
        let entry = self.given.get(&key).or_else(|| self.given.get(of_list()?.0));
        entry.map(|entry| entry.variable.as_str())
    }

    /// Variables that set no key there is, in the order of their names.
    pub(super) fn unknown(&self) -> Vec<(&str, &str)> {
        let used = self.used.borrow();
        let unused = self.given.iter().filter(|(key, _)| !used.contains(*key));
        unused.map(|(key, entry)| (key.as_str(), entry.variable.as_str())).collect()
    }

    fn add(&mut self, variable: &str, key: String, value: &str, mistakes: &mut Vec<Finding>) {
        if let Some(other) = self.given.get(&key) {
            if other.value != value {
                let message =
                    format!("{} sets the same key to another value: remove one of them", other.variable);
                mistakes.push(Finding { path: variable.to_owned(), message });
            }
            return;
        }
        self.given.insert(key, Entry { variable: variable.to_owned(), value: value.to_owned() });
    }
}

// === impl Form ===

impl Form {
    fn convert(self, value: &str) -> Result<String, String> {
        let unit = match self {
            Self::AsIs | Self::UnlessEmpty => return Ok(value.to_owned()),
            Self::Minutes => "m",
            Self::Mebibytes => "MiB",
        };
        let number: u32 =
            value.trim().parse().map_err(|_| "must be a whole number, such as 30".to_owned())?;
        Ok(format!("{number}{unit}"))
    }
}

/// `text` with each `${NAME}` replaced by its variable, and each `$$` by a dollar.
///
/// # Errors
/// Which variable is not set, or what is not well written.
pub(super) fn expand(text: &str, vars: &Vars) -> Result<String, String> {
    let (mut done, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('$') {
        done.push_str(before);
        if let Some(tail) = after.strip_prefix('$') {
            done.push('$');
            rest = tail;
        } else if let Some(tail) = after.strip_prefix('{') {
            let (name, tail) =
                tail.split_once('}').ok_or("\"${\" has no \"}\"; write \"$$\" for a dollar")?;
            let well_named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !well_named {
                return Err("\"${…}\" holds only a variable's name: letters, digits and \"_\"".into());
            }
            let unset =
                || format!("environment variable {name} is not set: set it, or write \"$$\" for a dollar");
            done.push_str(vars.get(name).ok_or_else(unset)?);
            rest = tail;
        } else {
            done.push('$');
            rest = after;
        }
    }
    done.push_str(rest);
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::{Overlay, Vars, expand};

    #[test]
    fn strings_read_variables_and_keep_their_dollars() {
        let vars = Vars::from_iter([("KEY", "s3cret"), ("EMPTY", "")]);
        let good = [
            ("Bearer ${KEY}", "Bearer s3cret"),
            ("${KEY}${KEY}", "s3crets3cret"),
            ("<${EMPTY}>", "<>"),
            ("$$5 $${KEY} $", "$5 ${KEY} $"),
            ("pa$word", "pa$word"),
        ];
        for (text, expanded) in good {
            assert_eq!(expand(text, &vars).as_deref(), Ok(expanded), "{text}");
        }
        for text in ["${NOPE}", "${KEY", "${}", "${KEY:-x}"] {
            assert!(expand(text, &vars).is_err(), "{text}");
        }
        assert!(expand("${NOPE}", &vars).unwrap_err().contains("NOPE"));
    }

    #[test]
    fn variables_reach_keys_in_any_case_and_conflicts_are_named() {
        let vars =
            [("GATEWAY__plans__FREE__conversation_limit", "3"), ("GATEWAY__UPSTREAMS__0__URL", "http://a")];
        let (overlay, mistakes) = Overlay::new(&Vars::from_iter(vars));
        assert!(mistakes.is_empty());
        assert_eq!(overlay.take("plans.Free.conversation_limit").unwrap().value, "3");
        assert_eq!(overlay.variable_of("upstreams[0].url"), Some("GATEWAY__UPSTREAMS__0__URL"));
        assert_eq!(overlay.unknown(), [("upstreams.0.url", "GATEWAY__UPSTREAMS__0__URL")]);

        let twice = [("DEBUG", "true"), ("GATEWAY__SERVER__DEBUG", "false")];
        let (_, mistakes) = Overlay::new(&Vars::from_iter(twice));
        assert_eq!(mistakes.len(), 1);
        let agreeing = [("DEBUG", "true"), ("GATEWAY__SERVER__DEBUG", "true")];
        assert!(Overlay::new(&Vars::from_iter(agreeing)).1.is_empty());
    }

    #[test]
    fn the_seeds_minutes_and_megabytes_become_durations_and_sizes() {
        let vars = [
            ("ACCESS_TOKEN_EXPIRE_MINUTES", "45"),
            ("MEMORY_THRESHOLD_MB", "many"),
            ("WEBHOOK_URL", "http://h"),
        ];
        let (overlay, mistakes) = Overlay::new(&Vars::from_iter(vars));
        assert_eq!(overlay.take("security.access_token_ttl").unwrap().value, "45m");
        assert_eq!(mistakes.first().unwrap().path, "MEMORY_THRESHOLD_MB");
        assert_eq!(overlay.take("webhooks.url").unwrap().value, "http://h");
    }

    #[test]
    fn the_seeds_mail_server_is_ours_and_an_empty_name_is_none() {
        let vars = [("SMTP_HOST", "smtp.example.org"), ("SMTP_PORT", "465"), ("SMTP_USERNAME", "")];
        let (overlay, mistakes) = Overlay::new(&Vars::from_iter(vars));
        assert!(mistakes.is_empty());
        assert_eq!(overlay.take("mail.host").unwrap().value, "smtp.example.org");
        assert_eq!(overlay.take("mail.port").unwrap().value, "465");
        assert!(overlay.take("mail.username").is_none());
    }
}
