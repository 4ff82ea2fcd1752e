//! Who is on the staff.

use serde_json::{Value, json};

use crate::world::{PASSWORD, World};

#[tokio::test]
async fn the_seeds_call_takes_somebody_on() {
    let world = World::start().await;
    let form = json!({"name": "Support User", "username": "support1", "email": "support@example.com",
                      "password": "support123", "staff_level": "support"});
    let admin = world.admin().await;
    let hired = world.post("/api/v1/admin/staff").bearer(&admin).json(&form).send().await;
    let expected =
        json!({"message": "Staff member created successfully", "staff_id": "1", "username": "support1"});
    assert_eq!((hired.status, hired.json()), (201, expected));
    let mut same_email = form.clone();
    same_email["username"] = json!("other");
    for (form, status) in [(&form, 409), (&same_email, 409)] {
        assert_eq!(world.post("/api/v1/admin/staff").bearer(&admin).json(form).send().await.status, status);
    }
    for (field, bad) in [("staff_level", "boss"), ("password", "short1"), ("username", "a b"), ("email", "x")]
    {
        let mut form = form.clone();
        form[field] = json!(bad);
        let refused = world.post("/api/v1/admin/staff").bearer(&admin).json(&form).send().await;
        assert_eq!((refused.status, &refused.json()["detail"][0]["loc"][1]), (422, &json!(field)));
    }
    let listed = world.get("/api/v1/admin/staff").bearer(&admin).send().await;
    assert_eq!((listed.header("x-total-count"), &listed.json()[0]["staff_level"]), ("1", &json!("support")));
    assert!(!listed.text().contains("$2b$"), "{}", listed.text());
}

#[tokio::test]
async fn whatever_changes_of_who_they_are_ends_their_sessions() {
    let world = World::start().await;
    world.staff("sue", "support").await;
    let admin = world.admin().await;
    let status = async |token: &str| world.get("/api/v1/staff/profile").bearer(token).send().await.status;
    let change = async |terms: Value| {
        let changed = world.put("/api/v1/admin/staff/sue").bearer(&admin).json(&terms).send().await;
        assert_eq!(changed.json(), json!({"message": "Staff member updated successfully"}), "{terms}");
    };
    let token = world.staff_login("sue").await;
    change(json!({"name": "Susan"})).await;
    assert_eq!(status(&token).await, 200);
    for terms in [
        json!({"email": "susan@staff.example"}),
        json!({"staff_level": "new"}),
        json!({"password": PASSWORD}),
        json!({"is_active": false}),
    ] {
        let token = world.staff_login("sue").await;
        assert_eq!(status(&token).await, 200);
        change(terms.clone()).await;
        assert_eq!(status(&token).await, 401, "{terms}");
    }
    let form = json!({"username": "sue", "password": PASSWORD});
    assert_eq!(world.post("/api/v1/staff/login").json(&form).send().await.status, 403);
    change(json!({"is_active": true})).await;
    let token = world.staff_login("sue").await;
    let seen = world.get("/api/v1/admin/staff/sue").bearer(&admin).send().await.json();
    assert_eq!((&seen["name"], &seen["staff_level"]), (&json!("Susan"), &json!("new")));
    let gone = world.delete("/api/v1/admin/staff/sue").bearer(&admin).send().await;
    assert_eq!(gone.json(), json!({"message": "Staff member deleted successfully"}));
    assert_eq!(status(&token).await, 401);
    assert_eq!(world.post("/api/v1/staff/login").json(&form).send().await.status, 401);
    for method in ["GET", "DELETE"] {
        assert_eq!(world.call(method, "/api/v1/admin/staff/sue").bearer(&admin).send().await.status, 404);
    }
    let rows = world.audit().await;
    let actions: Vec<&Value> = rows.iter().map(|row| &row["action"]).take(4).collect();
    assert_eq!(actions, ["login.failed", "staff.delete", "staff.update", "staff.update"]);
    assert_eq!(rows[3]["detail"], json!({"fields": ["is_active"]}));
}

#[tokio::test]
async fn a_name_on_the_staff_is_no_name_of_a_user() {
    let world = World::start().await;
    world.user("sam").await;
    let token = world.staff("sam", "advanced").await;
    let other = world.staff("tom", "advanced").await;
    for (method, path) in [("GET", "tom"), ("PUT", "tom"), ("DELETE", "tom"), ("DELETE", "admin")] {
        let path = format!("/api/v1/staff/users/{path}");
        assert_eq!(
            world.call(method, &path).bearer(&token).json(&json!({})).send().await.status,
            404,
            "{path}"
        );
    }
    let gone = world.delete("/api/v1/staff/users/sam").bearer(&other).send().await;
    assert_eq!(gone.status, 200);
    assert_eq!(world.get("/api/v1/staff/profile").bearer(&token).send().await.status, 200, "the user went");
}
