//! The audit trail: who failed to log in, who read what was said, and that nothing in it was changed.

use serde_json::json;
use tollgate::store::SlowRead;
use tollgate::store::audit::{self, AuditRow, chain};

use crate::authenticator::Authenticator;
use crate::world::{ADMIN_PASSWORD, PASSWORD, World};

/// The trail in the order of writing, without registrations.
async fn trail(world: &World, action: &str) -> Vec<AuditRow> {
    let mut rows = world.ask(audit::list(&SlowRead::alone(world.db()), 1000, 0)).await.unwrap().rows;
    rows.retain(|row| row.action == action);
    rows.reverse();
    rows
}

#[tokio::test]
async fn failed_logins_of_admins_are_recorded_without_what_was_typed() {
    let world = World::start().await;
    let tries =
        [("admin", "wrong-password-1"), ("hunter2hunter2", ADMIN_PASSWORD), ("Admin", "wrong-password-2")];
    for (username, password) in tries {
        let form = json!({"username": username, "password": password});
        assert_eq!(world.post("/api/v1/admin/login").json(&form).send().await.status, 401);
    }
    let form = json!({"username": "nobody_here", "password": "wrong-password-3"});
    assert_eq!(world.post("/api/v1/staff/login").json(&form).send().await.status, 401);
    world.admin().await;
    let failed = trail(&world, "login.failed").await;
    let told: Vec<_> =
        failed.iter().map(|row| (row.target.as_str(), row.detail["account"].clone())).collect();
    assert_eq!(
        told,
        [("admin", json!(true)), ("", json!(false)), ("admin", json!(true)), ("", json!(false))]
    );
    assert!(failed.iter().all(|row| row.client_ip.as_deref() == Some("127.0.0.1")), "{failed:?}");
    let roles: Vec<_> = failed.iter().map(|row| row.detail["role"].clone()).collect();
    assert_eq!(roles, ["admin", "admin", "admin", "staff"]);
    let everything = format!("{failed:?}");
    for typed in ["hunter2", "wrong-password", ADMIN_PASSWORD] {
        assert!(!everything.contains(typed), "{everything}");
    }
}

#[tokio::test]
async fn a_wrong_second_factor_of_staff_is_recorded_and_that_of_users_is_not() {
    let world = World::start().await;
    let (sue, ann) = (world.staff("sue", "support").await, world.user("ann").await);
    for (role, token) in [("staff", &sue), ("auth", &ann.jwt)] {
        let enrolled = world.post(&format!("/api/v1/{role}/totp/enroll")).bearer(token).send().await.json();
        let phone = Authenticator::scan(enrolled["otpauth_url"].as_str().unwrap());
        let code = json!({"totp_code": phone.shows(world.clock.now().unix_seconds())});
        let confirm = world.post(&format!("/api/v1/{role}/totp/confirm")).bearer(token).json(&code);
        assert_eq!(confirm.send().await.status, 200);
    }
    let missing = json!({"username": "sue", "password": PASSWORD});
    let wrong = json!({"username": "sue", "password": PASSWORD, "totp_code": "000000"});
    for form in [&missing, &wrong] {
        assert_eq!(world.post("/api/v1/staff/login").json(form).send().await.status, 401);
    }
    let of_ann = json!({"email": ann.email, "password": PASSWORD, "recovery_code": "23456-23456"});
    assert_eq!(world.post("/api/v1/auth/login").json(&of_ann).send().await.status, 401);
    let failed = trail(&world, "login.failed").await;
    let told: Vec<_> = failed.iter().map(|row| (row.target.as_str(), &row.detail)).collect();
    assert_eq!(told, [("sue", &json!({"role": "staff", "account": true, "second_factor": "wrong"}))]);
}

#[tokio::test]
async fn an_admin_who_reads_what_was_said_leaves_a_trace() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    world.chat(&ann).send().await;
    let id = world.row().await["id"].as_str().unwrap().to_owned();
    let admin = world.admin().await;
    let path = "/api/v1/admin/message-logs?username=ann&limit=5";
    assert_eq!(world.get(path).bearer(&admin).send().await.status, 200);
    let path = format!("/api/v1/admin/message-logs/{id}");
    assert_eq!(world.get(&path).bearer(&admin).send().await.status, 200);
    let read = trail(&world, "message_log.read").await;
    let [.., listed, one] = read.as_slice() else { panic!("{read:?}") };
    assert_eq!(
        (listed.target.as_str(), listed.actor_name.as_str(), &listed.detail["limit"]),
        ("ann", "admin", &json!(5))
    );
    assert_eq!((one.target.as_str(), &one.detail["id"]), ("ann", &json!(id)));
    assert!(read.iter().any(|row| row.target == "all users"), "{read:?}");
}

#[tokio::test]
async fn every_change_over_the_api_is_a_link_of_one_chain() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    world.change("ann", json!({"additional_notes": "called on Monday"})).await;
    let admin = world.admin().await;
    let changes = (0..20).map(|n| {
        let terms = json!({"hobbies": format!("hobby {n}")});
        world.put("/api/v1/admin/users/ann").bearer(&admin).json(&terms).send()
    });
    for reply in futures_util::future::join_all(changes).await {
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    world.post("/api/v1/auth/regenerate-key").bearer(&ann.jwt).send().await;
    world.post("/api/v1/admin/reset-limits").bearer(&admin).send().await;
    let walked = world.ask(chain::walk(&SlowRead::alone(world.db()), None)).await.unwrap();
    assert_eq!(walked.broken, None);
    assert!(walked.sound >= 24, "{walked:?}");
    assert_eq!(trail(&world, "user.update").await.len(), 21);
}

#[tokio::test]
async fn a_request_id_that_the_client_chose_is_marked_as_theirs_and_one_of_a_trusted_proxy_is_not() {
    let mut world = World::start().await;
    let ann = world.user("ann").await;
    let ours = world.audit().await.remove(0)["request_id"].as_str().unwrap().to_owned();
    let rename = async |world: &World, id: &str| {
        let form = json!({"about_me": "hi"});
        let call = world.put("/api/v1/auth/profile").bearer(&ann.jwt).header("x-request-id", id).json(&form);
        let reply = call.send().await;
        assert_eq!((reply.status, reply.header("x-request-id")), (200, id));
        world.audit().await.remove(0)["request_id"].as_str().unwrap().to_owned()
    };
    assert_eq!(rename(&world, &ours).await, format!("client:{ours}"));
    let log = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    let logged =
        world.post("/api/v1/auth/log-message").bearer(&ann.key).header("x-request-id", "mine").json(&log);
    assert_eq!(logged.send().await.status, 200);
    assert_eq!(world.row().await["request_id"], "client:mine");
    world.restart(|setup| setup.add("[server]\ntrusted_proxies = [\"127.0.0.1\"]")).await;
    assert_eq!(rename(&world, "from-the-proxy").await, "from-the-proxy");
}
