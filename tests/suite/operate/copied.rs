//! A copy of a running gateway's data folder (a golden image, a cloned machine) on the same database: exact
//! all the same.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::child::{Child, PATIENCE, Site, route_to};
use super::commands::ENV;
use crate::upstream::Upstream;
use crate::world::Database;

/// Conversations of ann's day.
const ALLOWANCE: usize = 300;

/// A gateway with its database outside of its folder, and a copy of the folder, which nothing serves yet.
struct Copied {
    original: Site,
    copy: Site,
    key: String,
    database: Option<Database>,
    _file: tempfile::TempDir,
    _upstream: Upstream,
}

impl Copied {
    /// The folder is copied while `original` runs and holds units.
    async fn new() -> (Self, Child) {
        let (upstream, file) = (Upstream::start(), tempfile::tempdir().unwrap());
        let database = Database::from_env().await;
        let url = match &database {
            Some(database) => database.url(),
            None => format!("sqlite:///{}", file.path().join("shared.db").display()),
        };
        let more = format!(
            "database.url = \"{url}\"\nlimits.max_parallel_per_user = 1000\n{}",
            route_to(&upstream.url())
        );
        let (original, copy) = (Site::new(&more), Site::new(&more));
        let running = original.serve(&ENV).await;
        let (_, key) = original.user("ann").await;
        let number = ALLOWANCE.to_string();
        done(&original, &["user", "limit", "ann", "--left", &number, "--per-day", &number]);
        for _ in 0..20 {
            assert_eq!(status(&original.url("/v1/chat/completions"), &key).await, 200);
        }
        let (from, to) = (original.folder.path().join("data"), copy.folder.path());
        let copied = Command::new("cp").arg("-a").args([&from, &to.to_path_buf()]).status().unwrap();
        assert!(copied.success());
        (Self { original, copy, key, database, _file: file, _upstream: upstream }, running)
    }

    /// Sends `calls` requests to each of these gateways, all at once; how many were served.
    async fn served(&self, sites: &[&Site], calls: usize) -> usize {
        let served = Arc::new(AtomicUsize::new(0));
        let call = |site: &Site| {
            let (url, key, served) =
                (site.url("/v1/chat/completions"), self.key.clone(), Arc::clone(&served));
            tokio::spawn(async move {
                if status(&url, &key).await == 200 {
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let running: Vec<_> = (0..calls).flat_map(|_| sites.iter().map(|site| call(site))).collect();
        for one in running {
            one.await.unwrap();
        }
        served.load(Ordering::SeqCst)
    }

    /// Everything is written, and the ledger holds; how many conversations it has.
    async fn counted(&self, site: &Site) -> (usize, usize) {
        let admin = site.admin("correct-horse-7").await.unwrap();
        let begun = Instant::now();
        loop {
            let (_, told) = site.get("/api/v1/admin/ledger/ann", &admin).await;
            let held = told["epochs"]
                .as_array()
                .map_or(1, |epochs| epochs.iter().map(|epoch| epoch["held"].as_i64().unwrap()).sum());
            if held == 0 {
                assert_eq!(told["ok"], json!(true), "{told}");
                let sum = |of: &str| -> usize {
                    let epochs = told["epochs"].as_array().unwrap().iter();
                    epochs.map(|epoch| usize::try_from(epoch[of].as_u64().unwrap()).unwrap()).sum()
                };
                return (sum("charged"), sum("forfeited"));
            }
            assert!(begun.elapsed() < PATIENCE, "{told}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn leave(self) {
        if let Some(database) = self.database {
            database.remove().await;
        }
    }
}

async fn status(url: &str, key: &str) -> u16 {
    let request = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    let sent = reqwest::Client::new().post(url).bearer_auth(key).json(&request).send().await;
    sent.map_or(0, |answer| answer.status().as_u16())
}

fn done(site: &Site, args: &[&str]) {
    let (code, said) = run(site.folder.path(), args);
    assert_eq!(code, Some(0), "{said}");
}

fn run(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    Child::tollgate(folder, args, &ENV).ends()
}

#[tokio::test]
async fn beside_the_running_original_a_copy_becomes_a_node_of_its_own() {
    let (copied, mut original) = Copied::new().await;
    let mut copy = copied.copy.serve(&ENV).await;
    let served = 20 + copied.served(&[&copied.original, &copied.copy], ALLOWANCE).await;
    assert_eq!(served, ALLOWANCE);
    for child in [&mut original, &mut copy] {
        child.signal("TERM");
        let (code, said) = child.ends();
        assert_eq!(code, Some(0), "{said}");
    }
    let _again = copied.original.serve(&ENV).await;
    assert_eq!(copied.counted(&copied.original).await, (ALLOWANCE, 0));
    copied.leave().await;
}

#[tokio::test]
async fn a_new_folder_says_what_is_lost_if_it_replaces_one() {
    let (copied, mut original) = Copied::new().await;
    original.signal("KILL");
    original.ends();
    // The secrets were kept elsewhere, all else of the folder was not.
    let data = copied.original.folder.path().join("data");
    for entry in std::fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().ends_with("_key") {
            let gone =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            gone.unwrap();
        }
    }
    let again = copied.original.serve(&ENV).await;
    let said = again.said();
    for words in ["the data folder is new and the database knows other runs", "must outlive the process"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    copied.leave().await;
}

#[tokio::test]
async fn a_paused_original_that_was_taken_over_spends_nothing_any_more() {
    let (copied, mut original) = Copied::new().await;
    original.signal("STOP");
    // It is ready once the original's heartbeat is stale.
    let mut copy = copied.copy.serve(&ENV).await;
    let said = copy.said();
    assert!(said.contains("earlier_run_may_be_alive"), "{said}");
    let by_copy = copied.served(&[&copied.copy], ALLOWANCE / 3).await;
    original.signal("CONT");
    let rest = copied.served(&[&copied.original, &copied.copy], ALLOWANCE).await;
    assert!(20 + by_copy + rest <= ALLOWANCE, "{by_copy} and {rest}");
    for child in [&mut original, &mut copy] {
        child.signal("TERM");
        child.ends();
    }
    let _again = copied.copy.serve(&ENV).await;
    let (charged, forfeited) = copied.counted(&copied.copy).await;
    assert_eq!((charged, charged + forfeited), (20 + by_copy + rest, ALLOWANCE));
    copied.leave().await;
}
