//! Answers of custom apps: any JSON or text, with the answer's place in it named, or found.

use std::mem::take;

use super::assembly::{DONE, Reader, list, message, most_text, owned, word};
use super::copy::{append, copy, copy_text, escape};
use super::mend::mend;
use super::openai::{Chat, usage};
use super::raw::Raw;
use super::{Answered, anthropic};

/// Where apps put their answer, most telling first.
const PLACES: [&str; 9] = [
    "/answer",
    "/reply",
    "/response",
    "/output",
    "/text",
    "/content",
    "/message/content",
    "/message",
    "/choices/0/message/content",
];

/// Reads whatever has no dialect of its own.
pub(super) struct Plain {
    /// The place of the answer in each document or event (RFC 6901).
    pointer: Option<String>,
    /// What was found, appended, as it is written between quotes.
    said: Vec<u8>,
    /// A whole answer that is not text, as JSON.
    value: Vec<u8>,
    /// Events in which nothing was found; they stand in where nothing else was said.
    rest: Vec<u8>,
    /// Bytes of events so far: what is kept of them is in proportion.
    fed: usize,
    /// Takes over when the answer turns out to be OpenAI's.
    chat: Option<Chat>,
    answered: Answered,
}

// === impl Plain ===

impl Plain {
    pub(super) fn new(pointer: Option<&str>) -> Self {
        Self {
            pointer: pointer.map(str::to_owned),
            said: Vec::new(),
            value: Vec::new(),
            rest: Vec::new(),
            fed: 0,
            chat: None,
            answered: Answered::default(),
        }
    }

    fn find<'a>(&self, data: Raw<'a>) -> Option<Raw<'a>> {
        match &self.pointer {
            Some(pointer) => data.pointer(pointer),
            None => PLACES.into_iter().find_map(|place| data.pointer(place)),
        }
    }

    /// The names that custom apps took over from others.
    fn frame(&mut self, data: Raw<'_>) {
        let [reported, model, reason, done, error] =
            data.pick(["usage", "model", "finish_reason", "done", "error"]);
        let answered = &mut self.answered;
        if let Some(reported) = reported {
            answered.usage = usage(reported).or_else(|| anthropic::usage(reported)).or(answered.usage);
        }
        if answered.model.is_none() {
            answered.model = word(model);
        }
        answered.finish_reason = word(reason).or(answered.finish_reason.take());
        answered.finished |= done.is_some_and(Raw::is_true);
        answered.error = error.map(owned).or(answered.error.take());
    }

    /// Appends bytes that are no JSON string to a text.
    fn keep(&mut self, to_rest: bool, bytes: &[u8]) {
        let most = most_text(self.fed);
        let text = if to_rest { &mut self.rest } else { &mut self.said };
        let room = most.saturating_sub(text.len());
        self.answered.cut += u64::from(!escape(bytes, room, text));
    }
}

impl Reader for Plain {
    fn event(&mut self, name: &str, data: Raw<'_>) {
        if self.pointer.is_none() && is_chat(data, "chat.completion.chunk") {
            self.chat.get_or_insert_default();
        }
        if let Some(chat) = &mut self.chat {
            return chat.event(name, data);
        }
        self.fed += data.bytes().len();
        if let Some(found) = self.find(data).or(Some(data).filter(|data| data.is_string())) {
            match found.written() {
                Some(text) => append(&mut self.said, text),
                None => self.keep(false, found.bytes()),
            }
        } else {
            self.keep(true, data.bytes());
            self.keep(true, b"\n");
        }
        self.frame(data);
    }

    fn document(&mut self, document: Raw<'_>) {
        if self.pointer.is_none() && is_chat(document, "chat.completion") {
            return self.chat.get_or_insert_default().document(document);
        }
        let found = self.find(document).unwrap_or(document);
        match found.written() {
            Some(text) => self.said = text.to_vec(),
            None => copy(found, &mut self.value),
        }
        self.frame(document);
    }

    fn text(&mut self, text: &[u8]) {
        if text.starts_with(DONE.as_bytes()) {
            self.answered.finished = true;
            if let Some(chat) = &mut self.chat {
                chat.text(text);
            }
            return;
        }
        // The last event of a stream that was cut may be half a document.
        let mended = mend(text);
        if let Some(beginning) = mended.as_deref().and_then(|mended| Raw::parse(mended).ok()) {
            self.event("", beginning);
        } else {
            self.fed += text.len();
            self.keep(false, text);
        }
    }

    fn answered(&mut self) -> Answered {
        if let Some(mut chat) = self.chat.take() {
            return chat.answered();
        }
        let mut answered = take(&mut self.answered);
        let (said, rest, value) = (take(&mut self.said), take(&mut self.rest), take(&mut self.value));
        let text = if said.is_empty() { rest } else { said };
        if value.is_empty() && text.is_empty() {
            return answered;
        }
        let mut messages = b"[".to_vec();
        message("assistant", &mut messages, |to| {
            if value.is_empty() { copy_text(&text, to) } else { append(to, &value) }
        });
        drop((text, value));
        answered.messages = list(messages);
        answered
    }
}

fn is_chat(data: Raw<'_>, object: &str) -> bool {
    data.get("object").is_some_and(|found| found.reads(object))
}
