//! Ollama's `/api/chat` and `/api/generate`: NDJSON objects, the last of which says `"done":true`.

use std::mem::take;

use super::assembly::{Reader, count, list, owned, word};
use super::grow::Object;
use super::raw::Raw;
use super::{Answered, Usage};

/// Reads both calls: one says `message`, the other `response`.
#[derive(Default)]
pub(super) struct Ollama {
    message: Option<Object>,
    answered: Answered,
}

// === impl Ollama ===

impl Ollama {
    fn message(&mut self) -> &mut Object {
        self.message.get_or_insert_with(|| {
            let mut message = Object::with("role", b"assistant");
            message.append("content", b"");
            message
        })
    }

    fn append(&mut self, texts: [(&'static str, Option<Raw<'_>>); 2]) {
        for (name, text) in texts {
            if let Some(text) = text.and_then(Raw::written) {
                self.message().append(name, text);
            }
        }
    }
}

impl Reader for Ollama {
    fn event(&mut self, _name: &str, data: Raw<'_>) {
        let [message, response, thinking] = data.pick(["message", "response", "thinking"]);
        if let Some(message) = message {
            let [content, thinking, calls] = message.pick(["content", "thinking", "tool_calls"]);
            self.append([("content", content), ("thinking", thinking)]);
            for call in calls.into_iter().flat_map(Raw::elements) {
                self.message().push("tool_calls", call);
            }
        }
        self.append([("content", response), ("thinking", thinking)]);

        let [model, reason, done, error] = data.pick(["model", "done_reason", "done", "error"]);
        let answered = &mut self.answered;
        if answered.model.is_none() {
            answered.model = word(model);
        }
        answered.finish_reason = word(reason).or(answered.finish_reason.take());
        answered.finished |= done.is_some_and(Raw::is_true);
        answered.usage = usage(data).or(answered.usage);
        if let Some(error) = error {
            answered.error = Some(owned(error));
        }
    }

    fn document(&mut self, document: Raw<'_>) {
        self.event("", document);
    }

    fn text(&mut self, _text: &[u8]) {}

    fn answered(&mut self) -> Answered {
        let mut messages = Vec::new();
        if let Some(message) = self.message.take() {
            messages.push(b'[');
            message.write(&mut messages);
        }
        Answered { messages: list(messages), ..take(&mut self.answered) }
    }
}

/// Either count may be absent, which is not zero: a prompt found in the cache is not counted.
fn usage(data: Raw<'_>) -> Option<Usage> {
    let prompt = count(data, "/prompt_eval_count");
    let completion = count(data, "/eval_count");
    let total = prompt.zip(completion).map(|(prompt, completion)| prompt.saturating_add(completion));
    let usage = Usage { prompt, completion, total, ..Usage::default() };
    (usage != Usage::default()).then_some(usage)
}
