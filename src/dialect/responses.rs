//! OpenAI's responses: typed events, the last of which carries the whole response.
//!
//! Where the stream is cut before that, the items are put together from their parts.

use std::collections::BTreeMap;
use std::mem::take;

use serde_json::{Value, json};

use super::Answered;
use super::assembly::{Reader, append, count, message, take_list, take_some, take_text};
use super::message::omit_media;
use super::openai::usage;

/// Reads `…/responses`, streamed or not.
#[derive(Default)]
pub(super) struct Responses {
    items: BTreeMap<u64, Item>,
    /// The items of the terminal event, which is trusted above all.
    output: Vec<Value>,
    answered: Answered,
}

#[derive(Default)]
struct Item {
    value: Value,
    /// Whether `value` came whole, by `output_item.done`.
    done: bool,
    /// Parts of `content` and of `summary`, by their index there.
    content: BTreeMap<u64, Value>,
    summary: BTreeMap<u64, Value>,
}

// === impl Responses ===

impl Responses {
    fn response(&mut self, mut response: Value) {
        let answered = &mut self.answered;
        answered.model = take_text(&mut response, "model").or(answered.model.take());
        answered.usage = response.get("usage").and_then(usage).or(answered.usage);
        answered.error = take_some(&mut response, "error").or(answered.error.take());
        let reason = response.get_mut("incomplete_details").and_then(|details| take_text(details, "reason"));
        let status = take_text(&mut response, "status");
        answered.finish_reason = reason.or(status);
        self.output = take_list(&mut response, "output");
    }

    fn item(&mut self, data: &Value) -> &mut Item {
        self.items.entry(count(data, "/output_index").unwrap_or_default()).or_default()
    }

    /// `value` of an item that is beginning, or that is whole.
    fn put_item(&mut self, mut data: Value, done: bool) {
        let Some(value) = take_some(&mut data, "item") else { return };
        let item = self.item(&data);
        item.value = value;
        item.done = done;
    }

    fn delta(&mut self, kind: &str, data: &Value) {
        let Some(text) = data.get("delta").and_then(Value::as_str) else { return };
        let content = count(data, "/content_index").unwrap_or_default();
        let summary = count(data, "/summary_index").unwrap_or_default();
        let item = self.item(data);
        match kind {
            "response.output_text.delta" => item.part(content, "output_text", "text", text),
            "response.refusal.delta" => item.part(content, "refusal", "refusal", text),
            "response.reasoning_text.delta" => item.part(content, "reasoning_text", "text", text),
            "response.reasoning_summary_text.delta" => {
                let part = item.summary.entry(summary).or_insert_with(|| json!({"type": "summary_text"}));
                append(part, "text", text);
                item.implied("reasoning");
            }
            "response.function_call_arguments.delta" => item.append("function_call", "arguments", text),
            "response.mcp_call_arguments.delta" => item.append("mcp_call", "arguments", text),
            "response.custom_tool_call_input.delta" => item.append("custom_tool_call", "input", text),
            "response.code_interpreter_call_code.delta" => {
                item.append("code_interpreter_call", "code", text);
            }
            _ => {}
        }
    }
}

impl Reader for Responses {
    fn event(&mut self, name: &str, mut data: Value) {
        let kind = data.get("type").and_then(Value::as_str).unwrap_or(name).to_owned();
        match kind.as_str() {
            "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled" => {
                self.response(take_some(&mut data, "response").unwrap_or_default());
                self.answered.finished = true;
            }
            "response.created" | "response.in_progress" | "response.queued" => {
                let model = data.get_mut("response").and_then(|response| take_text(response, "model"));
                self.answered.model = model.or(self.answered.model.take());
            }
            "response.output_item.added" => self.put_item(data, false),
            "response.output_item.done" => self.put_item(data, true),
            "error" => self.answered.error = Some(take_some(&mut data, "error").unwrap_or(data)),
            _ if data.get("error").is_some_and(|error| !error.is_null()) => {
                self.answered.error = take_some(&mut data, "error");
            }
            kind => self.delta(kind, &data),
        }
    }

    fn document(&mut self, document: Value) {
        self.response(document);
    }

    fn text(&mut self, _text: &str) {}

    /// One assistant message, whose content is the list of output items.
    fn answered(&mut self) -> Answered {
        let mut answered = take(&mut self.answered);
        let mut items = take(&mut self.output);
        if items.is_empty() {
            items = take(&mut self.items).into_values().map(Item::value).collect();
        }
        items.iter_mut().for_each(omit_media);
        if !items.is_empty() {
            answered.messages = vec![message("assistant", Value::Array(items))];
        }
        answered
    }
}

// === impl Item ===

impl Item {
    fn implied(&mut self, kind: &str) {
        if self.value.is_null() {
            self.value = json!({"type": kind});
        }
    }

    fn append(&mut self, kind: &str, key: &str, text: &str) {
        self.implied(kind);
        if !self.done {
            append(&mut self.value, key, text);
        }
    }

    fn part(&mut self, index: u64, kind: &str, key: &str, text: &str) {
        self.implied(if kind == "reasoning_text" { "reasoning" } else { "message" });
        let part = self.content.entry(index).or_insert_with(|| json!({"type": kind}));
        append(part, key, text);
    }

    fn value(self) -> Value {
        let Self { mut value, done, content, summary } = self;
        let Some(item) = value.as_object_mut().filter(|_| !done) else { return value };
        for (key, parts) in [("content", content), ("summary", summary)] {
            if !parts.is_empty() {
                item.insert(key.to_owned(), parts.into_values().collect());
            }
        }
        value
    }
}
