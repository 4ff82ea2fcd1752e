//! `/metrics`: the gateway's counters.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;

use super::Control;

/// The media type of what [`crate::telemetry::Metrics::text`] writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every series, in Prometheus's text form.
pub(super) async fn metrics(State(control): State<Arc<Control>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, OPEN_METRICS)], control.metrics.text())
}
