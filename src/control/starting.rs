//! What a gateway answers that is still starting, or writes its last rows: it is alive, and takes no work.
//!
//! The database may be migrated, checked or waited for meanwhile, for minutes. An orchestrator that asks
//! `/livez` must not restart the process for that. Other requests wait for half a second first.

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{Method, Request};

use super::envelope;
use super::health::{Readiness, alive};
use super::metrics::shown;
use super::problem::{self, Problem};
use crate::clock::Timestamp;
use crate::ids::RequestId;
use crate::telemetry::Metrics;

/// The answer to `request`; with `metrics`, one that asks for them.
pub async fn starting<B>(
    request: &Request<B>,
    id: &RequestId,
    (readiness, metrics): (&Readiness, Option<&Metrics>),
    now: Timestamp,
) -> Response<Body> {
    let asks = matches!(*request.method(), Method::GET | Method::HEAD);
    let response = match metrics {
        Some(metrics) if asks => shown(metrics).into_response(),
        _ if asks && request.uri().path() == "/livez" => {
            let Json(sign) = alive().await;
            Json(sign).into_response()
        }
        _ => Problem::NotReady(readiness.reasons()).into_response(),
    };
    let mut response = problem::finish(response, id, now);
    envelope::dress(response.headers_mut(), id);
    response
}
