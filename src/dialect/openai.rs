//! OpenAI's chat completions, legacy completions and embeddings: what their chunks and documents say.
//!
//! Field names as in the types of the OpenAI SDK; `reasoning_content`, `reasoning` and `x_groq` as
//! compatible servers add them.

use std::collections::BTreeMap;
use std::mem::take;

use super::assembly::{DONE, MOST_PARTS, Reader, count, list, owned, word};
use super::copy::append;
use super::grow::Object;
use super::raw::Raw;
use super::{Answered, Usage};

/// Reads chat completions and legacy completions, streamed or not.
#[derive(Default)]
pub(super) struct Chat {
    choices: BTreeMap<u64, Choice>,
    /// Choices and tool calls.
    parts: usize,
    /// What is not said choice by choice.
    answered: Answered,
}

#[derive(Default)]
struct Choice {
    /// Text, refusal and reasoning so far; `tool_calls` join at the end.
    message: Object,
    tool_calls: BTreeMap<u64, Object>,
    finish_reason: Option<String>,
}

/// Reads embeddings, of Ollama's own API too: the vectors are passed over.
#[derive(Default)]
pub(super) struct Embeddings {
    answered: Answered,
}

/// Counts of a `usage` object, in the names of chat completions or of responses. `None` where there
/// is no count at all.
pub(super) fn usage(reported: Raw<'_>) -> Option<Usage> {
    let either = |a: &str, b: &str| count(reported, a).or_else(|| count(reported, b));
    let prompt = either("/prompt_tokens", "/input_tokens");
    let completion = either("/completion_tokens", "/output_tokens");
    let sum = || Some(prompt?.saturating_add(completion?));
    let usage = Usage {
        prompt,
        completion,
        total: count(reported, "/total_tokens").or_else(sum),
        cached: either("/prompt_tokens_details/cached_tokens", "/input_tokens_details/cached_tokens"),
        reasoning: either(
            "/completion_tokens_details/reasoning_tokens",
            "/output_tokens_details/reasoning_tokens",
        ),
    };
    (usage != Usage::default()).then_some(usage)
}

// === impl Chat ===

impl Chat {
    /// What chunks and documents have in common: everything but the choices, which are given back.
    fn frame<'a>(&mut self, data: Raw<'a>) -> Option<Raw<'a>> {
        let [model, groq, reported, error, choices] =
            data.pick(["model", "x_groq", "usage", "error", "choices"]);
        let answered = &mut self.answered;
        if answered.model.is_none() {
            answered.model = word(model);
        }
        let reported = [groq.and_then(|groq| groq.get("usage")), reported];
        let counted = reported.into_iter().flatten().filter_map(usage).next_back();
        answered.usage = counted.or(answered.usage);
        if let Some(error) = error {
            answered.error = Some(owned(error));
        }
        choices
    }

    /// The choice of this index; `None`: there are too many.
    fn choice(&mut self, position: usize, index: Option<Raw<'_>>) -> Option<&mut Choice> {
        let position = u64::try_from(position).unwrap_or(u64::MAX);
        let index = index.and_then(Raw::count).unwrap_or(position);
        if !self.choices.contains_key(&index) {
            if self.parts >= MOST_PARTS {
                self.answered.cut += 1;
                return None;
            }
            self.parts += 1;
        }
        Some(self.choices.entry(index).or_default())
    }
}

impl Reader for Chat {
    fn event(&mut self, _name: &str, data: Raw<'_>) {
        let Some(choices) = self.frame(data) else { return };
        for (position, chunk) in choices.elements().enumerate() {
            let [index, reason, text, delta, message] =
                chunk.pick(["index", "finish_reason", "text", "delta", "message"]);
            let mut parts = self.parts;
            let Some(choice) = self.choice(position, index) else { continue };
            choice.finish_reason = word(reason).or(choice.finish_reason.take());
            if let Some(text) = text.and_then(Raw::written) {
                choice.message.append("content", text);
            }
            // Some servers stream whole messages; what is appended once is right for them too.
            let missed = delta.or(message).map_or(0, |delta| choice.delta(delta, &mut parts));
            self.parts = self.parts.max(parts);
            self.answered.cut += missed;
        }
    }

    fn document(&mut self, document: Raw<'_>) {
        let Some(choices) = self.frame(document) else { return };
        for (position, whole) in choices.elements().enumerate() {
            let [index, reason, text, message] = whole.pick(["index", "finish_reason", "text", "message"]);
            let Some(choice) = self.choice(position, index) else { continue };
            choice.finish_reason = word(reason);
            if let Some(message) = message.filter(|message| message.is_object()) {
                choice.message = Object::of(message);
            } else if let Some(text) = text.and_then(Raw::written) {
                choice.message.append("content", text);
            }
        }
    }

    fn text(&mut self, text: &[u8]) {
        self.answered.finished |= text.starts_with(DONE.as_bytes());
    }

    fn answered(&mut self) -> Answered {
        let mut answered = take(&mut self.answered);
        let mut messages = Vec::new();
        for (nth, (_, mut choice)) in take(&mut self.choices).into_iter().enumerate() {
            if nth == 0 {
                answered.finish_reason = choice.finish_reason.take();
            }
            append(&mut messages, if nth == 0 { b"[" } else { b"," });
            choice.write(&mut messages);
        }
        answered.messages = list(messages);
        answered
    }
}

// === impl Choice ===

impl Choice {
    /// How many of its tool calls are not kept because there are too many parts.
    fn delta(&mut self, delta: Raw<'_>, parts: &mut usize) -> u64 {
        let [role, content, refusal, reasoning_content, reasoning] =
            delta.pick(["role", "content", "refusal", "reasoning_content", "reasoning"]);
        let message = &mut self.message;
        message.begin("role", role.and_then(Raw::said));
        let named = [("content", content), ("refusal", refusal), ("reasoning_content", reasoning_content)];
        for (key, text) in named {
            if let Some(text) = text.and_then(Raw::written) {
                message.append(key, text);
            }
        }
        // Servers that send both names send the same text twice.
        if !reasoning_content.is_some_and(Raw::is_string)
            && let Some(text) = reasoning.and_then(Raw::written)
        {
            message.append("reasoning", text);
        }
        for part in content.into_iter().flat_map(Raw::elements) {
            if let Some(text) = part.get("text").and_then(Raw::written) {
                message.append("content", text);
            }
        }
        let [call, calls, audio] = delta.pick(["function_call", "tool_calls", "audio"]);
        if let Some(call) = call {
            function(message.object("function_call"), call);
        }
        if let Some(audio) = audio {
            heard(message.object("audio"), audio);
        }
        calls.into_iter().flat_map(Raw::elements).map(|call| u64::from(!self.tool_call(call, parts))).sum()
    }

    /// A call without an index begins with its name and goes on without it. False: it is not kept.
    fn tool_call(&mut self, call: Raw<'_>, parts: &mut usize) -> bool {
        let [index, id, kind, function_part, custom] =
            call.pick(["index", "id", "type", "function", "custom"]);
        let last = self.tool_calls.keys().next_back().copied();
        let begins = function_part.is_some_and(|function| function.get("name").is_some());
        let index = index.and_then(Raw::count).unwrap_or_else(|| match last {
            Some(last) if !begins => last,
            last => last.map_or(0, |last| last.saturating_add(1)),
        });
        if !self.tool_calls.contains_key(&index) {
            if *parts >= MOST_PARTS {
                return false;
            }
            *parts += 1;
        }
        let known = self.tool_calls.entry(index).or_default();
        known.begin("id", id.and_then(Raw::said));
        known.begin("type", kind.and_then(Raw::said));
        for (key, part) in [("function", function_part), ("custom", custom)] {
            if let Some(part) = part {
                function(known.object(key), part);
            }
        }
        true
    }

    fn write(self, to: &mut Vec<u8>) {
        let Self { mut message, tool_calls, .. } = self;
        message.begin("role", Some(b"assistant"));
        if !message.has("content") {
            message.set("content", b"null".to_vec());
        }
        if !tool_calls.is_empty() {
            let mut calls = Vec::new();
            for (_, call) in tool_calls {
                let before: &[u8] = if calls.is_empty() { b"[" } else { b"," };
                append(&mut calls, before);
                call.write(&mut calls);
            }
            append(&mut calls, b"]");
            message.set("tool_calls", calls);
        }
        message.write(to);
    }
}

/// A function's name is set when first given; its arguments, or a custom tool's input, are appended.
fn function(known: &mut Object, part: Raw<'_>) {
    let [name, arguments, input] = part.pick(["name", "arguments", "input"]);
    known.begin("name", name.and_then(Raw::said));
    for (key, value) in [("arguments", arguments), ("input", input)] {
        match value.map(|value| value.written().ok_or(value)) {
            Some(Ok(text)) => known.append(key, text),
            // Against the specification, and seen: arguments as an object.
            Some(Err(whole)) => known.append_json(key, whole),
            None => {}
        }
    }
}

/// Of spoken answers the words are kept, not the sound.
fn heard(known: &mut Object, audio: Raw<'_>) {
    let [id, transcript] = audio.pick(["id", "transcript"]);
    known.begin("id", id.and_then(Raw::written));
    if let Some(transcript) = transcript.and_then(Raw::written) {
        known.append("transcript", transcript);
    }
}

// === impl Embeddings ===

impl Reader for Embeddings {
    const KEEPS_TEXT: bool = false;

    fn event(&mut self, _name: &str, data: Raw<'_>) {
        self.document(data);
    }

    fn document(&mut self, document: Raw<'_>) {
        let [model, reported, prompt, error] =
            document.pick(["model", "usage", "prompt_eval_count", "error"]);
        let prompt = prompt.and_then(Raw::count);
        let ollama =
            prompt.map(|prompt| Usage { prompt: Some(prompt), total: Some(prompt), ..Usage::default() });
        self.answered.usage = reported.and_then(usage).or(ollama);
        self.answered.model = word(model);
        self.answered.error = error.map(owned);
    }

    fn text(&mut self, _text: &[u8]) {}

    fn answered(&mut self) -> Answered {
        take(&mut self.answered)
    }
}
