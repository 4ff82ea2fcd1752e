//! What the operator's own systems are told. Signatures are checked by Python's own `hmac`.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::upstream::{Answer, PATIENCE, Recorded, Upstream};
use crate::world::{Setup, World};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Prints `ok` when body, id, timestamp and signature belong together.
const VERIFY: &str = r#"
import base64, hashlib, hmac, sys
secret, id, at, body, given = sys.argv[1:]
key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
made = base64.b64encode(hmac.new(key, f"{id}.{at}.{body}".encode(), hashlib.sha256).digest()).decode()
print("ok" if hmac.compare_digest("v1," + made, given) else "bad")
"#;

fn hooked(receiver: &Upstream, more: &'static str) -> impl FnOnce(&mut Setup) {
    let url = receiver.url();
    move |setup| {
        setup.add(&format!(
            "[webhooks]\nurl = \"{url}/hook?of=tollgate\"\nsecret = \"{SECRET}\"\nallow_private_addresses = true\n{more}"
        ));
    }
}

fn is_signed(told: &Recorded, secret: &str) -> bool {
    let header = |name: &str| told.header(name).unwrap();
    let body = String::from_utf8(told.body.to_vec()).unwrap();
    let args =
        [secret, &header("webhook-id"), &header("webhook-timestamp"), &body, &header("webhook-signature")];
    let said = Command::new("python3").arg("-c").arg(VERIFY).args(args).output().unwrap();
    String::from_utf8_lossy(&said.stdout).trim() == "ok"
}

fn named<'t>(told: &'t [Recorded], event: &str) -> Vec<&'t Recorded> {
    told.iter().filter(|one| one.json()["type"] == event).collect()
}

#[tokio::test]
async fn each_event_is_told_signed_and_once() {
    let receiver = Upstream::start();
    let world = World::with(hooked(&receiver, "")).await;
    let ann = world.user_with("ann", json!({"limits": {"conversation_limit": 1}})).await;
    assert_eq!(world.chat(&ann).send().await.status, 200);
    let form = json!({"model": "m", "messages": [{"role": "user", "content": "Hü"}]});
    world.post("/api/v1/auth/log-message").bearer(&ann.key).json(&form).send().await;
    world.post("/api/v1/auth/regenerate-key").bearer(&ann.jwt).send().await;
    receiver.arrived(5).await;
    let told = receiver.requests();
    for one in &told {
        assert_eq!((one.method.as_str(), one.target.as_str()), ("POST", "/hook?of=tollgate"));
        assert_eq!(one.header("content-type").as_deref(), Some("application/json"));
        assert_eq!(one.header("webhook-timestamp").as_deref(), Some("1790848800"));
        assert!(is_signed(one, SECRET) && !is_signed(one, "another"), "{one:?}");
        assert!(!one.everything().contains(&ann.key) && !one.everything().contains("gAAAA"));
    }
    let data = |event: &str| -> Vec<Value> {
        named(&told, event).iter().map(|one| one.json()["data"].clone()).collect()
    };
    let created = json!({"user_id": "1", "username": "ann", "email": "ann@example.com",
                         "subscription_plan": "free", "level": "basic"});
    assert_eq!(data("user_created"), [created]);
    let regenerated =
        json!({"user_id": "1", "username": "ann", "email": "ann@example.com", "key": "default"});
    assert_eq!(data("key_regenerated"), [regenerated]);
    let reached = json!({"user_id": "1", "username": "ann", "email": "ann@example.com", "limit": 1,
                         "day": "2026-10-01"});
    assert_eq!(data("quota_reached"), [reached]);
    let logged = data("message_logged");
    assert_eq!(logged.len(), 2);
    let by_model = |model: &str| logged.iter().find(|one| one["model"] == model).unwrap();
    assert_eq!(by_model("m")["messages"], form["messages"]);
    let chat = by_model("gpt-test");
    assert_eq!((&chat["username"], &chat["verdict"]), (&json!("ann"), &json!("charged")));
    assert_eq!(chat["messages"], json!([{"role": "user", "content": "Hi"}]));
    let ids: std::collections::HashSet<_> = told.iter().map(|one| one.header("webhook-id")).collect();
    assert_eq!(ids.len(), 5);
}

#[tokio::test]
async fn what_is_not_wanted_is_not_told() {
    let receiver = Upstream::start();
    let world = World::with(hooked(&receiver, "events = [\"key_regenerated\"]")).await;
    let ann = world.user("ann").await;
    assert_eq!(world.chat(&ann).send().await.status, 200);
    world.rows_when(1).await;
    world.post("/api/v1/auth/regenerate-key").bearer(&ann.jwt).send().await;
    receiver.arrived(1).await;
    assert_eq!(receiver.last().json()["type"], "key_regenerated");
    assert_eq!(receiver.hits(), 1);
}

#[tokio::test]
async fn a_receiver_that_fails_is_told_again_under_the_same_id() {
    let receiver = Upstream::start();
    let refusals = [
        Answer::json(&json!({})).status(500),
        Answer::json(&json!({})).status(302).header("location", "/elsewhere"),
    ];
    for refusal in refusals {
        receiver.next(refusal);
    }
    let world = World::with(hooked(&receiver, "events = [\"user_created\"]")).await;
    world.user("ann").await;
    let begun = std::time::Instant::now();
    while receiver.hits() < 3 {
        assert!(begun.elapsed() < PATIENCE, "only {} attempts", receiver.hits());
        world.clock.advance(Duration::from_secs(1));
        world.get("/livez").send().await;
    }
    let told = receiver.requests();
    assert!(told.iter().all(|one| one.target == "/hook?of=tollgate"), "no redirect is followed");
    let ids: Vec<_> = told.iter().map(|one| one.header("webhook-id")).collect();
    assert_eq!((&ids[0], &ids[1]), (&ids[1], &ids[2]));
    assert_eq!((told[0].body.clone(), told[1].body.clone()), (told[1].body.clone(), told[2].body.clone()));
    assert!(told.iter().all(|one| is_signed(one, SECRET)));
    let (first, last) = (told[0].header("webhook-timestamp"), told[2].header("webhook-timestamp"));
    assert_ne!(first, last, "each attempt has its own time");
}

#[tokio::test]
async fn what_waits_outlives_the_gateway() {
    let nobody = Upstream::nowhere();
    let dead = format!("http://{nobody}/hook");
    let mut world = World::with(|setup| {
        setup.add(&format!(
            "[webhooks]\nurl = \"{dead}\"\nsecret = \"{SECRET}\"\nallow_private_addresses = true"
        ));
    })
    .await;
    world.user("ann").await;
    let receiver = Upstream::start();
    world.restart(hooked(&receiver, "")).await;
    world.clock.advance(Duration::from_mins(2));
    receiver.arrived(1).await;
    let told = receiver.last();
    assert_eq!(told.json()["data"]["username"], "ann");
    assert!(is_signed(&told, SECRET));
}

#[tokio::test]
async fn a_private_address_is_told_nothing_unless_it_is_allowed() {
    let receiver = Upstream::start();
    let port = receiver.addr.port();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"] {
        let world = World::with(|setup| {
            setup.add(&format!("[webhooks]\nurl = \"http://{host}:{port}/hook\"\nsecret = \"{SECRET}\""));
        })
        .await;
        world.user("ann").await;
        let begun = std::time::Instant::now();
        while world.attempts_of_webhooks().await != [1] || world.metric("tollgate_webhook_queue_depth") < 1.0
        {
            assert!(begun.elapsed() < PATIENCE, "{host}: {:?}", world.attempts_of_webhooks().await);
        }
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn the_seeds_variables_are_enough() {
    let receiver = Upstream::start();
    let url = receiver.url();
    let world = World::with(|setup| {
        setup.vars.push(("WEBHOOK_URL".to_owned(), url));
        setup.vars.push(("WEBHOOK_SECRET".to_owned(), "a plain secret".to_owned()));
        setup.add("[webhooks]\nallow_private_addresses = true");
    })
    .await;
    world.user("ann").await;
    receiver.arrived(1).await;
    assert!(is_signed(&receiver.last(), "a plain secret"));
    assert_eq!(receiver.last().target, "/");
}
