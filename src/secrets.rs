//! Whether the secrets of the configuration are those that the database knows.
//!
//! A database remembers its secrets by their fingerprints. A start whose secrets do not match is refused: with
//! another `encryption_key` no API key is accepted and nothing sealed opens, and nobody would be told why. So
//! a missing secret is made only once it is known that the database has none.

use std::fmt;
use std::io;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use thiserror::Error;

use crate::clock::Timestamp;
use crate::config::Security;
use crate::credential::fingerprint;
use crate::credential::key::{KeyDigest, Pepper, PlainKey};
use crate::credential::password::HashError;
use crate::credential::seal::Sealer;
use crate::store::audit::{Actor, Entry};
use crate::store::secrets::{self, Evidence, Known, Stakes};
use crate::store::{Db, StoreError};

/// One of the two secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// Seals keys and second factors, and peppers digests.
    EncryptionKey,
    /// Signs sessions.
    SecretKey,
}

/// A secret that is not the database's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// Which.
    pub name: Name,
    /// The file that is missing, where there is none to compare.
    pub missing: Option<PathBuf>,
}

/// Why the secrets cannot be used.
#[derive(Debug, Error)]
pub enum SecretsError {
    /// The database knows others. One sentence with the ways out.
    #[error("{}", Refusal(.0))]
    Strangers(Vec<Stranger>),
    /// A secret cannot be made.
    #[error("cannot make {}: {error}", file.display())]
    Make {
        /// Where.
        file: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// No fingerprint can be made.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The database does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

struct Refusal<'a>(&'a [Stranger]);

/// Both, in the order in which every node enters them.
const BOTH: [Name; 2] = [Name::EncryptionKey, Name::SecretKey];

/// Those of the secrets that are not the database's; none where it knows none yet.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn strangers(db: &Db, security: &Security) -> Result<Vec<Stranger>, StoreError> {
    strangers_to(db, secrets::known(db).await?, security).await
}

async fn strangers_to(db: &Db, known: Vec<Known>, security: &Security) -> Result<Vec<Stranger>, StoreError> {
    let evidence = secrets::evidence(db).await?;
    let security = security.clone();
    let judged = tokio::task::spawn_blocking(move || {
        let strange = BOTH.into_iter().filter(|name| !name.belongs(&security, &known, &evidence));
        strange.map(|name| Stranger { name, missing: name.missing(&security) }).collect()
    });
    judged.await.map_err(|_| StoreError::closed())
}

/// Holds the secrets against the database, makes those that are missing, and has the database remember those
/// that it does not know yet. With `accept_lost` those that do not match replace the known ones.
///
/// # Errors
/// [`SecretsError`]; then the database remembers what it did before, and no file was made.
pub async fn settle(
    db: &Db,
    security: &mut Security,
    accept_lost: bool,
    now: Timestamp,
) -> Result<(), SecretsError> {
    let known = secrets::known(db).await?;
    let strange = strangers_to(db, known.clone(), security).await?;
    if !strange.is_empty() && !accept_lost {
        return Err(SecretsError::Strangers(strange));
    }
    let made = security.make_missing().map_err(|(file, error)| SecretsError::Make { file, error })?;
    let settled = remember(db, security, (&known, &strange), now).await;
    if let Err(SecretsError::Strangers(strange)) = &settled {
        // Another node was first: what was made here was never used.
        let unused = made.iter().filter(|(name, _)| strange.iter().any(|one| one.name.as_str() == *name));
        for (_, file) in unused {
            let _ = std::fs::remove_file(file);
        }
    }
    settled
}

/// `known` is what the secrets were judged by: another node may have entered its own since.
async fn remember(
    db: &Db,
    security: &Security,
    (known, strange): (&[Known], &[Stranger]),
    now: Timestamp,
) -> Result<(), SecretsError> {
    let unknown = |name: &Name| !known.iter().any(|known| known.secret == name.as_str());
    let replaced: Vec<Name> = strange.iter().map(|stranger| stranger.name).collect();
    let entered: Vec<Name> =
        BOTH.into_iter().filter(|name| unknown(name) && !replaced.contains(name)).collect();
    if !replaced.is_empty() {
        accept(db, security, &replaced, now).await?;
    }
    if entered.is_empty() {
        return Ok(());
    }
    let fingerprints = fingerprints(security, &entered).await?;
    let after = secrets::enter(db, &fingerprints, now).await?;
    let is_ours = |(name, ours): &(&str, String)| {
        after.iter().any(|known| known.secret == *name && known.fingerprint == *ours)
    };
    if fingerprints.iter().all(is_ours) {
        return Ok(());
    }
    // Another node entered its own meanwhile, which may be the same secrets.
    let strange = strangers(db, security).await?;
    if strange.is_empty() { Ok(()) } else { Err(SecretsError::Strangers(strange)) }
}

async fn accept(db: &Db, security: &Security, names: &[Name], now: Timestamp) -> Result<(), SecretsError> {
    let Stakes { keys, factors, sessions } = secrets::stakes(db).await?;
    let fingerprints = fingerprints(security, names).await?;
    let which: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    let detail = json!({ "secrets": which, "keys": keys, "second_factors": factors, "sessions": sessions });
    let entry = Entry {
        actor: Actor::System,
        actor_name: "serve --accept-lost-keys".to_owned(),
        action: "secrets.accept_lost",
        target: which.join(", "),
        detail,
        request_id: String::new(),
        client_ip: None,
        at: now,
    };
    secrets::replace(db, &fingerprints, &entry).await?;
    for name in names {
        tracing::warn!(
            secret = name.as_str(),
            keys,
            second_factors = factors,
            sessions,
            "lost secret accepted: {} no longer work",
            name.lost()
        );
    }
    Ok(())
}

async fn fingerprints(
    security: &Security,
    names: &[Name],
) -> Result<Vec<(&'static str, String)>, SecretsError> {
    let (security, names) = (security.clone(), names.to_vec());
    let made = tokio::task::spawn_blocking(move || {
        let cost = security.bcrypt_rounds;
        let one = |name: Name| Ok((name.as_str(), fingerprint::of(name.as_str(), name.of(&security), cost)?));
        names.into_iter().map(one).collect::<Result<Vec<_>, HashError>>()
    });
    Ok(made.await.map_err(|_| StoreError::closed())??)
}

// === impl Name ===

impl Name {
    /// As the configuration and the database call it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EncryptionKey => "encryption_key",
            Self::SecretKey => "secret_key",
        }
    }

    /// What no longer works without it.
    #[must_use]
    pub fn lost(self) -> &'static str {
        match self {
            Self::EncryptionKey => {
                "all API keys, second factors, recovery codes, e-mailed tokens and proofs of erasure made with the old one"
            }
            Self::SecretKey => "all sessions of users, staff and admins",
        }
    }

    fn of(self, security: &Security) -> &SecretString {
        match self {
            Self::EncryptionKey => &security.encryption_key,
            Self::SecretKey => &security.secret_key,
        }
    }

    fn missing(self, security: &Security) -> Option<PathBuf> {
        let missing = security.missing.iter().find(|missing| missing.name == self.as_str());
        missing.map(|missing| missing.file.clone())
    }

    /// Whether the secret is the database's. Where that remembers none, it was never started on, or last by an
    /// earlier version: then what was made with the secret decides.
    fn belongs(self, security: &Security, known: &[Known], evidence: &Evidence) -> bool {
        let is_missing = self.missing(security).is_some();
        let secret = self.of(security);
        let mut known = known.iter().filter(|known| known.secret == self.as_str()).peekable();
        if known.peek().is_some() {
            return !is_missing
                && known.any(|known| fingerprint::is_of(self.as_str(), secret, &known.fingerprint));
        }
        match self {
            Self::EncryptionKey => {
                let nothing = evidence.keys.is_empty() && evidence.factors.is_empty();
                nothing || (!is_missing && opens(secret, evidence))
            }
            // A session cannot be held against a secret: its token is with its owner, and its digest tells nothing.
            Self::SecretKey => !(is_missing && evidence.has_sessions),
        }
    }
}

/// Whether something that was sealed opens. A key must also have the digest that it is found by.
fn opens(encryption_key: &SecretString, evidence: &Evidence) -> bool {
    let (sealer, pepper) = (Sealer::new(encryption_key), Pepper::derive(encryption_key));
    let mut keys = evidence.keys.iter();
    let key_opens = keys.any(|key| {
        let plain = sealer.open(&key.sealed).ok();
        let plain = plain.and_then(|plain| PlainKey::parse(plain.expose_secret()).ok());
        let digest = KeyDigest::try_from(key.digest.as_slice()).ok();
        plain.is_some_and(|plain| Some(plain.digest(&pepper)) == digest)
    });
    key_opens || evidence.factors.iter().any(|sealed| sealer.open(sealed).is_ok())
}

// === impl Stranger ===

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_str();
        match &self.missing {
            Some(file) => {
                write!(f, "security.{name} is missing ({}) and the database knows one", file.display())
            }
            None => write!(f, "security.{name} is not the one that the database knows"),
        }
    }
}

// === impl Refusal ===

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(strangers) = self;
        for (position, stranger) in strangers.iter().enumerate() {
            if position > 0 {
                f.write_str(", and ")?;
            }
            write!(f, "{stranger}")?;
        }
        let lost: Vec<&str> = strangers.iter().map(|stranger| stranger.name.lost()).collect();
        write!(
            f,
            ": put the old file or value back (all nodes of a database share their secrets), or start once with \
             `tollgate serve --accept-lost-keys`, after which {} no longer work",
            lost.join(" and ")
        )
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::{SecretsError, settle, strangers};
    use crate::config::{Config, Security, Vars};
    use crate::credential::fingerprint;
    use crate::credential::key::{Pepper, PlainKey};
    use crate::credential::seal::Sealer;
    use crate::store::keys::NewKey;
    use crate::store::tests::{NOW, entry, fresh, new_user};
    use crate::store::{Db, secrets, users};

    const ONE: &str = "one-secret-that-is-long-enough-0123456789";
    const OTHER: &str = "another-secret-that-is-long-enough-9876543210";

    /// These secrets, as a configuration has them.
    fn given(encryption_key: &str, secret_key: &str) -> Security {
        let text = format!(
            "[security]\nbcrypt_rounds = 4\nencryption_key = \"{encryption_key}\"\nsecret_key = \"{secret_key}\""
        );
        let folder = tempfile::tempdir().unwrap();
        Config::from_toml(&text, folder.path(), &Vars::default()).unwrap().security
    }

    async fn key(db: &Db, encryption_key: &str) {
        let (secret, plain) = (SecretString::from(encryption_key), PlainKey::generate());
        let sealed = Sealer::new(&secret).seal(plain.expose());
        let new = NewKey {
            digest: plain.digest(&Pepper::derive(&secret)),
            sealed,
            prefix: "pe-".into(),
            format: 2,
        };
        users::insert(db, &new_user("ada"), &new, NOW, &entry("user.register")).await.unwrap();
    }

    async fn names(db: &Db, security: &Security) -> Vec<&'static str> {
        strangers(db, security).await.unwrap().iter().map(|stranger| stranger.name.as_str()).collect()
    }

    #[tokio::test]
    async fn a_new_database_remembers_its_first_secrets_and_refuses_others() {
        let world = fresh().await;
        let (ours, theirs) = (("enc-".to_owned() + ONE, "sec-".to_owned() + ONE), OTHER);
        let mut right = given(&ours.0, &ours.1);
        settle(&world.db, &mut right, false, NOW).await.unwrap();
        settle(&world.db, &mut right, false, NOW).await.unwrap();
        let known = secrets::known(&world.db).await.unwrap();
        assert_eq!(known.len(), 2);
        assert!(known.iter().all(|known| known.fingerprint.starts_with("$2b$04$")), "{known:?}");
        assert_eq!(names(&world.db, &given(theirs, &ours.1)).await, ["encryption_key"]);
        assert_eq!(names(&world.db, &given(&ours.0, theirs)).await, ["secret_key"]);
        let refused =
            settle(&world.db, &mut given(theirs, &ours.1), false, NOW).await.unwrap_err().to_string();
        for told in ["security.encryption_key", "put the old file", "--accept-lost-keys", "API keys"] {
            assert!(refused.contains(told), "{told}: {refused}");
        }
        assert!(!refused.contains('\n') && !refused.contains(theirs), "{refused}");
        assert_eq!(secrets::known(&world.db).await.unwrap(), known);
    }

    #[tokio::test]
    async fn of_two_nodes_that_start_at_once_one_wins_both_secrets() {
        let world = fresh().await;
        let (mut one, mut other) =
            (given(ONE, &("x".to_owned() + ONE)), given(OTHER, &("x".to_owned() + OTHER)));
        let (first, second) =
            tokio::join!(settle(&world.db, &mut one, false, NOW), settle(&world.db, &mut other, false, NOW));
        assert_ne!(first.is_ok(), second.is_ok(), "{first:?} {second:?}");
        let (winner, loser) = if first.is_ok() { (&one, &other) } else { (&other, &one) };
        assert_eq!(names(&world.db, winner).await.len(), 0);
        assert_eq!(names(&world.db, loser).await, ["encryption_key", "secret_key"]);
    }

    #[tokio::test]
    async fn the_first_start_after_an_upgrade_wants_something_sealed_to_open() {
        let world = fresh().await;
        key(&world.db, ONE).await;
        let wrong = settle(&world.db, &mut given(OTHER, "s"), false, NOW).await;
        assert!(matches!(wrong, Err(SecretsError::Strangers(_))), "{wrong:?}");
        assert!(secrets::known(&world.db).await.unwrap().is_empty());
        settle(&world.db, &mut given(ONE, "s"), false, NOW).await.unwrap();
        assert_eq!(names(&world.db, &given(OTHER, "s")).await, ["encryption_key"]);
    }

    #[tokio::test]
    async fn during_a_rotation_two_are_valid() {
        let world = fresh().await;
        settle(&world.db, &mut given(ONE, "s"), false, NOW).await.unwrap();
        let next = fingerprint::of("encryption_key", &SecretString::from(OTHER), 4).unwrap();
        let add = "INSERT INTO secret_fingerprints (secret, slot, fingerprint, made_at) VALUES ('encryption_key', 2, $1, 0)";
        on_writer(&world.db, add, &next).await;
        for valid in [ONE, OTHER] {
            assert_eq!(names(&world.db, &given(valid, "s")).await.len(), 0, "{valid}");
        }
        assert_eq!(names(&world.db, &given("a third one", "s")).await, ["encryption_key"]);
        on_writer(&world.db, "DELETE FROM secret_fingerprints WHERE slot = 1 AND secret = 'encryption_key' AND fingerprint <> $1", "").await;
        settle(&world.db, &mut given(OTHER, "s"), false, NOW).await.unwrap();
        assert_eq!(names(&world.db, &given(ONE, "s")).await, ["encryption_key"]);
    }

    async fn on_writer(db: &Db, text: &'static str, bound: &str) {
        match db {
            Db::Sqlite { writer, .. } => drop(sqlx::query(text).bind(bound).execute(writer).await.unwrap()),
            Db::Postgres(pool) => drop(sqlx::query(text).bind(bound).execute(pool).await.unwrap()),
        }
    }

    #[tokio::test]
    async fn a_missing_secret_is_made_for_a_new_database_only() {
        let world = fresh().await;
        let folder = tempfile::tempdir().unwrap();
        let missing = || {
            let text = "[security]\nbcrypt_rounds = 4\n";
            Config::from_toml(text, folder.path(), &Vars::default()).unwrap().security
        };
        let (encryption, secret) =
            (folder.path().join("data/encryption_key"), folder.path().join("data/secret_key"));
        settle(&world.db, &mut missing(), false, NOW).await.unwrap();
        assert!(encryption.exists() && secret.exists());
        settle(&world.db, &mut missing(), false, NOW).await.unwrap();
        std::fs::rename(&encryption, folder.path().join("kept")).unwrap();
        let refused = settle(&world.db, &mut missing(), false, NOW).await.unwrap_err().to_string();
        assert!(refused.contains("encryption_key is missing"), "{refused}");
        assert!(!encryption.exists(), "made in silence");
        settle(&world.db, &mut missing(), true, NOW).await.unwrap();
        assert!(encryption.exists());
        settle(&world.db, &mut missing(), false, NOW).await.unwrap();
    }
}
