//! Anthropic's messages: content blocks that grow by deltas, and usage that is a running total.
//!
//! Follows `accumulate_event` of the Anthropic SDK, with two liberties: blocks are found by their
//! index, and a kind of delta not known here is kept as it came.

use std::collections::BTreeMap;
use std::mem::take;

use serde_json::{Value, json};

use super::assembly::{Reader, append, count, message, take_list, take_some, take_text};
use super::message::omit_media;
use super::{Answered, Usage};

/// Reads `…/messages`, streamed or not.
#[derive(Default)]
pub(super) struct Messages {
    role: Option<String>,
    blocks: BTreeMap<u64, Block>,
    counts: Counts,
    answered: Answered,
}

#[derive(Default)]
struct Block {
    value: Value,
    /// The input of a tool, as JSON text so far.
    input: String,
}

/// The last count seen of each kind. Every report overwrites.
#[derive(Default)]
struct Counts {
    input: Option<u64>,
    cache_creation: Option<u64>,
    cache_read: Option<u64>,
    output: Option<u64>,
    thinking: Option<u64>,
}

// === impl Messages ===

impl Messages {
    /// A message as a document, or as the skeleton that a stream begins with.
    fn skeleton(&mut self, mut start: Value) {
        self.role = take_text(&mut start, "role");
        self.answered.model = take_text(&mut start, "model");
        self.ending(&mut start);
        for (index, value) in (0..).zip(take_list(&mut start, "content")) {
            self.blocks.insert(index, Block { value, input: String::new() });
        }
        self.counts.update(start.get("usage").unwrap_or(&Value::Null));
    }

    fn ending(&mut self, from: &mut Value) {
        self.answered.finish_reason = take_text(from, "stop_reason").or(self.answered.finish_reason.take());
    }
}

impl Reader for Messages {
    fn event(&mut self, name: &str, mut data: Value) {
        let kind = take_text(&mut data, "type").unwrap_or_else(|| name.to_owned());
        let index = count(&data, "/index").unwrap_or_default();
        match kind.as_str() {
            "message_start" => self.skeleton(take_some(&mut data, "message").unwrap_or_default()),
            "content_block_start" => {
                let value = take_some(&mut data, "content_block").unwrap_or_default();
                self.blocks.insert(index, Block { value, input: String::new() });
            }
            "content_block_delta" => {
                if let Some(delta) = take_some(&mut data, "delta") {
                    self.blocks.entry(index).or_default().delta(delta);
                }
            }
            "message_delta" => {
                self.counts.update(data.get("usage").unwrap_or(&Value::Null));
                if let Some(mut delta) = take_some(&mut data, "delta") {
                    self.ending(&mut delta);
                }
            }
            "message_stop" => self.answered.finished = true,
            "error" => self.answered.error = Some(take_some(&mut data, "error").unwrap_or(data)),
            _ => {}
        }
    }

    fn document(&mut self, mut document: Value) {
        match take_some(&mut document, "error") {
            Some(error) => self.answered.error = Some(error),
            None => self.skeleton(document),
        }
    }

    fn text(&mut self, _text: &str) {}

    fn answered(&mut self) -> Answered {
        let mut answered = take(&mut self.answered);
        answered.usage = self.counts.usage();
        let content: Vec<_> = take(&mut self.blocks).into_values().map(Block::value).collect();
        let role = self.role.take();
        if role.is_some() || !content.is_empty() {
            let role = role.unwrap_or_else(|| "assistant".to_owned());
            answered.messages = vec![message(&role, Value::Array(content))];
        }
        answered
    }
}

// === impl Block ===

impl Block {
    fn delta(&mut self, mut delta: Value) {
        let kind = take_text(&mut delta, "type").unwrap_or_default();
        match kind.as_str() {
            "text_delta" => self.append("text", "text", &delta, "text"),
            "thinking_delta" => self.append("thinking", "thinking", &delta, "thinking"),
            "input_json_delta" => {
                self.kind("tool_use");
                self.input.push_str(delta.get("partial_json").and_then(Value::as_str).unwrap_or_default());
            }
            "signature_delta" => {
                let signature = take_some(&mut delta, "signature");
                if let (Some(block), Some(signature)) = (self.kind("thinking"), signature) {
                    block.insert("signature".to_owned(), signature);
                }
            }
            "citations_delta" => {
                if let Some(citation) = take_some(&mut delta, "citation") {
                    self.push("text", "citations", citation);
                }
            }
            _ => {
                if let Some(delta) = delta.as_object_mut() {
                    delta.insert("type".to_owned(), Value::String(kind));
                }
                self.push("unknown", "deltas", delta);
            }
        }
    }

    /// The block as an object; one whose start was not seen is given the type its deltas imply.
    fn kind(&mut self, implied: &str) -> Option<&mut serde_json::Map<String, Value>> {
        if !self.value.is_object() {
            self.value = json!({"type": implied});
        }
        self.value.as_object_mut()
    }

    fn append(&mut self, implied: &str, key: &str, delta: &Value, from: &str) {
        self.kind(implied);
        if let Some(text) = delta.get(from).and_then(Value::as_str) {
            append(&mut self.value, key, text);
        }
    }

    fn push(&mut self, implied: &str, key: &str, value: Value) {
        let Some(block) = self.kind(implied) else { return };
        match block.get_mut(key) {
            Some(Value::Array(list)) => list.push(value),
            _ => {
                block.insert(key.to_owned(), json!([value]));
            }
        }
    }

    /// Input that does not parse, as when the stream was cut, is kept as its text.
    fn value(mut self) -> Value {
        let input = take(&mut self.input);
        if !input.is_empty()
            && let Some(block) = self.kind("tool_use")
        {
            let parsed = serde_json::from_str(&input).unwrap_or(Value::String(input));
            block.insert("input".to_owned(), parsed);
        }
        omit_media(&mut self.value);
        self.value
    }
}

// === impl Counts ===

impl Counts {
    /// Takes the counts of a `usage` object; those not reported there stand.
    fn update(&mut self, usage: &Value) {
        self.input = count(usage, "/input_tokens").or(self.input);
        self.cache_creation = count(usage, "/cache_creation_input_tokens").or(self.cache_creation);
        self.cache_read = count(usage, "/cache_read_input_tokens").or(self.cache_read);
        self.output = count(usage, "/output_tokens").or(self.output);
        self.thinking = count(usage, "/output_tokens_details/thinking_tokens").or(self.thinking);
    }

    /// "Total input tokens in a request is the summation of `input_tokens`,
    /// `cache_creation_input_tokens`, and `cache_read_input_tokens`."
    fn usage(&self) -> Option<Usage> {
        let add = |sum: Option<u64>, more: Option<u64>| match (sum, more) {
            (Some(sum), Some(more)) => Some(sum.saturating_add(more)),
            (sum, more) => sum.or(more),
        };
        let prompt = [self.input, self.cache_creation, self.cache_read].into_iter().fold(None, add);
        let usage = Usage {
            prompt,
            completion: self.output,
            total: prompt.zip(self.output).map(|(prompt, output)| prompt.saturating_add(output)),
            cached: self.cache_read,
            reasoning: self.thinking,
        };
        (usage != Usage::default()).then_some(usage)
    }
}

/// Counts of a `usage` object in Anthropic's names.
pub(super) fn usage(reported: &Value) -> Option<Usage> {
    let mut counts = Counts::default();
    counts.update(reported);
    counts.usage()
}
