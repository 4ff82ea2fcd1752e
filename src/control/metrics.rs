//! `/metrics`: the gateway's counters.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;

use super::Control;
use crate::telemetry::Metrics;

/// The media type of what [`crate::telemetry::Metrics::text`] writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Shows the counters of the gateway.
///
/// In the text form of OpenMetrics, for Prometheus. On the listener of the admins, where there is one.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "Health",
    responses(
        (status = 200, description = "Every series.", body = String, content_type = "application/openmetrics-text", example = "# TYPE tollgate_in_flight gauge\ntollgate_in_flight 3\n# EOF\n"),
    ),
)]
pub(super) async fn metrics(State(control): State<Arc<Control>>) -> impl IntoResponse {
    shown(&control.metrics)
}

/// Every series, as an answer.
pub(super) fn shown(metrics: &Metrics) -> impl IntoResponse + use<> {
    ([(CONTENT_TYPE, OPEN_METRICS)], metrics.text())
}
