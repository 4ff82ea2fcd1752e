//! A user's own key.

use std::time::Duration;

use crate::world::World;

#[tokio::test]
async fn a_key_is_shown_sealed_and_right_after_a_login_plain() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let sealed = world.get("/api/v1/auth/api-key").bearer(&ann.jwt).send().await;
    assert_eq!(sealed.status, 200);
    assert!(sealed.json()["key"].as_str().unwrap().starts_with("gAAAA"));
    assert_eq!(sealed.json()["created_at"], "2026-10-01T10:00:00Z");
    assert!(sealed.json().get("api_key").is_none());
    assert_eq!(sealed.header("cache-control"), "no-store");
    assert_eq!((ann.key.len(), ann.key.get(..3)), (35, Some("pe-")));
}

#[tokio::test]
async fn an_old_login_shows_no_key() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    world.clock.advance(Duration::from_mins(5));
    for call in
        [world.get("/api/v1/auth/api-key?reveal=true"), world.post("/api/v1/auth/regenerate-key?reveal=true")]
    {
        let refused = call.bearer(&ann.jwt).send().await;
        assert_eq!(refused.status, 403);
        let told =
            "This needs a login of the last 5 minutes. Log in again; refreshing a session is no login.";
        assert_eq!(refused.json()["detail"], told);
    }
    assert_eq!(
        world.post("/api/v1/auth/verify-key").bearer(&ann.key).send().await.status,
        200,
        "it was not replaced"
    );
    let jwt = world.login(&ann.email, &ann.password).await;
    let shown = world.get("/api/v1/auth/api-key?reveal=true").bearer(&jwt).send().await;
    assert_eq!(shown.json()["api_key"], ann.key.as_str());
}

#[tokio::test]
async fn a_new_key_ends_the_old_one_at_once() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let verify = async |key: &str| world.post("/api/v1/auth/verify-key").bearer(key).send().await.status;
    assert_eq!(verify(&ann.key).await, 200);
    let made = world.post("/api/v1/auth/regenerate-key?reveal=true").bearer(&ann.jwt).send().await;
    assert_eq!(made.status, 200);
    let new = made.json()["api_key"].as_str().unwrap().to_owned();
    assert_eq!(verify(&ann.key).await, 401);
    assert_eq!(verify(&new).await, 200);
    let shown = world.get("/api/v1/auth/api-key").bearer(&ann.jwt).send().await;
    assert_eq!(shown.json()["key"], made.json()["key"]);
}
