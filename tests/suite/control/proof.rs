//! An access token alone gives nobody lasting access: proof is asked for once the login is no longer young.

use std::time::Duration;

use serde_json::{Value, json};

use crate::authenticator::Authenticator;
use crate::world::{ADMIN_PASSWORD, PASSWORD, Reply, World};

const LATER: Duration = Duration::from_mins(6);

/// An account that is logged in, at `/api/v1/{role}`, and its password.
struct Account {
    role: &'static str,
    jwt: String,
    password: &'static str,
}

fn told(reply: &Reply) -> (u16, String) {
    (reply.status, reply.json()["code"].as_str().unwrap_or_default().to_owned())
}

fn with(form: &Value, more: &Value) -> Value {
    let mut form = form.clone();
    form.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    form
}

async fn call(world: &World, method: &str, path: &str, jwt: &str, form: &Value) -> Reply {
    world.call(method, path).bearer(jwt).json(form).send().await
}

// === impl Account ===

impl Account {
    async fn each(world: &World) -> [Self; 3] {
        [
            Self { role: "auth", jwt: world.user("ann").await.jwt, password: PASSWORD },
            Self { role: "staff", jwt: world.staff("sue", "support").await, password: PASSWORD },
            Self { role: "admin", jwt: world.admin().await, password: ADMIN_PASSWORD },
        ]
    }

    async fn post(&self, world: &World, what: &str, form: &Value) -> Reply {
        call(world, "POST", &format!("/api/v1/{}/totp/{what}", self.role), &self.jwt, form).await
    }

    /// Enrols and confirms; the phone and the recovery codes.
    async fn enrol(&self, world: &World, proof: &Value) -> (Authenticator, Vec<String>) {
        let enrolled = self.post(world, "enroll", proof).await;
        assert_eq!(enrolled.status, 200, "{}", enrolled.text());
        let phone = Authenticator::scan(enrolled.json()["otpauth_url"].as_str().unwrap());
        let code = json!({"totp_code": phone.shows(world.clock.now().unix_seconds())});
        let confirmed = self.post(world, "confirm", &code).await;
        assert_eq!(confirmed.status, 200, "{}", confirmed.text());
        (phone, serde_json::from_value(confirmed.json()["recovery_codes"].clone()).unwrap())
    }
}

/// Calls of a user that give lasting access, and the form each takes.
fn calls() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("POST", "/api/v1/auth/totp/enroll", json!({})),
        ("POST", "/api/v1/auth/keys", json!({"name": "ci"})),
        ("POST", "/api/v1/auth/keys/1/rotate", json!({})),
        ("PUT", "/api/v1/auth/keys/1", json!({"expires_at": null})),
        ("PUT", "/api/v1/auth/keys/1", json!({"allowed_ips": []})),
        ("PUT", "/api/v1/auth/keys/1", json!({"plan": null})),
    ]
}

#[tokio::test]
async fn with_an_old_login_a_token_alone_enrols_nothing_and_makes_no_key() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let login = json!({"email": ann.email, "password": PASSWORD});
    let login = world.post("/api/v1/auth/login").json(&login).send().await.json();
    world.clock.advance(LATER);
    let refreshed = json!({"refresh_token": login["refresh_token"]});
    let refreshed = world.post("/api/v1/auth/refresh").json(&refreshed).send().await.json();
    let renewed = refreshed["access_token"].as_str().unwrap();
    for (method, path, form) in calls() {
        for jwt in [&ann.jwt, renewed] {
            let refused = call(&world, method, path, jwt, &form).await;
            assert_eq!(told(&refused), (403, "password_required".to_owned()), "{method} {path} {form}");
            let way_out = refused.json()["detail"].as_str().unwrap().to_owned();
            assert!(way_out.contains("`password`") && way_out.contains("log in again"), "{way_out}");
        }
        let wrong =
            call(&world, method, path, &ann.jwt, &with(&form, &json!({"password": "password124"}))).await;
        assert_eq!(told(&wrong), (400, "wrong_password".to_owned()), "{method} {path} {form}");
        world.clock.advance(Duration::from_mins(1));
        let done = call(&world, method, path, &ann.jwt, &with(&form, &json!({"password": PASSWORD}))).await;
        assert!(matches!(done.status, 200 | 201), "{method} {path} {form}: {}", done.text());
    }
    let young = world.login(&ann.email, PASSWORD).await;
    for (method, path, form) in calls().iter().filter(|(method, ..)| *method != "POST") {
        assert_eq!(call(&world, method, path, &young, form).await.status, 200, "{method} {path}");
    }
    let label = call(&world, "PUT", "/api/v1/auth/keys/1", &ann.jwt, &json!({"label": "mine"})).await;
    assert_eq!(label.status, 200, "a label reaches nothing: {}", label.text());
}

#[tokio::test]
async fn guesses_at_the_proof_are_failed_logins() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    world.clock.advance(LATER);
    let form = json!({"name": "ci", "password": "password124"});
    for _ in 0..5 {
        assert_eq!(call(&world, "POST", "/api/v1/auth/keys", &ann.jwt, &form).await.status, 400);
    }
    let form = json!({"email": ann.email, "password": PASSWORD});
    assert_eq!(world.post("/api/v1/auth/login").json(&form).send().await.status, 429);
}

#[tokio::test]
async fn the_calls_of_older_clients_ask_only_where_there_is_a_second_factor() {
    let world = World::start().await;
    let bob = world.user("bob").await;
    world.clock.advance(LATER);
    assert_eq!(world.post("/api/v1/auth/regenerate-key").bearer(&bob.jwt).send().await.status, 200);
    assert_eq!(world.delete("/api/v1/auth/account").bearer(&bob.jwt).send().await.status, 200);

    let ann = world.user("ann").await;
    let account = Account { role: "auth", jwt: ann.jwt.clone(), password: PASSWORD };
    let (_, codes) = account.enrol(&world, &json!({})).await;
    assert_eq!(
        world.post("/api/v1/auth/regenerate-key").bearer(&ann.jwt).send().await.status,
        200,
        "a young login"
    );
    world.clock.advance(LATER);
    let guarded = [
        ("POST", "/api/v1/auth/regenerate-key", json!({}), "password"),
        ("POST", "/api/v1/auth/keys", json!({"name": "ci"}), "password"),
        ("POST", "/api/v1/auth/totp/recovery-codes", json!({}), "password"),
        ("PUT", "/api/v1/auth/email", json!({"new_email": "ann@example.org"}), "password"),
        (
            "PUT",
            "/api/v1/auth/password",
            json!({"new_password": PASSWORD, "confirm_new_password": PASSWORD}),
            "current_password",
        ),
        ("DELETE", "/api/v1/auth/account", json!({}), "password"),
    ];
    let mut codes = codes.into_iter();
    for (method, path, form, field) in &guarded {
        let bare = call(&world, method, path, &ann.jwt, form).await;
        if form.as_object().unwrap().contains_key("new_email") || *field == "current_password" {
            assert_eq!(bare.status, 422, "{path}: {}", bare.text());
        } else {
            assert_eq!(told(&bare), (403, "password_required".to_owned()), "{path}");
            assert!(bare.text().contains("`totp_code`"), "{path}: {}", bare.text());
        }
        let form = with(form, &json!({ *field: PASSWORD }));
        let half = call(&world, method, path, &ann.jwt, &form).await;
        assert_eq!(told(&half), (401, "totp_required".to_owned()), "{path}");
        let wrong = call(&world, method, path, &ann.jwt, &with(&form, &json!({"totp_code": "000000"}))).await;
        assert_eq!(told(&wrong), (401, "wrong_second_factor".to_owned()), "{path}");
        world.clock.advance(Duration::from_mins(1));
        if path.ends_with("email") {
            // A second change that keeps the session would end it.
            continue;
        }
        let whole = with(&form, &json!({"recovery_code": codes.next().unwrap()}));
        let done = call(&world, method, path, &ann.jwt, &whole).await;
        assert!(matches!(done.status, 200 | 201), "{method} {path}: {}", done.text());
        if path.ends_with("recovery-codes") {
            codes = serde_json::from_value::<Vec<String>>(done.json()["recovery_codes"].clone())
                .unwrap()
                .into_iter();
        }
    }
}

#[tokio::test]
async fn every_role_enrols_by_its_password_and_lets_go_by_password_and_code() {
    let world = World::start().await;
    let accounts = Account::each(&world).await;
    world.clock.advance(LATER);
    for account in &accounts {
        let refused = account.post(&world, "enroll", &json!({})).await;
        assert_eq!(told(&refused), (403, "password_required".to_owned()), "{}", account.role);
        let none = account.post(&world, "recovery-codes", &json!({})).await;
        assert_eq!(told(&none), (409, "totp_not_enrolled".to_owned()), "{}", account.role);
        let password = json!({"password": account.password});
        let (phone, old) = account.enrol(&world, &password).await;
        world.clock.advance(Duration::from_secs(90));
        let code = json!({"totp_code": phone.shows(world.clock.now().unix_seconds())});
        let renewed = account.post(&world, "recovery-codes", &with(&password, &code)).await;
        assert_eq!(renewed.status, 200, "{}", renewed.text());
        let new: Vec<String> = serde_json::from_value(renewed.json()["recovery_codes"].clone()).unwrap();
        assert_eq!(new.len(), 10);
        assert_eq!(
            told(&account.post(&world, "disable", &password).await),
            (401, "totp_required".to_owned())
        );
        let spent = with(&password, &json!({"recovery_code": old[0]}));
        assert_eq!(
            told(&account.post(&world, "disable", &spent).await),
            (401, "wrong_second_factor".to_owned())
        );
        let good = with(&password, &json!({"recovery_code": new[0]}));
        assert_eq!(account.post(&world, "disable", &good).await.status, 200, "{}", account.role);
    }
    let noted: Vec<Value> =
        world.audit().await.into_iter().filter(|row| row["action"] == "totp.recovery_codes").collect();
    assert_eq!(noted.len(), 3, "{noted:#?}");
}

#[tokio::test]
async fn an_admin_makes_admins_right_after_a_login_only() {
    let world = World::start().await;
    let admin = world.admin().await;
    let form = json!({"username": "olga", "password": PASSWORD});
    let hire = json!({"name": "Sue", "username": "sue", "email": "sue@staff.example", "password": PASSWORD,
                      "staff_level": "support"});
    world.user("ann").await;
    world.clock.advance(LATER);
    let too_old = (403, "login_too_old".to_owned());
    assert_eq!(told(&call(&world, "POST", "/api/v1/admin/admins", &admin, &form).await), too_old);
    let password = json!({"password": "another-word-9"});
    assert_eq!(told(&call(&world, "PUT", "/api/v1/admin/admins/admin", &admin, &password).await), too_old);
    assert_eq!(call(&world, "POST", "/api/v1/admin/staff", &admin, &hire).await.status, 201, "as it was");
    let renew = "/api/v1/admin/users/ann/regenerate-key";
    assert_eq!(call(&world, "POST", renew, &admin, &json!({})).await.status, 200, "as it was");

    let young = Account { role: "admin", jwt: world.admin().await, password: ADMIN_PASSWORD };
    assert_eq!(call(&world, "POST", "/api/v1/admin/admins", &young.jwt, &form).await.status, 201);
    young.enrol(&world, &json!({})).await;
    world.clock.advance(LATER);
    let level = json!({"staff_level": "advanced"});
    for (method, path, form) in [
        ("POST", "/api/v1/admin/staff", &hire),
        ("PUT", "/api/v1/admin/staff/sue", &level),
        ("POST", renew, &json!({})),
    ] {
        assert_eq!(told(&call(&world, method, path, &young.jwt, form).await), too_old, "{path}");
    }
}

#[tokio::test]
async fn an_admin_removes_a_lost_second_factor_of_anyone() {
    let world = World::start().await;
    let accounts = Account::each(&world).await;
    for account in &accounts {
        account.enrol(&world, &json!({})).await;
    }
    let other = json!({"username": "olga", "password": PASSWORD, "role": "admin"});
    let admin = &accounts[2].jwt;
    assert_eq!(call(&world, "POST", "/api/v1/admin/admins", admin, &other).await.status, 201);
    let login = json!({"username": "olga", "password": PASSWORD});
    let olga = world.post("/api/v1/admin/login").json(&login).send().await.json()["access_token"].clone();
    let olga = olga.as_str().unwrap();
    let reset = async |what: &str, jwt: &str| {
        world.post(&format!("/api/v1/admin/{what}/reset-totp")).bearer(jwt).send().await
    };
    for (account, what) in accounts.iter().zip(["users/ann", "staff/sue", "admins/admin"]) {
        assert_eq!(reset(what, &accounts[0].jwt).await.status, 401, "{what}");
        let done = reset(what, olga).await;
        assert_eq!(done.status, 200, "{what}: {}", done.text());
        let gone = account.post(&world, "recovery-codes", &json!({})).await;
        assert_eq!(gone.status, 401, "the sessions are over: {}", gone.text());
        assert_eq!(told(&reset(what, olga).await), (404, "not_found".to_owned()));
        let login = match account.role {
            "auth" => json!({"email": "ann@example.com", "password": PASSWORD}),
            "staff" => json!({"username": "sue", "password": PASSWORD}),
            _ => json!({"username": "admin", "password": ADMIN_PASSWORD}),
        };
        let login = world.post(&format!("/api/v1/{}/login", account.role)).json(&login).send().await;
        assert_eq!(login.status, 200, "by the password alone: {}", login.text());
    }
    world.clock.advance(LATER);
    assert_eq!(told(&reset("users/ann", olga).await), (403, "login_too_old".to_owned()));
    let noted: Vec<Value> =
        world.audit().await.into_iter().filter(|row| row["action"] == "totp.reset").collect();
    let who: Vec<_> = noted.iter().map(|row| (row["actor_name"].as_str(), row["target"].as_str())).collect();
    let olga = Some("olga");
    assert_eq!(who, [(olga, Some("admin")), (olga, Some("sue")), (olga, Some("ann"))]);
}
