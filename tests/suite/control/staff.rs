//! Those who help users.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{PASSWORD, World};

#[tokio::test]
async fn a_login_says_how_far_it_reaches() {
    let world = World::start().await;
    world.staff("sue", "support").await;
    let form = json!({"username": "SUE", "password": PASSWORD});
    let login = world.post("/api/v1/staff/login").json(&form).send().await.json();
    assert_eq!((&login["token_type"], &login["expires_in"]), (&json!("bearer"), &json!("1800")));
    assert_eq!(login["staff_level"], "support");
    let token = login["access_token"].as_str().unwrap();
    let profile = world.get("/api/v1/staff/profile").bearer(token).send().await.json();
    let expected = json!({"id": 1, "name": "sue", "username": "sue", "email": "sue@staff.example",
        "staff_level": "support", "time_created": "2026-10-01T10:00:00Z", "is_active": true});
    assert_eq!(profile, expected);
}

#[tokio::test]
async fn nobody_learns_who_is_on_the_staff() {
    let world = World::start().await;
    world.staff("sue", "support").await;
    world.user("ann").await;
    let mut told = Vec::new();
    for (name, password) in
        [("sue", "password124"), ("nobody", PASSWORD), ("ann", PASSWORD), ("admin", PASSWORD)]
    {
        let form = json!({"username": name, "password": password});
        let refused = world.post("/api/v1/staff/login").json(&form).send().await;
        assert_eq!(refused.status, 401, "{name}");
        told.push((refused.json()["detail"].clone(), refused.json()["type"].clone()));
    }
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
}

#[tokio::test]
async fn what_was_noted_of_a_user_is_not_for_newcomers() {
    let world = World::start().await;
    world.user_with("ann", json!({"additional_notes": "called on Monday"})).await;
    for (level, notes) in [("new", ""), ("support", "called on Monday"), ("advanced", "called on Monday")] {
        let token = world.staff(level, level).await;
        let one = world.get("/api/v1/staff/users/ann").bearer(&token).send().await.json();
        let listed = world.get("/api/v1/staff/users").bearer(&token).send().await;
        assert_eq!(listed.header("x-total-count"), "1");
        assert_eq!((&one["additional_notes"], &listed.json()[0]), (&json!(notes), &one), "{level}");
        assert_eq!(one["limits"], json!({"conversation_limit": 10, "reset": 10}));
        assert!(one.get("is_active").is_none() && one.get("allowed_ips").is_none(), "{one}");
    }
}

#[tokio::test]
async fn staff_let_a_user_in_again() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let token = world.staff("sue", "support").await;
    let terms = json!({"password": "let-me-in-1", "limits": {"conversation_limit": 3, "reset": 5},
                       "subscription_plan": "premium"});
    let helped = world.put("/api/v1/staff/users/ann").bearer(&token).json(&terms).send().await;
    assert_eq!(helped.json(), json!({"message": "User updated successfully"}));
    let jwt = world.login(&ann.email, "let-me-in-1").await;
    let profile = world.get("/api/v1/auth/profile").bearer(&jwt).send().await.json();
    assert_eq!(profile["limits"], json!({"conversation_limit": 3, "reset": 5}));
    assert_eq!(profile["subscription_plan"], "premium");
    let row = world.audit().await.remove(0);
    assert_eq!(
        (&row["actor_kind"], &row["actor_name"], &row["target"]),
        (&json!("staff"), &json!("sue"), &json!("ann"))
    );
    let fields =
        json!({"fields": ["password", "subscription_plan", "limits.conversation_limit", "limits.reset"]});
    assert_eq!(row["detail"], fields);
}

#[tokio::test]
async fn what_staff_ask_for_that_makes_no_sense_is_refused() {
    let world = World::start().await;
    let (_, _) = (world.user("ann").await, world.user("bob").await);
    let token = world.staff("sue", "advanced").await;
    let cases = [
        (json!({"limits": {"reset": -1}}), 422),
        (json!({"limits": {"left": 1}}), 422),
        (json!({"subscription_plan": "gold"}), 422),
        (json!({"password": "short1"}), 422),
        (json!({"email": "bob@example.com"}), 409),
        (json!({"email": "bob"}), 422),
    ];
    for (terms, status) in cases {
        let refused = world.put("/api/v1/staff/users/ann").bearer(&token).json(&terms).send().await;
        assert_eq!(refused.status, status, "{terms}");
    }
    assert_eq!(
        world.put("/api/v1/staff/users/nobody").bearer(&token).json(&json!({})).send().await.status,
        404
    );
}

#[tokio::test]
async fn address_and_password_by_one_person_within_a_day_are_marked() {
    let world = World::start().await;
    let (_, _) = (world.user("ann").await, world.user("bob").await);
    let (sue, tom) = (world.staff("sue", "support").await, world.staff("tom", "support").await);
    let change = async |token: &str, user: &str, terms: Value| {
        let path = format!("/api/v1/staff/users/{user}");
        assert_eq!(world.put(&path).bearer(token).json(&terms).send().await.status, 200, "{terms}");
        world.audit().await.remove(0)["detail"]["takeover_suspected"] == true
    };
    assert!(!change(&sue, "ann", json!({"email": "a1@example.com"})).await);
    assert!(!change(&sue, "ann", json!({"limits": {"reset": 7}})).await);
    assert!(!change(&sue, "bob", json!({"password": "let-me-in-1"})).await, "another user");
    assert!(!change(&tom, "ann", json!({"password": "let-me-in-1"})).await, "another person");
    assert!(change(&sue, "ann", json!({"password": "let-me-in-2"})).await);
    assert!(change(&tom, "bob", json!({"password": "let-me-in-2", "email": "b1@example.com"})).await);
    world.clock.advance(Duration::from_hours(25));
    let sue = world.staff_login("sue").await;
    assert!(!change(&sue, "bob", json!({"email": "b2@example.com"})).await, "a day later");
}
