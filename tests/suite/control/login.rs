//! Logging in, and what a session opens.

use std::time::Duration;

use serde_json::json;

use crate::world::{ADMIN_PASSWORD, PASSWORD, World};

#[tokio::test]
async fn a_login_answers_as_the_seed_does() {
    let world = World::start().await;
    world.user("ann").await;
    let form = json!({"email": "Ann@Example.com", "password": PASSWORD});
    let reply = world.post("/api/v1/auth/login").json(&form).send().await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["token_type"], "bearer");
    assert_eq!(reply.json()["expires_in"], "1800");
    assert_eq!(reply.header("cache-control"), "no-store");
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_get_the_same_answer() {
    let world = World::start().await;
    world.user("ann").await;
    let mut told = Vec::new();
    let tries =
        [("ann@example.com", "password124"), ("nobody@example.com", PASSWORD), ("no address", PASSWORD)];
    for (email, password) in tries {
        let form = json!({"email": email, "password": password});
        let reply = world.post("/api/v1/auth/login").json(&form).send().await;
        assert_eq!(reply.status, 401);
        assert_eq!(reply.header("www-authenticate"), "Bearer");
        told.push((reply.json()["detail"].clone(), reply.json()["type"].clone()));
    }
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
}

#[tokio::test]
async fn after_five_failures_an_account_waits_and_who_knows_the_password_never_did() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    for _ in 0..10 {
        world.login(&ann.email, &ann.password).await;
    }
    let wrong = json!({"email": ann.email, "password": "password124"});
    for _ in 0..5 {
        assert_eq!(world.post("/api/v1/auth/login").json(&wrong).send().await.status, 401);
    }
    let right = json!({"email": ann.email, "password": ann.password});
    let refused = world.post("/api/v1/auth/login").json(&right).send().await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), "60");
    world.clock.advance(Duration::from_mins(1));
    world.login(&ann.email, &ann.password).await;
}

#[tokio::test]
async fn a_session_ends_by_itself_and_when_the_account_is_switched_off() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let profile = async |jwt: &str| world.get("/api/v1/auth/profile").bearer(jwt).send().await.status;
    assert_eq!(profile(&ann.jwt).await, 200);
    world.clock.advance(Duration::from_secs(1800 + 6));
    assert_eq!(profile(&ann.jwt).await, 401);
    let jwt = world.login(&ann.email, &ann.password).await;
    world.change("ann", json!({"is_active": false})).await;
    assert_eq!(profile(&jwt).await, 401);
    let form = json!({"email": ann.email, "password": ann.password});
    assert_eq!(world.post("/api/v1/auth/login").json(&form).send().await.status, 403);
    world.change("ann", json!({"is_active": true})).await;
    assert_eq!(profile(&jwt).await, 401, "an ended session stays ended");
    let jwt = world.login(&ann.email, &ann.password).await;
    assert_eq!(profile(&jwt).await, 200);
}

#[tokio::test]
async fn a_token_of_one_role_opens_no_other_roles_doors() {
    let world = World::start().await;
    let (ann, admin) = (world.user("ann").await, world.admin().await);
    let status = async |path: &str, token: &str| world.get(path).bearer(token).send().await.status;
    for token in [ann.jwt.as_str(), ann.key.as_str(), "x.y.z", ""] {
        assert_eq!(status("/api/v1/admin/users", token).await, 401);
        assert_eq!(status("/api/v1/admin/message-logs", token).await, 401);
    }
    for token in [admin.as_str(), ann.key.as_str()] {
        assert_eq!(status("/api/v1/auth/profile", token).await, 401);
        assert_eq!(status("/api/v1/auth/api-key", token).await, 401);
    }
    assert_eq!(world.post("/api/v1/auth/verify-key").bearer(&ann.jwt).send().await.status, 401);
    let form = json!({"email": "admin", "password": ADMIN_PASSWORD});
    assert_eq!(world.post("/api/v1/auth/login").json(&form).send().await.status, 401);
}

#[tokio::test]
async fn an_address_that_asks_too_fast_waits_and_every_answer_says_how_it_stands() {
    let world = World::with(|setup| setup.add("[limits]\nrate_limit_per_minute = 3\nburst = 3")).await;
    for left in ["2", "1", "0"] {
        let reply = world.get("/api/v1/info").send().await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("x-ratelimit-limit"), "3");
        assert_eq!(reply.header("x-ratelimit-remaining"), left);
        assert_eq!(reply.header("ratelimit-policy"), "\"minute\";q=3;w=60");
    }
    let refused = world.get("/api/v1/info").send().await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), "20");
    assert_eq!(refused.header("ratelimit"), "\"minute\";r=0;t=20");
    assert_eq!(world.get("/health").send().await.status, 200, "health is never limited");
    world.clock.advance(Duration::from_secs(20));
    assert_eq!(world.get("/api/v1/info").send().await.status, 200);
}
