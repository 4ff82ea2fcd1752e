//! The binary while its machine's clock jumps (`jumping_clock.c` plays it): no day begins because of it, and
//! nothing of a day is forgotten.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use super::child::{Child, PATIENCE, register, route_to};
use super::commands::{ENV, Place};
use crate::upstream::{Answer, Upstream, chat_answer};
use crate::world::chat_request;

/// A clock that jumps by what its file says.
struct Jumping {
    library: PathBuf,
    file: PathBuf,
}

impl Jumping {
    fn new(folder: &Path) -> Self {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/operate/jumping_clock.c");
        let library = folder.join("jumping_clock.so");
        let built =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
        assert!(built.unwrap().success(), "{source} is not built");
        let this = Self { library, file: folder.join("jump") };
        this.by(0);
        this
    }

    /// So many days.
    fn by(&self, days: i64) {
        // Whole at once: the library reads it at any time.
        let whole = self.file.with_extension("new");
        std::fs::write(&whole, (days * 24 * 60 * 60).to_string()).unwrap();
        std::fs::rename(&whole, &self.file).unwrap();
    }

    fn serve(&self, folder: &Path) -> Child {
        let (library, file) = (self.library.display().to_string(), self.file.display().to_string());
        let mut env = ENV.to_vec();
        env.extend([("LD_PRELOAD", library.as_str()), ("CLOCK_AHEAD_FILE", &file)]);
        Child::tollgate(folder, &["serve"], &env)
    }
}

/// Waits until `/readyz` answers this.
async fn ready_is(place: &Place, status: u16) -> Value {
    let begun = Instant::now();
    loop {
        if let Ok(answer) = reqwest::get(place.site.url("/readyz")).await
            && answer.status().as_u16() == status
        {
            return answer.json().await.unwrap();
        }
        assert!(begun.elapsed() < PATIENCE, "/readyz never {status}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// How many of so many chats pass.
async fn passed(place: &Place, key: &str, times: usize) -> usize {
    let mut passed = 0;
    for _ in 0..times {
        let (status, answer) = place.site.post("/v1/chat/completions", Some(key), &chat_request()).await;
        assert!(matches!(status, 200 | 429), "{status} {answer}");
        passed += usize::from(status == 200);
    }
    passed
}

#[tokio::test]
async fn no_jump_of_the_clock_begins_a_day_or_forgets_one() {
    let upstream = Upstream::start();
    upstream.on("/v1/chat/completions", Answer::json(&chat_answer("Hello")));
    let more = format!("plans.free.conversation_limit = 20\n{}", route_to(&upstream.url()));
    let place = Place::new(&more).await;
    let clock = Jumping::new(place.site.folder.path());
    let mut gateway = clock.serve(place.site.folder.path());
    ready_is(&place, 200).await;
    let (_, key) = register(&place.site.url(""), "ann").await;
    assert_eq!(passed(&place, &key, 5).await, 5);

    clock.by(1);
    let told = ready_is(&place, 503).await;
    assert!(told.to_string().contains("clock_not_trusted"), "{told}");
    assert_eq!(passed(&place, &key, 18).await, 15, "the day goes on, a day ahead");
    clock.by(0);
    ready_is(&place, 200).await;
    assert_eq!(passed(&place, &key, 3).await, 0, "and is over");

    // More than 100 days ahead, with the job that forgets old days, and back.
    for jump in [101, -2, 400] {
        clock.by(jump);
        ready_is(&place, 503).await;
        let admin = place.site.admin("correct-horse-7").await.unwrap();
        for job in ["reset_of_limits", "log_clean_up", "house_keeping"] {
            let (status, ran) =
                place.site.post(&format!("/api/v1/admin/jobs/{job}/run"), Some(&admin), &json!({})).await;
            assert_eq!((status, &ran["state"]), (200, &json!("failed")), "{ran}");
        }
        assert_eq!(passed(&place, &key, 2).await, 0, "{jump}");
        clock.by(0);
        ready_is(&place, 200).await;
        assert_eq!(passed(&place, &key, 2).await, 0, "back from {jump}");
    }

    // A start under a clock that is ahead goes on by the time that was.
    clock.by(1);
    gateway.signal("TERM");
    assert_eq!(gateway.ends().0, Some(0));
    let gateway = clock.serve(place.site.folder.path());
    while !ready_is(&place, 503).await.to_string().contains("clock_not_trusted")
        || gateway.said().matches("the gate is open").count() == 0
    {
        tokio::task::yield_now().await;
    }
    assert_eq!(passed(&place, &key, 2).await, 0, "after a restart");
    clock.by(0);
    ready_is(&place, 200).await;
    assert_eq!(passed(&place, &key, 2).await, 0);
    assert!(gateway.said().contains("clock is not trusted"), "{}", gateway.said());
    let verified = place.done(&["ledger", "verify"]);
    assert_eq!(verified["ok"], json!(true), "{verified}");
    drop(gateway);
    place.leave().await;
}
