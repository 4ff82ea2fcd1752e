//! Who loses the right to what runs: the answer ends, in the words of its dialect, and the row says why.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::clock::Timestamp;
use tollgate::store::audit::{Actor, Entry};
use tollgate::store::users::{self, UserChange};

use crate::upstream::{Answer, Gate, PATIENCE, chat_answer};
use crate::wire::Wire;
use crate::world::{Person, World, chat_request};

/// A user loses what they had.
type Loss = (&'static str, &'static str, &'static str, u16);

/// What happens, the row's reason, the code that the client hears, and the status where nothing was answered yet.
const LOSSES: [Loss; 16] = [
    ("the key is regenerated", "key_revoked", "invalid_api_key", 401),
    ("the key is revoked", "key_revoked", "invalid_api_key", 401),
    ("the key is rotated", "key_revoked", "invalid_api_key", 401),
    ("the key expires", "key_expired", "invalid_api_key", 401),
    ("the grace of a rotated key ends", "key_expired", "invalid_api_key", 401),
    ("an admin disables the user", "account_disabled", "account_disabled", 403),
    ("a command disables the user", "account_disabled", "account_disabled", 403),
    ("the user leaves", "account_deleted", "invalid_api_key", 401),
    ("an admin deletes the user", "account_deleted", "invalid_api_key", 401),
    ("the user's networks change", "ip_not_allowed", "ip_not_allowed", 403),
    ("the key's networks change", "ip_not_allowed", "ip_not_allowed", 403),
    ("another plan", "route_not_allowed", "route_not_allowed", 403),
    ("another level", "route_not_allowed", "route_not_allowed", 403),
    ("the key gets a plan", "route_not_allowed", "route_not_allowed", 403),
    ("a plan without the model", "model_not_found", "model_not_found", 404),
    ("another r_type", "r_type_not_allowed", "r_type_not_allowed", 403),
];

/// Begins a stream.
const HELLO: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}]}\n\n";

async fn open_world() -> World {
    World::with(|setup| {
        setup.add("[plans.shut]\nconversation_limit = 10\nscopes = [\"other\"]");
        setup.add("[plans.small]\nconversation_limit = 10\nmodels = [\"small\"]");
        setup.add("[plans.free.levels.low]\nscopes = [\"other\"]");
    })
    .await
}

/// Somebody with a key of their own making besides the first, which is the one they use unless it is the first
/// that will be lost.
async fn arrive(world: &World, what: &str, name: &str) -> (Person, String) {
    let mut person = world.user_with(name, json!({"access_rtype": ["deep"]})).await;
    let jwt = world.login(&person.email, &person.password).await;
    let form = json!({"name": "app", "expires_at": "2026-10-01T12:00:00Z"});
    let made = world.post("/api/v1/auth/keys").bearer(&jwt).json(&form).send().await.json();
    if what != "the key is regenerated" {
        made["api_key"].as_str().unwrap_or_else(|| panic!("no key: {made}")).clone_into(&mut person.key);
    }
    person.jwt = jwt;
    (person, format!("/api/v1/auth/keys/{}", made["id"].as_str().unwrap()))
}

async fn lose(world: &World, what: &str, person: &Person, key: &str) {
    let name = person.username.as_str();
    let path = format!("/api/v1/admin/users/{name}");
    let by_owner = |call: crate::world::Call| call.bearer(&person.jwt);
    let call = match what {
        "the key is regenerated" => by_owner(world.post("/api/v1/auth/regenerate-key")),
        "the key is revoked" => by_owner(world.delete(key)),
        "the key is rotated" => by_owner(world.post(&format!("{key}/rotate"))).json(&json!({})),
        "the grace of a rotated key ends" => {
            by_owner(world.post(&format!("{key}/rotate"))).json(&json!({"grace_period": 60}))
        }
        "the key expires" => by_owner(world.put(key)).json(&json!({"expires_at": "2026-10-01T10:01:00Z"})),
        "the key's networks change" => by_owner(world.put(key)).json(&json!({"allowed_ips": ["10.0.0.0/8"]})),
        "the key gets a plan" => by_owner(world.put(key)).json(&json!({"plan": "shut"})),
        "the user leaves" => by_owner(world.delete("/api/v1/auth/account")),
        "an admin deletes the user" => world.delete(&path).bearer(&world.admin().await),
        "a command disables the user" => return disabled_elsewhere(world, name).await,
        _ => {
            let terms = match what {
                "an admin disables the user" => json!({"is_active": false}),
                "the user's networks change" => json!({"allowed_ips": ["10.0.0.0/8"]}),
                "another plan" => json!({"subscription_plan": "shut"}),
                "another level" => json!({"level": "low"}),
                "a plan without the model" => json!({"subscription_plan": "small"}),
                "another r_type" => json!({"access_rtype": ["quick"]}),
                other => panic!("{other}"),
            };
            world.put(&path).bearer(&world.admin().await).json(&terms)
        }
    };
    let done = call.send().await;
    assert!(done.status < 300, "{what}: {}", done.text());
    if matches!(what, "the grace of a rotated key ends" | "the key expires") {
        world.clock.advance(Duration::from_mins(2));
    }
}

/// As a command, or another node, does it: in the database only.
async fn disabled_elsewhere(world: &World, name: &str) {
    let at = Timestamp(crate::world::TEN_O_CLOCK.0);
    let entry = Entry {
        actor: Actor::System,
        actor_name: "operator".into(),
        action: "user.update",
        target: name.into(),
        detail: json!({}),
        request_id: String::new(),
        client_ip: None,
        at,
    };
    let change = UserChange { is_active: Some(false), ..UserChange::default() };
    let done = async {
        let user = users::by_username(world.db(), name).await.unwrap().unwrap();
        users::update(world.db(), user.id, &change, at, &entry).await.unwrap();
    };
    world.ask(done).await;
}

fn request() -> Value {
    let mut request = chat_request();
    request["stream"] = true.into();
    request["r_type"] = "deep".into();
    request
}

/// The row of a user's only conversation.
fn of<'a>(rows: &'a [Value], name: &str) -> &'a Value {
    rows.iter().find(|row| row["username"] == name).unwrap_or_else(|| panic!("{name} in {rows:#?}"))
}

#[tokio::test]
async fn every_way_to_lose_the_right_ends_what_runs() {
    let world = open_world().await;
    let stays = world.user("stays").await;
    world.upstream.next(Answer::sse([HELLO]).then_silence());
    let mut staying = world.chat_streamed(&stays).begin().await;
    staying.chunk().await.unwrap();
    for (number, (what, _, code, _)) in LOSSES.iter().enumerate() {
        let (person, key) = arrive(&world, what, &format!("user{number}")).await;
        world.upstream.next(Answer::sse([HELLO]).then_silence());
        let call = world.post("/v1/chat/completions").bearer(&person.key).json(&request());
        let mut running = call.begin().await;
        assert_eq!(running.chunk().await.unwrap().unwrap(), HELLO, "{what}");
        lose(&world, what, &person, &key).await;
        let heard = tokio::time::timeout(PATIENCE, running.text()).await;
        let heard = heard.unwrap_or_else(|_| panic!("{what}: the stream goes on")).unwrap();
        let event = heard.strip_prefix("data: ").and_then(|event| event.strip_suffix("\n\n"));
        let event: Value = serde_json::from_str(event.unwrap_or_else(|| panic!("{what}: {heard}"))).unwrap();
        assert_eq!(event["error"]["code"], *code, "{what}");
    }
    let rows = world.rows_when(LOSSES.len()).await;
    for (number, (what, reason, ..)) in LOSSES.iter().enumerate() {
        let row = of(&rows, &format!("user{number}"));
        let told = [&row["outcome"], &row["reason"], &row["verdict"]].map(|word| word.as_str().unwrap());
        assert_eq!(told, ["access_ended", reason, "charged"], "{what}: {row:#}");
        assert_eq!(row["answer"][0]["content"], "Hel", "{what}: what was said is kept");
    }
    assert!(world.metric("tollgate_access_ended_total{reason=\"key_revoked\"}") >= 3.0);
    world.upstream.next(Answer::json(&chat_answer("Hello")));
    assert_eq!(world.chat(&stays).send().await.status, 200, "others go on");
}

#[tokio::test]
async fn a_request_without_an_answer_yet_is_refused() {
    let world = open_world().await;
    for (number, (what, _, code, status)) in LOSSES.iter().enumerate() {
        let (person, key) = arrive(&world, what, &format!("user{number}")).await;
        let gate = Gate::closed();
        world.upstream.next(Answer::sse([HELLO]).hold_head(&gate));
        let hits = world.upstream.hits();
        let call = world.post("/v1/chat/completions").bearer(&person.key).json(&request());
        let asked = tokio::spawn(async move { call.send().await });
        world.upstream.arrived(hits + 1).await;
        lose(&world, what, &person, &key).await;
        let answer = tokio::time::timeout(PATIENCE, asked).await.expect(what).unwrap();
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str()),
            (*status, Some(*code)),
            "{what}"
        );
    }
    let rows = world.rows_when(LOSSES.len()).await;
    assert!(rows.iter().all(|row| row["verdict"] == "charged"), "the upstream had been asked: {rows:#?}");
}

#[tokio::test]
async fn the_error_is_in_the_words_of_the_dialect_and_an_event_of_its_own() {
    let world = open_world().await;
    let half = "data: {\"choi";
    // Where, what the upstream had said, and what follows it.
    let cases = [
        ("/v1/chat/completions", Answer::sse([HELLO]), "data: {\"error\":{"),
        ("/v1/chat/completions", Answer::sse([half]), "\n\ndata: {\"error\":{"),
        ("/v1/responses", Answer::sse(["event: a\ndata: {}\n\n"]), "event: error\ndata: {"),
        ("/v1/messages", Answer::sse(["event: ping\r\ndata: {}\r\n\r\n"]), "event: error\ndata: {"),
        ("/api/chat", Answer::ndjson(&[json!({"done": false})]), "{\"error\":\""),
        ("/api/chat", Answer::stream("application/x-ndjson", ["{\"do"]), "\n{\"error\":\""),
        ("/app/chat", Answer::sse(["data: x\n\n"]), "data: {\"error\":{"),
    ];
    for (number, (path, answer, follows)) in cases.into_iter().enumerate() {
        let person = world.user(&format!("user{number}")).await;
        world.upstream.next(answer.then_silence());
        let mut body = chat_request();
        body["stream"] = true.into();
        let mut running = world.post(path).bearer(&person.key).json(&body).begin().await;
        running.chunk().await.unwrap().unwrap();
        world.change(&person.username, json!({"is_active": false})).await;
        let heard = tokio::time::timeout(PATIENCE, running.text()).await.expect(path).unwrap();
        assert!(heard.starts_with(follows) && heard.contains("disabled"), "{path}: {heard}");
        assert!(!heard.contains("[DONE]"), "{path}: {heard}");
    }
    let (person, body) = (world.user("whole").await, chat_request());
    world.upstream.next(Answer::stream("application/json", ["{\"choices\":"]).then_silence());
    let running = world.post("/v1/chat/completions").bearer(&person.key).json(&body).begin().await;
    world.change("whole", json!({"is_active": false})).await;
    let heard = tokio::time::timeout(PATIENCE, running.text()).await.expect("a document");
    assert!(heard.is_err(), "a document breaks off: {heard:?}");
}

#[tokio::test]
async fn a_stream_that_never_pauses_is_ended_too() {
    let world = open_world().await;
    let ann = world.user("ann").await;
    let piece = format!("data: {}\n\n", "x".repeat(16 * 1024));
    // More than sockets and buffers hold, so that the upstream always has something to say.
    world.upstream.next(Answer::sse(vec![piece; 4096]).then_silence());
    let mut wire = Wire::connect(world.addr).await;
    let body = request().to_string().replace("deep", "x");
    let body = body.replace(",\"r_type\":\"x\"", "");
    wire.send(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gate\r\nx-api-key: {}\r\ncontent-length: {}\r\n\r\n{body}",
        ann.key,
        body.len()
    ))
    .await;
    wire.head().await;
    wire.chunk().await.unwrap();
    world.change("ann", json!({"is_active": false})).await;
    let mut last = Vec::new();
    while let Some(chunk) = wire.chunk().await {
        last = chunk;
    }
    assert!(String::from_utf8_lossy(&last).contains("account_disabled"));
}
