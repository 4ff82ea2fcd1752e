//! What the last bytes of an answer still tell when its middle was not kept.

use memchr::{memchr, memmem};

use super::assembly::word;
use super::raw::Raw;
use super::{Answered, Call, Framing, Usage, anthropic, assembler, openai};

/// As many of the last bytes as are looked at.
pub const MAX_ENDING: usize = 16 * 1024;

/// Reads usage, the reason it stopped, and whether the end mark was seen, from the last bytes of an
/// answer of which the middle is missing; no messages. [`Answered::complete`] joins it to what the
/// first bytes told. Looks at most at the last [`MAX_ENDING`] bytes, which may begin anywhere.
#[must_use]
pub fn ending(call: Call, framing: Framing, bytes: &[u8]) -> Answered {
    let bytes = bytes.get(bytes.len().saturating_sub(MAX_ENDING)..).unwrap_or_default();
    let mut answered = match framing {
        Framing::Sse | Framing::Ndjson => {
            let mut assembler = assembler(call, framing, None);
            assembler.feed(after_partial(framing, bytes));
            assembler.finish()
        }
        Framing::Json | Framing::Other => end_of_document(call, bytes),
    };
    if answered.usage.is_none() {
        answered.usage = last_usage(call, bytes);
        // Only the terminal event of a response counts; when it is long, its beginning is missing.
        answered.finished |= call == Call::Responses && framing == Framing::Sse && answered.usage.is_some();
    }
    answered.messages.clear();
    answered
}

// === impl Answered ===

impl Answered {
    /// Adds what the ending of the same answer told; counts and reasons there are the later ones.
    pub fn complete(&mut self, ending: Self) {
        self.usage = match (self.usage, ending.usage) {
            (Some(first), Some(last)) => Some(later(first, last)),
            (first, last) => last.or(first),
        };
        self.model = self.model.take().or(ending.model);
        self.finish_reason = ending.finish_reason.or(self.finish_reason.take());
        self.error = ending.error.or(self.error.take());
        self.finished |= ending.finished;
    }
}

/// Anthropic's first event counts the request and its last one the answer.
fn later(first: Usage, last: Usage) -> Usage {
    let prompt = last.prompt.or(first.prompt);
    let completion = last.completion.or(first.completion);
    let sum = || Some(prompt?.saturating_add(completion?));
    Usage {
        prompt,
        completion,
        total: last.total.or_else(sum),
        cached: last.cached.or(first.cached),
        reasoning: last.reasoning.or(first.reasoning),
    }
}

// === reading the last bytes ===

/// The bytes from the first event on that is surely whole.
fn after_partial(framing: Framing, bytes: &[u8]) -> &[u8] {
    let after = |end: &[u8]| memmem::find(bytes, end).map(|at| at + end.len());
    let start = match framing {
        Framing::Ndjson => memchr(b'\n', bytes).map(|at| at + 1),
        _ => [b"\n\n".as_slice(), b"\r\n\r\n", b"\r\r"].into_iter().filter_map(after).min(),
    };
    start.and_then(|start| bytes.get(start..)).unwrap_or_default()
}

fn end_of_document(call: Call, bytes: &[u8]) -> Answered {
    let last_members = match call {
        Call::OllamaChat | Call::OllamaGenerate => "\"done\"",
        Call::Embeddings => "\"prompt_eval_count\"",
        _ => "",
    };
    let at = if last_members.is_empty() { None } else { memmem::rfind(bytes, last_members.as_bytes()) };
    let mut answered = match at.and_then(|at| bytes.get(at..)) {
        Some(members) => {
            let mut assembler = assembler(call, Framing::Json, None);
            assembler.feed(b"{");
            assembler.feed(members);
            assembler.finish()
        }
        None => Answered::default(),
    };
    let reasons = ["\"finish_reason\"", "\"stop_reason\"", "\"done_reason\""];
    let reason = reasons.into_iter().find_map(|key| last_value(bytes, key, Raw::is_string));
    if let Some(reason) = reason {
        answered.finish_reason = word(Some(reason));
    }
    answered.finished = bytes.trim_ascii_end().ends_with(b"}");
    answered
}

fn last_usage(call: Call, bytes: &[u8]) -> Option<Usage> {
    let reported = last_value(bytes, "\"usage\"", Raw::is_object)?;
    if call == Call::Messages { anthropic::usage(reported) } else { openai::usage(reported) }
}

/// The last value of a member that is as wanted. Inside a string, the key's quotes would be escaped.
fn last_value<'a>(bytes: &'a [u8], key: &str, wanted: fn(Raw<'a>) -> bool) -> Option<Raw<'a>> {
    let mut before = bytes;
    while let Some(at) = memmem::rfind(before, key.as_bytes()) {
        let (rest, from) = bytes.split_at_checked(at)?;
        let value = from.get(key.len()..)?.trim_ascii_start().strip_prefix(b":");
        if let Some(value) = value.and_then(Raw::prefix).filter(|value| wanted(*value)) {
            return Some(value);
        }
        before = rest;
    }
    None
}
