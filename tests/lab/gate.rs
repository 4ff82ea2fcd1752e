//! The gate as it is run: the binary, a folder, a configuration.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};
use tempfile::TempDir;

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
    /// Where the folder is made; the system's place for such when `None`.
    pub(crate) within: Option<PathBuf>,
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
const PATIENCE: Duration = Duration::from_secs(60);
const ADMIN_PASSWORD: &str = "correct-horse-7";

// === impl Plan ===

impl Plan {
    pub(crate) fn new(binary: impl Into<PathBuf>, server: Option<String>) -> Self {
        Self { binary: binary.into(), server, more: String::new(), within: None }
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
        let folder = match &plan.within {
            Some(place) => TempDir::new_in(place),
            None => TempDir::with_prefix("tollgate-lab-"),
        }
        .unwrap();
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let database = Database::make(plan.server.as_deref(), folder.path()).await;
        let text = configuration(addr, &database, upstream) + &plan.more;
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
        self.signal("TERM");
        let begun = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                self.child = None;
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the gate does not end:\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status().unwrap();
        assert!(sent.success(), "there is no process to signal:\n{}", self.said());
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the gate runs").id()
    }

    /// How it ended, once it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().unwrap())
    }

    /// A command of the binary in the same folder: exit code, and what it said.
    pub(crate) fn command(&self, args: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(&self.binary);
        command.args(args).current_dir(self.folder.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let output = command.stdin(Stdio::null()).output().unwrap();
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

    pub(crate) async fn text(&self, path: &str) -> String {
        self.http.get(self.url(path)).send().await.unwrap().text().await.unwrap()
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
    async fn make(server: Option<&str>, folder: &Path) -> Self {
        let Some(server) = server else { return Self::Sqlite(folder.join("data/tollgate.db")) };
        let name = format!("lab_{}", uuid::Uuid::new_v4().simple());
        let mut connection = PgConnection::connect(&format!("{server}postgres")).await.unwrap();
        connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        Self::Postgres { url: format!("{server}{name}"), server: server.to_owned(), name }
    }

    /// As the configuration says it.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite(file) => format!("sqlite:///{}", file.display()),
            Self::Postgres { url, .. } => url.clone(),
        }
    }
}

async fn read(call: reqwest::RequestBuilder) -> (u16, Value) {
    let Ok(answer) = call.send().await else { return (0, Value::Null) };
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

fn configuration(addr: SocketAddr, database: &Database, upstream: &str) -> String {
    format!(
        "server.listen = [\"{addr}\"]
server.workers = 2
server.drain_timeout = \"5s\"
server.connections.h2_max_streams = 2000
server.connections.max_per_address = 20000
database.url = \"{}\"
security.bcrypt_rounds = 4
limits.rate_limit_per_minute = 0
limits.max_parallel = 100000
limits.time_zone = \"{}\"
[[upstreams]]
name = \"model\"
url = \"{upstream}\"
[[routes]]
prefix = \"/v1\"
upstream = \"model\"
charge = [\"POST /v1/chat/completions\"]
",
        database.url(),
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

/// Whether a program is installed.
pub(crate) fn is_installed(program: &str) -> io::Result<bool> {
    Ok(Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status()?
        .success())
}
