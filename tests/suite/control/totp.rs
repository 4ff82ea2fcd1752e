//! A second factor: enrolled, asked for, used once, guessed at, and wanted by the operator.

use std::time::Duration;

use serde_json::{Value, json};

use crate::authenticator::Authenticator;
use crate::world::{ADMIN_PASSWORD, PASSWORD, Person, Reply, World};

/// Somebody with a phone.
struct Guarded {
    phone: Authenticator,
    recovery: Vec<String>,
}

/// Enrols whoever holds `token`, at `/api/v1/{role}`.
async fn enrol(world: &World, role: &str, token: &str) -> Guarded {
    let enrolled = world.post(&format!("/api/v1/{role}/totp/enroll")).bearer(token).send().await;
    assert_eq!(enrolled.status, 200, "{}", enrolled.text());
    let phone = Authenticator::scan(enrolled.json()["otpauth_url"].as_str().unwrap());
    let code = json!({"totp_code": phone.shows(world.clock.now().unix_seconds())});
    let confirmed =
        world.post(&format!("/api/v1/{role}/totp/confirm")).bearer(token).json(&code).send().await;
    assert_eq!(confirmed.status, 200, "{}", confirmed.text());
    let codes = confirmed.json()["recovery_codes"].clone();
    Guarded { phone, recovery: serde_json::from_value(codes).unwrap() }
}

async fn log_in(world: &World, person: &Person, more: Value) -> Reply {
    let mut form = json!({"email": person.email, "password": person.password});
    form.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.post("/api/v1/auth/login").json(&form).send().await
}

fn told(reply: &Reply) -> (u16, String) {
    (reply.status, reply.json()["code"].as_str().unwrap_or_default().to_owned())
}

fn required() -> (u16, String) {
    (401, "totp_required".to_owned())
}

fn wrong() -> (u16, String) {
    (401, "wrong_second_factor".to_owned())
}

#[tokio::test]
async fn a_second_factor_is_asked_for_once_a_code_was_shown_and_not_before() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let enrolled = world.post("/api/v1/auth/totp/enroll").bearer(&ann.jwt).send().await.json();
    assert_eq!(log_in(&world, &ann, json!({})).await.status, 200, "only begun");
    let bad = json!({"totp_code": "000000"});
    let confirm =
        async |code: &Value| world.post("/api/v1/auth/totp/confirm").bearer(&ann.jwt).json(code).send().await;
    assert_eq!(told(&confirm(&bad).await), wrong());
    let ann_s = enrol(&world, "auth", &ann.jwt).await;
    let old = Authenticator::scan(enrolled["otpauth_url"].as_str().unwrap());
    assert_ne!(old.shows(0), ann_s.phone.shows(0), "each enrolment has its own secret");

    assert_eq!(told(&log_in(&world, &ann, json!({})).await), required());
    world.clock.advance(Duration::from_secs(30));
    let code = json!({"totp_code": ann_s.phone.shows(world.clock.now().unix_seconds())});
    let reply = log_in(&world, &ann, code).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.json()["refresh_token"].is_string());
    let again = world.post("/api/v1/auth/totp/enroll").bearer(&ann.jwt).send().await;
    assert_eq!(told(&again), (409, "totp_enabled".to_owned()));
}

#[tokio::test]
async fn a_code_is_good_once_and_none_before_it_is_good_any_more() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let ann_s = enrol(&world, "auth", &ann.jwt).await;
    let now = || world.clock.now().unix_seconds();
    let with = async |at: i64| log_in(&world, &ann, json!({"totp_code": ann_s.phone.shows(at)})).await;
    assert_eq!(told(&with(now()).await), wrong(), "the code that confirmed is used");
    world.clock.advance(Duration::from_secs(90));
    assert_eq!(with(now()).await.status, 200);
    assert_eq!(told(&with(now()).await), wrong(), "used");
    assert_eq!(told(&with(now() - 30).await), wrong(), "earlier than one that was used");
    assert_eq!(with(now() + 30).await.status, 200, "a phone half a minute ahead");
    world.clock.advance(Duration::from_mins(5));
    assert_eq!(with(now() - 30).await.status, 200, "and one behind");
    assert_eq!(told(&with(now() - 60).await), wrong(), "two steps are too many");
}

#[tokio::test]
async fn ten_recovery_codes_open_once_each() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let ann_s = enrol(&world, "auth", &ann.jwt).await;
    let mut codes = ann_s.recovery.clone();
    codes.sort();
    codes.dedup();
    assert_eq!(codes.len(), 10);
    let bob = world.user("bob").await;
    enrol(&world, "auth", &bob.jwt).await;
    assert_eq!(told(&log_in(&world, &bob, json!({"recovery_code": codes[0]})).await), wrong(), "ann's");
    for code in &codes {
        assert_eq!(log_in(&world, &ann, json!({"recovery_code": format!(" {code} ")})).await.status, 200);
        assert_eq!(told(&log_in(&world, &ann, json!({"recovery_code": code})).await), wrong());
        world.clock.advance(Duration::from_mins(1));
    }
}

#[tokio::test]
async fn whoever_guesses_waits_and_learns_nothing_without_the_password() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let ann_s = enrol(&world, "auth", &ann.jwt).await;
    let code = ann_s.phone.shows(world.clock.now().unix_seconds() + 30);
    let mut stranger = ann.clone();
    stranger.password = "password124".to_owned();
    let without = log_in(&world, &stranger, json!({})).await;
    let with = log_in(&world, &stranger, json!({"totp_code": code})).await;
    assert_eq!(told(&without), (401, "wrong_credentials".to_owned()));
    assert_eq!(told(&with), told(&without));
    for _ in 0..5 {
        assert_eq!(told(&log_in(&world, &ann, json!({"totp_code": "123456"})).await), wrong());
    }
    let right = log_in(&world, &ann, json!({"totp_code": code})).await;
    assert_eq!((right.status, right.header("retry-after")), (429, "60"));
    world.clock.advance(Duration::from_mins(1));
    let code = ann_s.phone.shows(world.clock.now().unix_seconds());
    assert_eq!(log_in(&world, &ann, json!({"totp_code": code})).await.status, 200);
}

#[tokio::test]
async fn sessions_that_began_with_less_end_and_the_password_disables_it() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let other = world.login(&ann.email, PASSWORD).await;
    enrol(&world, "auth", &ann.jwt).await;
    let opens = async |jwt: &str| world.get("/api/v1/auth/profile").bearer(jwt).send().await.status;
    assert_eq!((opens(&ann.jwt).await, opens(&other).await), (200, 401));
    let disable = async |password: &str| {
        let form = json!({"password": password});
        world.post("/api/v1/auth/totp/disable").bearer(&ann.jwt).json(&form).send().await
    };
    assert_eq!(told(&disable("password124").await), (401, "wrong_credentials".to_owned()));
    assert_eq!(told(&log_in(&world, &ann, json!({})).await), required());
    assert_eq!(disable(PASSWORD).await.status, 200);
    assert_eq!(log_in(&world, &ann, json!({})).await.status, 200);
    let confirm = json!({"totp_code": "123456"});
    let confirmed = world.post("/api/v1/auth/totp/confirm").bearer(&ann.jwt).json(&confirm).send().await;
    assert_eq!(told(&confirmed), (409, "totp_not_enrolled".to_owned()));
}

#[tokio::test]
async fn an_admin_who_must_have_one_can_do_nothing_else_until_then() {
    let world = World::with(|setup| setup.add("[security]\nrequire_totp = [\"staff\", \"admin\"]")).await;
    let admin = world.admin().await;
    let users = async |token: &str| world.get("/api/v1/admin/users").bearer(token).send().await;
    assert_eq!(told(&users(&admin).await), (403, "totp_enrolment_required".to_owned()));
    let admin_s = enrol(&world, "admin", &admin).await;
    assert_eq!(users(&admin).await.status, 200);
    let form = json!({"username": "admin", "password": ADMIN_PASSWORD});
    assert_eq!(told(&world.post("/api/v1/admin/login").json(&form).send().await), required());
    let mut form = form;
    form["totp_code"] = json!(admin_s.phone.shows(world.clock.now().unix_seconds() + 30));
    assert_eq!(world.post("/api/v1/admin/login").json(&form).send().await.status, 200);
    let ann = world.user("ann").await;
    assert_eq!(world.get("/api/v1/auth/profile").bearer(&ann.jwt).send().await.status, 200, "users are free");
    let disabled = json!({"password": ADMIN_PASSWORD});
    let off = world.post("/api/v1/admin/totp/disable").bearer(&admin).json(&disabled).send().await;
    assert_eq!((off.status, users(&admin).await.status), (200, 403));
}

#[tokio::test]
async fn staff_who_must_have_one_are_asked_for_it_and_told_their_level() {
    let world = World::with(|setup| setup.add("[security]\nrequire_totp = [\"staff\"]")).await;
    let token = world.staff("sue", "support").await;
    let users = async |token: &str| world.get("/api/v1/staff/users").bearer(token).send().await;
    assert_eq!(told(&users(&token).await), (403, "totp_enrolment_required".to_owned()));
    let sue_s = enrol(&world, "staff", &token).await;
    assert_eq!(users(&token).await.status, 200);
    let mut form = json!({"username": "sue", "password": PASSWORD});
    let login = async |form: &Value| world.post("/api/v1/staff/login").json(form).send().await;
    assert_eq!(told(&login(&form).await), required());
    form["recovery_code"] = json!(sue_s.recovery[0]);
    let reply = login(&form).await;
    assert_eq!((reply.status, reply.json()["staff_level"].clone()), (200, json!("support")));
    let refreshed = json!({"refresh_token": reply.json()["refresh_token"]});
    let refreshed = world.post("/api/v1/staff/refresh").json(&refreshed).send().await.json();
    let access = refreshed["access_token"].as_str().unwrap().to_owned();
    assert_eq!(users(&access).await.status, 200);
    assert_eq!(world.post("/api/v1/staff/logout-all").bearer(&access).send().await.status, 200);
    assert_eq!((users(&access).await.status, users(&token).await.status), (401, 401));
}
