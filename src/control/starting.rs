//! What a gateway answers that is still starting: it is alive, and takes no work yet.
//!
//! The database may be migrated, checked or waited for meanwhile, for minutes. An orchestrator that asks
//! `/livez` must not restart the process for that. Other requests wait for half a second first.

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{Method, Request};

use super::envelope;
use super::health::{Readiness, alive};
use super::problem::{self, Problem};
use crate::clock::Timestamp;
use crate::ids::RequestId;

/// The answer to `request`.
pub async fn starting<B>(
    request: &Request<B>,
    id: &RequestId,
    readiness: &Readiness,
    now: Timestamp,
) -> Response<Body> {
    let asks = matches!(*request.method(), Method::GET | Method::HEAD);
    let response = if asks && request.uri().path() == "/livez" {
        let Json(sign) = alive().await;
        Json(sign).into_response()
    } else {
        Problem::NotReady(readiness.reasons()).into_response()
    };
    let mut response = problem::finish(response, id, now);
    envelope::dress(response.headers_mut(), id);
    response
}
