//! `tollgate admin …`: for who has lost the password, and still has the machine.

use std::fmt::Write;

use anyhow::{Context, ensure};
use secrecy::ExposeSecret;
use serde_json::json;
use tollgate::control::is_username;
use tollgate::store::SlowRead;
use tollgate::store::admins::{self, Admin, AdminChange};
use tollgate::store::sessions::Owner;
use tollgate::telemetry::printed;

use super::ConfigFile;
use super::desk::{Desk, PasswordFrom, Told, at_the_desk};

/// Admin accounts.
#[derive(clap::Subcommand)]
pub(crate) enum AdminCommand {
    /// List the admins.
    List {
        #[command(flatten)]
        at: ConfigFile,
    },
    /// Make another admin; the password is printed once, unless you give it.
    Add {
        /// 3 to 30 letters, digits or underscores.
        username: String,
        /// An auditor reads everything and changes nothing.
        #[arg(long, value_parser = admins::ROLES, default_value = admins::FULL)]
        role: String,
        #[command(flatten)]
        password: PasswordFrom,
        #[command(flatten)]
        at: ConfigFile,
    },
    /// Keep an admin from logging in, and end their sessions.
    Disable {
        /// Which admin.
        username: String,
        #[command(flatten)]
        at: ConfigFile,
    },
    /// Let an admin log in again.
    Enable {
        /// Which admin.
        username: String,
        #[command(flatten)]
        at: ConfigFile,
    },
    /// Delete an admin; the last active one who is no auditor stays.
    Delete {
        /// Which admin.
        username: String,
        #[command(flatten)]
        at: ConfigFile,
    },
    /// Remove the second factor of an admin who has lost it, and end their sessions.
    ResetTotp {
        /// Which admin.
        username: String,
        #[command(flatten)]
        at: ConfigFile,
    },
    /// Give an admin another password and end their sessions; it is printed once, unless you give it.
    ResetPassword {
        /// Which admin; else security.admin_username.
        username: Option<String>,
        #[command(flatten)]
        password: PasswordFrom,
        #[command(flatten)]
        at: ConfigFile,
    },
}

// === impl AdminCommand ===

impl AdminCommand {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List { at } => at_the_desk(&at, async |desk| list(desk).await),
            Self::Add { username, role, password, at } => {
                at_the_desk(&at, async |desk| add(desk, &username, &role, password).await)
            }
            Self::Disable { username, at } => {
                at_the_desk(&at, async |desk| set_active(desk, &username, false).await)
            }
            Self::Enable { username, at } => {
                at_the_desk(&at, async |desk| set_active(desk, &username, true).await)
            }
            Self::Delete { username, at } => at_the_desk(&at, async |desk| delete(desk, &username).await),
            Self::ResetTotp { username, at } => at_the_desk(&at, async |desk| {
                let admin = named(desk, &username).await?;
                desk.reset_totp(Owner::admin(admin.id), &admin.username).await
            }),
            Self::ResetPassword { username, password, at } => {
                at_the_desk(&at, async |desk| reset_password(desk, username, password).await)
            }
        }
    }
}

/// More admins than anyone has.
const MOST: i64 = 10_000;

async fn list(desk: &Desk) -> anyhow::Result<Told> {
    let found = admins::list(&SlowRead::alone(&desk.db), MOST, 0).await?.rows;
    let mut text = format!("{:<30}  {:<8}  active", "username", "role");
    for Admin { username, role, is_active, .. } in &found {
        let (username, active) = (printed::field(username), if *is_active { "yes" } else { "no" });
        write!(text, "\n{username:<30}  {role:<8}  {active}")?;
    }
    let one = |admin: &Admin| {
        json!({ "username": admin.username, "role": admin.role, "is_active": admin.is_active,
            "time_created": admin.time_created })
    };
    let listed: Vec<_> = found.iter().map(one).collect();
    Ok(Told { json: json!({ "ok": true, "admins": listed }), text })
}

async fn add(desk: &Desk, username: &str, role: &str, password: PasswordFrom) -> anyhow::Result<Told> {
    ensure!(
        is_username(username),
        "{username:?}: an admin's name has 3 to 30 letters, digits or underscores"
    );
    let chosen = desk.password(password)?;
    let entry = desk.entry("admin.create", username, json!({ "role": role }));
    admins::insert(&desk.db, (username, chosen.hash.as_str(), role), &entry).await?;
    let made = chosen.made.as_ref().map(ExposeSecret::expose_secret);
    let mut text = format!("admin_username={username}");
    if let Some(made) = made {
        write!(text, "\nadmin_password={made}")?;
    }
    let json = json!({ "ok": true, "admin_username": username, "admin_password": made, "role": role });
    Ok(Told { json, text })
}

async fn set_active(desk: &Desk, username: &str, is_active: bool) -> anyhow::Result<Told> {
    let admin = named(desk, username).await?;
    let entry = desk.entry("admin.update", &admin.username, json!({ "fields": ["is_active"] }));
    let change = AdminChange { is_active: Some(is_active), ..AdminChange::default() };
    admins::change(&desk.db, admin.id, &change, &entry).await?;
    let word = if is_active { "enabled" } else { "disabled" };
    let json = json!({ "ok": true, "admin_username": admin.username, "is_active": is_active });
    Ok(Told { json, text: format!("{} is {word}.", admin.username) })
}

async fn delete(desk: &Desk, username: &str) -> anyhow::Result<Told> {
    let admin = named(desk, username).await?;
    let entry = desk.entry("admin.delete", &admin.username, json!({ "admin_id": admin.id }));
    admins::delete(&desk.db, admin.id, &entry).await?;
    let json = json!({ "ok": true, "admin_username": admin.username });
    Ok(Told { json, text: format!("{} is deleted.", admin.username) })
}

async fn named(desk: &Desk, username: &str) -> anyhow::Result<Admin> {
    let found = admins::by_username(&desk.db, username).await?;
    found
        .with_context(|| format!("there is no admin {username}; `tollgate admin list` names those there are"))
}

async fn reset_password(
    desk: &Desk,
    username: Option<String>,
    password: PasswordFrom,
) -> anyhow::Result<Told> {
    let security = &desk.config.security;
    let asked = username.unwrap_or_else(|| security.admin_username.clone());
    let admin = named(desk, &asked).await?;
    let chosen = desk.password(password)?;
    let entry = desk.entry("admin.reset_password", &admin.username, json!({}));
    admins::reset_password(&desk.db, admin.id, chosen.hash.as_str(), &entry).await?;
    let made = chosen.made.as_ref().map(ExposeSecret::expose_secret);
    let mut text = format!("admin_username={}", admin.username);
    if let Some(made) = made {
        write!(text, "\nadmin_password={made}")?;
    }
    let configured = admin.username.eq_ignore_ascii_case(&security.admin_username);
    let undone = security.admin_password.is_some() && configured;
    if undone {
        write!(text, "\nThe next start sets the password of the configuration again: change it there too.")?;
    }
    let json = json!({ "ok": true, "admin_username": admin.username, "admin_password": made,
        "undone_at_next_start": undone });
    Ok(Told { json, text })
}
