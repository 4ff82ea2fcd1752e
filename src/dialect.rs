//! The wire dialects of chat APIs: how a conversation is asked, answered, streamed and refused.
//!
//! Pure knowledge. An [`Assembler`] takes an answer's bytes in any split and gives back what was
//! said; it is fed by the log, never on the way of a stream.

pub mod decode;
pub mod ending;
pub mod error;
pub mod form;
pub mod frames;
pub mod label;
pub mod message;
pub mod models;
pub mod scan;
pub mod socket;

mod anthropic;
mod assembly;
mod copy;
mod grow;
mod media;
mod mend;
mod names;
mod ollama;
mod openai;
mod plain;
mod raw;
mod responses;
mod transcripts;

use http::Method;
use serde::{Deserialize, Serialize};

use assembly::Assembly;

/// Whose errors, streams and field names a client expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `{"error":{"message","type","param","code"}}`
    OpenAi,
    /// `{"type":"error","error":{"type","message"},"request_id"}`
    Anthropic,
    /// `{"error":"…"}`
    Ollama,
    /// A custom app: JSON `{model, messages, …}` in, any JSON or text out.
    Plain,
}

/// Which call of a dialect, as far as its answer has a shape of its own. Spool files hold it by
/// position: new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Call {
    /// `…/chat/completions`
    ChatCompletions,
    /// `…/completions`
    Completions,
    /// `…/responses`
    Responses,
    /// `…/embeddings`, `/api/embed`, `/api/embeddings`: vectors are never kept.
    Embeddings,
    /// `…/messages`
    Messages,
    /// `/api/chat`
    OllamaChat,
    /// `/api/generate`
    OllamaGenerate,
    /// Anything else.
    Other,
    /// `…/realtime`, a WebSocket.
    Realtime,
}

/// How an answer's bytes are framed, by its `Content-Type`. Spool files hold it by position: new ones
/// go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Framing {
    /// `text/event-stream`
    Sse,
    /// `application/x-ndjson`, `application/jsonl`
    Ndjson,
    /// `application/json`, `…+json`
    Json,
    /// `text/*` and whatever is neither.
    Other,
}

/// What was said, put together from an answer's bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answered {
    /// One assistant message for each choice, in the dialect's own form: text, tool calls, reasoning. The text
    /// of a JSON array; empty where there is none.
    pub messages: String,
    /// The model that answered, if it said so.
    pub model: Option<String>,
    /// Why it stopped, in the dialect's word; of the first choice.
    pub finish_reason: Option<String>,
    /// What it reported; `None` when it reported nothing, which is not zero.
    pub usage: Option<Usage>,
    /// Whether the end mark of the dialect was seen (`[DONE]`, `message_stop`, `"done":true`, …), or
    /// a whole JSON document.
    pub finished: bool,
    /// An error the upstream sent, in a stream already begun or as a document, as JSON.
    pub error: Option<String>,
    /// How many events of the stream were too long to be kept ([`frames::MAX_EVENT`]), or belonged to more
    /// parts than are told apart.
    pub cut: u64,
}

/// Tokens as reported. A count that was not reported is `None`; a reported 0 is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Of the request, cached ones included.
    pub prompt: Option<u64>,
    /// Of the answer, reasoning included.
    pub completion: Option<u64>,
    /// Of both.
    pub total: Option<u64>,
    /// Of the request, read from a cache.
    pub cached: Option<u64>,
    /// Of the answer, spent on reasoning.
    pub reasoning: Option<u64>,
}

/// Puts an answer together from its bytes. Any split of the same bytes gives the same result; no
/// input makes it panic; at no time does it take more than four times what it was fed, and some 384 KiB.
pub trait Assembler: Send {
    /// The next bytes of the answer.
    fn feed(&mut self, bytes: &[u8]);
    /// What was said, as far as the bytes went.
    fn finish(self: Box<Self>) -> Answered;
    /// The same after these last bytes, of which no copy is made.
    fn finish_with(self: Box<Self>, last: Vec<u8>) -> Answered;
}

/// The assembler of a call's answer. `answer_pointer` (RFC 6901) is where a custom app puts its
/// answer in each document or event; given one, the answer is read as plain whatever the call.
#[must_use]
pub fn assembler(call: Call, framing: Framing, answer_pointer: Option<&str>) -> Box<dyn Assembler> {
    if answer_pointer.is_some() {
        return Box::new(Assembly::new(plain::Plain::new(answer_pointer), framing));
    }
    match call {
        Call::ChatCompletions | Call::Completions => {
            Box::new(Assembly::new(openai::Chat::default(), framing))
        }
        Call::Responses | Call::Realtime => Box::new(Assembly::new(responses::Responses::default(), framing)),
        Call::Embeddings => Box::new(Assembly::new(openai::Embeddings::default(), framing)),
        Call::Messages => Box::new(Assembly::new(anthropic::Messages::default(), framing)),
        Call::OllamaChat | Call::OllamaGenerate => {
            Box::new(Assembly::new(ollama::Ollama::default(), framing))
        }
        Call::Other => Box::new(Assembly::new(plain::Plain::new(None), framing)),
    }
}

// === impl Answered ===

impl Answered {
    /// Whether the model stopped because it had no room left, in any dialect's word.
    #[must_use]
    pub fn ran_out_of_length(&self) -> bool {
        let words = ["length", "max_tokens", "max_output_tokens", "model_context_window_exceeded"];
        self.finish_reason.as_deref().is_some_and(|reason| words.contains(&reason))
    }
}

// === impl Dialect ===

impl Dialect {
    /// The dialect of a path where the route does not name one.
    #[must_use]
    pub fn guess(path: &str, has_anthropic_version: bool) -> Self {
        if has_anthropic_version || Call::of(&Method::POST, path) == Call::Messages {
            return Self::Anthropic;
        }
        let ollama = ["/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/tags"];
        if ollama.iter().any(|known| path.ends_with(known)) { Self::Ollama } else { Self::OpenAi }
    }
}

// === impl Call ===

impl Call {
    /// The row's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat.completions",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
            Self::Messages => "messages",
            Self::OllamaChat => "ollama.chat",
            Self::OllamaGenerate => "ollama.generate",
            Self::Other => "other",
            Self::Realtime => "realtime",
        }
    }

    /// Which call a WebSocket makes, by the end of its path; `None` where it is none of OpenAI's.
    #[must_use]
    pub fn of_socket(path: &str) -> Option<Self> {
        let path = path.trim_end_matches('/');
        match path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "realtime" => Some(Self::Realtime),
            "responses" => Some(Self::Responses),
            _ => None,
        }
    }

    /// Which call a request makes, by method and the end of its path, whatever their case, and with or
    /// without a last slash.
    #[must_use]
    pub fn of(method: &Method, path: &str) -> Self {
        if !method.as_str().eq_ignore_ascii_case("POST") {
            return Self::Other;
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let end = |length| path.len().checked_sub(length).and_then(|at| path.get(at..));
        let ends = |tail: &str| end(tail.len()).is_some_and(|end| end.eq_ignore_ascii_case(tail));
        match () {
            () if ends("/chat/completions") => Self::ChatCompletions,
            () if ends("/completions") => Self::Completions,
            () if ends("/responses") => Self::Responses,
            () if ends("/embeddings") || ends("/api/embed") => Self::Embeddings,
            () if ends("/messages") => Self::Messages,
            () if ends("/api/chat") => Self::OllamaChat,
            () if ends("/api/generate") => Self::OllamaGenerate,
            () => Self::Other,
        }
    }
}

// === impl Framing ===

impl Framing {
    /// The framing that a `Content-Type` announces; parameters and case do not matter.
    #[must_use]
    pub fn of(content_type: Option<&str>) -> Self {
        let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
        match essence.trim().to_ascii_lowercase().as_str() {
            "text/event-stream" => Self::Sse,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Self::Ndjson,
            json if json == "application/json" || json.ends_with("+json") => Self::Json,
            _ => Self::Other,
        }
    }
}
