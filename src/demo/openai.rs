//! OpenAI's chat completions and legacy completions, whole and streamed.

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

use crate::demo::chat::{Unfit, flag, list, model, openai_error, parse};
use crate::demo::pace;
use crate::demo::reply::{Choice, Heard, MADE_AT, Reply, Tool, content_text, name};

/// Most choices of one answer.
const MAX_CHOICES: u64 = 8;

/// What both calls have in common once the request is understood.
struct Answer {
    id: String,
    model: String,
    choices: Vec<Reply>,
    prompt_tokens: u64,
    stream: bool,
    include_usage: bool,
}

/// `POST /v1/chat/completions`
pub(super) async fn chat(body: Bytes) -> Response {
    match understand_chat(&body) {
        Ok(answer) if answer.stream => pace::sse(answer.chat_events()),
        Ok(answer) => Json(answer.chat_document()).into_response(),
        Err(unfit) => openai_error(StatusCode::BAD_REQUEST, None, &unfit.to_string()),
    }
}

/// `POST /v1/completions`
pub(super) async fn complete(body: Bytes) -> Response {
    match understand_completion(&body) {
        Ok(answer) if answer.stream => pace::sse(answer.text_events()),
        Ok(answer) => Json(answer.text_document()).into_response(),
        Err(unfit) => openai_error(StatusCode::BAD_REQUEST, None, &unfit.to_string()),
    }
}

/// The tools of a request, in the nested form of chat completions (and of Ollama).
pub(super) fn tools(request: &Value) -> Vec<Tool> {
    let offered = request.get("tools").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    offered.iter().filter_map(|tool| function(tool.get("function")?)).collect()
}

/// A function's name and the schema of its `parameters`.
pub(super) fn function(function: &Value) -> Option<Tool> {
    let name = function.get("name")?.as_str()?.to_owned();
    Some(Tool { name, schema: function.get("parameters").cloned().unwrap_or(Value::Null) })
}

/// `tool_choice`: a word, or the function by name, nested (chat) or flat (responses).
pub(super) fn tool_choice(request: &Value) -> Choice {
    let choice = request.get("tool_choice").unwrap_or(&Value::Null);
    let named = choice.pointer("/function/name").or_else(|| choice.get("name")).and_then(Value::as_str);
    match (choice.as_str(), named) {
        (_, Some(name)) => Choice::Named(name.to_owned()),
        (Some("none"), _) => Choice::None,
        (Some("required"), _) => Choice::Any,
        _ => Choice::Auto,
    }
}

fn understand_chat(body: &[u8]) -> Result<Answer, Unfit> {
    let request = parse(body)?;
    let heard = Heard::messages(list(&request, "messages")?);
    let limit = request.get("max_completion_tokens").or_else(|| request.get("max_tokens"));
    let reply = Reply::to(&heard, &tools(&request), &tool_choice(&request));
    let reply = reply.limited(limit.and_then(Value::as_u64));
    let choices = choices(&request)?.map(|index| reply.variant(index)).collect();
    answer("chatcmpl-", body, &request, choices, heard.words)
}

fn understand_completion(body: &[u8]) -> Result<Answer, Unfit> {
    let request = parse(body)?;
    let prompts: Vec<String> = match request.get("prompt") {
        Some(Value::String(prompt)) => vec![prompt.clone()],
        Some(Value::Array(prompts)) if !prompts.is_empty() => prompts.iter().map(content_text).collect(),
        _ => return Err(Unfit("'prompt' must be a string or an array of strings.".into())),
    };
    let limit = request.get("max_tokens").and_then(Value::as_u64);
    let several = choices(&request)?;
    let mut replies = Vec::new();
    for prompt in &prompts {
        let reply = Reply::to(&Heard::prompt(prompt), &[], &Choice::None).limited(limit);
        replies.extend(several.clone().map(|index| reply.variant(index)));
    }
    let words = prompts.iter().map(|prompt| Heard::prompt(prompt).words).sum();
    answer("cmpl-", body, &request, replies, words)
}

/// The indices of `n` choices.
fn choices(request: &Value) -> Result<std::ops::Range<u64>, Unfit> {
    match request.get("n") {
        None | Some(Value::Null) => Ok(0..1),
        Some(n) => match n.as_u64() {
            Some(n @ 1..=MAX_CHOICES) => Ok(0..n),
            _ => Err(Unfit(format!("'n' must be between 1 and {MAX_CHOICES}."))),
        },
    }
}

fn answer(
    prefix: &str,
    body: &[u8],
    request: &Value,
    choices: Vec<Reply>,
    prompt_tokens: u64,
) -> Result<Answer, Unfit> {
    let include_usage = request.pointer("/stream_options/include_usage").and_then(Value::as_bool);
    Ok(Answer {
        id: name(prefix, body),
        model: model(request)?.to_owned(),
        choices,
        prompt_tokens,
        stream: flag(request, "stream"),
        include_usage: include_usage.unwrap_or(false),
    })
}

// === impl Answer ===

impl Answer {
    fn chat_document(&self) -> Value {
        let choices = self.choices.iter().zip(0_u64..).map(|(reply, index)| {
            let mut message =
                json!({"role": "assistant", "content": reply.text(), "refusal": null, "annotations": []});
            if let (Some(call), Some(fields)) = (self.tool_call(reply, index), message.as_object_mut()) {
                fields.insert("content".into(), Value::Null);
                fields.insert("tool_calls".into(), json!([call]));
            }
            json!({"index": index, "message": message, "logprobs": null, "finish_reason": finish(reply)})
        });
        let mut document = self.envelope("chat.completion", &choices.collect::<Vec<_>>());
        self.add_usage(&mut document);
        document
    }

    fn chat_events(&self) -> Vec<String> {
        let mut chunks = Vec::new();
        for (reply, index) in self.choices.iter().zip(0_u64..) {
            let content = if matches!(reply, Reply::Call { .. }) { Value::Null } else { json!("") };
            chunks.push(delta(
                index,
                &json!({"role": "assistant", "content": content, "refusal": null}),
                None,
            ));
            chunks.extend(self.deltas(reply, index));
            chunks.push(delta(index, &json!({}), Some(finish(reply))));
        }
        self.events("chat.completion.chunk", chunks)
    }

    fn deltas(&self, reply: &Reply, index: u64) -> Vec<Value> {
        match reply {
            Reply::Words { words, .. } => {
                words.iter().map(|word| delta(index, &json!({"content": word}), None)).collect()
            }
            Reply::Call { name, arguments } => {
                let begun = json!({"index": 0, "id": self.call_id(index), "type": "function",
                    "function": {"name": name, "arguments": ""}});
                let arguments = arguments.to_string();
                let pieces = arguments
                    .split_inclusive(',')
                    .map(|piece| json!({"index": 0, "function": {"arguments": piece}}));
                std::iter::once(begun)
                    .chain(pieces)
                    .map(|call| delta(index, &json!({"tool_calls": [call]}), None))
                    .collect()
            }
        }
    }

    fn text_document(&self) -> Value {
        let choices = self.choices.iter().zip(0_u64..);
        let choices = choices.map(|(reply, index)| text_choice(index, &reply.text(), Some(finish(reply))));
        let mut document = self.envelope("text_completion", &choices.collect::<Vec<_>>());
        self.add_usage(&mut document);
        document
    }

    fn text_events(&self) -> Vec<String> {
        let mut chunks = Vec::new();
        for (reply, index) in self.choices.iter().zip(0_u64..) {
            if let Reply::Words { words, .. } = reply {
                chunks.extend(words.iter().map(|word| text_choice(index, word, None)));
            }
            chunks.push(text_choice(index, "", Some(finish(reply))));
        }
        self.events("text_completion", chunks)
    }

    /// Each choice as a chunk, the usage when it was asked for, and the end mark.
    fn events(&self, object: &str, choices: Vec<Value>) -> Vec<String> {
        let mut events: Vec<String> = choices
            .into_iter()
            .map(|choice| {
                let mut chunk = self.envelope(object, &[choice]);
                if let (true, Some(fields)) = (self.include_usage, chunk.as_object_mut()) {
                    fields.insert("usage".into(), Value::Null);
                }
                pace::event(None, &chunk)
            })
            .collect();
        if self.include_usage {
            let mut last = self.envelope(object, &[]);
            self.add_usage(&mut last);
            events.push(pace::event(None, &last));
        }
        events.push("data: [DONE]\n\n".into());
        events
    }

    fn envelope(&self, object: &str, choices: &[Value]) -> Value {
        json!({"id": self.id, "object": object, "created": MADE_AT, "model": self.model,
            "system_fingerprint": "fp_demo", "choices": choices})
    }

    fn add_usage(&self, document: &mut Value) {
        let completion: u64 = self.choices.iter().map(Reply::count).sum();
        let usage = json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0,
                "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
        });
        if let Some(fields) = document.as_object_mut() {
            fields.insert("usage".into(), usage);
        }
    }

    fn tool_call(&self, reply: &Reply, index: u64) -> Option<Value> {
        let Reply::Call { name, arguments } = reply else { return None };
        let function = json!({"name": name, "arguments": arguments.to_string()});
        Some(json!({"id": self.call_id(index), "type": "function", "function": function}))
    }

    fn call_id(&self, index: u64) -> String {
        name(&format!("call_{index}"), self.id.as_bytes())
    }
}

fn delta(index: u64, delta: &Value, finish_reason: Option<&str>) -> Value {
    json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": finish_reason})
}

fn text_choice(index: u64, text: &str, finish_reason: Option<&str>) -> Value {
    json!({"index": index, "text": text, "logprobs": null, "finish_reason": finish_reason})
}

fn finish(reply: &Reply) -> &'static str {
    match reply {
        Reply::Words { cut: false, .. } => "stop",
        Reply::Words { cut: true, .. } => "length",
        Reply::Call { .. } => "tool_calls",
    }
}
