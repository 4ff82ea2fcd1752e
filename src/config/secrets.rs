//! Secrets: given, read from their files, or made at the first start; and how weak ones are judged.
//! No message repeats a value.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};

use super::file::SecretSource;
use super::security::SecurityDraft;
use super::tree::Tree;
use crate::credential::strength::{weak_admin_password, weakness};

/// `[security]`
#[derive(Clone, Debug)]
pub struct Security {
    /// Signs sessions.
    pub secret_key: SecretString,
    /// Seals the keys' readable copies and pepper their digests: a Fernet key, or any text that is
    /// hashed into one.
    pub encryption_key: SecretString,
    /// How long an access token is good.
    pub access_token_ttl: Duration,
    /// How long a login can be renewed.
    pub refresh_token_ttl: Duration,
    /// bcrypt cost, 4 to 16.
    pub bcrypt_rounds: u32,
    /// Whether `POST /api/v1/auth/register` is open.
    pub allow_registration: bool,
    /// Whether an account opens only once a letter to its address is confirmed, so that registration does not tell
    /// whose address is known.
    pub registration_by_mail: bool,
    /// Whether keys without a checksum (the seed's) are still accepted; `None` where that depends on whether the
    /// database holds any.
    pub accept_v1_keys: Option<bool>,
    /// Whose sessions open nothing but the enrolment of a second factor until they have one.
    pub require_totp: RequireTotp,
    /// Whether users log in only once their e-mail address is verified.
    pub require_verified_email: bool,
    /// Name of the first admin.
    pub admin_username: String,
    /// The admin's password where the operator chose it; without one, the first start makes it.
    pub admin_password: Option<SecretString>,
    /// Secrets that have no file yet; their values are random and stand in memory only.
    pub missing: Vec<MissingSecret>,
    /// Whether a start accepts that the database knows other secrets: `serve --accept-lost-keys`.
    pub accept_lost: bool,
}

/// A secret that is made once it is known that the database has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingSecret {
    /// `secret_key` or `encryption_key`.
    pub name: &'static str,
    /// Where it will be.
    pub file: PathBuf,
}

/// Roles that must have a second factor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequireTotp {
    /// Staff.
    pub staff: bool,
    /// Admins.
    pub admin: bool,
}

/// Whether missing secrets are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Secrets {
    /// What is missing stands in `Security::missing`, to be made, 0600, in the data folder, made 0700, by
    /// [`Security::make_missing`]: for a start.
    #[default]
    Create,
    /// Nothing is written; what is missing is told in `Config::notes`, and stands in the
    /// configuration as a random value of this process: for `tollgate check`.
    ReadOnly,
}

/// The two keys that are made when they are missing.
struct Keys {
    secret_key: Key,
    encryption_key: Key,
}

/// One of them.
enum Key {
    Present(SecretString),
    Missing(PathBuf),
    /// Already complained of.
    Unreadable,
}

/// No secret is longer; a larger file is something else.
const LARGEST_FILE: u64 = 64 << 10;
/// A Fernet key has 32 random bytes; so has a signing key.
const RANDOM_BYTES: usize = 32;
/// bcrypt reads no further.
const LONGEST_PASSWORD: usize = 72;

/// The secret that was given, or what its file holds; `None` when there is neither, or no good one.
pub(super) fn given(tree: &Tree<'_>, source: &SecretSource) -> Option<SecretString> {
    if let Some(value) = &source.value {
        if value.expose_secret().trim().is_empty() {
            tree.mistake(&source.value_path, "is empty: remove it, or give it a value");
            return None;
        }
        return Some(value.clone());
    }
    let file = source.file.as_ref()?;
    let read = read_file(tree, &source.file_path, file);
    read.map_err(|error| tree.mistake(&source.file_path, unreadable(file, &error))).ok().flatten()
}

/// `[security]` with its secrets. Weak ones are weaknesses; files are made only when `mode` says so
/// and nothing was found wrong so far, so this comes last.
pub(super) fn resolve(
    tree: &Tree<'_>,
    draft: SecurityDraft,
    data_dir: &Path,
    mode: Secrets,
    strict: bool,
) -> Option<Security> {
    let keys = Keys {
        secret_key: key(tree, &draft.secret_key, data_dir, "secret_key"),
        encryption_key: key(tree, &draft.encryption_key, data_dir, "encryption_key"),
    };
    let admin_password = given(tree, &draft.admin_password);
    judge(tree, &draft, &keys, admin_password.as_ref());
    let create = mode == Secrets::Create && tree.is_sound(strict);
    if create && let Err(error) = make_private_dir(data_dir) {
        tree.mistake("server.data_dir", format!("cannot be made at {}: {error}", data_dir.display()));
        return None;
    }
    let mut missing = Vec::new();
    let mut settle = |name, key, source| {
        if let Key::Missing(file) = &key {
            missing.push(MissingSecret { name, file: file.clone() });
        }
        settle(tree, key, source, create)
    };
    let secret_key = settle("secret_key", keys.secret_key, &draft.secret_key);
    let encryption_key = settle("encryption_key", keys.encryption_key, &draft.encryption_key);
    Some(Security {
        secret_key: secret_key?,
        encryption_key: encryption_key?,
        access_token_ttl: draft.access_token_ttl,
        refresh_token_ttl: draft.refresh_token_ttl,
        bcrypt_rounds: draft.bcrypt_rounds,
        allow_registration: draft.allow_registration,
        registration_by_mail: draft.registration_by_mail,
        accept_v1_keys: draft.accept_v1_keys,
        require_totp: draft.require_totp,
        require_verified_email: draft.require_verified_email,
        admin_username: draft.admin_username,
        admin_password,
        missing,
        accept_lost: false,
    })
}

/// Notes a weakness where others may read a file that holds a secret.
pub(super) fn judge_permissions(tree: &Tree<'_>, path: &str, file: &Path) {
    let mode = fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o007 != 0 {
        tree.weakness(path, format!("{0} is open to everyone: chmod 600 {0}", file.display()));
    }
}

fn key(tree: &Tree<'_>, source: &SecretSource, data_dir: &Path, name: &str) -> Key {
    if source.value.is_some() {
        return given(tree, source).map_or(Key::Unreadable, Key::Present);
    }
    let file = source.file.clone().unwrap_or_else(|| data_dir.join(name));
    match read_file(tree, &source.file_path, &file) {
        Ok(secret) => secret.map_or(Key::Unreadable, Key::Present),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Key::Missing(file),
        Err(error) => {
            tree.mistake(&source.file_path, unreadable(&file, &error));
            Key::Unreadable
        }
    }
}

/// `Ok(None)` where the file holds no secret, which is then already noted.
fn read_file(tree: &Tree<'_>, path: &str, file: &Path) -> io::Result<Option<SecretString>> {
    let mut text = String::new();
    File::open(file)?.take(LARGEST_FILE + 1).read_to_string(&mut text)?;
    judge_permissions(tree, path, file);
    if text.len() as u64 > LARGEST_FILE {
        tree.mistake(path, format!("{} is no secret: it has more than 64 KiB", file.display()));
        return Ok(None);
    }
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.trim().is_empty() {
        tree.mistake(path, format!("{} is empty: write the secret into it, or remove it", file.display()));
        return Ok(None);
    }
    Ok(Some(SecretString::from(secret)))
}

fn unreadable(file: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", file.display())
}

fn judge(tree: &Tree<'_>, draft: &SecurityDraft, keys: &Keys, admin_password: Option<&SecretString>) {
    let both = [(&draft.secret_key, &keys.secret_key), (&draft.encryption_key, &keys.encryption_key)];
    for (source, key) in both {
        if let Key::Present(secret) = key
            && let Some(reason) = weakness(secret)
        {
            tree.weakness(source.path(), format!("{reason}, or remove it to have one made"));
        }
    }
    if let (Key::Present(one), Key::Present(other)) = (&keys.secret_key, &keys.encryption_key)
        && one.expose_secret() == other.expose_secret()
    {
        let message = "is the same as the secret key: give each its own, so that one leak is not two";
        tree.weakness(draft.encryption_key.path(), message);
    }
    let Some(password) = admin_password else { return };
    let path = draft.admin_password.path();
    if password.expose_secret().len() > LONGEST_PASSWORD {
        tree.mistake(path, "is longer than 72 bytes, and bcrypt reads no further: choose a shorter one");
    }
    if let Some(reason) = weak_admin_password(password) {
        tree.weakness(path, format!("{reason}, or remove it to have one made"));
    }
}

fn settle(tree: &Tree<'_>, key: Key, source: &SecretSource, create: bool) -> Option<SecretString> {
    match key {
        Key::Present(secret) => Some(secret),
        Key::Unreadable => None,
        Key::Missing(_) if create => Some(random_secret()),
        Key::Missing(file) => {
            tree.note(&source.file_path, format!("{} will be made at the first start", file.display()));
            Some(random_secret())
        }
    }
}

fn make_private_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Writes a secret that is whole on the disk before it has its name. Where another process was faster,
/// its secret is the one that holds, and is answered.
fn make_file(file: &Path, secret: &SecretString) -> io::Result<Option<SecretString>> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_private_dir(parent)?;
    let nonce: u64 = rand::rng().next_u64();
    let unnamed = file.with_extension(format!("{nonce:016x}.new"));
    let written = write_whole(&unnamed, secret.expose_secret());
    let named = written.and_then(|()| name_file(&unnamed, file));
    // Best effort: what stays behind is an unused random value, 0600.
    let _ = fs::remove_file(&unnamed);
    match named {
        Ok(()) => File::open(parent)?.sync_all().map(|()| None),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let other = fs::read_to_string(file)?;
            Ok(Some(SecretString::from(other.trim_end())))
        }
        Err(error) => Err(error),
    }
}

/// Never replaces a file; where the file system has no hard links, unless two processes are within
/// the same moment.
fn name_file(unnamed: &Path, file: &Path) -> io::Result<()> {
    match fs::hard_link(unnamed, file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !file.exists() => {
            fs::rename(unnamed, file)
        }
        linked => linked,
    }
}

fn write_whole(file: &Path, secret: &str) -> io::Result<()> {
    let mut handle = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    handle.write_all(secret.as_bytes())?;
    handle.write_all(b"\n")?;
    handle.sync_all()
}

/// 32 random bytes in URL-safe Base64, which is what a Fernet key is.
fn random_secret() -> SecretString {
    let mut bytes = [0_u8; RANDOM_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    SecretString::from(URL_SAFE.encode(bytes))
}

// === impl Security ===

impl Security {
    /// Writes the files of missing secrets. Those that it made, by the name of the secret; where another
    /// process was faster, its secret is used from now on.
    ///
    /// # Errors
    /// The file that cannot be made, and why.
    pub fn make_missing(&mut self) -> Result<Vec<(&'static str, PathBuf)>, (PathBuf, io::Error)> {
        let mut made = Vec::new();
        for MissingSecret { name, file } in std::mem::take(&mut self.missing) {
            let secret = if name == "secret_key" { &mut self.secret_key } else { &mut self.encryption_key };
            match make_file(&file, secret) {
                Ok(None) => made.push((name, file)),
                Ok(Some(other)) => *secret = other,
                Err(error) => return Err((file, error)),
            }
        }
        Ok(made)
    }
}

// === impl SecretSource ===

impl SecretSource {
    /// Where the operator would change it.
    fn path(&self) -> &str {
        if self.value.is_some() { &self.value_path } else { &self.file_path }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use secrecy::ExposeSecret;

    use super::{make_file, random_secret};

    #[test]
    fn a_made_secret_is_private_whole_and_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("data/secret_key");
        let (first, second) = (random_secret(), random_secret());
        assert!(make_file(&file, &first).unwrap().is_none());
        let held = make_file(&file, &second).unwrap().unwrap();
        assert_eq!(first.expose_secret(), held.expose_secret());
        assert_eq!(first.expose_secret().len(), 44);
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
        assert!(fernet::Fernet::new(first.expose_secret()).is_some());
    }
}
