//! An account that somebody else has had in hand: what was made before ends with the next password.

use serde_json::{Value, json};

use crate::post_office::PostOffice;
use crate::world::{PASSWORD, Person, Reply, World};

const NEXT: &str = "another-word-9";

async fn log_in(world: &World, person: &Person, password: &str) -> Reply {
    let form = json!({"email": person.email, "password": password});
    world.post("/api/v1/auth/login").json(&form).send().await
}

fn code(reply: &Reply) -> (u16, String) {
    (reply.status, reply.json()["code"].as_str().unwrap_or_default().to_owned())
}

/// Asks for a reset, reads the letter and chooses the next password.
async fn reset(world: &World, office: &mut PostOffice, person: &Person, more: Value) -> Value {
    let ask = json!({"email": person.email});
    assert_eq!(world.post("/api/v1/auth/password-reset/request").json(&ask).send().await.status, 202);
    let letter = office.letter().await;
    assert!(letter.text.contains("\"revoke_keys\": true"), "{}", letter.text);
    let mut form = json!({"email": person.email, "token": letter.token(), "new_password": NEXT,
                          "confirm_new_password": NEXT});
    form.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let done = world.post("/api/v1/auth/password-reset/confirm").json(&form).send().await;
    assert_eq!(done.status, 200, "{}", done.text());
    done.json()
}

async fn second_key(world: &World, person: &Person) -> Person {
    let made = world.post("/api/v1/auth/keys").bearer(&person.jwt).json(&json!({"name": "ci"})).send().await;
    Person { key: made.json()["api_key"].as_str().unwrap().to_owned(), ..person.clone() }
}

async fn chats(world: &World, holders: [&Person; 2]) -> [u16; 2] {
    [world.chat(holders[0]).send().await.status, world.chat(holders[1]).send().await.status]
}

async fn seen(world: &World, name: &str) -> Value {
    let path = format!("/api/v1/admin/users/{name}");
    world.get(&path).bearer(&world.admin().await).send().await.json()["takeover"].clone()
}

#[tokio::test]
async fn a_reset_offers_to_end_every_key_made_before_it() {
    let mut office = PostOffice::open();
    let world = World::with(|setup| setup.add(&office.config())).await;
    let ann = world.user("ann").await;
    let other = second_key(&world, &ann).await;
    assert_eq!(reset(&world, &mut office, &ann, json!({})).await["keys_revoked"], json!(null));
    assert_eq!(chats(&world, [&ann, &other]).await, [200, 200], "they go on where nobody says otherwise");
    assert_eq!(reset(&world, &mut office, &ann, json!({"revoke_keys": true})).await["keys_revoked"], 2);
    assert_eq!(chats(&world, [&ann, &other]).await, [401, 401]);
    let jwt = world.login(&ann.email, NEXT).await;
    let renewed = world.post("/api/v1/auth/regenerate-key?reveal=true").bearer(&jwt).send().await.json();
    let ann = Person { key: renewed["api_key"].as_str().unwrap().to_owned(), jwt, ..ann };
    let other = second_key(&world, &ann).await;
    let change = json!({"current_password": NEXT, "new_password": PASSWORD, "confirm_new_password": PASSWORD,
                        "revoke_keys": true});
    let changed = world.put("/api/v1/auth/password").bearer(&ann.jwt).json(&change).send().await;
    assert_eq!(
        (changed.status, &changed.json()["keys_revoked"]),
        (200, &json!(2)),
        "so does a change of the password"
    );
    assert_eq!(chats(&world, [&ann, &other]).await, [401, 401]);
    let rows = world.audit().await;
    let noted: Vec<_> = rows.iter().filter(|row| row["detail"]["keys_revoked"] == 2).collect();
    let actions: Vec<_> = noted.iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["user.change_password", "user.reset_password"]);
}

#[tokio::test]
async fn a_mark_of_staff_or_an_admin_ends_sessions_and_keys_and_holds_until_the_password_is_another() {
    let mut office = PostOffice::open();
    let world = World::with(|setup| setup.add(&office.config())).await;
    let (admin, staff) = (world.admin().await, world.staff("sue", "support").await);
    let doors = [("ann", "/api/v1/admin/users/ann", &admin), ("bob", "/api/v1/staff/users/bob", &staff)];
    for (name, path, jwt) in doors {
        let person = world.user(name).await;
        let other = second_key(&world, &person).await;
        let mark = json!({"taken_over": true});
        assert_eq!(world.put(path).bearer(jwt).json(&mark).send().await.status, 200);
        assert_eq!(chats(&world, [&person, &other]).await, [401, 401], "{name}");
        assert_eq!(world.get("/api/v1/auth/profile").bearer(&person.jwt).send().await.status, 401);
        assert_eq!(code(&log_in(&world, &person, PASSWORD).await), (403, "account_taken_over".to_owned()));
        assert_eq!(
            code(&log_in(&world, &person, "password124").await),
            (401, "wrong_credentials".to_owned())
        );
        assert_eq!(seen(&world, name).await, "marked");
        reset(&world, &mut office, &person, json!({})).await;
        assert_eq!(log_in(&world, &person, NEXT).await.status, 200);
        assert_eq!(seen(&world, name).await, Value::Null);
    }
    let eve = world.user("eve").await;
    let both = json!({"taken_over": true, "password": NEXT});
    assert_eq!(world.put("/api/v1/admin/users/eve").bearer(&admin).json(&both).send().await.status, 200);
    assert_eq!((log_in(&world, &eve, NEXT).await.status, world.chat(&eve).send().await.status), (200, 401));
    for mark in [true, false] {
        let form = json!({ "taken_over": mark });
        assert_eq!(world.put("/api/v1/admin/users/eve").bearer(&admin).json(&form).send().await.status, 200);
    }
    assert_eq!(log_in(&world, &eve, NEXT).await.status, 200, "a mark by mistake is cleared");
}

#[tokio::test]
async fn a_refresh_token_that_is_shown_twice_has_the_next_password_end_every_key() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let other = second_key(&world, &ann).await;
    let refresh = json!({"refresh_token": log_in(&world, &ann, PASSWORD).await.json()["refresh_token"]});
    for status in [200, 401] {
        assert_eq!(world.post("/api/v1/auth/refresh").json(&refresh).send().await.status, status);
    }
    assert_eq!(seen(&world, "ann").await, "refresh_token_reused");
    assert_eq!(chats(&world, [&ann, &other]).await, [200, 200], "nothing else ends by that alone");
    let jwt = world.login(&ann.email, PASSWORD).await;
    let change = json!({"current_password": PASSWORD, "new_password": NEXT, "confirm_new_password": NEXT});
    let changed = world.put("/api/v1/auth/password").bearer(&jwt).json(&change).send().await;
    assert_eq!((changed.status, &changed.json()["keys_revoked"]), (200, &json!(2)));
    assert_eq!(chats(&world, [&ann, &other]).await, [401, 401]);
    assert_eq!(seen(&world, "ann").await, Value::Null);
}
