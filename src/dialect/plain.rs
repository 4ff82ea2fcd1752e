//! Answers of custom apps: any JSON or text, with the answer's place in it named, or found.

use std::mem::take;

use serde_json::Value;

use super::assembly::{DONE, Reader, message, take_some, take_text};
use super::mend::mend;
use super::message::omit_media;
use super::openai::{Chat, usage};
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
    /// What was found, appended.
    said: String,
    /// A whole answer that is not text.
    value: Option<Value>,
    /// Events in which nothing was found; they stand in where nothing else was said.
    rest: String,
    /// Takes over when the answer turns out to be OpenAI's.
    chat: Option<Chat>,
    answered: Answered,
}

// === impl Plain ===

impl Plain {
    pub(super) fn new(pointer: Option<&str>) -> Self {
        Self {
            pointer: pointer.map(str::to_owned),
            said: String::new(),
            value: None,
            rest: String::new(),
            chat: None,
            answered: Answered::default(),
        }
    }

    fn find<'a>(&self, data: &'a Value) -> Option<&'a Value> {
        let there = |pointer: &str| data.pointer(pointer).filter(|found| !found.is_null());
        match &self.pointer {
            Some(pointer) => there(pointer),
            None => PLACES.into_iter().find_map(there),
        }
    }

    /// The names that custom apps took over from others.
    fn frame(&mut self, data: &mut Value) {
        let answered = &mut self.answered;
        if let Some(reported) = take_some(data, "usage") {
            answered.usage = usage(&reported).or_else(|| anthropic::usage(&reported)).or(answered.usage);
        }
        if answered.model.is_none() {
            answered.model = take_text(data, "model");
        }
        answered.finish_reason = take_text(data, "finish_reason").or(answered.finish_reason.take());
        answered.finished |= data.get("done") == Some(&Value::Bool(true));
        answered.error = take_some(data, "error").or(answered.error.take());
    }
}

impl Reader for Plain {
    fn event(&mut self, name: &str, mut data: Value) {
        if self.pointer.is_none() && is_chat(&data, "chat.completion.chunk") {
            self.chat.get_or_insert_default();
        }
        if let Some(chat) = &mut self.chat {
            return chat.event(name, data);
        }
        match self.find(&data).or(Some(&data).filter(|data| data.is_string())) {
            Some(Value::String(text)) => self.said.push_str(text),
            Some(other) => self.said.push_str(&other.to_string()),
            None => {
                self.rest.push_str(&data.to_string());
                self.rest.push('\n');
            }
        }
        self.frame(&mut data);
    }

    fn document(&mut self, mut document: Value) {
        if self.pointer.is_none() && is_chat(&document, "chat.completion") {
            return self.chat.get_or_insert_default().document(document);
        }
        let mut found = self.find(&document).unwrap_or(&document).clone();
        omit_media(&mut found);
        match found {
            Value::String(text) => self.said = text,
            other => self.value = Some(other),
        }
        self.frame(&mut document);
    }

    fn text(&mut self, text: &str) {
        if text.starts_with(DONE) {
            self.answered.finished = true;
            if let Some(chat) = &mut self.chat {
                chat.text(text);
            }
            return;
        }
        // The last event of a stream that was cut may be half a document.
        match mend(text.as_bytes()) {
            Some(beginning) => self.event("", beginning),
            None => self.said.push_str(text),
        }
    }

    fn answered(&mut self) -> Answered {
        if let Some(mut chat) = self.chat.take() {
            return chat.answered();
        }
        let mut answered = take(&mut self.answered);
        let said = take(&mut self.said);
        let text = if said.is_empty() { take(&mut self.rest) } else { said };
        let content = self.value.take().or(Some(Value::String(text)).filter(|text| text != ""));
        if let Some(content) = content {
            answered.messages = vec![message("assistant", content)];
        }
        answered
    }
}

fn is_chat(data: &Value, object: &str) -> bool {
    data.get("object").and_then(Value::as_str) == Some(object)
}
