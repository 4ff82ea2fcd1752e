//! Leaving, coming back, and being forgotten.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::store::deleted;

use crate::world::{PASSWORD, Person, World};

async fn deleted_users(world: &World) -> Vec<Value> {
    let listed = world.get("/api/v1/admin/deleted-users").bearer(&world.admin().await).send().await;
    assert_eq!(listed.status, 200, "{}", listed.text());
    listed.json().as_array().unwrap().clone()
}

async fn leave(world: &World, person: &Person) {
    let left = world.delete("/api/v1/auth/account").bearer(&person.jwt).send().await;
    assert_eq!(left.json(), json!({"message": "Account deleted successfully"}));
}

#[tokio::test]
async fn who_leaves_is_gone_at_once_and_their_names_are_free() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    assert_eq!(world.chat(&ann).send().await.status, 200);
    leave(&world, &ann).await;
    assert_eq!(world.chat(&ann).send().await.status, 401);
    assert_eq!(world.post("/api/v1/auth/verify-key").bearer(&ann.key).send().await.status, 401);
    assert_eq!(world.get("/api/v1/auth/profile").bearer(&ann.jwt).send().await.status, 401);
    let form = json!({"email": ann.email, "password": PASSWORD});
    assert_eq!(world.post("/api/v1/auth/login").json(&form).send().await.status, 401);
    let again = world.user("ann").await;
    assert_eq!(world.get("/api/v1/auth/profile").bearer(&ann.jwt).send().await.status, 401, "another ann");
    assert_eq!(world.left(&again).await, 9, "ann's conversation of today counts");
    let kept = deleted_users(&world).await;
    let expected = json!({"user_id": "1", "username": "ann", "name": "ann", "email": "ann@example.com",
        "type": "Personal", "subscription_plan": "free", "time_created": "2026-10-01T10:00:00Z",
        "deleted_at": "2026-10-01T10:00:00Z", "deleted_by": "user", "kept_until": "2026-10-31T10:00:00Z"});
    assert_eq!(kept, [expected]);
}

/// What somebody new of this username and e-mail address has left of today.
async fn left_of_a_new(world: &World, username: &str, email: &str) -> i64 {
    let form = json!({"username": username, "name": username, "email": email, "password": PASSWORD,
                      "confirm_password": PASSWORD, "type": "Personal"});
    let registered = world.post("/api/v1/auth/register").json(&form).send().await;
    assert_eq!(registered.status, 201, "{}", registered.text());
    let jwt = world.login(email, PASSWORD).await;
    let shown = world.get("/api/v1/auth/api-key?reveal=true").bearer(&jwt).send().await.json();
    let [username, email] = [username, email].map(str::to_owned);
    let key = shown["api_key"].as_str().unwrap().to_owned();
    let person = Person { username, email, password: PASSWORD.to_owned(), jwt, key };
    let left = world.left(&person).await;
    let served = usize::try_from(left).unwrap();
    for _ in 0..served {
        assert_eq!(world.chat(&person).send().await.status, 200);
    }
    assert_eq!(world.chat(&person).send().await.status, 429);
    leave(world, &person).await;
    left
}

#[tokio::test]
async fn an_account_that_is_made_again_goes_on_with_the_day_it_had() {
    let world = World::start().await;
    assert_eq!(left_of_a_new(&world, "ann", "ann@example.com").await, 10);
    let again = [
        ("ann", "ann@example.com"),
        ("ANN", "Ann@Example.COM"),
        ("ann", "other@example.com"),
        ("other", "ann@example.com"),
        // Names that were used together with ann's are as used up as ann.
        ("third", "other@example.com"),
        ("other", "fourth@example.com"),
    ];
    for (username, email) in again {
        assert_eq!(left_of_a_new(&world, username, email).await, 0, "{username} {email}");
    }
    assert_eq!(left_of_a_new(&world, "bob", "bob@example.com").await, 10, "bob has nothing to do with it");

    // An e-mail address that its owner gave up is used up too.
    let cem = world.user("cem").await;
    for _ in 0..4 {
        assert_eq!(world.chat(&cem).send().await.status, 200);
    }
    let change = json!({"new_email": "cem@example.org", "password": PASSWORD});
    let changed = world.put("/api/v1/auth/email").bearer(&cem.jwt).json(&change).send().await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!(left_of_a_new(&world, "dan", "cem@example.com").await, 6);
    let cem = Person { email: "cem@example.org".to_owned(), ..cem };
    assert_eq!(world.left(&cem).await, 6, "and cem goes on");

    world.clock.advance(Duration::from_hours(24));
    assert_eq!(left_of_a_new(&world, "ann", "ann@example.com").await, 10, "tomorrow is another day");
    let reset = world.post("/api/v1/admin/reset-limits").bearer(&world.admin().await).send().await;
    assert_eq!(reset.status, 200, "{}", reset.text());
    assert_eq!(left_of_a_new(&world, "ann", "ann@example.com").await, 10, "the admin gave everybody a day");
}

#[tokio::test]
async fn a_user_is_deleted_by_the_admin_and_by_advanced_staff() {
    let world = World::start().await;
    let (ann, _) = (world.user("ann").await, world.user("bob").await);
    let (admin, tom) = (world.admin().await, world.staff("tom", "advanced").await);
    for (path, token) in [("/api/v1/admin/users/ann", &admin), ("/api/v1/staff/users/bob", &tom)] {
        let gone = world.delete(path).bearer(token).send().await;
        assert_eq!(gone.json(), json!({"message": "User deleted successfully"}));
        assert_eq!(world.delete(path).bearer(token).send().await.status, 404, "twice");
    }
    assert_eq!(world.chat(&ann).send().await.status, 401);
    let by: Vec<Value> = deleted_users(&world).await.iter().map(|user| user["deleted_by"].clone()).collect();
    assert_eq!(by, ["staff:tom", "admin:admin"]);
    assert_eq!(world.audit().await[0]["action"], "user.delete");
}

#[tokio::test]
async fn who_comes_back_is_who_they_were_with_a_new_key_and_a_new_password() {
    let world = World::start().await;
    let terms = json!({"name": "Ann", "additional_notes": "kind", "level": "advanced", "access_rtype": ["all"],
                       "credits": {"main": 1, "reset": 2}, "limits": {"conversation_limit": 3, "reset": 20}});
    let ann = world.user_with("ann", terms).await;
    let admin = world.admin().await;
    let path = "/api/v1/admin/users/ann";
    let mut before = world.get(path).bearer(&admin).send().await.json();
    assert_eq!(world.delete(path).bearer(&admin).send().await.status, 200);
    let restore = "/api/v1/admin/deleted-users/1/restore";
    let back = world.post(restore).bearer(&admin).send().await.json();
    assert_eq!((&back["username"], &back["user_id"]), (&json!("ann"), &json!("1")));
    before["limits"]["conversation_limit"] = json!(20);
    assert_eq!(world.get(path).bearer(&admin).send().await.json(), before);
    let jwt = world.login(&ann.email, back["password"].as_str().unwrap()).await;
    assert_eq!(world.get("/api/v1/auth/profile").bearer(&jwt).send().await.status, 200);
    assert_eq!(world.get("/api/v1/auth/profile").bearer(&ann.jwt).send().await.status, 401);
    assert_eq!(world.chat(&ann).send().await.status, 401, "the old key stays dead");
    let ann = Person { key: back["new_key"].as_str().unwrap().to_owned(), ..ann };
    assert_eq!(world.chat(&ann).send().await.status, 200);
    assert_eq!(world.post(restore).bearer(&admin).send().await.status, 404, "twice");
    assert!(deleted_users(&world).await.is_empty());
    let trail = serde_json::to_string(&world.audit().await).unwrap();
    assert!(!trail.contains(&ann.key) && !trail.contains(back["password"].as_str().unwrap()), "{trail}");
}

#[tokio::test]
async fn who_comes_back_to_a_taken_name_takes_another() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    leave(&world, &ann).await;
    world.user("ann").await;
    let admin = world.admin().await;
    let restore = async |form: Value| {
        world.post("/api/v1/admin/deleted-users/1/restore").bearer(&admin).json(&form).send().await
    };
    assert_eq!(restore(json!({})).await.status, 409);
    assert_eq!(restore(json!({"username": "ann2"})).await.status, 409, "the address is taken too");
    assert_eq!(restore(json!({"username": "a b"})).await.status, 422);
    let back = restore(json!({"username": "ann2", "email": "ann2@example.com"})).await;
    assert_eq!((back.status, &back.json()["username"]), (200, &json!("ann2")));
    world.login("ann2@example.com", back.json()["password"].as_str().unwrap()).await;
}

#[tokio::test]
async fn who_is_erased_leaves_the_ledger_and_a_proof() {
    let world = World::start().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    for person in [&ann, &ann, &bob] {
        assert_eq!(world.chat(person).send().await.status, 200);
    }
    let admin = world.admin().await;
    let erase = async |id: &str| {
        world.delete(&format!("/api/v1/admin/deleted-users/{id}")).bearer(&admin).send().await
    };
    assert_eq!(erase("1").await.status, 404, "who is not deleted is not erased");
    assert_eq!(world.chat(&ann).send().await.status, 200);
    leave(&world, &ann).await;
    let erased = erase("1").await.json();
    assert_eq!((&erased["message"], &erased["log_rows"]), (&json!("User erased successfully"), &json!(3)));
    let rows = world.rows(&admin).await;
    let (theirs, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row["username"] == "erased");
    assert_eq!((theirs.len(), others.len()), (3, 1));
    for row in theirs {
        assert_eq!((&row["email"], &row["messages"], &row["answer"]), (&json!(""), &json!([]), &Value::Null));
        assert_eq!(
            (&row["client_ip"], &row["verdict"], &row["model"]),
            (&json!(""), &json!("charged"), &json!("gpt-test"))
        );
    }
    assert_eq!(others[0]["username"], "bob");
    assert_eq!(
        (erase("1").await.status, erase("404").await.status, erase("x").await.status),
        (404, 404, 404)
    );
    assert!(deleted_users(&world).await.is_empty());
    let trail = world.audit().await;
    let row = trail.iter().find(|row| row["action"] == "user.erase").unwrap();
    assert_eq!(
        (&row["action"], &row["target"], &row["detail"]),
        (&json!("user.erase"), &erased["proof"], &json!({}))
    );
    assert_eq!(erased["proof"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn whoever_was_kept_long_enough_is_forgotten() {
    let world = World::start().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    assert_eq!(world.chat(&ann).send().await.status, 200);
    leave(&world, &ann).await;
    world.clock.advance(Duration::from_hours(24));
    let bob = Person { jwt: world.login(&bob.email, PASSWORD).await, ..bob };
    leave(&world, &bob).await;
    world.clock.advance(Duration::from_hours(29 * 24 + 23));
    let now = world.clock.now();
    let purge =
        async || world.ask(deleted::purge(world.db(), now.minus(deleted::KEPT_FOR), now)).await.unwrap();
    assert_eq!((purge().await, purge().await), (1, 0));
    let kept: Vec<Value> = deleted_users(&world).await.iter().map(|user| user["username"].clone()).collect();
    assert_eq!(kept, ["bob"]);
    let row = world.audit().await.remove(0);
    assert_eq!((&row["actor_kind"], &row["detail"]), (&json!("system"), &json!({"users": 1})));
    let admin = world.admin().await;
    assert_eq!(world.post("/api/v1/admin/deleted-users/1/restore").bearer(&admin).send().await.status, 404);
    let erased = world.delete("/api/v1/admin/deleted-users/1").bearer(&admin).send().await;
    assert_eq!(
        (erased.status, &erased.json()["log_rows"]),
        (200, &json!(1)),
        "their words can still be erased"
    );
}

#[tokio::test]
async fn a_conversation_that_is_running_ends_well_though_its_user_is_gone() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let mut running = Vec::new();
    for _ in 0..4 {
        running.push(tokio::spawn({
            let call = world.chat(&ann);
            async move { call.send().await.status }
        }));
    }
    leave(&world, &ann).await;
    for conversation in running {
        let status = conversation.await.unwrap();
        assert!([200, 401, 503].contains(&status), "{status}");
    }
    assert_eq!(world.chat(&ann).send().await.status, 401);
}
