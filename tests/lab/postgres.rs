//! A PostgreSQL of the laboratory's own, which may be stopped at any moment.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::ports::free_port;

/// A server on a free port of 127.0.0.1. Stopped, and its folder removed, when dropped.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    folder: TempDir,
    programs: PathBuf,
}

/// How long a start may take: while it was stopped, another process may have had its port for a moment.
const PATIENCE: Duration = Duration::from_secs(15);

// === impl Server ===

impl Server {
    /// Makes one, and waits until it answers.
    pub(crate) fn start() -> Self {
        let folder = TempDir::with_prefix("tollgate-lab-").unwrap();
        if is_root() {
            let given = Command::new("chown").arg("postgres").arg(folder.path()).status().unwrap();
            assert!(given.success(), "the user postgres cannot be given a folder");
        }
        let addr = free_port();
        let server = Self { addr, folder, programs: programs() };
        let settled = ["--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"];
        assert!(server.run("initdb", &settled), "initdb fails");
        server.again();
        server
    }

    /// With a slash at its end.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@{}/", self.addr)
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) fn stop(&self) {
        assert!(self.run("pg_ctl", &["stop", "--mode=immediate", "--wait", "--silent"]), "it does not stop");
    }

    /// Starts it again, and waits until it answers.
    pub(crate) fn again(&self) {
        let options = format!(
            "--options=-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=300 \
             -c fsync=off -c full_page_writes=off",
            self.addr.port()
        );
        let log = format!("--log={}", self.folder.path().join("log").display());
        let begun = Instant::now();
        while !self.run("pg_ctl", &["start", "--wait", "--silent", &log, &options]) {
            assert!(begun.elapsed() < PATIENCE, "PostgreSQL does not start");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// One of its programs, on its data; whether that succeeded. It refuses to be run by root.
    fn run(&self, program: &str, args: &[&str]) -> bool {
        let program = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.args(args).arg("--pgdata").arg(self.folder.path().join("data")).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.run("pg_ctl", &["stop", "--mode=immediate", "--wait", "--silent"]);
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// Where `initdb` and `pg_ctl` are: Debian's newest, or what `PATH` says.
fn programs() -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = installed.map(|version| version.path().join("bin")).max();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = newest.into_iter().chain(std::env::split_paths(&path));
    let is_there = |place: &PathBuf| Path::new(place).join("initdb").is_file();
    places.find(is_there).expect("PostgreSQL's programs, which are to be installed")
}
