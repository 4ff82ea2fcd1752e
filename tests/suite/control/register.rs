//! Making an account.

use serde_json::{Value, json};

use crate::world::World;

/// The seed's own example.
fn johndoe() -> Value {
    json!({"username": "johndoe", "name": "John Doe", "email": "john@example.com", "password": "password123",
           "confirm_password": "password123", "type": "Personal"})
}

fn with(field: &str, value: impl Into<Value>) -> Value {
    let mut form = johndoe();
    form[field] = value.into();
    form
}

#[tokio::test]
async fn the_seeds_example_registers() {
    let world = World::start().await;
    let reply = world.post("/api/v1/auth/register").json(&johndoe()).send().await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let expected = json!({"message": "User registered successfully", "user_id": "1", "username": "johndoe"});
    assert_eq!(reply.json(), expected);
}

#[tokio::test]
async fn a_name_or_an_address_is_taken_once_in_whatever_case() {
    let world = World::start().await;
    assert_eq!(world.post("/api/v1/auth/register").json(&johndoe()).send().await.status, 201);
    let same_name = json!({"username": "JohnDoe", "email": "other@example.com"});
    let same_address = json!({"username": "other", "email": "John@Example.com"});
    for (change, what) in [(same_name, "username"), (same_address, "e-mail address")] {
        let mut form = johndoe();
        form.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let reply = world.post("/api/v1/auth/register").json(&form).send().await;
        assert_eq!(reply.status, 409, "{}", reply.text());
        assert_eq!(reply.json()["detail"], format!("This {what} is taken already."));
    }
}

#[tokio::test]
async fn every_rule_names_its_field() {
    let world = World::start().await;
    let cases = [
        with("username", "ab"),
        with("username", "x".repeat(31)),
        with("username", "john doe"),
        with("email", "john"),
        with("password", "short1"),
        with("password", "no digits here"),
        with("password", "1".repeat(73)),
        with("confirm_password", "password124"),
        with("type", "Robot"),
        with("name", ""),
        with("about_me", "x".repeat(1001)),
        with("hobbies", "nul\0"),
        with("username", 7),
    ];
    let fields = [
        "username",
        "username",
        "username",
        "email",
        "password",
        "password",
        "password",
        "confirm_password",
        "type",
        "name",
        "about_me",
        "hobbies",
        "username",
    ];
    for (form, field) in cases.iter().zip(fields) {
        let reply = world.post("/api/v1/auth/register").json(form).send().await;
        assert_eq!(reply.status, 422, "{form}");
        let named: Vec<Value> =
            reply.json()["detail"].as_array().unwrap().iter().map(|v| v["loc"].clone()).collect();
        assert!(named.contains(&json!(["body", field])), "{form} {named:?}");
    }
}

#[tokio::test]
async fn all_that_is_missing_is_told_at_once_and_nobody_promotes_themselves() {
    let world = World::start().await;
    let reply =
        world.post("/api/v1/auth/register").json(&json!({"level": "admin", "is_active": true})).send().await;
    assert_eq!(reply.status, 422);
    let told = reply.json();
    let of_kind =
        |kind: &str| told["detail"].as_array().unwrap().iter().filter(|v| v["type"] == kind).count();
    assert_eq!((of_kind("extra_forbidden"), of_kind("missing")), (2, 5), "{told:#}");
}

#[tokio::test]
async fn bodies_that_are_no_forms_are_refused_by_what_they_are() {
    let world = World::start().await;
    let register = || world.post("/api/v1/auth/register");
    let json = |body: String| register().header("content-type", "application/json").body(body);
    assert_eq!(json("{\"username\":".into()).send().await.status, 400);
    assert_eq!(json("[]".into()).send().await.status, 422);
    assert_eq!(register().body("username=john").send().await.status, 415);
    assert_eq!(json(with("about_me", "x".repeat(64 * 1024)).to_string()).send().await.status, 413);
}

#[tokio::test]
async fn a_closed_door_says_so_before_it_reads() {
    let world = World::with(|setup| setup.add("[security]\nallow_registration = false")).await;
    let reply = world.post("/api/v1/auth/register").json(&json!({})).send().await;
    assert_eq!(reply.status, 403);
    assert_eq!(reply.json()["detail"], "Registration is closed on this gateway.");
}
