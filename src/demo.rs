//! `tollgate demo`: the gate in front of a small chat app of its own, with an admin and a user to
//! try it, in a folder of its own.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Signals};
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Security, Vars};
use crate::credential::key::{Pepper, PlainKey};
use crate::credential::password::{self, Password};
use crate::credential::seal::Sealer;
use crate::listen;
use crate::store::Db;
use crate::store::accounts::InsertAccount;
use crate::store::audit::{self, Actor};
use crate::store::keys::NewKey;
use crate::store::users::{self, NewUser};
use folder::{Account, Folder};

mod anthropic;
mod chat;
mod embeddings;
mod folder;
mod models;
mod ollama;
mod openai;
mod pace;
mod reply;
mod responses;
mod steps;

pub use chat::{chat_app, router};

/// Name of the user whose key is printed.
const USERNAME: &str = "demo";

/// The database, in the demo's folder.
const DATABASE: &str = "tollgate.db";

/// How long the first steps may take to be printed.
const SHOWN_WITHIN: Duration = Duration::from_secs(2);

/// What may be chosen for a demo.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// Where the gate listens; port 0 for a free one.
    pub listen: SocketAddr,
    /// Where data is kept: an empty or absent folder, or an earlier demo's. A fresh one when not given.
    pub data: Option<PathBuf>,
}

/// Runs the demo until Ctrl-C or SIGTERM, and lets running streams end.
///
/// # Errors
/// When the folder is somebody else's, the address is taken, or the gate cannot start.
pub async fn run(options: DemoOptions) -> anyhow::Result<()> {
    let in_use = || format!("the gate cannot start on {} (--listen chooses another address)", options.listen);
    // Before a folder is made.
    drop(listen::bind(&[options.listen], 1).with_context(in_use)?);
    let signals = Signals::catch()?;
    let folder = Folder::open(options.data)?;
    let chat = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port for the chat app")?;
    let text = configuration(options.listen, &folder, chat.local_addr()?);
    // The environment is left out: what a shell sets for another gateway must not move the demo's data.
    let config = Config::from_toml(&text, &folder.path, &Vars::default())
        .context("the demo's own configuration is wrong")?;
    let (security, clock) = (config.security.clone(), Clock::system());
    tracing::info!(configuration = "the demo's own", database = %config.database.location, "starting");

    let app = App::start(config, clock.clone()).await.with_context(in_use)?;
    add_user(app.db(), &folder.account, &security, clock.now()).await?;
    let url = steps::base_url(app.local_addr());
    let mut first_steps = Vec::new();
    steps::print(&mut first_steps, &url, &folder.account, &folder.path)?;
    show(first_steps).await;

    // The gate drains first: its running streams still come from the chat app.
    let stop = CancellationToken::new();
    let gate = async {
        let _stop = stop.clone().drop_guard();
        app.run_until(signals).await;
    };
    let ((), chat) = tokio::join!(gate, chat_app(chat, stop.clone()));
    chat
}

/// Writes to standard output, from a thread that may be left behind: a reader that is gone or stopped is no
/// reason to stop, or not to serve.
async fn show(text: Vec<u8>) {
    let (sender, written) = oneshot::channel();
    std::thread::spawn(move || {
        let mut out = io::stdout().lock();
        let _ = sender.send(out.write_all(&text).and_then(|()| out.flush()));
    });
    match timeout(SHOWN_WITHIN, written).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::warn!(%error, "standard output cannot be written"),
        _ => tracing::warn!("standard output takes nothing"),
    }
}

/// The configuration of a demo, as an operator would write it.
fn configuration(listen: SocketAddr, folder: &Folder, chat: SocketAddr) -> String {
    let quoted = |text: &str| toml::Value::from(text.replace('$', "$$")).to_string();
    format!(
        r#"
[server]
listen = ["{listen}"]
data_dir = {data_dir}
drain_timeout = "30s"

[database]
url = "sqlite://{DATABASE}"

[security]
admin_username = {admin_username}
admin_password = {admin_password}

[limits]
rate_limit_per_minute = 600
burst = 300

[plans.free]
conversation_limit = 10

[plans.demo]
conversation_limit = 1000

[[upstreams]]
name = "chat-app"
url = "http://{chat}"

[[routes]]
prefix = "/v1"
upstream = "chat-app"
charge = ["POST /v1/chat/completions", "POST /v1/completions", "POST /v1/responses", "POST /v1/messages"]

[[routes]]
prefix = "/api"
upstream = "chat-app"
dialect = "ollama"
charge = ["POST /api/chat", "POST /api/generate"]
"#,
        data_dir = quoted(&folder.path.display().to_string()),
        admin_username = quoted(&folder.account.admin_username),
        admin_password = quoted(folder.account.admin_password.expose_secret()),
    )
}

/// Adds the demo's user; in an earlier demo's folder it is there already.
async fn add_user(db: &Db, account: &Account, security: &Security, now: Timestamp) -> anyhow::Result<()> {
    let key = PlainKey::parse(account.api_key.expose_secret()).context("the key in demo.json")?;
    let new_key = NewKey {
        digest: key.digest(&Pepper::derive(&security.encryption_key)),
        sealed: Sealer::new(&security.encryption_key).seal(key.expose()),
        prefix: key.prefix().to_owned(),
        format: key.format().as_i64(),
    };
    let user = NewUser {
        username: USERNAME.into(),
        name: "Demo User".into(),
        email: account.user_email.clone(),
        password_hash: hashed(account.user_password.clone(), security.bcrypt_rounds).await?,
        about_me: String::new(),
        hobbies: String::new(),
        kind: "Personal".into(),
        subscription_plan: "demo".into(),
        credits: 5,
        access_rtype: vec!["bpe".into(), "tot".into()],
        level: "basic".into(),
        beginning: None,
    };
    let entry = audit::Entry {
        actor: Actor::System,
        actor_name: "tollgate demo".into(),
        action: "user.register",
        target: USERNAME.into(),
        detail: json!({}),
        request_id: String::new(),
        client_ip: None,
        at: now,
    };
    match users::insert(db, &user, &new_key, now, &entry).await {
        Ok(_) | Err(InsertAccount::UsernameTaken | InsertAccount::EmailTaken) => Ok(()),
        Err(InsertAccount::Store(error)) => Err(error).context("the demo's user cannot be added"),
    }
}

async fn hashed(password: SecretString, cost: u32) -> anyhow::Result<String> {
    let password = Password::check(password).context("the user's password in demo.json")?;
    let hash = tokio::task::spawn_blocking(move || password::hash(&password, cost)).await??;
    Ok(hash.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, DatabaseLocation, Vars};

    use super::folder::Folder;
    use super::{DATABASE, configuration};

    #[test]
    fn the_demos_configuration_is_accepted_wherever_its_folder_is() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(Some(root.path().join("a \"quoted\" $HOME"))).unwrap();
        let text = configuration("127.0.0.1:0".parse().unwrap(), &folder, "127.0.0.1:9".parse().unwrap());
        let config = Config::from_toml(&text, &folder.path, &Vars::default()).unwrap();
        assert_eq!(config.server.data_dir, folder.path);
        let DatabaseLocation::Sqlite(database) = config.database.location else { panic!("not SQLite") };
        assert_eq!(database, folder.path.join(DATABASE));
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }
}
