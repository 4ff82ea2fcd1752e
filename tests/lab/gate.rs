//! The gate as it is run: the binary, a folder, a configuration.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};
use tempfile::TempDir;

use super::ports::free_port;

/// Where the gate keeps its rows.
#[derive(Clone, Debug)]
pub(crate) enum Database {
    /// This file.
    Sqlite(PathBuf),
    /// A database made for one experiment on a server, `server` ending in a slash.
    Postgres { server: String, name: String, url: String },
}

/// Which binary, where its rows go, and what its configuration says besides the usual.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) binary: PathBuf,
    /// `None` is SQLite in the data folder, else a server's URL that ends in a slash.
    pub(crate) server: Option<String>,
    pub(crate) more: String,
    /// Where the gate finds that server instead, such as a relay in front of it.
    pub(crate) through: Option<SocketAddr>,
    /// Whether SQLite's file is beside the data folder instead of in it.
    pub(crate) beside: bool,
}

/// One installation, running or not. What runs is killed, and the folder removed, when dropped.
pub(crate) struct Gate {
    pub(crate) folder: TempDir,
    pub(crate) addr: SocketAddr,
    pub(crate) database: Database,
    binary: PathBuf,
    child: Option<Child>,
    http: reqwest::Client,
}

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_mins(1);
const ADMIN_PASSWORD: &str = "correct-horse-7";

// === impl Plan ===

impl Plan {
    pub(crate) fn new(binary: impl Into<PathBuf>, server: Option<String>) -> Self {
        Self { binary: binary.into(), server, more: String::new(), through: None, beside: false }
    }

    pub(crate) fn saying(mut self, more: &str) -> Self {
        self.more += more;
        self
    }
}

// === impl Gate ===

impl Gate {
    /// A folder with a configuration, in front of a model at `upstream`. Nothing runs yet.
    pub(crate) async fn new(plan: &Plan, upstream: &str) -> Self {
        let folder = TempDir::with_prefix("tollgate-lab-").unwrap();
        let addr = free_port();
        let database = Database::make(plan, folder.path()).await;
        let url = database.url(plan.through);
        let text = configuration(addr, &url, upstream) + &plan.more;
        std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Self { folder, addr, database, binary: plan.binary.clone(), child: None, http }
    }

    /// `tollgate serve`, once it answers that it is ready.
    pub(crate) async fn start(&mut self) {
        self.start_with(|binary| Command::new(binary)).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// The same through another command, such as a tracer that becomes the gate's sibling.
    pub(crate) async fn start_with(&mut self, command: impl FnOnce(&Path) -> Command) -> Result<(), String> {
        self.spawn(command);
        let begun = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Err(format!("the gate ended with {status}:\n{}", self.said()));
            }
            if self.status("/readyz").await == Some(200) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("the gate does not become ready:\n{}", self.said()));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts it and does not wait.
    pub(crate) fn spawn(&mut self, command: impl FnOnce(&Path) -> Command) {
        let said = File::options().create(true).append(true).open(self.folder.path().join("said")).unwrap();
        let mut command = command(&self.binary);
        command.arg("serve").current_dir(self.folder.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("ADMIN_PASSWORD", ADMIN_PASSWORD);
        command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// `TERM`, and its end.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        let ended = self.stop_within(PATIENCE).await;
        ended.unwrap_or_else(|| panic!("the gate does not end:\n{}", self.said()))
    }

    /// The same; when it has not ended by then it is killed, and the answer is `None`.
    pub(crate) async fn stop_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.signal("TERM");
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if let Some(status) = self.ended() {
                self.child = None;
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.kill();
        None
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status().unwrap();
        assert!(sent.success(), "there is no process to signal:\n{}", self.said());
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the gate runs").id()
    }

    /// Memory that it has in use, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
    }

    /// How it ended, once it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().unwrap())
    }

    /// A command of the binary in the same folder: exit code, and what it said. What runs beside it here
    /// goes on.
    pub(crate) async fn command(&self, args: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(&self.binary);
        command.args(args).current_dir(self.folder.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Everything that all runs wrote to their outputs.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.path().join("said")).unwrap_or_default())
            .into_owned()
    }

    /// Panics of any run.
    pub(crate) fn panics(&self) -> Vec<String> {
        let said = self.said();
        said.lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// The status of a GET, if there is any answer.
    pub(crate) async fn status(&self, path: &str) -> Option<u16> {
        Some(self.http.get(self.url(path)).send().await.ok()?.status().as_u16())
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> (u16, Value) {
        read(self.http.get(self.url(path)).bearer_auth(token)).await
    }

    pub(crate) async fn post(&self, path: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
        let call = self.http.post(self.url(path)).json(body);
        read(token.into_iter().fold(call, reqwest::RequestBuilder::bearer_auth)).await
    }

    pub(crate) async fn put(&self, path: &str, token: &str, body: &Value) -> (u16, Value) {
        read(self.http.put(self.url(path)).bearer_auth(token).json(body)).await
    }

    /// The admin's session.
    pub(crate) async fn admin(&self) -> String {
        let form = json!({"username": "admin", "password": ADMIN_PASSWORD});
        let (status, answer) = self.post("/api/v1/admin/login", None, &form).await;
        answer["access_token"].as_str().unwrap_or_else(|| panic!("{status}: {answer}")).to_owned()
    }

    /// Removes what was made elsewhere.
    pub(crate) async fn clean_up(mut self) {
        self.kill();
        if let Database::Postgres { server, name, .. } = &self.database {
            let mut connection = PgConnection::connect(&format!("{server}postgres")).await.unwrap();
            let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            connection.execute(sqlx::AssertSqlSafe(drop)).await.unwrap();
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.kill();
    }
}

// === impl Database ===

impl Database {
    async fn make(plan: &Plan, folder: &Path) -> Self {
        let Some(server) = &plan.server else {
            return Self::Sqlite(folder.join(if plan.beside { "tollgate.db" } else { "data/tollgate.db" }));
        };
        let name = format!("lab_{}", uuid::Uuid::new_v4().simple());
        let mut connection = PgConnection::connect(&format!("{server}postgres")).await.unwrap();
        connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        Self::Postgres { url: format!("{server}{name}"), server: server.clone(), name }
    }

    /// As the configuration says it.
    fn url(&self, through: Option<SocketAddr>) -> String {
        match (self, through) {
            (Self::Sqlite(file), _) => format!("sqlite:///{}", file.display()),
            (Self::Postgres { url, .. }, None) => url.clone(),
            (Self::Postgres { url, name, .. }, Some(relay)) => {
                let who = url.split_once('@').map_or("postgres://postgres", |(who, _)| who);
                format!("{who}@{relay}/{name}")
            }
        }
    }
}

async fn read(call: reqwest::RequestBuilder) -> (u16, Value) {
    let Ok(answer) = call.send().await else { return (0, Value::Null) };
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

fn configuration(addr: SocketAddr, database: &str, upstream: &str) -> String {
    format!(
        "server.listen = [\"{addr}\"]
server.workers = 2
server.drain_timeout = \"5s\"
server.shutdown_delay = \"0s\"
server.connections.h2_max_streams = 2000
server.connections.max_per_address = 20000
database.url = \"{database}\"
security.bcrypt_rounds = 4
limits.rate_limit_per_minute = 0
limits.max_parallel = 100000
limits.max_parallel_per_user = 0
limits.time_zone = \"{}\"
[[upstreams]]
name = \"model\"
url = \"{upstream}\"
[[routes]]
prefix = \"/v1\"
upstream = \"model\"
charge = [\"POST /v1/chat/completions\"]
",
        far_from_midnight()
    )
}

/// A zone in which it is about noon, so that no day ends within an experiment.
#[expect(
    clippy::disallowed_methods,
    reason = "the laboratory lives in real time, and is no part of the product"
)]
fn far_from_midnight() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let hour = i64::try_from(since.as_secs() / 3600 % 24).unwrap();
    match 12 - hour {
        0 => "Etc/GMT".to_owned(),
        // The signs of these names are turned round: Etc/GMT-3 is three hours ahead.
        east @ 1.. => format!("Etc/GMT-{east}"),
        west => format!("Etc/GMT+{}", -west),
    }
}
