//! The built-in chat app: what `tollgate demo` puts behind the gate, and what tests put behind it
//! that want a real app. It knows nothing of keys, users or limits.
//!
//! It takes any model's name and speaks OpenAI (chat, completions, responses, embeddings, models),
//! Anthropic (messages) and Ollama (chat, generate, embed, tags). It says the last message back, counts
//! when asked to ("count to 200"), and calls a tool when one is offered and the question is about the
//! weather. Words are its tokens.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::demo::{anthropic, embeddings, models, ollama, openai, responses};

/// Largest request that is read.
const MAX_BODY: usize = 64 << 20;

/// How long a connection may take for a request's head, and how long an accept error is slept over.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a request was refused for, in one sentence; each dialect wraps it in its own shape.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unfit(pub String);

/// Every path of the app.
pub fn router() -> Router {
    Router::new()
        .route("/", get(async || "The chat app of `tollgate demo`.\n"))
        .route("/v1/chat/completions", post(openai::chat))
        .route("/v1/completions", post(openai::complete))
        .route("/v1/responses", post(responses::respond))
        .route("/v1/embeddings", post(embeddings::embed))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::one))
        .route("/v1/messages", post(anthropic::messages))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route("/api/chat", post(ollama::chat))
        .route("/api/generate", post(ollama::generate))
        .route("/api/embed", post(ollama::embed))
        .route("/api/tags", get(ollama::tags))
        .route("/api/version", get(ollama::version))
        .fallback(nothing_here)
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

/// Serves the app over HTTP/1.1 until `shutdown`, then lets running answers end.
///
/// # Errors
/// When the listener's address cannot be read; a connection that fails ends alone.
pub async fn chat_app(listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
    let address = listener.local_addr().context("the chat app's listener has no address")?;
    tracing::debug!(%address, "chat app listens");
    let app = Arc::new(router());
    let connections = TaskTracker::new();
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                let app = Router::clone(&app);
                connections.spawn(converse(stream, app, shutdown.clone()));
            }
            Err(error) => {
                tracing::debug!(%error, "the chat app could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
    Ok(())
}

async fn converse(stream: TcpStream, app: Router, shutdown: CancellationToken) {
    // Each frame is a word of a stream: it must not wait for the next one.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY towards the chat app's client");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the chat app ended early");
    }
}

/// The request's JSON object.
pub(super) fn parse(body: &[u8]) -> Result<Value, Unfit> {
    let parsed: Value = serde_json::from_slice(body)
        .map_err(|error| Unfit(format!("We could not parse the JSON body of your request: {error}")))?;
    if parsed.is_object() { Ok(parsed) } else { Err(Unfit("The body must be a JSON object.".into())) }
}

/// A field that must be there and not be empty, such as `messages`.
pub(super) fn list<'a>(request: &'a Value, field: &str) -> Result<&'a [Value], Unfit> {
    match request.get(field).and_then(Value::as_array) {
        Some(items) if !items.is_empty() => Ok(items),
        _ => Err(Unfit(format!("'{field}' must be an array with at least one item."))),
    }
}

/// The name of the model asked for; any name will do, but there must be one.
pub(super) fn model(request: &Value) -> Result<&str, Unfit> {
    let named = request.get("model").and_then(Value::as_str).filter(|name| !name.is_empty());
    named.ok_or_else(|| Unfit("You must provide a model parameter.".into()))
}

/// Whether a boolean field is set.
pub(super) fn flag(request: &Value, field: &str) -> bool {
    request.get(field).and_then(Value::as_bool).unwrap_or(false)
}

/// An error in OpenAI's shape.
pub(super) fn openai_error(status: StatusCode, code: Option<&str>, message: &str) -> Response {
    let kind = "invalid_request_error";
    let error = json!({"message": message, "type": kind, "param": null, "code": code});
    (status, Json(json!({"error": error}))).into_response()
}

async fn nothing_here(uri: Uri) -> Response {
    let message = format!("Unknown request URL: {}", uri.path());
    openai_error(StatusCode::NOT_FOUND, Some("unknown_url"), &message)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::header::CONTENT_TYPE;
    use axum::http::{Request, StatusCode};
    use http_body_util::BodyExt;
    use serde_json::{Value, json};
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt;

    use super::{chat_app, router};

    async fn post(path: &str, body: &Value) -> (StatusCode, String, String) {
        let request = Request::post(path).body(Body::from(body.to_string())).unwrap();
        let answer = router().oneshot(request).await.unwrap();
        let kind = answer.headers().get(CONTENT_TYPE).unwrap().to_str().unwrap().to_owned();
        let status = answer.status();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, kind, String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn data(stream: &str) -> Vec<Value> {
        let lines = stream.lines().filter_map(|line| line.strip_prefix("data: "));
        lines.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    fn counting(more: &Value) -> Value {
        let mut request = json!({"model": "m", "messages": [{"role": "user", "content": "count to 3"}]});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    }

    #[tokio::test]
    async fn the_same_request_gets_the_same_bytes() {
        let request = counting(&json!({"n": 2}));
        let first = post("/v1/chat/completions", &request).await;
        assert_eq!(first, post("/v1/chat/completions", &request).await);
        let answer: Value = serde_json::from_str(&first.2).unwrap();
        assert_eq!(answer.pointer("/choices/0/message/content"), Some(&json!("1 2 3")));
        assert_eq!(answer.pointer("/choices/1/message/content"), Some(&json!("(2) 1 2 3")));
        assert_eq!(answer.pointer("/usage/total_tokens"), Some(&json!(9)));
    }

    #[tokio::test]
    async fn a_streamed_chat_ends_with_its_usage_and_the_end_mark() {
        let asked = counting(&json!({"stream": true, "stream_options": {"include_usage": true}}));
        let (_, kind, stream) = post("/v1/chat/completions", &asked).await;
        assert_eq!(kind, "text/event-stream; charset=utf-8");
        assert!(stream.ends_with("data: [DONE]\n\n"));
        let chunks = data(&stream);
        let said: String =
            chunks.iter().filter_map(|c| c.pointer("/choices/0/delta/content")?.as_str()).collect();
        assert_eq!(said, "1 2 3");
        assert_eq!(chunks.last().unwrap().pointer("/usage/completion_tokens"), Some(&json!(3)));
        assert_eq!(chunks.last().unwrap().get("choices"), Some(&json!([])));
    }

    #[tokio::test]
    async fn responses_and_messages_stream_typed_events() {
        let asked = json!({"model": "m", "input": "count to 2", "stream": true});
        let events = data(&post("/v1/responses", &asked).await.2);
        assert_eq!(events.last().unwrap().get("type"), Some(&json!("response.completed")));
        assert_eq!(events.last().unwrap().get("sequence_number"), Some(&json!(events.len() - 1)));

        let asked = counting(&json!({"max_tokens": 2, "stream": true}));
        let events = data(&post("/v1/messages", &asked).await.2);
        assert_eq!(events.first().unwrap().get("type"), Some(&json!("message_start")));
        assert_eq!(events.last().unwrap().get("type"), Some(&json!("message_stop")));
        let ends: Vec<_> = events.iter().filter_map(|e| e.pointer("/delta/stop_reason")).collect();
        assert_eq!(ends, [&json!("max_tokens")]);
    }

    #[tokio::test]
    async fn ollama_streams_lines_unless_told_not_to() {
        let (_, kind, lines) = post("/api/chat", &counting(&json!({}))).await;
        assert_eq!(kind, "application/x-ndjson");
        let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        assert_eq!((last.get("done"), last.get("eval_count")), (Some(&json!(true)), Some(&json!(3))));
        let (_, kind, _) = post("/api/chat", &counting(&json!({"stream": false}))).await;
        assert_eq!(kind, "application/json");
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused_in_the_callers_dialect() {
        let nothing = json!({"model": "m", "messages": []});
        for (path, message) in [
            ("/v1/chat/completions", "/error/message"),
            ("/v1/messages", "/error/type"),
            ("/api/chat", "/error"),
        ] {
            let (status, _, body) = post(path, &nothing).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
            let body: Value = serde_json::from_str(&body).unwrap();
            assert!(body.pointer(message).unwrap().is_string(), "{path}");
        }
        assert_eq!(post("/v1/nowhere", &nothing).await.0, StatusCode::NOT_FOUND);
        assert_eq!(
            post("/v1/chat/completions", &counting(&json!({"n": 9}))).await.0,
            StatusCode::BAD_REQUEST
        );
    }

    #[tokio::test]
    async fn it_stops_when_told_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        chat_app(listener, stop).await.unwrap();
    }
}
