//! `tollgate staff …`: those who look after users.

use std::fmt::Write;

use anyhow::{Context, bail};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tollgate::control;
use tollgate::store::SlowRead;
use tollgate::store::sessions::Owner;
use tollgate::store::staff::{self, NewStaff, Staff, StaffChange};
use tollgate::telemetry::printed::field;

use super::ConfigFile;
use super::desk::{Desk, PasswordFrom, Told, at_the_desk};

/// Staff accounts.
#[derive(clap::Subcommand)]
pub(crate) enum StaffCommand {
    /// Take somebody on; their password is printed once, unless you give it.
    Add(NewMember),
    /// Print who is on the staff.
    List {
        #[command(flatten)]
        at: ConfigFile,
    },
    /// Shut somebody out and end their sessions.
    Disable(Member),
    /// Let somebody in again.
    Enable(Member),
    /// Remove the second factor of a member of staff who has lost it, and end their sessions.
    ResetTotp(Member),
}

/// Somebody about to be taken on.
#[derive(clap::Args)]
pub(crate) struct NewMember {
    #[command(flatten)]
    member: Member,
    /// Their e-mail address.
    #[arg(long)]
    email: String,
    /// What they are called; else the username.
    #[arg(long)]
    name: Option<String>,
    /// What they may do: look on, help, or also delete.
    #[arg(long, value_parser = ["new", "support", "advanced"], default_value = "new")]
    level: String,
    #[command(flatten)]
    password: PasswordFrom,
}

/// Who.
#[derive(clap::Args)]
pub(crate) struct Member {
    /// 3 to 30 letters, digits or underscores.
    username: String,
    #[command(flatten)]
    at: ConfigFile,
}

/// Most who are listed.
const MOST: i64 = 1000;

// === impl StaffCommand ===

impl StaffCommand {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Add(new) => at_the_desk(&new.member.at, async |desk| add(desk, &new).await),
            Self::List { at } => at_the_desk(&at, async |desk| list(desk).await),
            Self::Disable(who) => at_the_desk(&who.at, async |desk| switch(desk, &who.username, false).await),
            Self::Enable(who) => at_the_desk(&who.at, async |desk| switch(desk, &who.username, true).await),
            Self::ResetTotp(who) => at_the_desk(&who.at, async |desk| {
                let member = named(desk, &who.username).await?;
                desk.reset_totp(Owner::staff(member.id), &member.username).await
            }),
        }
    }
}

async fn add(desk: &Desk, new: &NewMember) -> anyhow::Result<Told> {
    let username = &new.member.username;
    if !control::is_username(username) {
        bail!("a username has 3 to 30 letters, digits or underscores");
    }
    if !control::is_email(&new.email) {
        bail!("--email is not an e-mail address");
    }
    let chosen = desk.password(new.password)?;
    let member = NewStaff {
        name: new.name.clone().unwrap_or_else(|| username.clone()),
        username: username.clone(),
        email: new.email.clone(),
        password_hash: chosen.hash.as_str().to_owned(),
        staff_level: new.level.clone(),
    };
    let entry = desk.entry("staff.create", username, json!({ "staff_level": new.level }));
    let id = staff::insert(&desk.db, &member, desk.now, &entry).await?;
    let password = chosen.made.as_ref().map(ExposeSecret::expose_secret);
    let mut text = format!("username={username}\nstaff_level={}", new.level);
    if let Some(password) = password {
        write!(text, "\npassword={password}")?;
    }
    let json = json!({ "ok": true, "staff_id": id.to_string(), "username": username,
        "staff_level": new.level, "password": password });
    Ok(Told { json, text })
}

async fn list(desk: &Desk) -> anyhow::Result<Told> {
    let page = staff::list(&SlowRead::alone(&desk.db), MOST, 0).await?;
    let mut text = format!("{} on the staff", page.total);
    for member in &page.rows {
        let state = if member.is_active { "" } else { ", disabled" };
        let Staff { username, email, staff_level, .. } = member;
        let [name, email, level] = [username, email, staff_level].map(|text| field(text));
        write!(text, "\n{name} <{email}>, {level}{state}")?;
    }
    let shown = |member: &Staff| {
        json!({ "staff_id": member.id.to_string(), "username": member.username, "name": member.name,
            "email": member.email, "staff_level": member.staff_level, "is_active": member.is_active,
            "time_created": member.time_created })
    };
    let rows: Vec<Value> = page.rows.iter().map(shown).collect();
    Ok(Told { json: json!({ "ok": true, "total": page.total, "staff": rows }), text })
}

async fn switch(desk: &Desk, username: &str, on: bool) -> anyhow::Result<Told> {
    let member = named(desk, username).await?;
    let entry = desk.entry("staff.update", &member.username, json!({ "is_active": on }));
    let change = StaffChange { is_active: Some(on), ..StaffChange::default() };
    staff::update(&desk.db, member.id, &change, &entry).await?;
    let word = if on { "enabled" } else { "disabled" };
    let json = json!({ "ok": true, "username": member.username, "is_active": on });
    Ok(Told { json, text: format!("{} is {word}.", member.username) })
}

async fn named(desk: &Desk, username: &str) -> anyhow::Result<Staff> {
    let found = staff::by_username(&desk.db, username).await?;
    found.with_context(|| format!("there is no staff member {username}"))
}
