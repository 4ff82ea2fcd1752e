//! Ollama's chat, generate and embed. The first two stream unless told not to.

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Map, Value, json};

use crate::demo::chat::{Unfit, list, model, parse};
use crate::demo::embeddings::{DIMENSIONS, inputs};
use crate::demo::models::MODELS;
use crate::demo::openai::tools;
use crate::demo::pace;
use crate::demo::reply::{Choice, Heard, MADE_AT_TEXT, Reply, count_words, vector};

struct Answer {
    model: String,
    reply: Reply,
    prompt_tokens: u64,
    stream: bool,
}

/// `POST /api/chat`
pub(super) async fn chat(body: Bytes) -> Response {
    match understand_chat(&body) {
        Ok(answer) => answer.send(message),
        Err(unfit) => refused(&unfit),
    }
}

/// `POST /api/generate`
pub(super) async fn generate(body: Bytes) -> Response {
    match understand_generate(&body) {
        Ok(answer) => answer.send(response),
        Err(unfit) => refused(&unfit),
    }
}

/// `POST /api/embed`
pub(super) async fn embed(body: Bytes) -> Response {
    match understand_embed(&body) {
        Ok(document) => Json(document).into_response(),
        Err(unfit) => refused(&unfit),
    }
}

/// `GET /api/tags`
pub(super) async fn tags() -> Json<Value> {
    let models = MODELS.map(|name| {
        json!({"name": name, "model": name, "modified_at": MADE_AT_TEXT, "size": 0, "digest": "demo",
            "details": {"parent_model": "", "format": "demo", "family": "demo", "families": ["demo"],
                "parameter_size": "0", "quantization_level": "none"}})
    });
    Json(json!({"models": models}))
}

/// `GET /api/version`
pub(super) async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

fn understand_chat(body: &[u8]) -> Result<Answer, Unfit> {
    let request = parse(body)?;
    let heard = Heard::messages(list(&request, "messages")?);
    answer(&request, &heard, Reply::to(&heard, &tools(&request), &Choice::Auto))
}

fn understand_generate(body: &[u8]) -> Result<Answer, Unfit> {
    let request = parse(body)?;
    let prompt = request.get("prompt").and_then(Value::as_str).unwrap_or_default();
    let heard = Heard::prompt(prompt).with_preamble(request.get("system"));
    answer(&request, &heard, Reply::to(&heard, &[], &Choice::None))
}

fn answer(request: &Value, heard: &Heard, reply: Reply) -> Result<Answer, Unfit> {
    let limit = request.pointer("/options/num_predict").and_then(Value::as_u64);
    Ok(Answer {
        model: model(request)?.to_owned(),
        reply: reply.limited(limit),
        prompt_tokens: heard.words,
        stream: request.get("stream").and_then(Value::as_bool).unwrap_or(true),
    })
}

fn understand_embed(body: &[u8]) -> Result<Value, Unfit> {
    let request = parse(body)?;
    let texts = inputs(&request)?;
    let vectors: Vec<Vec<f32>> = texts.iter().map(|text| vector(text, DIMENSIONS)).collect();
    let tokens: u64 = texts.iter().map(|text| count_words(text)).sum();
    Ok(json!({"model": model(&request)?, "embeddings": vectors, "total_duration": 1_000_000,
        "load_duration": 0, "prompt_eval_count": tokens}))
}

fn refused(unfit: &Unfit) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({"error": unfit.to_string()}))).into_response()
}

// === impl Answer ===

impl Answer {
    /// Sends the whole answer, or its parts and then its end; `content` puts words where the call has them.
    fn send(&self, content: fn(&Reply) -> (&'static str, Value)) -> Response {
        if !self.stream {
            let mut document = self.document(content(&self.reply));
            self.end(&mut document);
            return Json(Value::Object(document)).into_response();
        }
        let mut documents: Vec<Value> =
            self.parts().iter().map(|part| Value::Object(self.document(content(part)))).collect();
        let nothing_more = Reply::Words { words: Vec::new(), cut: false };
        let mut last = self.document(content(&nothing_more));
        self.end(&mut last);
        documents.push(Value::Object(last));
        pace::ndjson(&documents)
    }

    fn parts(&self) -> Vec<Reply> {
        match &self.reply {
            Reply::Words { words, .. } => {
                words.iter().map(|word| Reply::Words { words: vec![word.clone()], cut: false }).collect()
            }
            call @ Reply::Call { .. } => vec![call.clone()],
        }
    }

    fn document(&self, (place, content): (&str, Value)) -> Map<String, Value> {
        Map::from_iter([
            ("model".to_owned(), json!(self.model)),
            ("created_at".to_owned(), json!(MADE_AT_TEXT)),
            (place.to_owned(), content),
            ("done".to_owned(), json!(false)),
        ])
    }

    fn end(&self, document: &mut Map<String, Value>) {
        let spoken = self.reply.count();
        let pace = u64::try_from(pace::PACE.as_nanos()).unwrap_or_default();
        let cut = matches!(self.reply, Reply::Words { cut: true, .. });
        document.extend([
            ("done".to_owned(), json!(true)),
            ("done_reason".to_owned(), json!(if cut { "length" } else { "stop" })),
            ("total_duration".to_owned(), json!(pace * (spoken + 1))),
            ("load_duration".to_owned(), json!(0)),
            ("prompt_eval_count".to_owned(), json!(self.prompt_tokens)),
            ("prompt_eval_duration".to_owned(), json!(pace)),
            ("eval_count".to_owned(), json!(spoken)),
            ("eval_duration".to_owned(), json!(pace * spoken)),
        ]);
    }
}

/// Where chat has its words.
fn message(part: &Reply) -> (&'static str, Value) {
    let message = match part {
        Reply::Words { .. } => json!({"role": "assistant", "content": part.text()}),
        Reply::Call { name, arguments } => json!({"role": "assistant", "content": "",
            "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}),
    };
    ("message", message)
}

/// Where generate has them.
fn response(part: &Reply) -> (&'static str, Value) {
    ("response", json!(part.text()))
}
