//! `tollgate admin …`: for who has lost the password, and still has the machine.

use std::fmt::Write;

use anyhow::Context;
use secrecy::ExposeSecret;
use serde_json::json;
use tollgate::store::admins;

use super::ConfigFile;
use super::desk::{Desk, PasswordFrom, Told, at_the_desk};

/// Admin accounts.
#[derive(clap::Subcommand)]
pub(crate) enum AdminCommand {
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
            Self::ResetPassword { username, password, at } => {
                at_the_desk(&at, async |desk| reset_password(desk, username, password).await)
            }
        }
    }
}

async fn reset_password(
    desk: &Desk,
    username: Option<String>,
    password: PasswordFrom,
) -> anyhow::Result<Told> {
    let security = &desk.config.security;
    let asked = username.unwrap_or_else(|| security.admin_username.clone());
    let found = admins::by_username(&desk.db, &asked).await?;
    let admin = found.with_context(|| format!("there is no admin {asked}"))?;
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
