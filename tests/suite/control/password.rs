//! Another password, another address, and the sessions that end by it.

use serde_json::{Value, json};

use crate::world::{PASSWORD, Person, Reply, World};

const NEW: &str = "another-word-9";

async fn change_password(world: &World, jwt: &str, current: &str, new: &str) -> Reply {
    let form = json!({"current_password": current, "new_password": new, "confirm_new_password": new});
    world.put("/api/v1/auth/password").bearer(jwt).json(&form).send().await
}

async fn change_email(world: &World, person: &Person, to: &str, password: &str) -> Reply {
    let form = json!({"new_email": to, "password": password});
    world.put("/api/v1/auth/email").bearer(&person.jwt).json(&form).send().await
}

async fn profile(world: &World, jwt: &str) -> u16 {
    world.get("/api/v1/auth/profile").bearer(jwt).send().await.status
}

async fn login(world: &World, email: &str, password: &str) -> Reply {
    world.post("/api/v1/auth/login").json(&json!({"email": email, "password": password})).send().await
}

#[tokio::test]
async fn another_password_ends_every_other_session_and_keeps_this_one() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let elsewhere = world.login(&ann.email, PASSWORD).await;
    let changed = change_password(&world, &ann.jwt, PASSWORD, NEW).await;
    assert_eq!(changed.json(), json!({"message": "Password updated successfully"}));
    assert_eq!((profile(&world, &ann.jwt).await, profile(&world, &elsewhere).await), (200, 401));
    assert_eq!(login(&world, &ann.email, PASSWORD).await.status, 401);
    let third = world.login(&ann.email, NEW).await;
    assert_eq!((profile(&world, &third).await, profile(&world, &ann.jwt).await), (200, 200));
    assert_eq!(change_password(&world, &third, NEW, "one-more-word-9").await.status, 200);
    assert_eq!((profile(&world, &third).await, profile(&world, &ann.jwt).await), (200, 401));
    world.change("ann", json!({"is_active": false})).await;
    world.change("ann", json!({"is_active": true})).await;
    assert_eq!(profile(&world, &third).await, 401, "a kept session ends with everybody's");
    assert_eq!(world.chat(&ann).send().await.status, 200, "a key is no session");
}

#[tokio::test]
async fn the_present_password_is_asked_for_and_a_wrong_one_counts_as_a_failed_login() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let refused = change_password(&world, &ann.jwt, "not-my-word-1", NEW).await;
    assert_eq!(
        (refused.status, &refused.json()["type"]),
        (400, &json!("urn:tollgate:problem:wrong_password"))
    );
    assert_eq!(change_email(&world, &ann, "new@example.com", "not-my-word-1").await.status, 400);
    for _ in 0..3 {
        assert_eq!(change_password(&world, &ann.jwt, "not-my-word-1", NEW).await.status, 400);
    }
    assert_eq!(change_password(&world, &ann.jwt, PASSWORD, NEW).await.status, 429);
    assert_eq!(world.audit().await.iter().filter(|row| row["action"] == "user.change_password").count(), 0);
}

#[tokio::test]
async fn a_password_is_seen_whole_or_not_taken() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let long = format!("{}1", "é".repeat(36));
    let cases = [
        (
            json!({"current_password": PASSWORD, "new_password": long, "confirm_new_password": long}),
            "new_password",
        ),
        (
            json!({"current_password": PASSWORD, "new_password": "short1", "confirm_new_password": "short1"}),
            "new_password",
        ),
        (
            json!({"current_password": PASSWORD, "new_password": NEW, "confirm_new_password": "x"}),
            "confirm_new_password",
        ),
        (json!({"current_password": PASSWORD, "new_password": NEW}), "confirm_new_password"),
        (json!({"new_password": NEW, "confirm_new_password": NEW}), "current_password"),
    ];
    for (form, field) in cases {
        let refused = world.put("/api/v1/auth/password").bearer(&ann.jwt).json(&form).send().await;
        assert_eq!((refused.status, &refused.json()["detail"][0]["loc"]), (422, &json!(["body", field])));
        assert!(!refused.text().contains(NEW) && !refused.text().contains(PASSWORD));
    }
    let longest = format!("{}1", "x".repeat(71));
    assert_eq!(change_password(&world, &ann.jwt, PASSWORD, &longest).await.status, 200);
    assert_eq!(login(&world, &ann.email, &format!("{longest}2")).await.status, 401);
    assert_eq!(login(&world, &ann.email, &longest).await.status, 200);
}

#[tokio::test]
async fn another_address_is_logged_in_with_and_ends_every_other_session() {
    let world = World::start().await;
    let (ann, _) = (world.user("ann").await, world.user("bob").await);
    let elsewhere = world.login(&ann.email, PASSWORD).await;
    let changed = change_email(&world, &ann, "Ann@New.example", PASSWORD).await;
    assert_eq!(changed.json(), json!({"message": "Email updated successfully"}));
    assert_eq!((profile(&world, &ann.jwt).await, profile(&world, &elsewhere).await), (200, 401));
    assert_eq!(login(&world, &ann.email, PASSWORD).await.status, 401);
    assert_eq!(login(&world, "ann@new.example", PASSWORD).await.status, 200);
    assert_eq!(change_email(&world, &ann, "BOB@example.com", PASSWORD).await.status, 409);
    assert_eq!(change_email(&world, &ann, "nobody", PASSWORD).await.status, 422);
    let verified = world.post("/api/v1/auth/verify-key").bearer(&ann.key).send().await;
    assert_eq!(verified.json()["email"], "Ann@New.example");
    let rows = world.audit().await;
    let actions: Vec<&Value> = rows.iter().map(|row| &row["action"]).collect();
    assert_eq!(actions, ["user.change_email", "user.register", "user.register"]);
}

#[tokio::test]
async fn whatever_somebody_else_changes_of_who_one_is_ends_every_session() {
    let world = World::start().await;
    let support = world.staff("sue", "support").await;
    let admin = world.admin().await;
    let by_admin = [
        json!({"email": "ann2@example.com"}),
        json!({"password": NEW}),
        json!({"level": "advanced"}),
        json!({"is_active": false}),
    ];
    let by_staff = [json!({"email": "ann3@example.com"}), json!({"password": "help-me-in-1"})];
    let ann = world.user("ann").await;
    let (mut email, mut password) = (ann.email.clone(), ann.password.clone());
    let calls = by_admin.into_iter().map(|form| ("admin", &admin, form));
    let calls = by_staff.into_iter().map(|form| ("staff", &support, form)).chain(calls);
    for (plane, token, form) in calls {
        let jwt = world.login(&email, &password).await;
        let path = format!("/api/v1/{plane}/users/ann");
        assert_eq!(world.put(&path).bearer(token).json(&form).send().await.status, 200, "{form}");
        assert_eq!(profile(&world, &jwt).await, 401, "{form}");
        email = form["email"].as_str().unwrap_or(&email).to_owned();
        password = form["password"].as_str().unwrap_or(&password).to_owned();
    }
}
