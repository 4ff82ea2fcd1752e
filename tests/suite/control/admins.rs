//! Several admins, auditors among them; the last one stays.

use serde_json::{Value, json};

use crate::world::{PASSWORD, World};

async fn named(world: &World, token: &str) -> Vec<(String, String, bool)> {
    let listed = world.get("/api/v1/admin/admins").bearer(token).send().await;
    assert_eq!(listed.status, 200, "{}", listed.text());
    let text = |of: &Value| of.as_str().unwrap().to_owned();
    let one = |of: &Value| (text(&of["username"]), text(&of["role"]), of["is_active"].as_bool().unwrap());
    listed.json().as_array().unwrap().iter().map(one).collect()
}

async fn login(world: &World, name: &str, password: &str) -> (u16, Value) {
    let form = json!({"username": name, "password": password});
    let reply = world.post("/api/v1/admin/login").json(&form).send().await;
    (reply.status, reply.json())
}

#[tokio::test]
async fn an_auditor_reads_everything_and_changes_nothing() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    assert_eq!(world.chat(&ann).send().await.status, 200);
    let auditor = world.auditor().await;
    for path in [
        "users",
        "users/ann",
        "deleted-users",
        "staff",
        "admins",
        "admins/admin",
        "audit",
        "jobs",
        "usage",
        "statistics",
        "ledger/verify",
        "ledger/ann",
        "message-logs",
    ] {
        let reply = world.get(&format!("/api/v1/admin/{path}")).bearer(&auditor).send().await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
    let before = world.get("/api/v1/admin/users/ann").bearer(&auditor).send().await.json();
    let change = json!({"level": "high"});
    let refused = world.put("/api/v1/admin/users/ann").bearer(&auditor).json(&change).send().await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    let refused = world.put("/api/v1/admin/admins/olga").bearer(&auditor).json(&json!({"role": "admin"}));
    assert_eq!(refused.send().await.status, 403);
    assert_eq!(world.get("/api/v1/admin/users/ann").bearer(&auditor).send().await.json(), before);
    let read: Vec<Value> = world.audit().await;
    assert!(
        read.iter().any(|row| row["action"] == "message_log.read" && row["actor_name"] == "olga"),
        "{read:?}"
    );
}

#[tokio::test]
async fn admins_are_made_changed_and_deleted_and_each_change_is_recorded_and_ends_sessions() {
    let world = World::start().await;
    let admin = world.admin().await;
    let form = json!({"username": "Olga", "password": PASSWORD});
    let made = world.post("/api/v1/admin/admins").bearer(&admin).json(&form).send().await;
    assert_eq!((made.status, &made.json()["role"]), (201, &json!("admin")), "{}", made.text());
    let taken = world
        .post("/api/v1/admin/admins")
        .bearer(&admin)
        .json(&json!({"username": "olga", "password": PASSWORD}));
    assert_eq!(taken.send().await.status, 409);
    for wrong in [
        json!({"username": "x", "password": PASSWORD}),
        json!({"username": "eve", "password": "short"}),
        json!({"username": "eve", "password": PASSWORD, "role": "root"}),
        json!({"username": "eve", "password": PASSWORD, "is_active": false}),
    ] {
        let refused = world.post("/api/v1/admin/admins").bearer(&admin).json(&wrong).send().await;
        assert_eq!(refused.status, 422, "{wrong}: {}", refused.text());
    }
    let olga = login(&world, "olga", PASSWORD).await.1["access_token"].as_str().unwrap().to_owned();
    assert_eq!(named(&world, &olga).await.len(), 2);

    for (change, status) in [
        (json!({"role": "auditor"}), 200),
        (json!({"password": "another-word-9"}), 200),
        (json!({"is_active": false}), 403),
        (json!({"is_active": true}), 200),
    ] {
        let (_, session) = login(&world, "olga", PASSWORD).await;
        let (_, later) = login(&world, "olga", "another-word-9").await;
        let reply = world.put("/api/v1/admin/admins/OLGA").bearer(&admin).json(&change).send().await;
        assert_eq!(reply.status, 200, "{change}: {}", reply.text());
        for token in [&session, &later].into_iter().filter_map(|told| told["access_token"].as_str()) {
            assert_eq!(world.get("/api/v1/admin/admins").bearer(token).send().await.status, 401, "{change}");
        }
        let password = if change.get("role").is_some() { PASSWORD } else { "another-word-9" };
        assert_eq!(login(&world, "olga", password).await.0, status, "{change}");
    }
    let gone = world.delete("/api/v1/admin/admins/olga").bearer(&admin).send().await;
    assert_eq!(gone.status, 200, "{}", gone.text());
    assert_eq!(named(&world, &admin).await, [("admin".to_owned(), "admin".to_owned(), true)]);
    let actions: Vec<Value> = world.audit().await.iter().map(|row| row["action"].clone()).collect();
    for (action, times) in [("admin.create", 1), ("admin.update", 4), ("admin.delete", 1)] {
        assert_eq!(actions.iter().filter(|of| **of == action).count(), times, "{action}: {actions:?}");
    }
}

#[tokio::test]
async fn the_last_admin_stays_whatever_is_tried_at_once() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.auditor().await;
    let last = async |change: Option<Value>| {
        let call = match &change {
            Some(change) => world.put("/api/v1/admin/admins/admin").json(change),
            None => world.delete("/api/v1/admin/admins/admin"),
        };
        let reply = call.bearer(&admin).send().await;
        (reply.status, reply.json()["code"].as_str().unwrap_or_default().to_owned())
    };
    for change in [Some(json!({"is_active": false})), Some(json!({"role": "auditor"})), None] {
        assert_eq!(last(change.clone()).await, (409, "last_admin".to_owned()), "{change:?}");
    }
    let form = json!({"username": "bert", "password": PASSWORD});
    assert_eq!(world.post("/api/v1/admin/admins").bearer(&admin).json(&form).send().await.status, 201);
    // Each deletes the other, or itself.
    let bert = login(&world, "bert", PASSWORD).await.1["access_token"].as_str().unwrap().to_owned();
    let calls = [("admin", &bert), ("bert", &admin), ("admin", &admin), ("bert", &bert)]
        .map(|(name, by)| world.delete(&format!("/api/v1/admin/admins/{name}")).bearer(by).send());
    let statuses: Vec<u16> =
        futures_util::future::join_all(calls).await.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
}
