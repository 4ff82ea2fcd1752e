//! An account in its owner's hands.

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn a_new_profile_is_the_seeds() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let reply = world.get("/api/v1/auth/profile").bearer(&ann.jwt).send().await;
    let expected = json!({
        "username": "ann", "name": "ann", "email": "ann@example.com", "about_me": "", "hobbies": "",
        "type": "Personal", "time_created": "2026-10-01T10:00:00Z", "subscription_plan": "free",
        "credits": {"main": 5, "reset": 5}, "limits": {"conversation_limit": 10, "reset": 10},
        "access_rtype": ["bpe", "tot"], "level": "basic", "additional_notes": "",
    });
    assert_eq!(reply.json(), expected);
}

#[tokio::test]
async fn an_owner_changes_what_is_theirs_as_given() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let change = json!({"name": "Ann <b>O'Neil</b>", "about_me": "Ünï\u{1f600}", "hobbies": ""});
    let reply = world.put("/api/v1/auth/profile").bearer(&ann.jwt).json(&change).send().await;
    assert_eq!(reply.json(), json!({"message": "Profile updated successfully"}));
    let profile = world.get("/api/v1/auth/profile").bearer(&ann.jwt).send().await.json();
    for field in ["name", "about_me", "hobbies"] {
        assert_eq!(profile[field], change[field]);
    }
}

#[tokio::test]
async fn what_is_not_theirs_is_refused_and_stays() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let before = world.get("/api/v1/auth/profile").bearer(&ann.jwt).send().await.json();
    let privileged = json!({
        "username": "root", "email": "x@example.com", "limits": {"conversation_limit": 1000}, "credits": {"main": 9},
        "subscription_plan": "premium", "level": "advanced", "is_active": true, "access_rtype": ["all"],
        "additional_notes": "trusted", "password": "password456",
    });
    for (field, value) in privileged.as_object().unwrap() {
        let change = json!({"name": "Root", field.as_str(): value});
        let reply = world.put("/api/v1/auth/profile").bearer(&ann.jwt).json(&change).send().await;
        assert_eq!(reply.status, 422, "{field}");
        assert_eq!(reply.json()["detail"][0]["loc"], json!(["body", field]));
    }
    assert_eq!(world.get("/api/v1/auth/profile").bearer(&ann.jwt).send().await.json(), before);
}
