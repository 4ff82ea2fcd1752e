//! The watch that every story keeps, put to the test: a secret that is planted is found.

use serde_json::json;

use crate::upstream::Answer;
use crate::world::{PASSWORD, World};

/// Whether one of these is about this.
fn tells(found: &[String], what: &str, place: &str) -> bool {
    found.iter().any(|one| one.starts_with(&format!("{what} in {place}: ")))
}

#[tokio::test]
async fn a_secret_is_found_wherever_it_is_planted() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    for planted in ["the-word-in-the-log", "tollgate_requests_total"] {
        world.watch().remember(planted);
    }
    tracing::trace!("a library prints the-word-in-the-log");
    let about = json!({"about_me": format!("my password is {PASSWORD}"), "hobbies": ann.jwt});
    assert_eq!(world.put("/api/v1/auth/profile").bearer(&ann.jwt).json(&about).send().await.status, 200);
    world
        .upstream
        .next(Answer::json(&json!({"error": format!("{} is not one of mine", ann.key)})).status(400));
    assert_eq!(world.chat(&ann).send().await.status, 400);
    let said = json!({"model": "m", "messages": [{"role": "user", "content": "$2b$04$abcdefghijkl"}]});
    assert_eq!(world.post("/api/v1/auth/log-message").bearer(&ann.key).json(&said).send().await.status, 200);

    let found = world.end().await;
    for (what, place) in [
        ("the-word-in-the-log", "the log"),
        ("tollgate_requests_total", "the metrics"),
        (PASSWORD, "users.about_me"),
        ("a session token", "users.hobbies"),
        ("a key", "an answer of 400"),
        (ann.key.as_str(), "an answer of 400"),
        ("a password's hash", "exchanges.messages"),
    ] {
        assert!(tells(&found, what, place), "{what} in {place} is not in {found:#?}");
    }
}

#[tokio::test]
async fn what_is_stored_in_a_secrets_stead_stands_where_it_belongs() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    assert_eq!(world.chat(&ann).send().await.status, 200);
    world.rows_when(1).await;
    let found = world.end().await;
    assert!(found.is_empty(), "{found:#?}");
}
