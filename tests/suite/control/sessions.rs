//! Sessions and second factors, listed and ended: by their owner and by an admin.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::authenticator::Authenticator;
use crate::upstream::PATIENCE;
use crate::world::{ADMIN_PASSWORD, PASSWORD, World};

/// Logs in at `/api/v1/{role}` with a client of this name; both tokens.
async fn log_in(world: &World, role: &str, client: &str) -> (String, String) {
    let form = match role {
        "auth" => json!({"email": "ann@example.com", "password": PASSWORD}),
        "staff" => json!({"username": "sue", "password": PASSWORD}),
        _ => json!({"username": "admin", "password": ADMIN_PASSWORD}),
    };
    let call = world.post(&format!("/api/v1/{role}/login")).header("user-agent", client);
    let reply = call.header("x-forwarded-for", "203.0.113.9").json(&form).send().await;
    let half =
        |name: &str| reply.json()[name].as_str().unwrap_or_else(|| panic!("{}", reply.text())).to_owned();
    (half("access_token"), half("refresh_token"))
}

async fn list(world: &World, path: &str, jwt: &str) -> Vec<Value> {
    let reply = world.get(path).bearer(jwt).send().await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply.json().as_array().unwrap().clone()
}

fn of_client<'s>(sessions: &'s [Value], client: &str) -> &'s Value {
    sessions
        .iter()
        .find(|one| one["user_agent"] == client)
        .unwrap_or_else(|| panic!("{client}: {sessions:#?}"))
}

async fn world() -> World {
    let world = World::with(|setup| setup.add("[server]\ntrusted_proxies = [\"127.0.0.1\"]")).await;
    world.user("ann").await;
    world.staff("sue", "support").await;
    world
}

const ROLES: [(&str, &str); 3] = [("auth", "users/ann"), ("staff", "staff/sue"), ("admin", "admins/admin")];

#[tokio::test]
async fn each_role_sees_its_sessions_and_ends_each() {
    let world = world().await;
    for (role, _) in ROLES {
        let path = format!("/api/v1/{role}/sessions");
        let (mine, _) = log_in(&world, role, "a phone").await;
        let (other, refresh) = log_in(&world, role, &"x".repeat(300)).await;
        let sessions = list(&world, &path, &mine).await;
        let current: Vec<_> = sessions.iter().filter(|one| one["current"] == true).collect();
        let [current] = current.as_slice() else { panic!("{sessions:#?}") };
        let told = |name: &str| current[name].as_str().unwrap();
        assert_eq!(
            (told("user_agent"), told("client_ip"), told("last_ip")),
            ("a phone", "203.0.113.9", "203.0.113.9")
        );
        assert_eq!(
            (told("began_at"), told("last_used_at")),
            ("2026-10-01T10:00:00Z", "2026-10-01T10:00:00Z")
        );
        let id = of_client(&sessions, &"x".repeat(200))["id"].as_str().unwrap().to_owned();
        let end = async |id: &str| world.delete(&format!("{path}/{id}")).bearer(&mine).send().await.status;
        assert_eq!((end(&id).await, end(&id).await, end("17").await), (200, 404, 404));
        assert_eq!(world.get(&path).bearer(&other).send().await.status, 401);
        let refresh = json!({ "refresh_token": refresh });
        assert_eq!(world.post(&format!("/api/v1/{role}/refresh")).json(&refresh).send().await.status, 401);
        assert_eq!(list(&world, &path, &mine).await.len(), sessions.len() - 1);
        let before = world.get(&path).bearer(&mine).send().await.status;
        let out = world.post(&format!("/api/v1/{role}/logout-all")).bearer(&mine).send().await.status;
        assert_eq!((before, out), (200, 200));
        let (again, _) = log_in(&world, role, "a phone").await;
        assert_eq!(list(&world, &path, &again).await.len(), 1);
    }
}

#[tokio::test]
async fn when_a_session_was_last_used_is_noted_once_a_minute_and_a_renewal_is_a_use() {
    let world = world().await;
    let (jwt, refresh) = log_in(&world, "auth", "a phone").await;
    world.clock.advance(Duration::from_secs(90));
    let asked = Instant::now();
    loop {
        let call = world.get("/api/v1/auth/sessions").bearer(&jwt).header("x-forwarded-for", "198.51.100.7");
        let sessions = call.send().await.json();
        let one = of_client(sessions.as_array().unwrap(), "a phone").clone();
        if one["last_used_at"] == "2026-10-01T10:01:30Z" {
            assert_eq!((&one["last_ip"], &one["client_ip"]), (&json!("198.51.100.7"), &json!("203.0.113.9")));
            break;
        }
        assert!(asked.elapsed() < PATIENCE, "{one}");
    }
    world.clock.advance(Duration::from_secs(30));
    let form = json!({ "refresh_token": refresh });
    let renewed = world.post("/api/v1/auth/refresh").json(&form).send().await.json();
    let sessions = list(&world, "/api/v1/auth/sessions", renewed["access_token"].as_str().unwrap()).await;
    assert_eq!(of_client(&sessions, "a phone")["last_used_at"], "2026-10-01T10:02:00Z");
}

#[tokio::test]
async fn an_admin_sees_and_ends_everyones_an_auditor_only_sees() {
    let world = world().await;
    let (admin, auditor) = (world.admin().await, world.auditor().await);
    for (role, account) in ROLES {
        let path = format!("/api/v1/admin/{account}/sessions");
        let (jwt, _) = log_in(&world, role, "a phone").await;
        let (kept, _) = log_in(&world, role, "a desk").await;
        let own = format!("/api/v1/{role}/sessions");
        let id =
            of_client(&list(&world, &path, &auditor).await, "a phone")["id"].as_str().unwrap().to_owned();
        let one = format!("{path}/{id}");
        for refused in [world.delete(&one), world.delete(&path)] {
            assert_eq!(refused.bearer(&auditor).send().await.status, 403);
        }
        assert_eq!(world.delete(&one).bearer(&admin).send().await.status, 200);
        assert_eq!(world.get(&own).bearer(&jwt).send().await.status, 401);
        assert_eq!(world.get(&own).bearer(&kept).send().await.status, 200);
        assert_eq!(world.delete(&one).bearer(&admin).send().await.status, 404);
        assert_eq!(world.delete(&path).bearer(&admin).send().await.status, 200);
        assert_eq!(world.get(&own).bearer(&kept).send().await.status, 401);
    }
    let nobody = world.get("/api/v1/admin/users/nobody/sessions").bearer(&auditor).send().await;
    assert_eq!(nobody.status, 404);
    let ended = |action: &str, rows: &[Value]| {
        let of = rows.iter().filter(|row| row["action"] == action && row["actor_name"] == "admin");
        of.map(|row| (row["target"].clone(), row["detail"]["role"].clone())).collect::<Vec<_>>()
    };
    let rows = world.audit().await;
    let all =
        [("admin", "admin"), ("sue", "staff"), ("ann", "user")].map(|(who, role)| (json!(who), json!(role)));
    assert_eq!(ended("session.end", &rows), all);
    assert_eq!(ended("session.end_all", &rows), all);
}

#[tokio::test]
async fn second_factors_are_listed_without_their_secrets() {
    let world = world().await;
    let auditor = world.auditor().await;
    for (role, account) in ROLES {
        let (jwt, _) = log_in(&world, role, "a phone").await;
        let (own, theirs) =
            (format!("/api/v1/{role}/second-factors"), format!("/api/v1/admin/{account}/second-factors"));
        assert_eq!((list(&world, &own, &jwt).await, list(&world, &theirs, &auditor).await), (vec![], vec![]));
        let enrolled = world.post(&format!("/api/v1/{role}/totp/enroll")).bearer(&jwt).send().await.json();
        let at = "2026-10-01T10:00:00Z";
        let begun =
            json!([{"kind": "totp", "enrolled_at": at, "confirmed_at": null, "recovery_codes_left": 0}]);
        assert_eq!(json!(list(&world, &own, &jwt).await), begun);
        let phone = Authenticator::scan(enrolled["otpauth_url"].as_str().unwrap());
        let code = json!({"totp_code": phone.shows(world.clock.now().unix_seconds())});
        let confirm =
            world.post(&format!("/api/v1/{role}/totp/confirm")).bearer(&jwt).json(&code).send().await;
        assert_eq!(confirm.status, 200, "{}", confirm.text());
        let asked_for =
            json!([{"kind": "totp", "enrolled_at": at, "confirmed_at": at, "recovery_codes_left": 10}]);
        assert_eq!(json!(list(&world, &own, &jwt).await), asked_for);
        assert_eq!(json!(list(&world, &theirs, &auditor).await), asked_for);
    }
}
