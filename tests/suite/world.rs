//! The cast of every story.
//!
//! - A [`World`] is one whole gateway, started in this process as `tollgate serve` would start it:
//!   its sockets, its workers, a database of its own. Nothing is shared between two worlds, so tests
//!   run side by side.
//! - `world.upstream` is the chat model behind the gate ([`Upstream`]): it answers what the story
//!   says and remembers what it was asked.
//! - `world.clock` stands at 2026-10-01T10:00:00Z until the story moves it. Days, sessions and rates
//!   follow it; the timeouts of sockets follow the real clock.
//! - A [`Person`] has registered and logged in over the API, and knows their key. `world.user("ann")`
//!   is on the plan `free`: ten conversations a day.
//! - The admin is whoever holds the token of `world.admin()`.
//!
//! A story that needs other terms says so: `World::with(|setup| setup.add("[limits]\nburst = 3"))`.
//! The text is TOML laid over the usual configuration ([`setup::USUAL`]): tables are merged, everything else
//! (lists, so `routes` and `upstreams` too) is replaced. `UPSTREAM` stands for the model's URL.
//!
//! The database is SQLite in a temporary folder, or with `TOLLGATE_TEST_DATABASE=postgres` a new one
//! on the server of `TOLLGATE_TEST_POSTGRES` (a URL ending in `/`), dropped at the end.
//!
//! Every world keeps a [`Watch`] over its secrets, and fails its story at the end where one is found in a
//! log line, an error, a metric or a column.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::app::App;
use tollgate::clock::{Clock, Timestamp};
use tollgate::config::{Config, Vars};

use crate::upstream::{PATIENCE, Upstream};
use crate::watch::Watch;

mod call;
mod database;
mod promised;
mod setup;

pub(crate) use call::{Call, Reply};
pub(crate) use database::Database;
pub(crate) use setup::Setup;

/// 2026-10-01T10:00:00Z
pub(crate) const TEN_O_CLOCK: Timestamp = Timestamp(1_790_848_800_000);
/// What the gate sends upstream in a key's stead.
pub(crate) const UPSTREAM_SECRET: &str = "sk-the-operators-own";
/// The admin's password in every world.
pub(crate) const ADMIN_PASSWORD: &str = "correct-horse-7";
/// The password of everyone who registers.
pub(crate) const PASSWORD: &str = "password123";

/// One gateway, its model and its clock.
pub(crate) struct World {
    pub(crate) upstream: Upstream,
    pub(crate) clock: Clock,
    /// Where clients come in.
    pub(crate) addr: SocketAddr,
    /// `http://127.0.0.1:PORT`, or `https://localhost:PORT`.
    pub(crate) base: String,
    /// Where it keeps its data.
    pub(crate) folder: TempDir,
    /// Until the world has ended.
    http: Option<reqwest::Client>,
    app: Option<App>,
    setup: Setup,
    database: Option<Database>,
    /// Until the world has ended.
    database_url: Option<String>,
    watch: Arc<Watch>,
}

/// What is left when a story is over.
struct Remains {
    app: Option<App>,
    database: Option<Database>,
    watch: Arc<Watch>,
    url: String,
}

/// Somebody with an account.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) username: String,
    pub(crate) email: String,
    pub(crate) password: String,
    /// Of the login right after registration.
    pub(crate) jwt: String,
    /// The plain `pe-` key.
    pub(crate) key: String,
}

// === impl World ===

impl World {
    /// The usual world.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A world on other terms.
    pub(crate) async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let watch = Arc::new(Watch::begin());
        let upstream = Upstream::start();
        let folder = TempDir::new().unwrap();
        let database = Database::from_env().await;
        let mut setup = Setup::new(upstream.url());
        let url = database.as_ref().map_or_else(
            || format!("sqlite:///{}", folder.path().join("tollgate.db").display()),
            Database::url,
        );
        setup.add(&format!("[database]\nurl = \"{url}\""));
        change(&mut setup);
        let database_url = setup.table["database"]["url"].as_str().map(str::to_owned);
        watch.learn_settings(&setup.table, &setup.vars);
        let clock = Clock::manual(TEN_O_CLOCK);
        let app = start(&setup, &folder, &clock).await;
        let addr = app.local_addr();
        let (base, http) = client(addr, setup.trust.as_deref());
        let http = Some(http);
        Self {
            upstream,
            clock,
            addr,
            base,
            folder,
            http,
            app: Some(app),
            setup,
            database,
            database_url,
            watch,
        }
    }

    /// Stops the gateway, and starts it again on other terms with the data it had.
    pub(crate) async fn restart(&mut self, change: impl FnOnce(&mut Setup)) {
        self.http = None;
        self.take_app().shutdown().await;
        change(&mut self.setup);
        self.watch.learn_settings(&self.setup.table, &self.setup.vars);
        self.start_again().await;
    }

    /// Starts the gateway again that a story has shut down.
    pub(crate) async fn start_again(&mut self) {
        let app = start(&self.setup, &self.folder, &self.clock).await;
        self.addr = app.local_addr();
        let (base, http) = client(self.addr, self.setup.trust.as_deref());
        (self.base, self.http) = (base, Some(http));
        self.app = Some(app);
    }

    /// Where its database is, as sqlx names it.
    pub(crate) fn database_url(&self) -> String {
        let url = self.setup.table["database"]["url"].as_str().unwrap();
        let file = url.strip_prefix("sqlite:///").map(|relative| self.folder.path().join(relative));
        file.map_or_else(|| url.to_owned(), |file| format!("sqlite://{}", file.display()))
    }

    /// Registers `name`, logs in and reads the key.
    pub(crate) async fn user(&self, name: &str) -> Person {
        let (email, password) = (format!("{name}@example.com"), PASSWORD.to_owned());
        let form = json!({"username": name, "name": name, "email": email, "password": password,
                          "confirm_password": password, "type": "Personal"});
        let registered = self.post("/api/v1/auth/register").json(&form).send().await;
        assert_eq!(registered.status, 201, "{}", registered.text());
        let jwt = self.login(&email, &password).await;
        let shown = self.get("/api/v1/auth/api-key?reveal=true").bearer(&jwt).send().await;
        let key =
            shown.json()["api_key"].as_str().unwrap_or_else(|| panic!("no key: {}", shown.text())).to_owned();
        Person { username: name.to_owned(), email, password, jwt, key }
    }

    /// A user on terms of the admin's: the fields of `PUT /api/v1/admin/users/{username}`.
    pub(crate) async fn user_with(&self, name: &str, terms: Value) -> Person {
        let person = self.user(name).await;
        self.change(name, terms).await;
        person
    }

    /// The admin changes an account.
    pub(crate) async fn change(&self, username: &str, terms: Value) {
        let admin = self.admin().await;
        let changed =
            self.put(&format!("/api/v1/admin/users/{username}")).bearer(&admin).json(&terms).send().await;
        assert_eq!(changed.status, 200, "{}", changed.text());
    }

    /// Logs a user in; their token.
    pub(crate) async fn login(&self, email: &str, password: &str) -> String {
        let form = json!({"email": email, "password": password});
        token(&self.post("/api/v1/auth/login").json(&form).send().await)
    }

    /// Logs the admin in; the token.
    pub(crate) async fn admin(&self) -> String {
        let form = json!({"username": "admin", "password": ADMIN_PASSWORD});
        token(&self.post("/api/v1/admin/login").json(&form).send().await)
    }

    /// An auditor's token; the admin makes the account where it is not there yet.
    pub(crate) async fn auditor(&self) -> String {
        let form = json!({"username": "olga", "password": PASSWORD, "role": "auditor"});
        let made = self.post("/api/v1/admin/admins").bearer(&self.admin().await).json(&form).send().await;
        assert!([201, 409].contains(&made.status), "{}", made.text());
        let form = json!({"username": "olga", "password": PASSWORD});
        token(&self.post("/api/v1/admin/login").json(&form).send().await)
    }

    /// The admin takes somebody on, who logs in; their token. The password is everybody's.
    pub(crate) async fn staff(&self, name: &str, level: &str) -> String {
        let form = json!({"name": name, "username": name, "email": format!("{name}@staff.example"),
                          "password": PASSWORD, "staff_level": level});
        let hired = self.post("/api/v1/admin/staff").bearer(&self.admin().await).json(&form).send().await;
        assert_eq!(hired.status, 201, "{}", hired.text());
        self.staff_login(name).await
    }

    /// Logs a member of staff in; their token.
    pub(crate) async fn staff_login(&self, name: &str) -> String {
        let form = json!({"username": name, "password": PASSWORD});
        token(&self.post("/api/v1/staff/login").json(&form).send().await)
    }

    /// The audit trail as the admin sees it, newest first.
    pub(crate) async fn audit(&self) -> Vec<Value> {
        let listed = self.get("/api/v1/admin/audit").bearer(&self.admin().await).send().await;
        listed.json().as_array().unwrap_or_else(|| panic!("no list: {}", listed.text())).clone()
    }

    /// A call of whatever method.
    pub(crate) fn call(&self, method: &str, path: &str) -> Call {
        let http = self.http.as_ref().expect("the world has not ended");
        self.begin(http.request(method.parse().unwrap(), self.base.clone() + path))
    }

    /// A small charged conversation with this person's key: `POST /v1/chat/completions`.
    pub(crate) fn chat(&self, person: &Person) -> Call {
        self.post("/v1/chat/completions").bearer(&person.key).json(&chat_request())
    }

    /// The same, streamed.
    pub(crate) fn chat_streamed(&self, person: &Person) -> Call {
        let mut request = chat_request();
        request["stream"] = json!(true);
        self.post("/v1/chat/completions").bearer(&person.key).json(&request)
    }

    /// What is left of the day, as the user's profile says.
    pub(crate) async fn left(&self, person: &Person) -> i64 {
        let jwt = self.login(&person.email, &person.password).await;
        let profile = self.get("/api/v1/auth/profile").bearer(&jwt).send().await;
        profile.json()["limits"]["conversation_limit"]
            .as_i64()
            .unwrap_or_else(|| panic!("{}", profile.text()))
    }

    /// The message log as the admin sees it, newest first.
    pub(crate) async fn rows(&self, admin: &str) -> Vec<Value> {
        let listed = self.get("/api/v1/admin/message-logs").bearer(admin).send().await;
        assert_eq!(listed.status, 200, "{}", listed.text());
        listed.json().as_array().unwrap_or_else(|| panic!("no list: {}", listed.text())).clone()
    }

    /// The message log once it has `count` rows. A conversation whose client has left is written by
    /// nobody's request, so the log is asked until it is there.
    pub(crate) async fn rows_when(&self, count: usize) -> Vec<Value> {
        let admin = self.admin().await;
        let asked = Instant::now();
        loop {
            let rows = self.rows(&admin).await;
            if rows.len() >= count || asked.elapsed() > PATIENCE {
                assert_eq!(rows.len(), count, "{rows:#?}");
                return rows;
            }
        }
    }

    /// The only row of the message log.
    pub(crate) async fn row(&self) -> Value {
        self.rows_when(1).await.remove(0)
    }

    pub(crate) fn get(&self, path: &str) -> Call {
        self.call("GET", path)
    }

    pub(crate) fn post(&self, path: &str) -> Call {
        self.call("POST", path)
    }

    pub(crate) fn put(&self, path: &str) -> Call {
        self.call("PUT", path)
    }

    pub(crate) fn delete(&self, path: &str) -> Call {
        self.call("DELETE", path)
    }

    /// A call with a client of the story's own.
    pub(crate) fn post_with(&self, client: &reqwest::Client, path: &str) -> Call {
        self.begin(client.post(self.base.clone() + path))
    }

    /// The database, for [`Self::ask`].
    pub(crate) fn db(&self) -> &tollgate::store::Db {
        self.app().db()
    }

    /// Puts one of the store's own questions to the database.
    pub(crate) async fn ask<F: Future>(&self, question: F) -> F::Output {
        call::aside(question).await
    }

    /// Where the admin listener is, when there is one.
    pub(crate) fn admin_addr(&self) -> Option<SocketAddr> {
        self.app.as_ref().and_then(App::admin_addr)
    }

    /// The value of one line of the metrics, `0` when it is not there. `line` is name and labels.
    pub(crate) fn metric(&self, line: &str) -> f64 {
        let text = self.app.as_ref().unwrap().metrics_text();
        let value = text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok());
        value.unwrap_or(0.0)
    }

    /// How often each webhook that still waits was tried, the oldest first.
    pub(crate) async fn attempts_of_webhooks(&self) -> Vec<i64> {
        let waiting = self.ask(tollgate::store::webhooks::waiting(self.db(), 100)).await.unwrap();
        waiting.into_iter().map(|one| one.attempts).collect()
    }

    fn app(&self) -> &App {
        self.app.as_ref().expect("the gateway is still running")
    }

    /// The gateway, to be shut down while the story goes on.
    pub(crate) fn take_app(&mut self) -> App {
        self.app.take().expect("the gateway is still running")
    }

    /// Who watches the secrets of this world.
    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Ends the world here; where its secrets were found.
    pub(crate) async fn end(mut self) -> Vec<String> {
        self.remains().expect("it is still there").search().await
    }

    fn begin(&self, request: reqwest::RequestBuilder) -> Call {
        Call { request, watch: Arc::clone(&self.watch) }
    }

    /// Once. The model and the clients leave first, so that nothing is left to drain.
    fn remains(&mut self) -> Option<Remains> {
        self.upstream.leave();
        self.http = None;
        let url = self.database_url.take()?;
        let (app, database, watch) = (self.app.take(), self.database.take(), Arc::clone(&self.watch));
        Some(Remains { app, database, watch, url })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let Some(remains) = self.remains() else { return };
        let gone = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(remains.search())
        });
        let found = gone.join().unwrap_or_else(|_| vec!["the search came to no end".to_owned()]);
        assert!(found.is_empty() || std::thread::panicking(), "{found:#?}");
    }
}

// === impl Remains ===

impl Remains {
    /// Stops the gateway, looks where its secrets are, and clears up.
    async fn search(self) -> Vec<String> {
        let Self { app, database, watch, url } = self;
        if let Some(app) = app {
            watch.search("the metrics", app.metrics_text().as_bytes());
            tokio::time::timeout(Duration::from_mins(1), app.shutdown()).await.expect("the gateway stops");
        }
        watch.search_log();
        watch.search_columns(&url).await;
        if let Some(database) = database {
            database.remove().await;
        }
        watch.found()
    }
}

// === words of the stories ===

/// `{"model": "gpt-test", "messages": [{"role": "user", "content": "Hi"}]}`
pub(crate) fn chat_request() -> Value {
    json!({"model": "gpt-test", "messages": [{"role": "user", "content": "Hi"}]})
}

fn token(answer: &Reply) -> String {
    answer.json()["access_token"].as_str().unwrap_or_else(|| panic!("no token: {}", answer.text())).to_owned()
}

async fn start(setup: &Setup, folder: &TempDir, clock: &Clock) -> App {
    let vars: Vars = setup.vars.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let config = match Config::from_toml(&setup.table.to_string(), folder.path(), &vars) {
        Ok(config) => config,
        Err(mistakes) => panic!("the story's configuration is wrong: {mistakes:?}"),
    };
    App::start(config, clock.clone()).await.expect("the gateway starts")
}

fn client(addr: SocketAddr, trust: Option<&str>) -> (String, reqwest::Client) {
    let builder = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30));
    match trust {
        None => (format!("http://{addr}"), builder.build().unwrap()),
        Some(pem) => {
            let authority = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
            let client = builder.tls_certs_only([authority]).build().unwrap();
            (format!("https://localhost:{}", addr.port()), client)
        }
    }
}
