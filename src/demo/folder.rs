//! The demo's folder and the account that is kept in it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::credential::key::PlainKey;
use crate::credential::password::random_password;

/// What marks a folder as a demo's, and holds its account so that a second start prints the same.
const ACCOUNT_FILE: &str = "demo.json";

/// The two people of the demo.
#[derive(Debug, Deserialize)]
pub(super) struct Account {
    pub api_key: SecretString,
    pub admin_username: String,
    pub admin_password: SecretString,
    pub user_email: String,
    pub user_password: SecretString,
}

/// A folder that is the demo's own.
#[derive(Debug)]
pub(super) struct Folder {
    pub path: PathBuf,
    pub account: Account,
}

// === impl Account ===

impl Account {
    fn generate() -> Self {
        Self {
            api_key: SecretString::from(PlainKey::generate().expose()),
            admin_username: "admin".into(),
            admin_password: random_password(),
            user_email: "demo@example.com".into(),
            user_password: random_password(),
        }
    }
}

// === impl Folder ===

impl Folder {
    /// Opens the folder that was asked for, or makes a fresh one among the system's temporary ones.
    /// Only its owner can read it.
    ///
    /// # Errors
    /// When `asked` holds something that is not an earlier demo's, or cannot be made or read.
    pub(super) fn open(asked: Option<PathBuf>) -> anyhow::Result<Self> {
        let Some(path) = asked else {
            let fresh = std::env::temp_dir().join(format!("tollgate-demo-{}", Uuid::now_v7().simple()));
            private()
                .create(&fresh)
                .with_context(|| format!("cannot make the folder {}", fresh.display()))?;
            return Self::furnish(fresh);
        };
        private()
            .recursive(true)
            .create(&path)
            .with_context(|| format!("cannot make the folder {}", path.display()))?;
        let path =
            path.canonicalize().with_context(|| format!("cannot open the folder {}", path.display()))?;
        match fs::read(path.join(ACCOUNT_FILE)) {
            Ok(kept) => {
                let account = serde_json::from_slice(&kept);
                let account = account.with_context(|| damaged(&path))?;
                Ok(Self { path, account })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let mut others =
                    fs::read_dir(&path).with_context(|| format!("cannot list {}", path.display()))?;
                if others.next().is_some() {
                    bail!(
                        "{} is neither empty nor an earlier demo's folder (it has no {ACCOUNT_FILE}): \
                         name another with --data, or leave --data out for a fresh one",
                        path.display()
                    );
                }
                Self::furnish(path)
            }
            Err(error) => Err(error).with_context(|| damaged(&path)),
        }
    }

    /// Writes a new account before anything is made with it, so that an interrupted start can be repeated.
    fn furnish(path: PathBuf) -> anyhow::Result<Self> {
        let account = Account::generate();
        let kept = json!({
            "api_key": account.api_key.expose_secret(),
            "admin_username": account.admin_username,
            "admin_password": account.admin_password.expose_secret(),
            "user_email": account.user_email,
            "user_password": account.user_password.expose_secret(),
        });
        let file = path.join(ACCOUNT_FILE);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)
            .and_then(|mut opened| opened.write_all(kept.to_string().as_bytes()))
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self { path, account })
    }
}

fn private() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

fn damaged(path: &Path) -> String {
    format!(
        "{} cannot be read: remove the folder, or name another with --data",
        path.join(ACCOUNT_FILE).display()
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use secrecy::ExposeSecret;

    use super::Folder;

    #[test]
    fn a_second_start_in_the_same_folder_has_the_same_account() {
        let root = tempfile::tempdir().unwrap();
        let asked = root.path().join("made/for/it");
        let first = Folder::open(Some(asked.clone())).unwrap();
        let second = Folder::open(Some(asked)).unwrap();
        assert_eq!(first.path, second.path);
        assert_eq!(first.account.api_key.expose_secret(), second.account.api_key.expose_secret());
        assert!(first.account.api_key.expose_secret().starts_with("pe-"));
        let kept = fs::metadata(first.path.join("demo.json")).unwrap();
        assert_eq!(kept.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn somebody_elses_folder_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("thesis.tex"), "precious").unwrap();
        let refused = Folder::open(Some(root.path().to_owned())).unwrap_err().to_string();
        assert!(refused.contains("neither empty nor an earlier demo's"), "{refused}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
