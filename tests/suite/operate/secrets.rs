//! Secrets that are not the database's: no start, no command, no silence.

use serde_json::json;

use super::child::{Child, Site};

/// A site that was served once, with a user; their key.
async fn served(site: &Site) -> String {
    let mut gate = site.serve(&[]).await;
    let (_, key) = site.user("ann").await;
    gate.signal("TERM");
    assert_eq!(gate.ends().0, Some(0));
    key
}

fn run(site: &Site, args: &[&str]) -> (Option<i32>, String) {
    Child::tollgate(site.folder.path(), args, &[]).ends()
}

#[tokio::test]
async fn a_lost_secret_stops_every_start_and_command_until_it_is_back_or_given_up() {
    let site = Site::new("");
    let key = served(&site).await;
    let file = |name: &str| site.folder.path().join("data").join(name);
    for (name, depends) in [("encryption_key", "API keys"), ("secret_key", "sessions")] {
        let kept = std::fs::read(file(name)).unwrap();
        for lost in [None, Some("another-secret-that-is-long-enough-0123456789")] {
            match lost {
                None => std::fs::remove_file(file(name)).unwrap(),
                Some(other) => std::fs::write(file(name), other).unwrap(),
            }
            let add = ["user", "add", "bob", "--email", "bob@example.com"];
            for (args, code) in [(&["serve"][..], 1), (&["check"], 78), (&add, 1)] {
                let (ended, said) = run(&site, args);
                assert_eq!(ended, Some(code), "{args:?}: {said}");
                for told in [name, depends, "put the old file", "--accept-lost-keys"] {
                    assert!(said.contains(told), "{args:?} does not say {told:?}: {said}");
                }
            }
            assert_eq!(file(name).exists(), lost.is_some(), "nothing is made in silence");
        }
        std::fs::write(file(name), kept).unwrap();
    }
    let mut gate = site.serve(&[]).await;
    assert_eq!(
        site.post("/api/v1/auth/verify-key", Some(&key), &json!({})).await.0,
        200,
        "the old file is back"
    );
    gate.signal("TERM");
    gate.ends();
}

#[tokio::test]
async fn accepting_a_loss_is_said_and_recorded_and_needed_once() {
    let site = Site::new("");
    let key = served(&site).await;
    std::fs::remove_file(site.folder.path().join("data/encryption_key")).unwrap();
    let mut accepting = Child::tollgate(site.folder.path(), &["serve", "--accept-lost-keys"], &[]);
    let said = accepting.says("the gate is open");
    assert!(said.contains("lost secret accepted") && said.contains("API keys"), "{said}");
    accepting.signal("TERM");
    assert_eq!(accepting.ends().0, Some(0));
    let mut gate = site.serve(&[]).await;
    assert_eq!(site.post("/api/v1/auth/verify-key", Some(&key), &json!({})).await.0, 401);
    let url = format!("sqlite://{}", site.folder.path().join("data/tollgate.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let recorded: Vec<(String, String)> =
        sqlx::query_as("SELECT target, detail FROM audit WHERE action = 'secrets.accept_lost'")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(recorded.len(), 1, "{recorded:?}");
    assert!(recorded[0].0 == "encryption_key" && recorded[0].1.contains("\"keys\":1"), "{recorded:?}");
    pool.close().await;
    gate.signal("TERM");
    gate.ends();
}

#[tokio::test]
async fn a_check_makes_nothing_and_tells_of_a_database_it_cannot_ask() {
    let site = Site::new("[database]\nurl = \"postgres://nobody@127.0.0.1:9/none\"\n");
    let (code, said) = run(&site, &["check"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("note: database: cannot be asked"), "{said}");
    assert!(!site.folder.path().join("data").exists());
}
