//! Anthropic's messages: content blocks that grow by deltas, and usage that is a running total.
//!
//! Follows `accumulate_event` of the Anthropic SDK, with two liberties: blocks are found by their
//! index, and a kind of delta not known here is kept as it came.

use std::collections::BTreeMap;
use std::mem::take;

use super::assembly::{MOST_PARTS, Reader, count, list, message, most_text, owned, word};
use super::copy::{append, copy, escape};
use super::grow::Object;
use super::raw::{Raw, unescape};
use super::{Answered, Usage};

/// Reads `…/messages`, streamed or not.
#[derive(Default)]
pub(super) struct Messages {
    role: Option<String>,
    /// Of a document: its blocks as they are.
    content: Vec<u8>,
    blocks: BTreeMap<u64, Block>,
    counts: Counts,
    answered: Answered,
}

#[derive(Default)]
struct Block {
    object: Object,
    /// The input of a tool, as JSON text so far.
    input: Vec<u8>,
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
    /// A message as a document, or as the skeleton that a stream begins with; its content.
    fn skeleton<'a>(&mut self, start: Raw<'a>) -> Option<Raw<'a>> {
        let [role, model, reason, usage, content] =
            start.pick(["role", "model", "stop_reason", "usage", "content"]);
        self.role = word(role);
        self.answered.model = word(model);
        self.ending(reason);
        self.counts.update(usage.unwrap_or(Raw::NULL));
        content.filter(|content| content.is_list())
    }

    fn ending(&mut self, reason: Option<Raw<'_>>) {
        self.answered.finish_reason = word(reason).or(self.answered.finish_reason.take());
    }

    /// The block of this index; `None`: there are too many.
    fn block(&mut self, index: u64) -> Option<&mut Block> {
        if self.blocks.len() >= MOST_PARTS && !self.blocks.contains_key(&index) {
            self.answered.cut += 1;
            return None;
        }
        Some(self.blocks.entry(index).or_default())
    }

    fn begin_block(&mut self, index: u64, value: Raw<'_>) {
        if let Some(block) = self.block(index) {
            *block = Block { object: Object::of(value), input: Vec::new() };
        }
    }
}

impl Reader for Messages {
    fn event(&mut self, name: &str, data: Raw<'_>) {
        let [kind, index, message, block, delta, usage, error] =
            data.pick(["type", "index", "message", "content_block", "delta", "usage", "error"]);
        let kind = word(kind).unwrap_or_else(|| name.to_owned());
        let index = index.and_then(Raw::count).unwrap_or_default();
        match kind.as_str() {
            "message_start" => {
                let content = self.skeleton(message.unwrap_or(Raw::NULL));
                for (index, value) in (0..).zip(content.into_iter().flat_map(Raw::elements)) {
                    self.begin_block(index, value);
                }
            }
            "content_block_start" => self.begin_block(index, block.unwrap_or(Raw::NULL)),
            "content_block_delta" => {
                if let (Some(delta), Some(block)) = (delta, self.block(index)) {
                    block.delta(delta);
                }
            }
            "message_delta" => {
                self.counts.update(usage.unwrap_or(Raw::NULL));
                self.ending(delta.and_then(|delta| delta.get("stop_reason")));
            }
            "message_stop" => self.answered.finished = true,
            "error" => self.answered.error = Some(owned(error.unwrap_or(data))),
            _ => {}
        }
    }

    fn document(&mut self, document: Raw<'_>) {
        match document.get("error") {
            Some(error) => self.answered.error = Some(owned(error)),
            None => {
                if let Some(content) =
                    self.skeleton(document).filter(|content| content.elements().next().is_some())
                {
                    copy(content, &mut self.content);
                }
            }
        }
    }

    fn text(&mut self, _text: &[u8]) {}

    fn answered(&mut self) -> Answered {
        let mut answered = take(&mut self.answered);
        answered.usage = self.counts.usage();
        let role = self.role.take();
        if role.is_none() && self.content.is_empty() && self.blocks.is_empty() {
            return answered;
        }
        let role = role.unwrap_or_else(|| "assistant".to_owned());
        let (content, blocks) = (take(&mut self.content), take(&mut self.blocks));
        let mut messages = b"[".to_vec();
        message(&role, &mut messages, |to| {
            if !content.is_empty() {
                return append(to, &content);
            }
            append(to, b"[");
            for (nth, (_, block)) in blocks.into_iter().enumerate() {
                append(to, if nth > 0 { b"," } else { b"" });
                block.write(to);
            }
            append(to, b"]");
        });
        answered.messages = list(messages);
        answered
    }
}

// === impl Block ===

impl Block {
    fn delta(&mut self, delta: Raw<'_>) {
        let [kind, text, thinking, json, signature, citation] =
            delta.pick(["type", "text", "thinking", "partial_json", "signature", "citation"]);
        let kind = word(kind).unwrap_or_default();
        match kind.as_str() {
            "text_delta" => self.append("text", "text", text),
            "thinking_delta" => self.append("thinking", "thinking", thinking),
            "input_json_delta" => {
                self.kind(b"tool_use");
                let input = &mut self.input;
                unescape(json.and_then(Raw::written).unwrap_or_default(), |piece| append(input, piece));
            }
            "signature_delta" => {
                if let Some(signature) = signature {
                    self.kind(b"thinking");
                    self.object.set("signature", signature.bytes().to_vec());
                }
            }
            "citations_delta" => {
                if let Some(citation) = citation {
                    self.kind(b"text");
                    self.object.push("citations", citation);
                }
            }
            _ => {
                self.kind(b"unknown");
                self.object.push("deltas", delta);
            }
        }
    }

    /// A block whose start was not seen is given the type its deltas imply.
    fn kind(&mut self, implied: &[u8]) {
        if !self.object.is_object() {
            self.object = Object::with("type", implied);
        }
    }

    fn append(&mut self, kind: &'static str, key: &'static str, text: Option<Raw<'_>>) {
        self.kind(kind.as_bytes());
        if let Some(text) = text.and_then(Raw::written) {
            self.object.append(key, text);
        }
    }

    /// Input that does not parse, as when the stream was cut, is kept as its text.
    fn write(mut self, to: &mut Vec<u8>) {
        let input = take(&mut self.input);
        if !input.is_empty() {
            self.kind(b"tool_use");
            if Raw::parse(&input).is_ok() {
                self.object.set("input", input);
            } else {
                let mut text = b"\"".to_vec();
                escape(&input, most_text(input.len()), &mut text);
                append(&mut text, b"\"");
                self.object.set("input", text);
            }
        }
        self.object.write(to);
    }
}

// === impl Counts ===

impl Counts {
    /// Takes the counts of a `usage` object; those not reported there stand.
    fn update(&mut self, usage: Raw<'_>) {
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
pub(super) fn usage(reported: Raw<'_>) -> Option<Usage> {
    let mut counts = Counts::default();
    counts.update(reported);
    counts.usage()
}
