//! Users with keys, made over the API as everybody is.

use futures_util::StreamExt;
use serde_json::json;

use super::books::Terms;
use super::gate::Gate;

/// Somebody with a key.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) number: u32,
    pub(crate) username: String,
    pub(crate) key: String,
    pub(crate) terms: Terms,
}

/// Registrations at a time.
const AT_A_TIME: usize = 16;

/// Registers one user for each limit, numbered from `first`; their day has that many conversations.
pub(crate) async fn register(gate: &Gate, first: u32, limits: &[i64]) -> Vec<Person> {
    let admin = gate.admin().await;
    let admin = &admin;
    let made = limits.iter().enumerate().map(async |(at, limit)| {
        let number = first + u32::try_from(at).unwrap();
        let person = one(gate, number, *limit).await;
        let terms = json!({"limits": {"conversation_limit": limit, "reset": limit}});
        let path = format!("/api/v1/admin/users/{}", person.username);
        let (status, answer) = gate.put(&path, admin, &terms).await;
        assert_eq!(status, 200, "{answer}");
        person
    });
    futures_util::stream::iter(made).buffered(AT_A_TIME).collect().await
}

async fn one(gate: &Gate, number: u32, limit: i64) -> Person {
    let username = format!("user{number:05}");
    let (email, password) = (format!("{username}@example.com"), "password123");
    let form = json!({"username": username, "name": username, "email": email, "password": password,
                      "confirm_password": password, "type": "Personal"});
    let (status, answer) = gate.post("/api/v1/auth/register", None, &form).await;
    assert_eq!(status, 201, "{answer}");
    let login = json!({"email": email, "password": password});
    let (_, answer) = gate.post("/api/v1/auth/login", None, &login).await;
    let jwt = answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}"));
    let (_, shown) = gate.get("/api/v1/auth/api-key?reveal=true", jwt).await;
    let key = shown["api_key"].as_str().unwrap_or_else(|| panic!("{shown}")).to_owned();
    Person { number, username, key, terms: Terms::of(limit) }
}
