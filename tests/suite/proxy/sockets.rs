//! WebSockets: what is said on them costs, is recorded, and is held to what its user may do.

use std::process::Command;

use serde_json::{Value, json};

use crate::operate::child::Child;
use crate::sdk::{script, tool};
use crate::upstream::{PATIENCE, SocketModel, frame};
use crate::wire::Wire;
use crate::world::{Person, World};

const MASK: Option<[u8; 4]> = Some([0x12, 0, 0xff, 0x80]);
const REALTIME: &str = "/v1/realtime?model=gpt-test";

/// A client of one socket.
struct Client {
    wire: Wire,
}

async fn open_world() -> (World, SocketModel) {
    let model = SocketModel::start();
    let world = World::with(|setup| {
        setup.add(&format!("[[upstreams]]\nname = \"model\"\nurl = \"{}\"", model.url()));
        setup.add("[plans.small]\nconversation_limit = 10\nmodels = [\"small-*\"]");
        setup.add(
            "[[routes]]\nprefix = \"/v1\"\nupstream = \"model\"\nwebsocket = true\n\
             [[routes]]\nprefix = \"/app\"\nupstream = \"model\"\nwebsocket = true\ndialect = \"plain\"\n\
             [[routes]]\nprefix = \"/each\"\nupstream = \"model\"\nwebsocket = true\ndialect = \"plain\"\n\
             websocket_charge = \"message\"\n\
             [[routes]]\nprefix = \"/free\"\nupstream = \"model\"\nwebsocket = true\ndialect = \"plain\"\n\
             websocket_charge = \"none\"",
        );
    })
    .await;
    (world, model)
}

// === impl Client ===

impl Client {
    async fn open(world: &World, person: &Person, path: &str) -> Self {
        let mut client = Self::ask(world, person, path).await;
        assert_eq!(client.wire.head().await.status, 101, "{path}");
        client
    }

    async fn ask(world: &World, person: &Person, path: &str) -> Self {
        let mut wire = Wire::connect(world.addr).await;
        let key = &person.key;
        wire.send(format!(
            "GET {path} HTTP/1.1\r\nhost: gate\r\nx-api-key: {key}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-extensions: permessage-deflate\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ))
        .await;
        Self { wire }
    }

    async fn say(&mut self, event: &Value) {
        self.wire.send(frame(1, event.to_string().as_bytes(), MASK)).await;
    }

    /// The next frame: opcode and payload.
    async fn hear(&mut self) -> (u8, Vec<u8>) {
        let read = async {
            let head = self.wire.exactly(2).await;
            let length = match head[1] {
                126 => usize::from(u16::from_be_bytes(self.wire.exactly(2).await.try_into().unwrap())),
                127 => u64::from_be_bytes(self.wire.exactly(8).await.try_into().unwrap()).try_into().unwrap(),
                short => usize::from(short),
            };
            (head[0] & 0x0f, self.wire.exactly(length).await)
        };
        tokio::time::timeout(PATIENCE, read).await.expect("the gate says nothing")
    }

    async fn event(&mut self) -> Value {
        let (opcode, payload) = self.hear().await;
        assert_eq!(opcode, 1, "{payload:?}");
        serde_json::from_slice(&payload).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&payload)))
    }

    /// Events up to the one of this type.
    async fn until(&mut self, kind: &str) -> Value {
        loop {
            let event = self.event().await;
            if event["type"] == kind {
                return event;
            }
        }
    }

    /// The error event, the frame that closes, and the end.
    async fn refused(&mut self, code: &str) {
        let error = self.until("error").await;
        assert_eq!((&error["error"]["code"], &error["code"]), (&json!(code), &json!(code)), "{error}");
        self.closed(code).await;
    }

    async fn closed(&mut self, code: &str) {
        let (opcode, payload) = self.hear().await;
        assert_eq!((opcode, &payload[..2]), (8, &1008_u16.to_be_bytes()[..]), "{code}");
        assert_eq!(String::from_utf8_lossy(&payload[2..]), code);
        let rest = tokio::time::timeout(PATIENCE, self.wire.closed()).await.expect("the gate closes");
        assert_eq!(rest, b"");
    }
}

fn create() -> Value {
    json!({"type": "response.create", "model": "gpt-test", "input": "Hi"})
}

#[tokio::test]
async fn each_response_costs_one_and_has_its_row() {
    let (world, model) = open_world().await;
    for (name, path, last) in
        [("ann", "/v1/responses", "response.completed"), ("bob", REALTIME, "response.done")]
    {
        let person = world.user(name).await;
        let mut client = Client::open(&world, &person, path).await;
        assert!(!model.head().to_ascii_lowercase().contains("sec-websocket-extensions"), "{}", model.head());
        for _ in 0..4 {
            client.say(&create()).await;
            assert_eq!(client.until(last).await["response"]["usage"]["total_tokens"], 12);
        }
        // In two frames, with a control frame between them.
        let text = create().to_string();
        let (first, second) = text.as_bytes().split_at(9);
        let mut first = frame(1, first, MASK);
        first[0] &= 0x7f;
        client.wire.send([first, frame(9, b"ping", MASK), frame(0, second, MASK)].concat()).await;
        assert_eq!(client.hear().await, (10, b"ping".to_vec()));
        client.until(last).await;
        assert_eq!(model.texts().last(), Some(&text), "it passes as it came");
        client.wire.send(frame(8, &1000_u16.to_be_bytes(), MASK)).await;
        assert_eq!(client.hear().await, (8, 1000_u16.to_be_bytes().to_vec()), "the model's own goodbye");
        assert_eq!(world.left(&person).await, 5, "{path}");
    }
    let rows = world.rows_when(10).await;
    for row in &rows {
        let told = ["outcome", "verdict", "model"].map(|name| row[name].as_str().unwrap());
        assert_eq!(told, ["complete", "charged", "gpt-test"], "{row:#}");
        assert_eq!(row["total_tokens"], 12, "{row:#}");
        assert!(
            row["answer"].to_string().contains("Hello") && row["messages"].to_string().contains("Hi"),
            "{row:#}"
        );
    }
}

#[tokio::test]
async fn a_response_that_the_server_begins_by_itself_costs_too() {
    let (world, _) = open_world().await;
    let ann = world.user_with("ann", json!({"limits": {"conversation_limit": 2}})).await;
    let mut client = Client::open(&world, &ann, REALTIME).await;
    client
        .say(&json!({"type": "conversation.item.create", "item": {"type": "message", "role": "user",
                       "content": [{"type": "input_text", "text": "Good morning"}]}}))
        .await;
    client.say(&json!({"type": "input_audio_buffer.commit"})).await;
    client.until("response.done").await;
    client.say(&json!({"type": "input_audio_buffer.commit"})).await;
    client.until("response.done").await;
    client.say(&json!({"type": "input_audio_buffer.commit"})).await;
    client.refused("insufficient_quota").await;
    let rows = world.rows_when(2).await;
    assert!(rows[1]["messages"].to_string().contains("Good morning"), "{rows:#?}");
}

#[tokio::test]
async fn when_the_day_is_used_up_nothing_more_reaches_the_model() {
    let (world, model) = open_world().await;
    for (name, path) in [("ann", "/v1/responses"), ("bob", REALTIME)] {
        let person = world.user_with(name, json!({"limits": {"conversation_limit": 2}})).await;
        let before = model.asked();
        let mut client = Client::open(&world, &person, path).await;
        // At once, so that what is paid for is still under way.
        for _ in 0..3 {
            client.say(&create()).await;
        }
        client.refused("insufficient_quota").await;
        assert_eq!(model.asked() - before, 2, "{path}");
        let mut late = Client::ask(&world, &person, path).await;
        assert_eq!(late.wire.answer().await.status(), 429, "{path}");
    }
    let rows = world.rows_when(4).await;
    assert!(rows.iter().all(|row| row["outcome"] == "complete"), "{rows:#?}");
}

#[tokio::test]
async fn models_and_events_are_held_to_the_plan() {
    let (world, model) = open_world().await;
    let ann = world.user_with("ann", json!({"subscription_plan": "small"})).await;
    for query in
        ["?model=gpt-test", "?model=gpt%2Dtest", "?model=small-1&model=gpt-test", "?deployment=gpt-test"]
    {
        let mut client = Client::ask(&world, &ann, &format!("/v1/realtime{query}")).await;
        assert_eq!(client.wire.answer().await.status(), 404, "{query}");
    }
    let cases = [
        (r#"{"type":"response.create","model":"gpt-test"}"#, "model_not_found"),
        (r#"{"type":"response.create","response":{"model":"gpt-test"}}"#, "model_not_found"),
        (r#"{"type":"session.update","session":{"model":"gpt-test"}}"#, "model_not_found"),
        (r#"{"\u0074ype":"response.create","mod\u0065l":"gpt-test"}"#, "model_not_found"),
        (r#"{"type":"response.create"}"#, "model_missing"),
        (r#"{"type":"a","type":"response.create","model":"small-1"}"#, "duplicate_field"),
    ];
    for (event, code) in cases {
        let mut client = Client::open(&world, &ann, "/v1/responses").await;
        client.wire.send(frame(1, event.as_bytes(), MASK)).await;
        client.refused(code).await;
    }
    for event in ["[]", "no event", "{"] {
        let mut client = Client::open(&world, &ann, "/v1/responses").await;
        client.wire.send(frame(1, event.as_bytes(), MASK)).await;
        client.until("error").await;
    }
    let utf16: Vec<u8> = create().to_string().encode_utf16().flat_map(u16::to_le_bytes).collect();
    let compressed = [&[0xc1][..], &frame(1, b"x", MASK)[1..]].concat();
    for wrong in [frame(2, &utf16, MASK), frame(1, b"{}", None), compressed] {
        let mut client = Client::open(&world, &ann, "/v1/responses").await;
        client.wire.send(wrong).await;
        client.until("error").await;
    }
    assert_eq!((model.texts().len(), world.left(&ann).await), (0, 10), "{:?}", model.texts());
    let mut client = Client::open(&world, &ann, "/v1/realtime?model=small-1").await;
    client.say(&json!({"type": "response.create"})).await;
    client.until("response.done").await;
}

#[tokio::test]
async fn what_the_model_refuses_goes_back() {
    let (world, _) = open_world().await;
    let ann = world.user("ann").await;
    let mut client = Client::open(&world, &ann, REALTIME).await;
    client.say(&json!({"type": "response.create", "fail": true})).await;
    client.until("error").await;
    client.say(&create()).await;
    client.until("response.done").await;
    let rows = world.rows_when(2).await;
    let told: Vec<_> = rows.iter().map(|row| (&row["verdict"], &row["reason"])).collect();
    assert_eq!(
        told,
        [(&json!("charged"), &json!("complete")), (&json!("refunded"), &json!("upstream_client_error"))]
    );
    assert_eq!(world.left(&ann).await, 9);
}

#[tokio::test]
async fn plain_apps_cost_by_connection_or_by_message_or_nothing() {
    let (world, _) = open_world().await;
    for (name, path, left, rows) in
        [("ann", "/app/ws", 9, 1), ("bob", "/each/ws", 7, 3), ("eve", "/free/ws", 10, 1)]
    {
        let person = world.user(name).await;
        let mut client = Client::open(&world, &person, path).await;
        for word in ["one", "two", "three"] {
            client.wire.send(frame(1, word.as_bytes(), MASK)).await;
            assert_eq!(client.hear().await, (1, format!("echo {word}").into_bytes()));
        }
        client.wire.send(frame(8, &1000_u16.to_be_bytes(), MASK)).await;
        assert_eq!(client.hear().await.0, 8);
        drop(client);
        assert_eq!(world.left(&person).await, left, "{path}");
        let admin = world.admin().await;
        let mut found = Vec::new();
        while found.len() < rows {
            found = world.rows(&admin).await.into_iter().filter(|row| row["username"] == name).collect();
        }
        assert_eq!(found.len(), rows, "{path}: {found:#?}");
        let said = Value::from(found).to_string();
        assert!(said.contains("two") && said.contains("echo two"), "{path}: {said}");
    }
    let poor = world.user_with("poor", json!({"limits": {"conversation_limit": 1}})).await;
    let mut client = Client::open(&world, &poor, "/each/ws").await;
    client.wire.send(frame(1, b"one", MASK)).await;
    assert_eq!(client.hear().await, (1, b"echo one".to_vec()));
    client.wire.send(frame(1, b"two", MASK)).await;
    assert_eq!(client.event().await["error"]["code"], "insufficient_quota");
    client.closed("insufficient_quota").await;
}

#[tokio::test]
async fn a_lost_right_ends_a_socket_on_which_messages_flow() {
    let (world, _) = open_world().await;
    for (name, path) in [("ann", "/app/ws"), ("bob", REALTIME)] {
        let person = world.user(name).await;
        let mut client = Client::open(&world, &person, path).await;
        client.say(&json!({"type": "flood"})).await;
        for _ in 0..50 {
            assert_eq!(client.event().await["type"], "tick");
        }
        let renewed = world.post("/api/v1/auth/regenerate-key").bearer(&person.jwt).send().await;
        assert_eq!(renewed.status, 200, "{}", renewed.text());
        let error = loop {
            let event = client.event().await;
            if event["type"] != "tick" {
                break event;
            }
        };
        assert_eq!(error["error"]["code"], "invalid_api_key", "{error}");
        client.closed("invalid_api_key").await;
    }
    let row = world.row().await;
    let told = ["outcome", "reason", "verdict"].map(|name| row[name].as_str().unwrap());
    assert_eq!(told, ["access_ended", "key_revoked", "charged"], "{row:#}");
}

#[tokio::test]
async fn openai_python_pays_for_each_answer_on_its_sockets() {
    let (world, model) = open_world().await;
    let limited = |limit: i64| json!({"limits": {"conversation_limit": limit}});
    let ann = world.user("ann").await;
    let (one, none) = (world.user_with("one", limited(1)).await, world.user_with("none", limited(0)).await);
    let mut python = Command::new(tool("python/bin/python"));
    python.arg(script("openai_sockets.py")).env("PYTHONDONTWRITEBYTECODE", "1");
    python.env("TOLLGATE_URL", &world.base).env("TOLLGATE_KEY", &ann.key);
    python.env("TOLLGATE_ONE_LEFT_KEY", &one.key).env("TOLLGATE_USED_UP_KEY", &none.key);
    python.env_remove("HTTP_PROXY").env_remove("http_proxy");
    let ended = tokio::task::spawn_blocking(move || Child::start(python).ends());
    let (code, said) = ended.await.unwrap();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!((world.left(&ann).await, model.asked()), (3, 8));
    assert!(world.rows_when(8).await.iter().all(|row| row["total_tokens"] == 12));
}
