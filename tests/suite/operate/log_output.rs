//! Standard error that takes no lines: requests, charges and the message log are as with any other.

use std::fs::File;
use std::io::{PipeReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use super::child::{Child, Site, route_to};
use crate::proof::ports::free_port;
use crate::upstream::Upstream;

/// What may become of standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Broken {
    /// The reader of the pipe is gone.
    Gone,
    /// Each write says that the disk is full.
    Full,
    /// The reader of the pipe has stopped, and the pipe is full.
    Stuck,
    /// The descriptor was closed before the start.
    Closed,
}

/// What a pipe holds on Linux.
const PIPE: usize = 64 * 1024;

fn serve(folder: &Path, broken: Broken) -> (Child, Option<PipeReader>) {
    let binary = env!("CARGO_BIN_EXE_tollgate");
    let mut command = Command::new(if broken == Broken::Closed { "sh" } else { binary });
    match broken {
        Broken::Closed => command.args(["-c", "exec \"$0\" serve 2>&-", binary]),
        _ => command.arg("serve"),
    };
    command.current_dir(folder).env_clear().env("PATH", std::env::var("PATH").unwrap());
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (stderr, reader) = match broken {
        Broken::Gone => (writer.into(), None),
        Broken::Full => (File::options().write(true).open("/dev/full").unwrap().into(), None),
        Broken::Stuck => {
            writer.write_all(&vec![b'.'; PIPE]).unwrap();
            (writer.into(), Some(reader))
        }
        Broken::Closed => (Stdio::null(), None),
    };
    (Child::start_with_stderr(command, stderr), reader)
}

fn dropped_lines(metrics: &str) -> u64 {
    let line = metrics.lines().find(|line| line.starts_with("tollgate_log_lines_dropped_total ")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn whatever_becomes_of_standard_error_requests_end_and_are_counted_as_ever() {
    for broken in [Broken::Gone, Broken::Full, Broken::Stuck, Broken::Closed] {
        let upstream = Upstream::start();
        let dead = format!(
            "[[upstreams]]\nname = \"dead\"\nurl = \"http://{}\"\n[[routes]]\nprefix = \"/dead\"\n\
             upstream = \"dead\"\ndialect = \"plain\"\n",
            free_port()
        );
        let site = Site::new(&(route_to(&upstream.url()) + &dead));
        // The first start prints the admin's password as well.
        let (mut child, reader) = serve(site.folder.path(), broken);
        site.is_ready(&mut child).await;
        let (_, key) = site.user("ann").await;
        let left = async || site.get("/api/v1/key", &key).await.1["limit_remaining"].as_u64().unwrap();
        let before = left().await;
        for _ in 0..3 {
            let (status, answer) = site.post("/dead/x", Some(&key), &json!({"message": "x"})).await;
            assert_eq!(status, 502, "{broken:?}: {answer}");
        }
        assert_eq!(left().await, before, "{broken:?}: what was not answered is not charged");
        let chat = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
        let (status, answer) = site.post("/v1/chat/completions", Some(&key), &chat).await;
        assert_eq!(status, 200, "{broken:?}: {answer}");
        assert_eq!(left().await, before - 1);

        let metrics = reqwest::get(site.url("/metrics")).await.unwrap().text().await.unwrap();
        let is_counted = matches!(broken, Broken::Gone | Broken::Full);
        assert_eq!(dropped_lines(&metrics) > 0, is_counted, "{broken:?}: {metrics}");

        child.signal("TERM");
        if let Some(mut reader) = reader {
            // It reads on: what was held is there, in order.
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("no {words:?} in {text}"));
            assert!(at("admin_password=") < at("asked to stop"), "{text}");
        }
        let (code, _) = child.ends();
        assert_eq!(code, Some(0), "{broken:?}");
        let ledger = Child::tollgate(site.folder.path(), &["ledger", "verify"], &[]).ends();
        assert_eq!(ledger.0, Some(0), "{broken:?}: {}", ledger.1);
    }
}

#[tokio::test]
async fn a_reader_that_never_reads_again_does_not_hold_the_end() {
    let site = Site::new("");
    let (mut child, reader) = serve(site.folder.path(), Broken::Stuck);
    site.is_ready(&mut child).await;
    child.signal("TERM");
    assert_eq!(child.ends().0, Some(0));
    drop(reader);
}

#[test]
fn a_command_that_fails_says_so_by_its_code_where_it_cannot_by_words() {
    let site = Site::new("no_such_key = 1\n");
    for broken in [Broken::Gone, Broken::Full, Broken::Stuck, Broken::Closed] {
        let (mut child, _reader) = serve(site.folder.path(), broken);
        assert_eq!(child.ends().0, Some(78), "{broken:?}");
    }
}
