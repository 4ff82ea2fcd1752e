//! Ollama's `/api/chat` and `/api/generate`: NDJSON objects, the last of which says `"done":true`.

use std::mem::take;

use serde_json::{Value, json};

use super::assembly::{Reader, append, count, take_list, take_some, take_text};
use super::{Answered, Usage};

/// Reads both calls: one says `message`, the other `response`.
#[derive(Default)]
pub(super) struct Ollama {
    message: Option<Value>,
    answered: Answered,
}

// === impl Ollama ===

impl Ollama {
    fn message(&mut self) -> &mut Value {
        self.message.get_or_insert_with(|| json!({"role": "assistant", "content": ""}))
    }

    fn append(&mut self, from: &Value, keys: &[(&str, &str)]) {
        for (theirs, ours) in keys {
            if let Some(Value::String(text)) = from.get(*theirs) {
                append(self.message(), ours, text);
            }
        }
    }

    fn tool_calls(&mut self, calls: Vec<Value>) {
        if calls.is_empty() {
            return;
        }
        let Some(message) = self.message().as_object_mut() else { return };
        let known = message.entry("tool_calls").or_insert_with(|| json!([]));
        if let Some(known) = known.as_array_mut() {
            known.extend(calls);
        }
    }
}

impl Reader for Ollama {
    fn event(&mut self, _name: &str, mut data: Value) {
        if let Some(mut message) = take_some(&mut data, "message") {
            self.append(&message, &[("content", "content"), ("thinking", "thinking")]);
            self.tool_calls(take_list(&mut message, "tool_calls"));
        }
        self.append(&data, &[("response", "content"), ("thinking", "thinking")]);

        let answered = &mut self.answered;
        if answered.model.is_none() {
            answered.model = take_text(&mut data, "model");
        }
        answered.finish_reason = take_text(&mut data, "done_reason").or(answered.finish_reason.take());
        answered.finished |= data.get("done") == Some(&Value::Bool(true));
        answered.usage = usage(&data).or(answered.usage);
        if let Some(error) = take_some(&mut data, "error") {
            answered.error = Some(error);
        }
    }

    fn document(&mut self, document: Value) {
        self.event("", document);
    }

    fn text(&mut self, _text: &str) {}

    fn answered(&mut self) -> Answered {
        let messages = self.message.take().into_iter().collect();
        Answered { messages, ..take(&mut self.answered) }
    }
}

/// Either count may be absent, which is not zero: a prompt found in the cache is not counted.
fn usage(data: &Value) -> Option<Usage> {
    let prompt = count(data, "/prompt_eval_count");
    let completion = count(data, "/eval_count");
    let total = prompt.zip(completion).map(|(prompt, completion)| prompt.saturating_add(completion));
    let usage = Usage { prompt, completion, total, ..Usage::default() };
    (usage != Usage::default()).then_some(usage)
}
