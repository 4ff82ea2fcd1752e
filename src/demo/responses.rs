//! OpenAI's responses: one document, or typed events that build it.

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

use crate::demo::chat::{Unfit, flag, model, openai_error, parse};
use crate::demo::openai::{function, tool_choice};
use crate::demo::pace;
use crate::demo::reply::{Heard, MADE_AT, Reply, Tool, name};

/// An answer and the request it answers; the document repeats much of the latter.
struct Answer {
    id: String,
    model: String,
    request: Value,
    reply: Reply,
    input_tokens: u64,
}

/// The typed events of one stream, numbered.
#[derive(Default)]
struct Events {
    frames: Vec<String>,
}

/// `POST /v1/responses`
pub(super) async fn respond(body: Bytes) -> Response {
    match understand(&body) {
        Ok(answer) if flag(&answer.request, "stream") => pace::sse(answer.events()),
        Ok(answer) => Json(answer.ended()).into_response(),
        Err(unfit) => openai_error(StatusCode::BAD_REQUEST, None, &unfit.to_string()),
    }
}

fn understand(body: &[u8]) -> Result<Answer, Unfit> {
    let request = parse(body)?;
    let heard = match request.get("input") {
        Some(Value::String(input)) => Heard::prompt(input),
        Some(Value::Array(items)) if !items.is_empty() => Heard::messages(items),
        _ => return Err(Unfit("'input' must be a string or an array with at least one item.".into())),
    };
    let heard = heard.with_preamble(request.get("instructions"));
    let limit = request.get("max_output_tokens").and_then(Value::as_u64);
    let reply = Reply::to(&heard, &tools(&request), &tool_choice(&request)).limited(limit);
    let model = model(&request)?.to_owned();
    Ok(Answer { id: name("resp_", body), model, request, reply, input_tokens: heard.words })
}

/// The tools of a request, in the flat form of responses.
fn tools(request: &Value) -> Vec<Tool> {
    let offered = request.get("tools").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    offered.iter().filter_map(function).collect()
}

// === impl Answer ===

impl Answer {
    fn events(&self) -> Vec<String> {
        let mut events = Events::default();
        let begun = self.document("in_progress", &[], &Value::Null);
        events.push("response.created", json!({"response": begun}));
        events.push("response.in_progress", json!({"response": begun}));
        match &self.reply {
            Reply::Words { words, .. } => self.say(words, &mut events),
            Reply::Call { name, arguments } => self.call(name, &arguments.to_string(), &mut events),
        }
        let end = if self.is_cut() { "response.incomplete" } else { "response.completed" };
        events.push(end, json!({"response": self.ended()}));
        events.frames
    }

    fn say(&self, words: &[String], events: &mut Events) {
        let at = |mut more: Value| {
            if let Some(fields) = more.as_object_mut() {
                fields.insert("item_id".into(), json!(self.item_id()));
                fields.insert("output_index".into(), json!(0));
                fields.insert("content_index".into(), json!(0));
            }
            more
        };
        let empty = self.message("in_progress", &[]);
        events.push("response.output_item.added", json!({"output_index": 0, "item": empty}));
        events.push("response.content_part.added", at(json!({"part": part("")})));
        for word in words {
            events.push("response.output_text.delta", at(json!({"delta": word, "logprobs": []})));
        }
        let text = self.reply.text();
        events.push("response.output_text.done", at(json!({"text": text, "logprobs": []})));
        events.push("response.content_part.done", at(json!({"part": part(&text)})));
        events.push("response.output_item.done", json!({"output_index": 0, "item": self.item()}));
    }

    fn call(&self, name: &str, arguments: &str, events: &mut Events) {
        let id = self.item_id();
        let begun = self.function_call("in_progress", name, "");
        events.push("response.output_item.added", json!({"output_index": 0, "item": begun}));
        for piece in arguments.split_inclusive(',') {
            let delta = json!({"item_id": id, "output_index": 0, "delta": piece});
            events.push("response.function_call_arguments.delta", delta);
        }
        let done = json!({"item_id": id, "output_index": 0, "name": name, "arguments": arguments});
        events.push("response.function_call_arguments.done", done);
        events.push("response.output_item.done", json!({"output_index": 0, "item": self.item()}));
    }

    /// The document at the end.
    fn ended(&self) -> Value {
        let output_tokens = self.reply.count();
        let usage = json!({
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.input_tokens + output_tokens,
        });
        self.document(self.status(), &[self.item()], &usage)
    }

    fn document(&self, status: &str, output: &[Value], usage: &Value) -> Value {
        let given = |field: &str, default: Value| self.request.get(field).cloned().unwrap_or(default);
        let cut = (status == "incomplete").then(|| json!({"reason": "max_output_tokens"}));
        json!({
            "id": self.id,
            "object": "response",
            "created_at": MADE_AT,
            "status": status,
            "background": false,
            "error": null,
            "incomplete_details": cut,
            "instructions": given("instructions", Value::Null),
            "max_output_tokens": given("max_output_tokens", Value::Null),
            "metadata": given("metadata", json!({})),
            "model": self.model,
            "output": output,
            "parallel_tool_calls": given("parallel_tool_calls", json!(true)),
            "previous_response_id": given("previous_response_id", Value::Null),
            "reasoning": {"effort": null, "summary": null},
            "store": false,
            "temperature": given("temperature", json!(1.0)),
            "text": given("text", json!({"format": {"type": "text"}})),
            "tool_choice": given("tool_choice", json!("auto")),
            "tools": given("tools", json!([])),
            "top_p": given("top_p", json!(1.0)),
            "truncation": "disabled",
            "usage": usage,
            "user": given("user", Value::Null),
        })
    }

    fn item(&self) -> Value {
        match &self.reply {
            Reply::Words { .. } => self.message(self.status(), &[part(&self.reply.text())]),
            Reply::Call { name, arguments } => self.function_call("completed", name, &arguments.to_string()),
        }
    }

    fn message(&self, status: &str, content: &[Value]) -> Value {
        json!({"id": self.item_id(), "type": "message", "role": "assistant", "status": status,
            "content": content})
    }

    fn function_call(&self, status: &str, called: &str, arguments: &str) -> Value {
        json!({"id": self.item_id(), "type": "function_call", "status": status, "name": called,
            "call_id": name("call_", self.id.as_bytes()), "arguments": arguments})
    }

    fn item_id(&self) -> String {
        let prefix = if matches!(self.reply, Reply::Call { .. }) { "fc_" } else { "msg_" };
        name(prefix, self.id.as_bytes())
    }

    fn status(&self) -> &'static str {
        if self.is_cut() { "incomplete" } else { "completed" }
    }

    fn is_cut(&self) -> bool {
        matches!(self.reply, Reply::Words { cut: true, .. })
    }
}

// === impl Events ===

impl Events {
    fn push(&mut self, kind: &str, mut event: Value) {
        if let Some(fields) = event.as_object_mut() {
            fields.insert("type".into(), json!(kind));
            fields.insert("sequence_number".into(), json!(self.frames.len()));
        }
        self.frames.push(pace::event(Some(kind), &event));
    }
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}
