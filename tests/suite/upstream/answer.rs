//! What the model says: an answer as a list of bytes, pauses and cuts.

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Recorded;

/// What to answer: bytes, pauses and cuts, in order.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    pub(super) framing: Framing,
    pub(super) before_head: Vec<Step>,
    pub(super) body: Vec<Step>,
}

/// Holds an answer until it is opened. Clones are the same gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<watch::Sender<bool>>);

#[derive(Clone, Debug)]
pub(super) enum Step {
    Send(Bytes),
    WaitFor(Gate),
    Hang,
    Close,
    Reset,
    Echo,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Framing {
    Length,
    Chunked,
    UntilClose,
    Raw,
}

// === impl Gate ===

impl Gate {
    /// A closed gate.
    pub(crate) fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets everyone through, now and later.
    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    pub(super) async fn passed(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

// === impl Answer ===

impl Answer {
    /// A JSON document with its `Content-Length`.
    pub(crate) fn json(document: &Value) -> Self {
        Self::bytes("application/json", document.to_string())
    }

    /// A body of this type, sent at once with its `Content-Length`.
    pub(crate) fn bytes(content_type: &str, body: impl Into<Bytes>) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            framing: Framing::Length,
            before_head: Vec::new(),
            body: vec![Step::Send(body.into())],
        }
    }

    /// A stream of this type: each piece is one chunk and one write.
    pub(crate) fn stream(content_type: &str, pieces: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        let body = pieces.into_iter().map(|piece| Step::Send(piece.into())).collect();
        Self { framing: Framing::Chunked, body, ..Self::bytes(content_type, "") }
    }

    /// A `text/event-stream`; the pieces are sent exactly as given.
    pub(crate) fn sse(pieces: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        Self::stream("text/event-stream", pieces)
    }

    /// An `application/x-ndjson`, one line a piece.
    pub(crate) fn ndjson(lines: &[Value]) -> Self {
        Self::stream("application/x-ndjson", lines.iter().map(|line| format!("{line}\n")))
    }

    /// An OpenAI chat stream that says these words, reports 7 + 5 tokens and ends in `[DONE]`.
    pub(crate) fn chat_stream(words: &[&str]) -> Self {
        Self::sse(chat_events(words))
    }

    /// These bytes and nothing else; then the connection closes.
    pub(crate) fn raw(bytes: impl Into<Bytes>) -> Self {
        Self { framing: Framing::Raw, ..Self::bytes("", bytes) }
    }

    /// No answer at all: the connection is closed after the request was read.
    pub(crate) fn cut() -> Self {
        Self::raw("").then(Step::Close)
    }

    /// No answer at all: the connection is reset after the request was read.
    pub(crate) fn reset() -> Self {
        Self::raw("").then(Step::Reset)
    }

    /// The connection stays open and silent until the gate leaves.
    pub(crate) fn silence() -> Self {
        Self { before_head: vec![Step::Hang], ..Self::bytes("text/plain", "") }
    }

    /// `101 Switching Protocols`; then every byte comes back.
    pub(crate) fn echo_tunnel() -> Self {
        let head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
                    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        Self::raw(head).then(Step::Echo)
    }

    /// What a small friendly model answers to this request.
    pub(crate) fn default_for(request: &Recorded) -> Self {
        let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let path = request.target.split('?').next().unwrap_or_default();
        let streamed = asked.get("stream") == Some(&Value::Bool(true));
        match path {
            p if p.ends_with("/chat/completions") && streamed => Self::chat_stream(&["Hel", "lo"]),
            p if p.ends_with("/chat/completions") => Self::json(&chat_answer("Hello")),
            p if p.ends_with("/messages") => Self::json(&json!({
                "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test",
                "content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn",
                "usage": {"input_tokens": 7, "output_tokens": 5}
            })),
            p if p.ends_with("/api/chat") => Self::ndjson(&[
                json!({"model": "llama", "message": {"role": "assistant", "content": "Hel"}, "done": false}),
                json!({"model": "llama", "message": {"role": "assistant", "content": "lo"}, "done": false}),
                json!({"model": "llama", "message": {"role": "assistant", "content": ""}, "done": true,
                       "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 5}),
            ]),
            p if p.ends_with("/models") => {
                Self::json(&json!({"object": "list", "data": [{"id": "gpt-test"}]}))
            }
            _ => Self::json(&json!({"reply": "Hello"})),
        }
    }

    /// With another status.
    pub(crate) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// With one more header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With the body sent up to the end of the connection, without length or chunks.
    pub(crate) fn until_close(mut self) -> Self {
        self.framing = Framing::UntilClose;
        self
    }

    /// Nothing is sent before the gate opens.
    pub(crate) fn hold_head(mut self, gate: &Gate) -> Self {
        self.before_head.push(Step::WaitFor(gate.clone()));
        self
    }

    /// What follows is held until the gate opens.
    pub(crate) fn hold(self, gate: &Gate) -> Self {
        self.then(Step::WaitFor(gate.clone()))
    }

    /// One more piece.
    pub(crate) fn send(self, piece: impl Into<Bytes>) -> Self {
        self.then(Step::Send(piece.into()))
    }

    /// The connection is closed here, before the body's end.
    pub(crate) fn then_cut(self) -> Self {
        self.then(Step::Close)
    }

    /// The connection is reset (RST) here.
    pub(crate) fn then_reset(self) -> Self {
        self.then(Step::Reset)
    }

    /// Silence from here on, until the gate leaves.
    pub(crate) fn then_silence(self) -> Self {
        self.then(Step::Hang)
    }

    fn then(mut self, step: Step) -> Self {
        self.body.push(step);
        self
    }

    pub(super) fn head(&self) -> Bytes {
        if self.framing == Framing::Raw {
            return Bytes::new();
        }
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        match self.framing {
            Framing::Length => _ = write!(head, "content-length: {}\r\n", self.length()),
            Framing::Chunked => head.push_str("transfer-encoding: chunked\r\n"),
            _ => head.push_str("connection: close\r\n"),
        }
        (head + "\r\n").into()
    }

    fn length(&self) -> usize {
        self.body.iter().map(|step| if let Step::Send(bytes) = step { bytes.len() } else { 0 }).sum()
    }
}

/// The JSON answer of an OpenAI chat completion that says `text` and reports 7 + 5 tokens.
pub(crate) fn chat_answer(text: &str) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_790_848_800, "model": "gpt-test",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    })
}

/// The events of an OpenAI chat stream, each with its blank line, `[DONE]` last.
pub(crate) fn chat_events(words: &[&str]) -> Vec<String> {
    let event = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-test", "choices": [choice]})
    };
    let usage = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-test", "choices": [],
                       "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}});
    let mut events = vec![event(json!({"role": "assistant", "content": ""}), Value::Null)];
    events.extend(words.iter().map(|word| event(json!({"content": word}), Value::Null)));
    events.push(event(json!({}), json!("stop")));
    events.push(usage);
    let mut lines: Vec<String> = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    lines.push("data: [DONE]\n\n".to_owned());
    lines
}
