//! What the admin reads about a conversation: one row, with what was asked, what was answered, and how
//! it went.

use serde_json::{Value, json};

use crate::upstream::Answer;
use crate::world::{Person, World, chat_request};

async fn said(world: &World, person: &Person, path: &str, body: &Value, answer: Answer) -> Value {
    world.upstream.next(answer);
    let heard = world.post(path).bearer(&person.key).json(body).send().await;
    assert_eq!(heard.status, 200, "{}", heard.text());
    world.row().await
}

#[tokio::test]
async fn a_row_says_who_asked_what_and_what_came_of_it() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let answer = world.chat(&ann).send().await;
    let row = world.row().await;
    for (field, expected) in [
        ("username", json!("ann")),
        ("email", json!("ann@example.com")),
        ("model", json!("gpt-test")),
        ("messages", chat_request()["messages"].clone()),
        ("research_model", json!(false)),
        ("request_id", json!(answer.header("x-request-id"))),
        ("route", json!("/v1")),
        ("status", json!(200)),
        ("stream", json!(false)),
        ("outcome", json!("complete")),
        ("verdict", json!("charged")),
        ("finish_reason", json!("stop")),
        ("prompt_tokens", json!(7)),
        ("completion_tokens", json!(5)),
        ("total_tokens", json!(12)),
        ("usage_source", json!("reported")),
        ("truncated", json!(false)),
        ("client_ip", json!("127.0.0.1")),
    ] {
        assert_eq!(row[field], expected, "{field}");
    }
    assert_eq!(row["answer"][0], json!({"role": "assistant", "content": "Hello"}));
    assert!(
        row["time"].as_str().is_some_and(|time| time.starts_with("2026-10-01T10:00:00")),
        "{}",
        row["time"]
    );
    assert!(row["latency_ms"].as_i64().is_some_and(|ms| ms >= row["first_byte_ms"].as_i64().unwrap()));
    assert!(!row.to_string().contains(&ann.key));
}

#[tokio::test]
async fn a_stream_is_put_together_from_its_pieces() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    assert_eq!(world.chat_streamed(&ann).send().await.status, 200);
    let row = world.row().await;
    assert_eq!(row["answer"][0]["content"], "Hello");
    assert_eq!(
        (&row["stream"], &row["total_tokens"], &row["outcome"]),
        (&json!(true), &json!(12), &json!("complete"))
    );
}

#[tokio::test]
async fn tool_calls_and_reasoning_are_kept() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let delta = |delta: Value| format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": delta}]}));
    let call = |index: u8, id: &str, name: &str| json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}]});
    let part =
        |index: u8, part: &str| json!({"tool_calls": [{"index": index, "function": {"arguments": part}}]});
    let answer = Answer::sse([
        delta(json!({"role": "assistant", "reasoning_content": "Paris? "})),
        delta(json!({"reasoning_content": "Look."})),
        delta(call(0, "call_1", "weather")),
        delta(part(0, "{\"city\":")),
        delta(call(1, "call_2", "time")),
        delta(part(0, "\"Paris\"}")),
        delta(part(1, "{}")),
        "data: [DONE]\n\n".to_owned(),
    ]);
    let row = said(&world, &ann, "/v1/chat/completions", &chat_request(), answer).await;
    let message = &row["answer"][0];
    assert_eq!(message["reasoning_content"], "Paris? Look.");
    assert_eq!(
        message["tool_calls"][0]["function"],
        json!({"name": "weather", "arguments": "{\"city\":\"Paris\"}"})
    );
    assert_eq!(message["tool_calls"][1]["id"], "call_2");
}

#[tokio::test]
async fn usage_on_every_chunk_counts_once_and_no_usage_is_not_zero() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let chunk = |word: &str, n: u64| {
        let usage = json!({"prompt_tokens": 3, "completion_tokens": n, "total_tokens": 3 + n});
        format!(
            "data: {}\n\n",
            json!({"choices": [{"index": 0, "delta": {"content": word}}], "usage": usage})
        )
    };
    let answer = Answer::sse([chunk("a", 1), chunk("b", 2), "data: [DONE]\n\n".to_owned()]);
    let row = said(&world, &ann, "/v1/chat/completions", &chat_request(), answer).await;
    assert_eq!((&row["completion_tokens"], &row["total_tokens"]), (&json!(2), &json!(5)));

    let world = World::start().await;
    let ann = world.user("ann").await;
    let silent = json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}}]});
    let row = said(&world, &ann, "/v1/chat/completions", &chat_request(), Answer::json(&silent)).await;
    assert_eq!((&row["total_tokens"], &row["usage_source"]), (&Value::Null, &json!("none")));
}

#[tokio::test]
async fn anthropic_messages_are_put_together() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let event = |event: Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap());
    let answer = Answer::sse([
        event(
            json!({"type": "message_start", "message": {"id": "m", "role": "assistant", "model": "claude-test", "content": [],
            "usage": {"input_tokens": 7, "output_tokens": 1}}}),
        ),
        event(
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        ),
        event(
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}}),
        ),
        event(json!({"type": "ping"})),
        event(
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}}),
        ),
        event(json!({"type": "content_block_stop", "index": 0})),
        event(
            json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}),
        ),
        event(json!({"type": "message_stop"})),
    ]);
    let row = said(&world, &ann, "/v1/messages", &chat_request(), answer).await;
    assert_eq!(row["answer"][0]["content"][0]["text"], "Hello");
    assert_eq!((&row["prompt_tokens"], &row["completion_tokens"]), (&json!(7), &json!(5)));
    assert_eq!((&row["finish_reason"], &row["outcome"]), (&json!("end_turn"), &json!("complete")));
}

#[tokio::test]
async fn ollama_streams_unless_told_not_to() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let heard = world.post("/api/chat").bearer(&ann.key).json(&chat_request()).send().await;
    assert_eq!((heard.status, heard.header("content-type")), (200, "application/x-ndjson"));
    let row = world.row().await;
    assert_eq!(row["answer"][0]["content"], "Hello");
    assert_eq!((&row["stream"], &row["total_tokens"]), (&json!(true), &json!(12)));
}

#[tokio::test]
async fn a_custom_app_may_say_where_its_answer_stands() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let answer = Answer::json(&json!({"reply": "Hello", "cost": 1}));
    let row = said(&world, &ann, "/app/chat", &chat_request(), answer).await;
    assert!(
        row["answer"].to_string().contains("Hello") && !row["answer"].to_string().contains("cost"),
        "{row:#}"
    );

    let world = World::start().await;
    let ann = world.user("ann").await;
    let row =
        said(&world, &ann, "/app/chat", &chat_request(), Answer::bytes("text/plain", "just text")).await;
    assert!(row["answer"].to_string().contains("just text"), "{row:#}");
}

#[tokio::test]
async fn a_route_may_keep_no_words_or_nothing() {
    for (capture, kept) in [("metadata", 1), ("off", 0)] {
        let world = World::with(|setup| {
            setup.only_route(&format!(
                "prefix = \"/v1\"\ncapture = \"{capture}\"\ncharge = [\"POST /v1/chat/completions\"]"
            ));
        })
        .await;
        let ann = world.user("ann").await;
        assert_eq!(world.chat(&ann).send().await.status, 200);
        assert_eq!(world.left(&ann).await, 9);
        let rows = world.rows(&world.admin().await).await;
        assert!(rows.len() >= kept, "{capture}: {rows:#?}");
        for row in rows {
            assert!(
                !row.to_string().contains("Hello") && !row["messages"].to_string().contains("Hi"),
                "{row:#}"
            );
        }
    }
}

#[tokio::test]
async fn the_seeds_log_message_lands_in_the_same_log() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let message =
        json!({"model": "gpt-x", "messages": [{"role": "user", "content": "Hello"}], "research_model": true});
    let logged = world.post("/api/v1/auth/log-message").bearer(&ann.key).json(&message).send().await;
    assert_eq!(logged.status, 200, "{}", logged.text());
    let row = world.row().await;
    assert_eq!((&row["model"], &row["messages"]), (&message["model"], &message["messages"]));
    assert_eq!((&row["research_model"], &row["username"]), (&json!(true), &json!("ann")));
}
