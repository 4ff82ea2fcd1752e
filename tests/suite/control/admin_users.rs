//! Accounts in the admin's hands.

use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn the_admin_lists_accounts_in_pages() {
    let world = World::start().await;
    for name in ["ann", "bob", "cid"] {
        world.user(name).await;
    }
    let admin = world.admin().await;
    let reply = world.get("/api/v1/admin/users?limit=2").bearer(&admin).send().await;
    let names: Vec<Value> =
        reply.json().as_array().unwrap().iter().map(|user| user["username"].clone()).collect();
    assert_eq!(names, ["ann", "bob"]);
    assert_eq!(reply.header("x-total-count"), "3");
    assert_eq!(reply.header("link"), "</api/v1/admin/users?limit=2&offset=2>; rel=\"next\"");
    for bad in ["limit=0", "limit=1001", "limit=ten", "offset=-1"] {
        let refused = world.get(&format!("/api/v1/admin/users?{bad}")).bearer(&admin).send().await;
        assert_eq!(refused.status, 422, "{bad}");
        assert_eq!(refused.json()["detail"][0]["loc"][0], "query");
    }
}

#[tokio::test]
async fn the_admin_sees_one_account_and_who_is_nobody_is_not_found() {
    let world = World::start().await;
    world.user("ann").await;
    let admin = world.admin().await;
    let seen = world.get("/api/v1/admin/users/ANN").bearer(&admin).send().await.json();
    assert_eq!(
        (&seen["id"], &seen["username"], &seen["is_active"]),
        (&json!("1"), &json!("ann"), &json!(true))
    );
    assert_eq!((&seen["allowed_ips"], &seen["limits"]["conversation_limit"]), (&json!([]), &json!(10)));
    assert!(seen.get("password_hash").is_none());
    for nobody in ["bob", "a%00b", "%27%20OR%201=1", "x"] {
        let path = format!("/api/v1/admin/users/{nobody}");
        assert_eq!(world.get(&path).bearer(&admin).send().await.status, 404, "{nobody}");
    }
}

#[tokio::test]
async fn the_seeds_update_takes_effect_at_once() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let terms = json!({"subscription_plan": "premium", "limits": {"conversation_limit": 100, "reset": 100}});
    let admin = world.admin().await;
    let reply = world.put("/api/v1/admin/users/ann").bearer(&admin).json(&terms).send().await;
    assert_eq!(reply.json(), json!({"message": "User updated successfully"}));
    let profile = world.get("/api/v1/auth/profile").bearer(&ann.jwt).send().await.json();
    assert_eq!(profile["subscription_plan"], "premium");
    assert_eq!(profile["limits"], json!({"conversation_limit": 100, "reset": 100}));
    let verified = world.post("/api/v1/auth/verify-key").bearer(&ann.key).send().await;
    assert_eq!(verified.json()["remaining_conversations"], 99);
}

#[tokio::test]
async fn everything_the_contract_names_can_be_changed() {
    let world = World::start().await;
    world.user("ann").await;
    let terms = json!({
        "name": "Ann", "email": "new@example.com", "about_me": "a", "hobbies": "b", "type": "Business",
        "credits": {"main": 7, "reset": 8}, "access_rtype": ["all"], "level": "advanced",
        "additional_notes": "called on Monday", "allowed_ips": ["10.0.0.0/8"], "is_active": false,
    });
    world.change("ann", terms.clone()).await;
    let admin = world.admin().await;
    let seen = world.get("/api/v1/admin/users/ann").bearer(&admin).send().await.json();
    for (field, value) in terms.as_object().unwrap() {
        assert_eq!(&seen[field], value, "{field}");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let world = World::start().await;
    world.user("ann").await;
    world.user("bob").await;
    let admin = world.admin().await;
    let cases = [
        (json!({"limits": {"conversation_limit": -1}}), json!(["body", "limits", "conversation_limit"])),
        (json!({"limits": {"reset": 1_000_001}}), json!(["body", "limits", "reset"])),
        (json!({"limits": {"left": 1}}), json!(["body", "limits", "left"])),
        (json!({"credits": {"main": "7"}}), json!(["body", "credits", "main"])),
        (json!({"subscription_plan": "gold"}), json!(["body", "subscription_plan"])),
        (json!({"allowed_ips": ["localhost"]}), json!(["body", "allowed_ips", 0])),
        (json!({"password_hash": "x"}), json!(["body", "password_hash"])),
        (json!({"username": "root"}), json!(["body", "username"])),
    ];
    for (mut terms, loc) in cases {
        terms["name"] = json!("Changed");
        let refused = world.put("/api/v1/admin/users/ann").bearer(&admin).json(&terms).send().await;
        assert_eq!((refused.status, &refused.json()["detail"][0]["loc"]), (422, &loc), "{terms}");
    }
    let plans =
        world.put("/api/v1/admin/users/ann").bearer(&admin).json(&json!({"subscription_plan": "gold"}));
    assert_eq!(plans.send().await.json()["detail"][0]["msg"], "Input should be one of: free, premium");
    let taken =
        world.put("/api/v1/admin/users/ann").bearer(&admin).json(&json!({"email": "bob@example.com"}));
    assert_eq!(taken.send().await.status, 409);
    let seen = world.get("/api/v1/admin/users/ann").bearer(&admin).send().await.json();
    assert_eq!((&seen["name"], &seen["email"]), (&json!("ann"), &json!("ann@example.com")));
}

#[tokio::test]
async fn the_admin_makes_a_new_key_for_a_user() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let admin = world.admin().await;
    let reply = world.post("/api/v1/admin/users/ann/regenerate-key").bearer(&admin).send().await;
    assert_eq!(reply.json()["message"], "API key regenerated successfully");
    let new = reply.json()["new_key"].as_str().unwrap().to_owned();
    assert_eq!(world.post("/api/v1/auth/verify-key").bearer(&ann.key).send().await.status, 401);
    assert_eq!(world.post("/api/v1/auth/verify-key").bearer(&new).send().await.status, 200);
}

#[tokio::test]
async fn a_reset_gives_everybody_their_day_again() {
    let world = World::start().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    for person in [&ann, &ann, &bob] {
        assert_eq!(world.post("/api/v1/auth/verify-key").bearer(&person.key).send().await.status, 200);
    }
    let reply = world.post("/api/v1/admin/reset-limits").bearer(&world.admin().await).send().await;
    assert_eq!(reply.json(), json!({"message": "All user limits reset successfully"}));
    assert_eq!((world.left(&ann).await, world.left(&bob).await), (10, 10));
}
