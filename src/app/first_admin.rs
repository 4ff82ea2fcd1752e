//! The admin that a first start makes.

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};

use crate::background::Background;
use crate::clock::Timestamp;
use crate::config::Security;
use crate::credential::password::{self, Password, PasswordHash};
use crate::store::{Db, StoreError, admins};
use crate::telemetry;

/// Makes the admin of the configured name where there is no admin at all.
///
/// A configured password is that admin's from now on, also when another was set before. Without one
/// the first start makes a random one and prints it, once, to standard error. Where there are admins and none
/// has the configured name, none is made: a changed name in the file must not leave a second admin behind.
///
/// # Errors
///
/// When the database does not answer, or the configured password cannot be one.
pub(super) async fn ensure(
    db: &Db,
    security: &Security,
    background: &Background,
    now: Timestamp,
) -> anyhow::Result<()> {
    let (store, name) = (db.clone(), security.admin_username.clone());
    let found = async move { Ok((admins::by_username(&store, &name).await?, admins::count(&store).await?)) };
    let found: Result<_, StoreError> = background.run(found).await?;
    let (found, admins) = found?;
    if found.is_none() && admins > 0 {
        tracing::warn!(
            admin = %security.admin_username, admins,
            "security.admin_username names no admin, and there are others: none is made; `tollgate admin list` \
             names them, `tollgate admin add` makes another"
        );
        return Ok(());
    }
    let (chosen, cost) = (security.admin_password.clone(), security.bcrypt_rounds);
    let (password, print) = match (found, chosen) {
        (None, Some(chosen)) => (chosen, false),
        (None, None) => (password::random_password(), true),
        (Some(_), None) => return Ok(()),
        (Some(admin), Some(chosen)) => {
            if holds(&chosen, admin.password_hash)? {
                return Ok(());
            }
            tracing::warn!(admin = %security.admin_username, "the admin's password is set to the configured one");
            (chosen, false)
        }
    };
    let hash = password::hash(&candidate(&password)?, cost)?;
    let (store, name) = (db.clone(), security.admin_username.clone());
    let made = async move { admins::upsert(&store, &name, hash.as_str(), now).await };
    background.run(made).await??;
    if print {
        announce(&security.admin_username, &password);
    }
    Ok(())
}

fn holds(chosen: &SecretString, stored: String) -> anyhow::Result<bool> {
    Ok(password::verify(&candidate(chosen)?, &PasswordHash::from_stored(stored)))
}

/// Only what bcrypt can hold is asked for: the seed's own `admin123!` must still start.
fn candidate(password: &SecretString) -> anyhow::Result<Password> {
    Password::candidate(password.clone()).context("security.admin_password: at most 72 bytes, without NUL")
}

fn announce(name: &str, password: &SecretString) {
    let password = password.expose_secret();
    telemetry::say(&format!(
        "The first start made an admin. This is told once; keep it.\nadmin_username={name}\nadmin_password={password}\n"
    ));
}
