//! OpenAI's chat completions, legacy completions and embeddings: what their chunks and documents say.
//!
//! Field names as in the types of the OpenAI SDK; `reasoning_content`, `reasoning` and `x_groq` as
//! compatible servers add them.

use std::collections::BTreeMap;
use std::mem::take;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::assembly::{DONE, Reader, append, count, take_list, take_some, take_text};
use super::message::omit_media;
use super::{Answered, Usage};

/// Reads chat completions and legacy completions, streamed or not.
#[derive(Default)]
pub(super) struct Chat {
    choices: BTreeMap<u64, Choice>,
    /// What is not said choice by choice.
    answered: Answered,
}

#[derive(Default)]
struct Choice {
    /// Text, refusal and reasoning so far; `tool_calls` and `function_call` join at the end.
    message: Map<String, Value>,
    tool_calls: BTreeMap<u64, Value>,
    finish_reason: Option<String>,
}

/// Reads embeddings, of Ollama's own API too: the vectors are not even parsed.
#[derive(Default)]
pub(super) struct Embeddings {
    answered: Answered,
}

/// The parts of an embeddings document that are kept.
#[derive(Deserialize)]
struct EmbeddingsDocument {
    model: Option<Value>,
    usage: Option<Value>,
    prompt_eval_count: Option<Value>,
    error: Option<Value>,
}

/// Counts of a `usage` object, in the names of chat completions or of responses. `None` where there
/// is no count at all.
pub(super) fn usage(reported: &Value) -> Option<Usage> {
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
    /// What chunks and documents have in common: everything but the choices.
    fn frame(&mut self, data: &mut Value) {
        let answered = &mut self.answered;
        if answered.model.is_none() {
            answered.model = take_text(data, "model");
        }
        let reported = [data.pointer("/x_groq/usage"), data.get("usage")];
        let counted = reported.into_iter().flatten().filter_map(usage).next_back();
        answered.usage = counted.or(answered.usage);
        if let Some(error) = take_some(data, "error") {
            answered.error = Some(error);
        }
    }

    fn choice(&mut self, position: usize, choice: &Value) -> &mut Choice {
        let position = u64::try_from(position).unwrap_or(u64::MAX);
        self.choices.entry(count(choice, "/index").unwrap_or(position)).or_default()
    }
}

impl Reader for Chat {
    fn event(&mut self, _name: &str, mut data: Value) {
        self.frame(&mut data);
        for (position, mut chunk) in take_list(&mut data, "choices").into_iter().enumerate() {
            let choice = self.choice(position, &chunk);
            choice.finish_reason = take_text(&mut chunk, "finish_reason").or(choice.finish_reason.take());
            if let Some(Value::String(text)) = chunk.get("text") {
                choice.append("content", text);
            }
            if let Some(delta) = take_some(&mut chunk, "delta") {
                choice.delta(delta);
            } else if let Some(message) = take_some(&mut chunk, "message") {
                // Some servers stream whole messages; what is appended once is right for them too.
                choice.delta(message);
            }
        }
    }

    fn document(&mut self, mut document: Value) {
        self.frame(&mut document);
        for (position, mut whole) in take_list(&mut document, "choices").into_iter().enumerate() {
            let choice = self.choice(position, &whole);
            choice.finish_reason = take_text(&mut whole, "finish_reason");
            if let Some(Value::Object(mut message)) = take_some(&mut whole, "message") {
                message.values_mut().for_each(omit_media);
                choice.message = message;
            } else if let Some(Value::String(text)) = whole.get("text") {
                choice.append("content", text);
            }
        }
    }

    fn text(&mut self, text: &str) {
        self.answered.finished |= text.starts_with(DONE);
    }

    fn answered(&mut self) -> Answered {
        let mut answered = take(&mut self.answered);
        let mut choices = take(&mut self.choices).into_values();
        let first = choices.next();
        answered.finish_reason = first.as_ref().and_then(|choice| choice.finish_reason.clone());
        answered.messages = first.into_iter().chain(choices).map(Choice::message).collect();
        answered
    }
}

// === impl Choice ===

impl Choice {
    fn append(&mut self, key: &str, text: &str) {
        match self.message.get_mut(key) {
            Some(Value::String(whole)) => whole.push_str(text),
            _ => {
                self.message.insert(key.to_owned(), Value::from(text));
            }
        }
    }

    fn delta(&mut self, mut delta: Value) {
        if let Some(role) = take_text(&mut delta, "role") {
            self.message.entry("role").or_insert(Value::String(role));
        }
        for key in ["content", "refusal", "reasoning_content"] {
            if let Some(Value::String(text)) = delta.get(key) {
                self.append(key, text);
            }
        }
        // Servers that send both names send the same text twice.
        if let (None, Some(Value::String(text))) =
            (text_at(&delta, "reasoning_content"), delta.get("reasoning"))
        {
            self.append("reasoning", text);
        }
        for part in take_list(&mut delta, "content") {
            if let Some(text) = text_at(&part, "text") {
                self.append("content", text);
            }
        }
        if let Some(call) = take_some(&mut delta, "function_call") {
            let known = self.message.entry("function_call").or_insert_with(|| json!({}));
            function(known, call);
        }
        for call in take_list(&mut delta, "tool_calls") {
            self.tool_call(call);
        }
        if let Some(audio) = take_some(&mut delta, "audio") {
            self.audio(&audio);
        }
    }

    /// A call without an index begins with its name and goes on without it.
    fn tool_call(&mut self, mut call: Value) {
        let last = self.tool_calls.keys().next_back().copied();
        let begins = call.pointer("/function/name").is_some_and(|name| !name.is_null());
        let index = count(&call, "/index").unwrap_or_else(|| match last {
            Some(last) if !begins => last,
            last => last.map_or(0, |last| last.saturating_add(1)),
        });
        let known = self.tool_calls.entry(index).or_insert_with(|| json!({}));
        for key in ["id", "type"] {
            if let (Some(text), Some(known)) = (take_text(&mut call, key), known.as_object_mut()) {
                known.entry(key).or_insert(Value::String(text));
            }
        }
        for key in ["function", "custom"] {
            if let (Some(part), Some(known)) = (take_some(&mut call, key), known.as_object_mut()) {
                function(known.entry(key).or_insert_with(|| json!({})), part);
            }
        }
    }

    /// Of spoken answers the words are kept, not the sound.
    fn audio(&mut self, audio: &Value) {
        let known = self.message.entry("audio").or_insert_with(|| json!({}));
        if let Some(id) = text_at(audio, "id")
            && let Some(known) = known.as_object_mut()
        {
            known.entry("id").or_insert_with(|| Value::from(id));
        }
        if let Some(transcript) = text_at(audio, "transcript") {
            append(known, "transcript", transcript);
        }
    }

    fn message(self) -> Value {
        let Self { mut message, tool_calls, .. } = self;
        message.entry("role").or_insert_with(|| Value::from("assistant"));
        message.entry("content").or_insert(Value::Null);
        if !tool_calls.is_empty() {
            message.insert("tool_calls".to_owned(), tool_calls.into_values().collect());
        }
        Value::Object(message)
    }
}

/// A function's name is set when first given; its arguments, or a custom tool's input, are appended.
fn function(known: &mut Value, mut part: Value) {
    if let (Some(name), Some(known)) = (take_text(&mut part, "name"), known.as_object_mut()) {
        known.entry("name").or_insert(Value::String(name));
    }
    for key in ["arguments", "input"] {
        match take_some(&mut part, key) {
            Some(Value::String(text)) => append(known, key, &text),
            // Against the specification, and seen: arguments as an object.
            Some(whole) => append(known, key, &whole.to_string()),
            None => {}
        }
    }
}

fn text_at<'a>(from: &'a Value, key: &str) -> Option<&'a str> {
    from.get(key).and_then(Value::as_str)
}

// === impl Embeddings ===

impl Reader for Embeddings {
    const KEEPS_TEXT: bool = false;

    fn event(&mut self, _name: &str, data: Value) {
        self.document(data);
    }

    fn document(&mut self, mut document: Value) {
        let prompt = count(&document, "/prompt_eval_count");
        let ollama =
            prompt.map(|prompt| Usage { prompt: Some(prompt), total: Some(prompt), ..Usage::default() });
        self.answered.usage = document.get("usage").and_then(usage).or(ollama);
        self.answered.model = take_text(&mut document, "model");
        self.answered.error = take_some(&mut document, "error");
    }

    fn text(&mut self, _text: &str) {}

    fn answered(&mut self) -> Answered {
        take(&mut self.answered)
    }

    fn parse(&self, bytes: &[u8]) -> Option<Value> {
        let EmbeddingsDocument { model, usage, prompt_eval_count, error } =
            serde_json::from_slice(bytes).ok()?;
        Some(json!({"model": model, "usage": usage, "prompt_eval_count": prompt_eval_count, "error": error}))
    }
}
