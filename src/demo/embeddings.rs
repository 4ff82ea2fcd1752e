//! OpenAI's embeddings: small vectors that depend on the text alone.

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

use crate::demo::chat::{Unfit, model, openai_error, parse};
use crate::demo::reply::{count_words, vector, vector_base64};

/// Length of a vector when the request does not say, and the most it may say.
pub(super) const DIMENSIONS: usize = 16;
const MAX_DIMENSIONS: usize = 3_072;

/// Most texts of one request.
const MAX_INPUTS: usize = 2_048;

/// `POST /v1/embeddings`
pub(super) async fn embed(body: Bytes) -> Response {
    match understand(&body) {
        Ok(document) => Json(document).into_response(),
        Err(unfit) => openai_error(StatusCode::BAD_REQUEST, None, &unfit.to_string()),
    }
}

/// The texts of an `input`: a string, strings, or tokens (which are embedded as they are written).
pub(super) fn inputs(request: &Value) -> Result<Vec<String>, Unfit> {
    let texts = match request.get("input") {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) if items.iter().all(Value::is_number) => vec![json!(items).to_string()],
        Some(Value::Array(items)) => items.iter().map(text).collect(),
        _ => Vec::new(),
    };
    if (1..=MAX_INPUTS).contains(&texts.len()) {
        return Ok(texts);
    }
    Err(Unfit(format!("'input' must be a string or an array of 1 to {MAX_INPUTS} strings.")))
}

fn understand(body: &[u8]) -> Result<Value, Unfit> {
    let request = parse(body)?;
    let model = model(&request)?;
    let texts = inputs(&request)?;
    let dimensions = dimensions(&request)?;
    let in_base64 = request.get("encoding_format").and_then(Value::as_str) == Some("base64");
    let data: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let vector = vector(text, dimensions);
            let embedding = if in_base64 { json!(vector_base64(&vector)) } else { json!(vector) };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let tokens: u64 = texts.iter().map(|text| count_words(text)).sum();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    Ok(json!({"object": "list", "model": model, "data": data, "usage": usage}))
}

fn dimensions(request: &Value) -> Result<usize, Unfit> {
    let Some(given) = request.get("dimensions").filter(|given| !given.is_null()) else {
        return Ok(DIMENSIONS);
    };
    let fits = |n: &usize| (1..=MAX_DIMENSIONS).contains(n);
    let given = given.as_u64().and_then(|n| usize::try_from(n).ok()).filter(fits);
    given.ok_or_else(|| Unfit(format!("'dimensions' must be between 1 and {MAX_DIMENSIONS}.")))
}

fn text(item: &Value) -> String {
    item.as_str().map_or_else(|| item.to_string(), str::to_owned)
}
