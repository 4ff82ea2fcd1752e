//! Which calls a route opens, gives away and charges where its configuration does not say, and where it does.

use std::process::Command;

use serde_json::{Value, json};

use crate::operate::child::Child;
use crate::sdk::{script, tool};
use crate::spellings::spellings;
use crate::upstream::Answer;
use crate::wire::Wire;
use crate::world::{Person, Reply, World, chat_request};

/// The usual calls of a model on `/`, and everything of it below `/open`.
const ROUTES: &str = r#"
[[routes]]
prefix = "/"
upstream = "model"
[[routes]]
prefix = "/open"
strip_prefix = true
upstream = "model"
allow = ["*"]
"#;

async fn call(world: &World, person: &Person, method: &str, path: &str) -> Reply {
    let call = world.call(method, path).bearer(&person.key);
    if method == "POST" { call.json(&chat_request()).send().await } else { call.send().await }
}

#[tokio::test]
async fn what_users_share_upstream_is_refused_in_every_dialect_before_it_costs() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let message = "This call is not open here; ask the operator of this gateway for it.";
    let openai = json!({"error": {"message": message, "type": "permission_error", "param": null, "code": "call_not_allowed"}});
    for (method, path, expected) in [
        ("GET", "/v1/files", &openai),
        ("POST", "/v1/files", &openai),
        ("DELETE", "/v1/files/file-1", &openai),
        ("GET", "/v1/responses/resp_1", &openai),
        ("POST", "/v1/batches", &openai),
        ("POST", "/api/pull", &json!({"error": message})),
        ("DELETE", "/api/delete", &json!({"error": message})),
    ] {
        let answer = call(&world, &ann, method, path).await;
        assert_eq!((answer.status, answer.json()), (403, expected.clone()), "{method} {path}");
        assert_eq!(answer.header("x-tollgate-denied-by"), "call_not_allowed");
    }
    let batches =
        world.get("/v1/messages/batches").bearer(&ann.key).header("anthropic-version", "2023-06-01");
    let answer = batches.send().await;
    assert_eq!((answer.status, &answer.json()["error"]["type"]), (403, &json!("permission_error")));
    assert_eq!(world.get("/v1/files").send().await.status, 401, "a stranger is told nothing else");
    assert_eq!((world.upstream.hits(), world.left(&ann).await), (0, 10));
    let metrics = world.get("/metrics").send().await.text();
    assert!(metrics.contains("tollgate_denied_total{reason=\"call_not_allowed\"} 8"), "{metrics}");

    let question = json!({"username": ann.username, "method": "GET", "path": "/v1/files"});
    let told = world.post("/api/v1/admin/explain").bearer(&world.admin().await).json(&question).send().await;
    assert_eq!(told.json()["denied_by"], "call_not_allowed", "{}", told.text());
}

#[tokio::test]
async fn a_used_up_day_stops_all_that_makes_a_model_work_and_nothing_else() {
    let world = World::with(|setup| setup.add(ROUTES)).await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    world.change("ann", json!({"limits": {"conversation_limit": 0, "reset": 0}})).await;
    world.change("bob", json!({"limits": {"conversation_limit": 100}})).await;
    let usual = [
        "/openai/deployments/My-Model/chat/completions",
        "/v1/engines/m/completions",
        "/compatible-mode/v1/chat/completions",
        "/api/paas/v4/chat/completions",
        "/anthropic/v1/messages",
        "/completion",
        "/engines/m/chat/completions",
        "/cursor/chat/completions",
        "/v1beta/models/gemini-pro:generateContent",
        "/v1/images/generations",
        "/v1/audio/speech",
        "/api/generate",
        "/v1/responses",
    ];
    let all = [
        "/v1/files",
        "/v1/batches",
        "/v1/fine_tuning/jobs",
        "/v1/threads/t/runs",
        "/api/pull",
        "/cursor/v0/agents",
        "/x",
    ];
    let all = all.iter().chain(&usual).map(|path| format!("/open{path}"));
    for path in usual.iter().map(|path| (*path).to_owned()).chain(all) {
        let refused = call(&world, &ann, "POST", &path).await;
        assert_eq!(
            (refused.status, refused.header("x-tollgate-denied-by")),
            (429, "insufficient_quota"),
            "{path}"
        );
        let left = world.left(&bob).await;
        world.upstream.next(Answer::json(&json!({})));
        assert_eq!(call(&world, &bob, "POST", &path).await.status, 200, "{path}");
        assert_eq!(world.left(&bob).await, left - 1, "{path}");
    }
    for (method, path) in [
        ("POST", "/v1/embeddings"),
        ("POST", "/openai/deployments/d/embeddings"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/v1beta/models/gemini-pro:countTokens"),
        ("POST", "/api/show"),
        ("GET", "/v1/models"),
        ("GET", "/open/v1/files"),
        ("DELETE", "/open/v1/files/f"),
    ] {
        world.upstream.next(Answer::json(&json!({})));
        assert_eq!(call(&world, &ann, method, path).await.status, 200, "{method} {path}");
    }
    let body = world.get("/v1/chat/completions").bearer(&ann.key).json(&chat_request());
    assert_eq!(body.send().await.status, 403, "not open by this method");
    let body = world.get("/open/v1/chat/completions").bearer(&ann.key).json(&chat_request());
    assert_eq!(body.send().await.status, 429, "a server may not look at the method");
}

/// openai-python with Azure's client, and with files, batches, images, audio and fine-tuning.
#[tokio::test]
async fn the_sdk_gets_nothing_for_free_once_the_day_is_used_up() {
    let world = World::with(|setup| setup.add(ROUTES)).await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    world.change("bob", json!({"limits": {"conversation_limit": 0, "reset": 0}})).await;
    let vectors = json!({"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
                         "usage": {"prompt_tokens": 1, "total_tokens": 1}});
    for path in ["/v1/embeddings", "/openai/deployments/demo-chat/embeddings"] {
        world.upstream.on(path, Answer::json(&vectors));
    }
    let mut python = Command::new(tool("python/bin/python"));
    python.arg(script("openai_wide.py")).env("PYTHONDONTWRITEBYTECODE", "1");
    python.env("TOLLGATE_URL", &world.base).env("TOLLGATE_KEY", &ann.key);
    python.env("TOLLGATE_USED_UP_KEY", &bob.key).env_remove("HTTP_PROXY").env_remove("http_proxy");
    let ended = tokio::task::spawn_blocking(move || Child::start(python).ends());
    let (code, said) = ended.await.unwrap();
    assert_eq!(code, Some(0), "{said}");
    let asked: Vec<String> = world.upstream.requests().into_iter().map(|asked| asked.target).collect();
    assert_eq!(asked.len(), 8, "six conversations, and what is free: {asked:?}");
    assert_eq!(world.left(&ann).await, 4);
}

#[tokio::test]
async fn what_the_file_names_is_open_and_a_redirect_of_a_last_slash_too() {
    let world = World::with(|setup| {
        setup.only_route(
            "prefix = \"/v1\"\ncharge = [\"POST /v1/ask\"]\nallow = [\"GET /v1/files/*\", \"POST /v1/ask\"]\nfree = [\"POST /v1/ask\"]",
        );
    })
    .await;
    let ann = world.user("ann").await;
    for (method, path, status) in [
        ("GET", "/v1/files/f/content", 200),
        ("POST", "/v1/ask", 200),
        ("POST", "/v1/ask/", 200),
        ("GET", "/v1/files", 403),
        ("GET", "/V1/files/f", 403),
        ("GET", "/v1/Files/f", 403),
        ("DELETE", "/v1/files/f", 403),
        ("POST", "/v1/Ask", 403),
        ("POST", "/v1/ask.json", 403),
        ("POST", "/v1/chat/completions", 403),
    ] {
        world.upstream.next(Answer::json(&json!({})));
        let answer: Value = json!(call(&world, &ann, method, path).await.status);
        assert_eq!(answer, status, "{method} {path}");
    }
    assert_eq!(world.left(&ann).await, 10);
}

/// Sends each spelling of a path; how many there are.
async fn send_every_spelling(world: &World, person: &Person, method: &str, path: &str) -> usize {
    let all = spellings(path, false);
    for path in &all {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: gate\r\nx-api-key: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: 2\r\n\r\n{{}}",
            person.key,
        );
        let mut wire = Wire::connect(world.addr).await;
        wire.send(request).await;
        wire.head_if_any().await;
    }
    all.len()
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "how many were tried is a figure to be read")]
async fn no_spelling_reaches_what_is_closed_and_none_of_what_makes_a_model_work_is_free() {
    const DAY: i64 = 1_000_000;
    let world =
        World::with(|setup| setup.add(&format!("[plans.free]\nconversation_limit = {DAY}\n{ROUTES}"))).await;
    let ann = world.user("ann").await;
    let mut closed = 0;
    for (method, path) in [("POST", "/v1/files"), ("GET", "/v1/files"), ("GET", "/v1/responses/r")] {
        closed += send_every_spelling(&world, &ann, method, path).await;
    }
    let reached: Vec<String> = world.upstream.requests().into_iter().map(|asked| asked.target).collect();
    assert!(reached.is_empty(), "of {closed} spellings these reached the upstream: {reached:?}");
    let mut charged = 0;
    for (method, path) in
        [("POST", "/v1/chat/completions"), ("POST", "/open/v1/images"), ("PUT", "/open/v1/completions")]
    {
        charged += send_every_spelling(&world, &ann, method, path).await;
    }
    let (hits, taken) = (i64::try_from(world.upstream.hits()).unwrap(), DAY - world.left(&ann).await);
    assert!(
        hits >= 6 && taken == hits,
        "of {charged} spellings {hits} reached the upstream, {taken} were charged"
    );
    println!(
        "{closed} spellings of what is closed: 0 served; {charged} of what is charged: {hits} served, all of them charged"
    );
}

#[tokio::test]
async fn a_call_that_is_open_as_a_socket_is_not_open_as_a_plain_one() {
    let world = World::with(|setup| setup.only_route("prefix = \"/v1\"\nwebsocket = true")).await;
    let ann = world.user("ann").await;
    assert_eq!(call(&world, &ann, "GET", "/v1/responses").await.status, 403);
    for (path, status) in [("/v1/responses", 502), ("/v1/responses/r", 403), ("/v1/chat/completions", 403)] {
        world.upstream.on(path, Answer::json(&json!({"data": ["what another user was answered"]})));
        let mut wire = Wire::connect(world.addr).await;
        wire.send(format!(
            "GET {path} HTTP/1.1\r\nhost: gate\r\nx-api-key: {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            ann.key
        ))
        .await;
        let answer = wire.answer().await;
        assert_eq!(answer.status(), status, "{path}");
    }
    assert_eq!((world.upstream.hits(), world.left(&ann).await), (1, 10));
}
