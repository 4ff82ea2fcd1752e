//! Streams at the pace of speech, so that a person sees them come.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::Value;

/// Silence before each frame but the first.
pub(super) const PACE: Duration = Duration::from_millis(10);

/// One server-sent event; OpenAI's chat events have no name.
pub(super) fn event(name: Option<&str>, data: &Value) -> String {
    match name {
        Some(name) => format!("event: {name}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
}

/// Server-sent events.
pub(super) fn sse(frames: Vec<String>) -> Response {
    paced("text/event-stream; charset=utf-8", frames)
}

/// One JSON document a line.
pub(super) fn ndjson(documents: &[Value]) -> Response {
    paced("application/x-ndjson", documents.iter().map(|document| format!("{document}\n")).collect())
}

fn paced(content_type: &'static str, frames: Vec<String>) -> Response {
    let frames = stream::unfold((frames.into_iter(), Duration::ZERO), |(mut rest, wait)| async move {
        let frame = rest.next()?;
        tokio::time::sleep(wait).await;
        Some((Ok::<_, Infallible>(Bytes::from(frame)), (rest, PACE)))
    });
    ([(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-cache")], Body::from_stream(frames)).into_response()
}
