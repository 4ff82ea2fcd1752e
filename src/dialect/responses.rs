//! OpenAI's responses: typed events, the last of which carries the whole response.
//!
//! Where the stream is cut before that, the items are put together from their parts.

use std::collections::BTreeMap;
use std::mem::take;

use super::Answered;
use super::assembly::{MOST_PARTS, Reader, list, message, owned, word};
use super::copy::{append, copy};
use super::grow::Object;
use super::openai::usage;
use super::raw::Raw;

/// Reads `…/responses`, streamed or not.
#[derive(Default)]
pub(super) struct Responses {
    items: BTreeMap<u64, Item>,
    /// Items and parts of them.
    parts: usize,
    /// The items of the terminal event, which is trusted above all.
    output: Vec<u8>,
    answered: Answered,
}

#[derive(Default)]
struct Item {
    value: Object,
    /// Whether `value` came whole, by `output_item.done`.
    done: bool,
    /// Parts of `content` and of `summary`, by their index there.
    content: BTreeMap<u64, Object>,
    summary: BTreeMap<u64, Object>,
}

// === impl Responses ===

impl Responses {
    fn response(&mut self, response: Raw<'_>) {
        let [model, reported, error, details, status, output] =
            response.pick(["model", "usage", "error", "incomplete_details", "status", "output"]);
        let answered = &mut self.answered;
        answered.model = word(model).or(answered.model.take());
        answered.usage = reported.and_then(usage).or(answered.usage);
        answered.error = error.map(owned).or(answered.error.take());
        answered.finish_reason = word(details.and_then(|details| details.get("reason"))).or(word(status));
        self.output.clear();
        if let Some(output) = output.filter(|output| output.elements().next().is_some()) {
            copy(output, &mut self.output);
        }
    }

    /// The item of this index; `None`: there are too many.
    fn item(&mut self, index: Option<Raw<'_>>) -> Option<&mut Item> {
        let index = index.and_then(Raw::count).unwrap_or_default();
        if !self.items.contains_key(&index) {
            if self.parts >= MOST_PARTS {
                self.answered.cut += 1;
                return None;
            }
            self.parts += 1;
        }
        Some(self.items.entry(index).or_default())
    }

    /// An item that is beginning, or that is whole.
    fn put_item(&mut self, data: Raw<'_>, done: bool) {
        let [index, value] = data.pick(["output_index", "item"]);
        if let Some(value) = value
            && let Some(item) = self.item(index)
        {
            item.value = Object::of(value);
            item.done = done;
        }
    }

    fn delta(&mut self, kind: &str, data: Raw<'_>) {
        let [text, index, content, summary] =
            data.pick(["delta", "output_index", "content_index", "summary_index"]);
        let Some(text) = text.and_then(Raw::written) else { return };
        let (content, summary) = (
            content.and_then(Raw::count).unwrap_or_default(),
            summary.and_then(Raw::count).unwrap_or_default(),
        );
        let is_full = self.parts >= MOST_PARTS;
        let Some(item) = self.item(index) else { return };
        let before = item.content.len() + item.summary.len();
        let known = match kind {
            "response.reasoning_summary_text.delta" => item.summary.contains_key(&summary),
            _ => item.content.contains_key(&content),
        };
        let may_begin = known || !is_full;
        match kind {
            "response.output_text.delta" | "response.text.delta" if may_begin => {
                item.part(content, "output_text", "text", text);
            }
            "response.output_audio_transcript.delta" | "response.audio_transcript.delta" if may_begin => {
                item.part(content, "output_audio", "transcript", text);
            }
            "response.refusal.delta" if may_begin => item.part(content, "refusal", "refusal", text),
            "response.reasoning_text.delta" if may_begin => {
                item.part(content, "reasoning_text", "text", text);
            }
            "response.reasoning_summary_text.delta" if may_begin => {
                let part =
                    item.summary.entry(summary).or_insert_with(|| Object::with("type", b"summary_text"));
                part.append("text", text);
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
        let more = item.content.len() + item.summary.len() - before;
        self.parts += more;
        self.answered.cut += u64::from(!may_begin);
    }
}

impl Reader for Responses {
    fn event(&mut self, name: &str, data: Raw<'_>) {
        let [kind, response, error] = data.pick(["type", "response", "error"]);
        let kind = word(kind).unwrap_or_else(|| name.to_owned());
        match kind.as_str() {
            "response.completed"
            | "response.incomplete"
            | "response.failed"
            | "response.cancelled"
            | "response.done" => {
                self.response(response.unwrap_or(Raw::NULL));
                self.answered.finished = true;
            }
            "response.created" | "response.in_progress" | "response.queued" => {
                let model = word(response.and_then(|response| response.get("model")));
                self.answered.model = model.or(self.answered.model.take());
            }
            "response.output_item.added" => self.put_item(data, false),
            "response.output_item.done" => self.put_item(data, true),
            "error" => self.answered.error = Some(owned(error.unwrap_or(data))),
            kind => match error {
                Some(error) => self.answered.error = Some(owned(error)),
                None => self.delta(kind, data),
            },
        }
    }

    fn document(&mut self, document: Raw<'_>) {
        self.response(document);
    }

    fn text(&mut self, _text: &[u8]) {}

    /// One assistant message, whose content is the list of output items.
    fn answered(&mut self) -> Answered {
        let mut answered = take(&mut self.answered);
        let (output, items) = (take(&mut self.output), take(&mut self.items));
        if output.is_empty() && items.is_empty() {
            return answered;
        }
        let mut messages = b"[".to_vec();
        message("assistant", &mut messages, |to| {
            if !output.is_empty() {
                return append(to, &output);
            }
            write_list(items.into_values(), Item::write, to);
        });
        answered.messages = list(messages);
        answered
    }
}

fn write_list<T>(values: impl Iterator<Item = T>, write: impl Fn(T, &mut Vec<u8>), to: &mut Vec<u8>) {
    append(to, b"[");
    for (nth, value) in values.enumerate() {
        append(to, if nth > 0 { b"," } else { b"" });
        write(value, to);
    }
    append(to, b"]");
}

// === impl Item ===

impl Item {
    fn implied(&mut self, kind: &str) {
        if self.value.is_nothing() {
            self.value = Object::with("type", kind.as_bytes());
        }
    }

    fn append(&mut self, kind: &str, key: &'static str, text: &[u8]) {
        self.implied(kind);
        if !self.done {
            self.value.append(key, text);
        }
    }

    fn part(&mut self, index: u64, kind: &str, key: &'static str, text: &[u8]) {
        self.implied(if kind == "reasoning_text" { "reasoning" } else { "message" });
        let part = self.content.entry(index).or_insert_with(|| Object::with("type", kind.as_bytes()));
        part.append(key, text);
    }

    fn write(self, to: &mut Vec<u8>) {
        let Self { mut value, done, content, summary } = self;
        if !done {
            for (key, parts) in [("content", content), ("summary", summary)] {
                if !parts.is_empty() {
                    let mut written = Vec::new();
                    write_list(parts.into_values(), Object::write, &mut written);
                    value.set(key, written);
                }
            }
        }
        value.write(to);
    }
}
