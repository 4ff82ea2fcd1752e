//! Anthropic's messages, whole and streamed, and their token count.

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

use crate::demo::chat::{Unfit, flag, list, model, parse};
use crate::demo::pace;
use crate::demo::reply::{Choice, Heard, Reply, Tool, name};

struct Answer {
    id: String,
    model: String,
    reply: Reply,
    input_tokens: u64,
    stream: bool,
}

/// `POST /v1/messages`
pub(super) async fn messages(body: Bytes) -> Response {
    match understand(&body) {
        Ok(answer) if answer.stream => pace::sse(answer.events()),
        Ok(answer) => Json(answer.document()).into_response(),
        Err(unfit) => refused(&unfit),
    }
}

/// `POST /v1/messages/count_tokens`
pub(super) async fn count_tokens(body: Bytes) -> Response {
    match parse(&body).and_then(|request| heard(&request)) {
        Ok(heard) => Json(json!({"input_tokens": heard.words})).into_response(),
        Err(unfit) => refused(&unfit),
    }
}

fn understand(body: &[u8]) -> Result<Answer, Unfit> {
    let request = parse(body)?;
    let limit = request.get("max_tokens").and_then(Value::as_u64).filter(|limit| *limit > 0);
    let limit = limit.ok_or_else(|| Unfit("max_tokens: Field required".into()))?;
    let heard = heard(&request)?;
    let reply = Reply::to(&heard, &tools(&request), &tool_choice(&request)).limited(Some(limit));
    Ok(Answer {
        id: name("msg_", body),
        model: model(&request)?.to_owned(),
        reply,
        input_tokens: heard.words,
        stream: flag(&request, "stream"),
    })
}

fn heard(request: &Value) -> Result<Heard, Unfit> {
    Ok(Heard::messages(list(request, "messages")?).with_preamble(request.get("system")))
}

fn tools(request: &Value) -> Vec<Tool> {
    let offered = request.get("tools").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let tool = |tool: &Value| {
        let name = tool.get("name")?.as_str()?.to_owned();
        Some(Tool { name, schema: tool.get("input_schema").cloned().unwrap_or(Value::Null) })
    };
    offered.iter().filter_map(tool).collect()
}

fn tool_choice(request: &Value) -> Choice {
    let word = |pointer| request.pointer(pointer).and_then(Value::as_str);
    match (word("/tool_choice/type"), word("/tool_choice/name")) {
        (Some("tool"), Some(name)) => Choice::Named(name.to_owned()),
        (Some("any"), _) => Choice::Any,
        (Some("none"), _) => Choice::None,
        _ => Choice::Auto,
    }
}

fn refused(unfit: &Unfit) -> Response {
    let error = json!({"type": "invalid_request_error", "message": unfit.to_string()});
    (StatusCode::BAD_REQUEST, Json(json!({"type": "error", "error": error}))).into_response()
}

// === impl Answer ===

impl Answer {
    fn document(&self) -> Value {
        let block = match &self.reply {
            Reply::Words { .. } => json!({"type": "text", "text": self.reply.text()}),
            Reply::Call { name, arguments } => self.tool_use(name, arguments),
        };
        self.message(&[block], Some(self.stop_reason()), self.reply.count())
    }

    fn events(&self) -> Vec<String> {
        let mut events = vec![json!({"type": "message_start", "message": self.message(&[], None, 1)})];
        events.extend(self.block_events());
        events.push(json!({"type": "content_block_stop", "index": 0}));
        events.push(json!({
            "type": "message_delta",
            "delta": {"stop_reason": self.stop_reason(), "stop_sequence": null},
            "usage": {"output_tokens": self.reply.count()},
        }));
        events.push(json!({"type": "message_stop"}));
        let kind = |event: &Value| event.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        events.iter().map(|event| pace::event(Some(&kind(event)), event)).collect()
    }

    /// The one content block: its start, a ping as the real service sends, and its deltas.
    fn block_events(&self) -> Vec<Value> {
        let (block, deltas): (Value, Vec<Value>) = match &self.reply {
            Reply::Words { words, .. } => (
                json!({"type": "text", "text": ""}),
                words.iter().map(|word| json!({"type": "text_delta", "text": word})).collect(),
            ),
            Reply::Call { name, arguments } => (
                self.tool_use(name, &json!({})),
                arguments
                    .to_string()
                    .split_inclusive(',')
                    .map(|piece| json!({"type": "input_json_delta", "partial_json": piece}))
                    .collect(),
            ),
        };
        let start = json!({"type": "content_block_start", "index": 0, "content_block": block});
        let deltas =
            deltas.iter().map(|delta| json!({"type": "content_block_delta", "index": 0, "delta": delta}));
        [start, json!({"type": "ping"})].into_iter().chain(deltas).collect()
    }

    fn message(&self, content: &[Value], stop_reason: Option<&str>, output_tokens: u64) -> Value {
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": null,
            "usage": {"input_tokens": self.input_tokens, "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0, "output_tokens": output_tokens},
        })
    }

    fn tool_use(&self, called: &str, input: &Value) -> Value {
        json!({"type": "tool_use", "id": name("toolu_", self.id.as_bytes()), "name": called, "input": input})
    }

    fn stop_reason(&self) -> &'static str {
        match self.reply {
            Reply::Words { cut: false, .. } => "end_turn",
            Reply::Words { cut: true, .. } => "max_tokens",
            Reply::Call { .. } => "tool_use",
        }
    }
}
