//! The binary as an operator runs it: a process with a folder, an environment, and something to say.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::proof::ports::free_port;

/// How long a process may take to start, or to stop.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running process. Killed when dropped.
pub(crate) struct Child {
    said: Arc<Said>,
    pid: u32,
    gone: Receiver<ExitStatus>,
    ended: Option<ExitStatus>,
}

/// A configuration in a folder of its own, to be served.
pub(crate) struct Site {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) addr: SocketAddr,
}

/// What a process wrote to both of its outputs, so far.
#[derive(Default)]
struct Said {
    text: Mutex<String>,
    more: Condvar,
}

// === impl Child ===

impl Child {
    /// `tollgate ARGS` in `folder`. Of our own environment it gets only PATH.
    pub(crate) fn tollgate(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(args).current_dir(folder).env_clear().env("PATH", std::env::var("PATH").unwrap());
        command.envs(env.iter().copied());
        Self::start(command)
    }

    /// Any command, its outputs collected.
    pub(crate) fn start(command: Command) -> Self {
        Self::start_with_stderr(command, Stdio::piped())
    }

    /// Any command whose errors go to `stderr`; where that is a pipe of ours, they are collected.
    pub(crate) fn start_with_stderr(mut command: Command, stderr: Stdio) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let said = Arc::new(Said::default());
        let mut outputs: Vec<Box<dyn Read + Send>> = vec![Box::new(child.stdout.take().unwrap())];
        if let Some(stderr) = child.stderr.take() {
            outputs.push(Box::new(stderr));
        }
        let read = |output| {
            let said = Arc::clone(&said);
            std::thread::spawn(move || said.collect(output))
        };
        let readers: Vec<_> = outputs.into_iter().map(read).collect();
        let pid = child.id();
        let (sender, gone) = channel();
        std::thread::spawn(move || {
            let status = child.wait().unwrap();
            for reader in readers {
                let _ = reader.join();
            }
            let _ = sender.send(status);
        });
        Self { said, pid, gone, ended: None }
    }

    /// Everything said so far.
    pub(crate) fn said(&self) -> String {
        self.said.text.lock().unwrap().clone()
    }

    /// Waits for these words; everything said up to then.
    pub(crate) fn says(&self, words: &str) -> String {
        let begun = Instant::now();
        let mut text = self.said.text.lock().unwrap();
        while !text.contains(words) {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            assert!(!left.is_zero(), "never said {words:?}:\n{text}");
            text = self.said.more.wait_timeout(text, left).unwrap().0;
        }
        text.clone()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// `INT`, `TERM` or `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.pid.to_string()]).status().unwrap();
        assert!(sent.success(), "no process to signal; it said:\n{}", self.said());
    }

    /// Waits for the end; the exit code, and everything said.
    pub(crate) fn ends(&mut self) -> (Option<i32>, String) {
        self.ends_within(PATIENCE)
    }

    /// The same of a command that has more to do.
    pub(crate) fn ends_within(&mut self, patience: Duration) -> (Option<i32>, String) {
        let status =
            self.gone.recv_timeout(patience).unwrap_or_else(|_| panic!("does not end:\n{}", self.said()));
        self.ended = Some(status);
        (status.code(), self.said())
    }

    /// What it has in memory, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    }

    /// Whether it is still running.
    pub(crate) fn runs(&mut self) -> bool {
        self.ended = self.ended.or_else(|| self.gone.try_recv().ok());
        self.ended.is_none()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.runs() {
            let _ = Command::new("kill").args(["-KILL", &self.pid.to_string()]).status();
        }
    }
}

// === impl Said ===

impl Said {
    fn collect(&self, mut output: impl Read) {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = output.read(&mut buffer) {
            self.text.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
            self.more.notify_all();
        }
    }
}

// === impl Site ===

impl Site {
    /// A folder with a `gateway.toml` that listens on a free port; `more` is added to it. bcrypt is
    /// quick here, as in every test.
    pub(crate) fn new(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let addr = free_port();
        let text = format!(
            "server.listen = [\"{addr}\"]\nserver.shutdown_delay = \"0s\"\nsecurity.bcrypt_rounds = 4\nlimits.rate_limit_per_minute = 0\n{more}"
        );
        std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
        Self { folder, addr }
    }

    /// `tollgate serve` here, once it is ready.
    pub(crate) async fn serve(&self, env: &[(&str, &str)]) -> Child {
        let mut child = Child::tollgate(self.folder.path(), &["serve"], env);
        self.is_ready(&mut child).await;
        child
    }

    /// Waits until the gateway here is ready.
    pub(crate) async fn is_ready(&self, child: &mut Child) {
        let begun = Instant::now();
        while !matches!(self.status("/readyz").await, Some(200)) {
            assert!(child.runs() && begun.elapsed() < PATIENCE, "does not serve:\n{}", child.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) async fn status(&self, path: &str) -> Option<u16> {
        Some(reqwest::get(self.url(path)).await.ok()?.status().as_u16())
    }

    /// `POST` of a JSON body; status and answer.
    pub(crate) async fn post(&self, path: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
        post(&self.url(path), token, body).await
    }

    /// `GET` with a token.
    pub(crate) async fn get(&self, path: &str, token: &str) -> (u16, Value) {
        let answer = reqwest::Client::new().get(self.url(path)).bearer_auth(token).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    /// Registers `name`; session and key.
    pub(crate) async fn user(&self, name: &str) -> (String, String) {
        register(&self.url(""), name).await
    }

    /// The admin's session, or the status of the refusal.
    pub(crate) async fn admin(&self, password: &str) -> Result<String, u16> {
        let form = json!({"username": "admin", "password": password});
        let (status, answer) = self.post("/api/v1/admin/login", None, &form).await;
        answer["access_token"].as_str().map(str::to_owned).ok_or(status)
    }
}

/// Registers `name` and logs in; session and key.
pub(crate) async fn register(url: &str, name: &str) -> (String, String) {
    let email = format!("{name}@example.com");
    let form = json!({"username": name, "name": name, "email": email, "password": "password123",
                      "confirm_password": "password123", "type": "Personal"});
    let (status, answer) = post(&format!("{url}/api/v1/auth/register"), None, &form).await;
    assert_eq!(status, 201, "{answer}");
    let login = json!({"email": email, "password": "password123"});
    let (_, login) = post(&format!("{url}/api/v1/auth/login"), None, &login).await;
    let jwt = login["access_token"].as_str().unwrap_or_else(|| panic!("{login}")).to_owned();
    let shown =
        reqwest::Client::new().get(format!("{url}/api/v1/auth/api-key?reveal=true")).bearer_auth(&jwt);
    let shown: Value = shown.send().await.unwrap().json().await.unwrap();
    let key = shown["api_key"].as_str().unwrap_or_else(|| panic!("{shown}")).to_owned();
    (jwt, key)
}

/// `POST` of a JSON body; status and answer.
pub(crate) async fn post(url: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
    let mut call = reqwest::Client::new().post(url).json(body);
    if let Some(token) = token {
        call = call.bearer_auth(token);
    }
    let answer = call.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

/// One usual upstream at `url` and a route to it, as `gateway.toml` says it.
pub(crate) fn route_to(url: &str) -> String {
    format!(
        "[[upstreams]]\nname = \"model\"\nurl = \"{url}\"\n\
         credential = {{ header = \"authorization\", value = \"Bearer the-operators-own\" }}\n\
         [[routes]]\nprefix = \"/v1\"\nupstream = \"model\"\n\
         charge = [\"POST /v1/chat/completions\", \"POST /v1/completions\", \"POST /v1/responses\", \"POST /v1/messages\"]\n\
         [[routes]]\nprefix = \"/api\"\nupstream = \"model\"\ndialect = \"ollama\"\ncharge = [\"POST /api/chat\"]\n"
    )
}
