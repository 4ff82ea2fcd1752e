//! From bytes to what was said: the one assembler, which frames an answer and hands each event or
//! document to the dialect's own reader.

use std::mem::take;

use memchr::memmem;
use serde_json::Value;

use super::frames::{Event, Ndjson, Sse};
use super::mend::mend;
use super::{Answered, Assembler, Framing};

/// What a dialect makes of an answer, whole or event by event.
pub(super) trait Reader: Send {
    /// Whether an answer that is not JSON at all is worth keeping as text.
    const KEEPS_TEXT: bool = true;

    /// One event of a stream; `name` is the SSE event name, empty where there is none.
    fn event(&mut self, name: &str, data: Value);

    /// A document that is the whole answer.
    fn document(&mut self, document: Value);

    /// The event `[DONE]`, or one that is not JSON.
    fn text(&mut self, text: &str);

    /// What was said, as far as it was read.
    fn answered(&mut self) -> Answered;

    /// Parses a document. A reader that keeps only little of it may parse only that.
    fn parse(&self, bytes: &[u8]) -> Option<Value> {
        serde_json::from_slice(bytes).ok()
    }
}

/// The end mark of OpenAI streams; its SDK looks at the beginning only.
pub(super) const DONE: &str = "[DONE]";

/// An answer being put together by a reader `R`.
pub(super) struct Assembly<R> {
    reader: R,
    framing: Bytes,
}

enum Bytes {
    Sse(Sse),
    Ndjson(Ndjson),
    /// A document is read at its end.
    Whole(Vec<u8>),
}

// === impl Assembly ===

impl<R: Reader> Assembly<R> {
    pub(super) fn new(reader: R, framing: Framing) -> Self {
        let framing = match framing {
            Framing::Sse => Bytes::Sse(Sse::new()),
            Framing::Ndjson => Bytes::Ndjson(Ndjson::new()),
            Framing::Json | Framing::Other => Bytes::Whole(Vec::new()),
        };
        Self { reader, framing }
    }
}

impl<R: Reader> Assembler for Assembly<R> {
    fn feed(&mut self, bytes: &[u8]) {
        let reader = &mut self.reader;
        match &mut self.framing {
            Bytes::Sse(framer) => framer.feed(bytes, |event| read_event(reader, event)),
            Bytes::Ndjson(framer) => framer.feed(bytes, |event| read_event(reader, event)),
            Bytes::Whole(kept) => kept.extend_from_slice(bytes),
        }
    }

    fn finish(self: Box<Self>) -> Answered {
        let Self { mut reader, framing } = *self;
        let cut = match framing {
            Bytes::Sse(framer) => framer.finish(|event| read_event(&mut reader, event)),
            Bytes::Ndjson(framer) => framer.finish(|event| read_event(&mut reader, event)),
            Bytes::Whole(bytes) => return read_whole(reader, &bytes),
        };
        Answered { cut, ..reader.answered() }
    }
}

fn read_event(reader: &mut impl Reader, event: Event<'_>) {
    match serde_json::from_slice(event.data) {
        Ok(data) => reader.event(event.name, data),
        Err(_) => reader.text(&String::from_utf8_lossy(event.data)),
    }
}

/// Servers name their content types carelessly: what is not one document may be a stream all the
/// same, or a document whose end is missing.
fn read_whole<R: Reader>(mut reader: R, bytes: &[u8]) -> Answered {
    if let Some(document) = reader.parse(bytes) {
        reader.document(document);
        return Answered { finished: true, ..reader.answered() };
    }
    let text = bytes.trim_ascii_start();
    if ["data:", "event:", ":"].iter().any(|start| text.starts_with(start.as_bytes())) {
        let mut framer = Sse::new();
        framer.feed(bytes, |event| read_event(&mut reader, event));
        framer.finish(|event| read_event(&mut reader, event));
    } else if R::KEEPS_TEXT
        && let Some(document) = mend(bytes)
    {
        reader.document(document);
        return Answered { finished: false, ..reader.answered() };
    } else if text.first() == Some(&b'{') && memmem::find(text, b"}\n").is_some() {
        let mut framer = Ndjson::new();
        framer.feed(bytes, |event| read_event(&mut reader, event));
        framer.finish(|event| read_event(&mut reader, event));
    } else if R::KEEPS_TEXT && !text.is_empty() {
        let text = String::from_utf8_lossy(bytes);
        return Answered { messages: vec![message("assistant", Value::from(text))], ..Answered::default() };
    }
    reader.answered()
}

// === reading and writing JSON ===

/// A message; its content is moved, not copied.
pub(super) fn message(role: &str, content: Value) -> Value {
    let members = [("role".to_owned(), Value::from(role)), ("content".to_owned(), content)];
    Value::Object(members.into_iter().collect())
}

/// A string that is there and not empty, taken out of its place.
pub(super) fn take_text(from: &mut Value, key: &str) -> Option<String> {
    match from.get_mut(key).map(take) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// A value that is there and not null, taken out of its place.
pub(super) fn take_some(from: &mut Value, key: &str) -> Option<Value> {
    from.get_mut(key).map(take).filter(|value| !value.is_null())
}

/// A list, taken out of its place; empty where there is none.
pub(super) fn take_list(from: &mut Value, key: &str) -> Vec<Value> {
    match from.get_mut(key).map(take) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// A whole number at a JSON pointer.
pub(super) fn count(from: &Value, pointer: &str) -> Option<u64> {
    from.pointer(pointer).and_then(Value::as_u64)
}

/// Appends to the string at `key`, whatever else was there before.
pub(super) fn append(to: &mut Value, key: &str, text: &str) {
    if !to.is_object() {
        *to = Value::Object(serde_json::Map::new());
    }
    let Some(object) = to.as_object_mut() else { return };
    match object.get_mut(key) {
        Some(Value::String(whole)) => whole.push_str(text),
        _ => {
            object.insert(key.to_owned(), Value::from(text));
        }
    }
}
