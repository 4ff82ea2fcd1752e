//! `tollgate user …`: accounts, without asking the gateway.

use std::fmt::Write;

use anyhow::{Context, bail};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tollgate::control::{self, MadeKey};
use tollgate::credential::account_digest::AccountDigests;
use tollgate::credential::key::Pepper;
use tollgate::credential::seal::Sealer;
use tollgate::quota::Window;
use tollgate::store::SlowRead;
use tollgate::store::keys;
use tollgate::store::quota;
use tollgate::store::sessions::Owner;
use tollgate::store::users::{self, QuotaChange, User, UserChange};
use tollgate::telemetry::printed::field;

use super::ConfigFile;
use super::desk::{Desk, PasswordFrom, Told, at_a_new_desk, at_the_desk};

/// Accounts and their keys. Each call works on the database, whether the gateway runs or not; a running
/// one follows within five seconds, and ends what a key may do no longer within one.
#[derive(clap::Subcommand)]
pub(crate) enum UserCommand {
    /// Open an account; its key is printed once, and its password unless you give it.
    Add(NewAccount),
    /// Print the accounts there are.
    List {
        #[command(flatten)]
        at: ConfigFile,
        /// At most so many.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=1000))]
        limit: i64,
        /// After so many.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
        offset: i64,
    },
    /// Print one account. What a running gateway has in hand of today counts as used until it is back,
    /// a few seconds later.
    Show(Named),
    /// Make another key and print it once; the old one stops working.
    Key(Named),
    /// Set what is left of today, or what each day gives.
    Limit {
        #[command(flatten)]
        account: Named,
        #[command(flatten)]
        limits: NewLimits,
    },
    /// Give everybody a whole day, beginning now; also the way back from a day that a clock ran ahead to.
    ResetLimits {
        #[command(flatten)]
        at: ConfigFile,
    },
    /// Shut an account out and end its sessions.
    Disable(Named),
    /// Let an account in again.
    Enable(Named),
    /// Remove the second factor of an account whose owner has lost it, and end its sessions.
    ResetTotp(Named),
}

/// An account about to be opened.
#[derive(clap::Args)]
pub(crate) struct NewAccount {
    #[command(flatten)]
    account: Named,
    /// Their e-mail address, by which they log in.
    #[arg(long)]
    email: String,
    /// What they are called; else the username.
    #[arg(long)]
    name: Option<String>,
    /// A plan of the configuration; else the one everybody begins with.
    #[arg(long)]
    plan: Option<String>,
    /// A level within the plan.
    #[arg(long)]
    level: Option<String>,
    #[command(flatten)]
    password: PasswordFrom,
}

/// Whose account.
#[derive(clap::Args)]
pub(crate) struct Named {
    /// 3 to 30 letters, digits or underscores.
    username: String,
    #[command(flatten)]
    at: ConfigFile,
}

/// What is to be set of limits: one of the two at least.
#[derive(Clone, Copy, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct NewLimits {
    /// Conversations left of today.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..=1_000_000))]
    left: Option<i64>,
    /// Conversations of each day, from tomorrow on.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..=1_000_000))]
    per_day: Option<i64>,
}

// === impl UserCommand ===

impl UserCommand {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Add(new) => at_a_new_desk(&new.account.at, async |desk| add(desk, &new).await),
            Self::List { at, limit, offset } => {
                at_the_desk(&at, async |desk| list(desk, limit, offset).await)
            }
            Self::Show(of) => at_the_desk(&of.at, async |desk| show(desk, &of.username).await),
            Self::Key(of) => at_the_desk(&of.at, async |desk| key(desk, &of.username).await),
            Self::Limit { account: of, limits } => {
                at_the_desk(&of.at, async |desk| limit(desk, &of.username, limits).await)
            }
            Self::ResetLimits { at } => at_the_desk(&at, async |desk| reset_limits(desk).await),
            Self::Disable(of) => at_the_desk(&of.at, async |desk| switch(desk, &of.username, false).await),
            Self::Enable(of) => at_the_desk(&of.at, async |desk| switch(desk, &of.username, true).await),
            Self::ResetTotp(of) => at_the_desk(&of.at, async |desk| {
                let user = named(desk, &of.username).await?;
                desk.reset_totp(Owner::user(user.id), &user.username).await
            }),
        }
    }
}

async fn add(desk: &Desk, new: &NewAccount) -> anyhow::Result<Told> {
    let username = &new.account.username;
    if !control::is_username(username) {
        bail!("a username has 3 to 30 letters, digits or underscores");
    }
    if !control::is_email(&new.email) {
        bail!("--email is not an e-mail address");
    }
    if let Some(plan) = new.plan.as_ref().filter(|plan| !desk.config.plans.contains(plan)) {
        bail!("the configuration has no plan {plan}");
    }
    let key = make_key(desk).await?;
    let chosen = desk.password(new.password)?;
    let name = new.name.clone().unwrap_or_else(|| username.clone());
    let mut user = control::newcomer(username.clone(), name, new.email.clone(), &chosen.hash);
    user.subscription_plan = new.plan.clone().unwrap_or(user.subscription_plan);
    user.level = new.level.clone().unwrap_or(user.level);
    let digests = AccountDigests::derive(&desk.config.security.encryption_key);
    let user = control::beginning(user, &digests, &desk.config.plans, &desk.clock);
    let entry = desk.entry("user.create", username, json!({}));
    let id = users::insert(&desk.db, &user, &key.row, desk.now, &entry).await?;
    let password = chosen.made.as_ref().map(ExposeSecret::expose_secret);
    let mut text = format!("username={username}\napi_key={}", key.plain.expose());
    if let Some(password) = password {
        write!(text, "\npassword={password}")?;
    }
    let json = json!({ "ok": true, "user_id": id.to_string(), "username": username,
        "api_key": key.plain.expose(), "password": password });
    Ok(Told { json, text })
}

async fn list(desk: &Desk, limit: i64, offset: i64) -> anyhow::Result<Told> {
    let page = users::list(&SlowRead::alone(&desk.db), limit, offset).await?;
    let mut text = format!("{} of {} accounts", page.rows.len(), page.total);
    for user in &page.rows {
        let state = if user.is_active { "" } else { ", disabled" };
        let User { username, email, subscription_plan, level, .. } = user;
        let [name, email, plan, level] = [username, email, subscription_plan, level].map(|text| field(text));
        write!(text, "\n{name} <{email}>, {plan}/{level}{state}")?;
    }
    let rows: Vec<Value> = page.rows.iter().map(brief).collect();
    Ok(Told { json: json!({ "ok": true, "total": page.total, "users": rows }), text })
}

async fn show(desk: &Desk, username: &str) -> anyhow::Result<Told> {
    let user = named(desk, username).await?;
    let (day, per_day) = today(desk, &user);
    let left = quota::left(&desk.db, user.id, day, per_day).await?.context("the account is gone")?;
    let key = keys::current(&desk.db, user.id).await?;
    let key = key.map(
        |key| json!({ "prefix": key.prefix, "created_at": key.created_at, "last_used_at": key.last_used_at }),
    );
    let more = json!({
        "ok": true,
        "limits": { "conversation_limit": left.left, "reset": left.reset },
        "credits": { "main": user.credits_main, "reset": user.credits_reset },
        "access_rtype": user.access_rtype,
        "allowed_ips": user.allowed_ips,
        "additional_notes": user.additional_notes,
        "key": key,
    });
    let mut json = brief(&user);
    if let (Value::Object(all), Value::Object(more)) = (&mut json, more) {
        all.extend(more);
    }
    let text = serde_json::to_string_pretty(&json)?;
    Ok(Told { json, text })
}

async fn key(desk: &Desk, username: &str) -> anyhow::Result<Told> {
    let user = named(desk, username).await?;
    let key = make_key(desk).await?;
    let entry = desk.entry("key.regenerate", &user.username, json!({}));
    keys::replace(&desk.db, user.id, &key.row, desk.now, &entry).await?;
    let (username, api_key) = (user.username, key.plain.expose());
    let text = format!("username={username}\napi_key={api_key}");
    Ok(Told { json: json!({ "ok": true, "username": username, "api_key": api_key }), text })
}

async fn limit(desk: &Desk, username: &str, limits: NewLimits) -> anyhow::Result<Told> {
    let user = named(desk, username).await?;
    let (day, plan_limit) = today(desk, &user);
    let quota = Some(QuotaChange { day, left: limits.left, reset: limits.per_day, plan_limit });
    let detail = json!({ "limits.conversation_limit": limits.left, "limits.reset": limits.per_day });
    change(desk, &user, &UserChange { quota, ..UserChange::default() }, detail).await?;
    show(desk, username).await
}

async fn reset_limits(desk: &Desk) -> anyhow::Result<Told> {
    let entry = desk.entry("limits.reset", "all users", json!({}));
    let users = quota::reset_all(&desk.db, &entry).await?;
    let text = format!("{users} users begin anew.");
    Ok(Told { json: json!({ "ok": true, "users": users }), text })
}

async fn switch(desk: &Desk, username: &str, on: bool) -> anyhow::Result<Told> {
    let user = named(desk, username).await?;
    let row = UserChange { is_active: Some(on), bump_token_version: !on, ..UserChange::default() };
    change(desk, &user, &row, json!({ "is_active": on })).await?;
    let word = if on { "enabled" } else { "disabled" };
    let json = json!({ "ok": true, "username": user.username, "is_active": on });
    Ok(Told { json, text: format!("{} is {word}.", user.username) })
}

async fn change(desk: &Desk, user: &User, row: &UserChange, detail: Value) -> anyhow::Result<()> {
    let entry = desk.entry("user.update", &user.username, detail);
    users::update(&desk.db, user.id, row, desk.now, &entry).await?;
    Ok(())
}

async fn named(desk: &Desk, username: &str) -> anyhow::Result<User> {
    let found = users::by_username(&desk.db, username).await?;
    found.with_context(|| format!("there is no user {username}"))
}

/// The day of a user's allowance, and what their plan gives.
fn today(desk: &Desk, user: &User) -> (i64, i64) {
    let allowance = &desk.config.plans.resolve(&user.subscription_plan, &user.level).allowance;
    (Window::at(desk.now, allowance.zone).day, allowance.per_day)
}

async fn make_key(desk: &Desk) -> anyhow::Result<MadeKey> {
    let secret = desk.encryption_key().await?;
    Ok(MadeKey::generate(&Pepper::derive(&secret), &Sealer::new(&secret)))
}

fn brief(user: &User) -> Value {
    json!({
        "user_id": user.id.to_string(),
        "username": user.username,
        "name": user.name,
        "email": user.email,
        "type": user.kind,
        "subscription_plan": user.subscription_plan,
        "level": user.level,
        "is_active": user.is_active,
        "time_created": user.time_created,
    })
}
