//! From bytes to what was said: the one assembler, which frames an answer and hands each event or
//! document to the dialect's own reader.

use std::mem::take;

use super::copy::{append, copy, escape};
use super::frames::{Event, Ndjson, Sse};
use super::mend::mend;
use super::raw::Raw;
use super::{Answered, Assembler, Framing};
use memchr::memmem;

/// What a dialect makes of an answer, whole or event by event.
pub(super) trait Reader: Send {
    /// Whether an answer that is not JSON at all is worth keeping as text.
    const KEEPS_TEXT: bool = true;

    /// One event of a stream; `name` is the SSE event name, empty where there is none.
    fn event(&mut self, name: &str, data: Raw<'_>);

    /// A document that is the whole answer.
    fn document(&mut self, document: Raw<'_>);

    /// The event `[DONE]`, or one that is not JSON.
    fn text(&mut self, text: &[u8]);

    /// What was said, as far as it was read.
    fn answered(&mut self) -> Answered;
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
            Bytes::Whole(kept) => append(kept, bytes),
        }
    }

    fn finish(self: Box<Self>) -> Answered {
        self.finish_with(Vec::new())
    }

    fn finish_with(mut self: Box<Self>, last: Vec<u8>) -> Answered {
        let whole = match &mut self.framing {
            Bytes::Whole(kept) if kept.is_empty() => Some(last),
            Bytes::Whole(kept) => {
                append(kept, &last);
                Some(take(kept))
            }
            Bytes::Sse(_) | Bytes::Ndjson(_) => {
                self.feed(&last);
                drop(last);
                None
            }
        };
        let Self { mut reader, framing } = *self;
        let cut = match framing {
            Bytes::Sse(framer) => framer.finish(|event| read_event(&mut reader, event)),
            Bytes::Ndjson(framer) => framer.finish(|event| read_event(&mut reader, event)),
            Bytes::Whole(_) => return read_whole(reader, whole.unwrap_or_default()),
        };
        let answered = reader.answered();
        Answered { cut: answered.cut + cut, ..answered }
    }
}

fn read_event(reader: &mut impl Reader, event: Event<'_>) {
    match Raw::parse(event.data) {
        Ok(data) => reader.event(event.name, data),
        Err(_) => reader.text(event.data),
    }
}

/// Servers name their content types carelessly: what is not one document may be a stream all the
/// same, or a document whose end is missing. The bytes go before the answer is put together.
fn read_whole<R: Reader>(mut reader: R, bytes: Vec<u8>) -> Answered {
    let finished = Raw::parse(&bytes).map(|document| reader.document(document)).is_ok();
    if finished {
        drop(bytes);
        return Answered { finished, ..reader.answered() };
    }
    let text = bytes.trim_ascii_start();
    let mut cut = 0;
    if ["data:", "event:", ":"].iter().any(|start| text.starts_with(start.as_bytes())) {
        let mut framer = Sse::new();
        framer.feed(&bytes, |event| read_event(&mut reader, event));
        cut = framer.finish(|event| read_event(&mut reader, event));
    } else if R::KEEPS_TEXT
        && let Some(mended) = mend(&bytes)
    {
        drop(bytes);
        if let Ok(document) = Raw::parse(&mended) {
            reader.document(document);
        }
        drop(mended);
        return Answered { finished: false, ..reader.answered() };
    } else if text.first() == Some(&b'{') && memmem::find(text, b"}\n").is_some() {
        let mut framer = Ndjson::new();
        framer.feed(&bytes, |event| read_event(&mut reader, event));
        cut = framer.finish(|event| read_event(&mut reader, event));
    } else if R::KEEPS_TEXT && !text.is_empty() {
        let mut messages = b"[{\"content\":\"".to_vec();
        let whole = escape(&bytes, most_text(bytes.len()), &mut messages);
        append(&mut messages, b"\",\"role\":\"assistant\"}]");
        let messages = String::from_utf8(messages).unwrap_or_default();
        return Answered { messages, cut: u64::from(!whole), ..Answered::default() };
    }
    drop(bytes);
    let answered = reader.answered();
    Answered { cut: answered.cut + cut, ..answered }
}

// === reading and writing JSON ===

/// Parts of one answer that are told apart: choices, tool calls, blocks, items. Each takes memory of its own,
/// so there is an end to them; what belongs to further ones is not kept.
pub(super) const MOST_PARTS: usize = 1024;

/// Most bytes of a word that names something: a model, a reason.
const MAX_WORD: usize = 1024;

/// Most bytes that a text of so many bytes may take as JSON: control characters and what is not UTF-8 are
/// longer there.
pub(super) fn most_text(bytes: usize) -> usize {
    (bytes + bytes / 8 * 3).max(64 << 10)
}

/// A message; its content is appended by `content`.
pub(super) fn message(role: &str, to: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    append(to, b"{\"content\":");
    content(to);
    append(to, b",\"role\":\"");
    escape(role.as_bytes(), most_text(role.len()), to);
    append(to, b"\"}");
}

/// A string that is there and not empty, cut where it is longer than any name.
pub(super) fn word(from: Option<Raw<'_>>) -> Option<String> {
    let mut text = from?.text()?.into_owned();
    text.truncate(text.floor_char_boundary(MAX_WORD));
    text.shrink_to_fit();
    Some(text).filter(|text| !text.is_empty())
}

/// A value as it is written.
pub(super) fn owned(value: Raw<'_>) -> String {
    let mut text = Vec::new();
    copy(value, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// A whole number at a JSON pointer.
pub(super) fn count(from: Raw<'_>, pointer: &str) -> Option<u64> {
    from.pointer(pointer).and_then(Raw::count)
}

/// Messages, one behind the other, as a list.
pub(super) fn list(mut messages: Vec<u8>) -> String {
    if messages.is_empty() {
        return String::new();
    }
    append(&mut messages, b"]");
    String::from_utf8(messages).unwrap_or_default()
}
