//! The list of models, in the shape of whoever asks: Anthropic's SDK names its version, OpenAI's does not.

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

use crate::demo::chat::openai_error;
use crate::demo::reply::{MADE_AT, MADE_AT_TEXT};

/// The names that are listed; calls take any name.
pub(super) const MODELS: [&str; 3] = ["demo-chat", "demo-research", "demo-embedding"];

/// `GET /v1/models`
pub(super) async fn list(headers: HeaderMap) -> Json<Value> {
    let data: Vec<Value> = MODELS.iter().map(|name| document(name, &headers)).collect();
    if for_anthropic(&headers) {
        let ends = (MODELS.first(), MODELS.last());
        return Json(json!({"data": data, "has_more": false, "first_id": ends.0, "last_id": ends.1}));
    }
    Json(json!({"object": "list", "data": data}))
}

/// `GET /v1/models/{id}`
pub(super) async fn one(Path(id): Path<String>, headers: HeaderMap) -> Response {
    if MODELS.contains(&id.as_str()) {
        return Json(document(&id, &headers)).into_response();
    }
    let message = format!("The model '{id}' does not exist");
    if for_anthropic(&headers) {
        let error = json!({"type": "not_found_error", "message": message});
        return (StatusCode::NOT_FOUND, Json(json!({"type": "error", "error": error}))).into_response();
    }
    openai_error(StatusCode::NOT_FOUND, Some("model_not_found"), &message)
}

fn document(name: &str, headers: &HeaderMap) -> Value {
    if for_anthropic(headers) {
        return json!({"type": "model", "id": name, "display_name": name, "created_at": MADE_AT_TEXT});
    }
    json!({"id": name, "object": "model", "created": MADE_AT, "owned_by": "tollgate-demo"})
}

fn for_anthropic(headers: &HeaderMap) -> bool {
    headers.contains_key("anthropic-version")
}
