//! A problem as it is written out: RFC 9457 problem details with the seed's members.

use axum::body::Body;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::control::violations::Violation;
use crate::ids::RequestId;

/// A problem before it knows which request it answers; travels in the response's extensions.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) detail: Value,
    pub(super) reasons: Vec<&'static str>,
    pub(super) cause: Option<String>,
}

/// Why a call was refused or failed: problem details (RFC 9457), and the members that older clients read.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem, example = json!({
    "type": "urn:tollgate:problem:not_found", "code": "not_found", "title": "Not Found", "status": 404,
    "detail": "There is no such user.", "error": true, "status_code": 404,
    "timestamp": "2026-10-01T09:30:00Z", "request_id": "req_0190f3a2c4d07e51",
}))]
pub(in crate::control) struct Document<'r> {
    /// Names the kind of problem.
    #[serde(rename = "type")]
    kind: String,
    /// The same in one word: what a program should act on.
    code: &'static str,
    /// The reason phrase of the status.
    title: &'static str,
    /// The status of this answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// One English sentence for people; everything that is wrong with the request where it is not valid.
    #[schema(value_type = Detail)]
    detail: Value,
    /// Of `not_ready` only: each reason in one word, such as `database_cannot_write`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<&'static str>,
    /// Always true.
    error: bool,
    /// As `status`.
    #[schema(minimum = 400, maximum = 599)]
    status_code: u16,
    /// When.
    timestamp: Timestamp,
    /// By which the operator finds this answer in the log.
    #[schema(value_type = String)]
    request_id: &'r RequestId,
}

/// A sentence, or all that is wrong with the request.
#[derive(ToSchema)]
#[schema(as = Detail)]
#[serde(untagged)]
#[expect(dead_code, reason = "stands in the document for a `Value`")]
pub(in crate::control) enum Detail {
    /// One English sentence.
    Sentence(String),
    /// All that is wrong.
    Violations(Vec<Violation>),
}

/// The code of a response that is a problem.
pub(in crate::control) fn code_of(response: &Response) -> Option<&'static str> {
    response.extensions().get::<Draft>().map(|draft| draft.code)
}

/// Writes the body of a response that is a problem; leaves every other as it is.
pub(in crate::control) fn finish(response: Response, request_id: &RequestId, now: Timestamp) -> Response {
    let (mut parts, body) = response.into_parts();
    let Some(draft) = parts.extensions.remove::<Draft>() else {
        return Response::from_parts(parts, body);
    };
    if let Some(cause) = &draft.cause {
        tracing::warn!(code = draft.code, cause, %request_id, "the control plane could not answer");
    }
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    Response::from_parts(parts, Body::from(draft.into_document(request_id, now).to_string()))
}

// === impl Draft ===

impl Draft {
    pub(super) fn into_document(self, request_id: &RequestId, now: Timestamp) -> Value {
        let status = self.status.as_u16();
        let document = Document {
            kind: format!("urn:tollgate:problem:{}", self.code),
            code: self.code,
            title: self.status.canonical_reason().unwrap_or("Error"),
            status,
            detail: self.detail,
            reasons: self.reasons,
            error: true,
            status_code: status,
            timestamp: now,
            request_id,
        };
        serde_json::to_value(document).unwrap_or_default()
    }
}
