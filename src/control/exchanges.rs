//! `/api/v1/admin/message-logs`: what was said, and what became of it, as the admin reads it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Control;
use super::caller::{AdminSession, Origin};
use super::openapi::{
    refused,
    words::{self, Pages},
};
use super::paging::Params;
use super::paths::Path;
use super::problem::Problem;
use super::slow_reads::SlowTurn;
use crate::clock::Timestamp;
use crate::ids::ExchangeId;
use crate::store::exchanges::{self, Exchange, Filter};

/// One row of the log: what was said, and what became of it.
#[derive(Serialize, ToSchema)]
#[schema(as = MessageLogEntry, example = json!({
    "id": "0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", "username": "ann_lee", "email": "ann@example.com", "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Hello"}], "research_model": false, "time": "2026-10-01T09:30:00Z",
    "answer": [{"role": "assistant", "content": "Hi."}], "request_id": "req_0190f3a2c4d07e51", "route": "/v1",
    "call": "chat", "status": 200, "stream": true, "outcome": "complete", "verdict": "charged", "reason": "complete",
    "first_byte_ms": 210, "latency_ms": 900, "bytes_in": 80, "bytes_out": 400, "prompt_tokens": 8,
    "completion_tokens": 2, "total_tokens": 10, "cached_tokens": null, "reasoning_tokens": null,
    "usage_source": "reported", "finish_reason": "stop", "truncated": false, "client_ip": "203.0.113.9",
}))]
pub(super) struct LogRow {
    #[schema(value_type = String, format = "uuid")]
    id: ExchangeId,
    username: String,
    email: String,
    /// Who was asked.
    model: String,
    /// What was said; empty where nothing was kept.
    #[schema(value_type = Vec<Value>)]
    messages: Box<RawValue>,
    research_model: bool,
    /// When it began.
    time: Timestamp,
    /// What was answered; `null` where nothing was, or was kept.
    #[schema(value_type = Value, required = true)]
    answer: Option<Box<RawValue>>,
    /// Of the call.
    request_id: String,
    /// The prefix of the route that took it.
    route: String,
    /// Which call it was.
    call: String,
    /// Of the answer; `null` where none came.
    #[schema(required = true)]
    status: Option<i64>,
    /// Whether the answer came piece by piece.
    stream: bool,
    /// How it ended, such as `complete`.
    outcome: String,
    /// `charged`, `refunded` or `free`.
    verdict: &'static str,
    /// Why the verdict.
    reason: String,
    /// Until the answer began.
    #[schema(required = true)]
    first_byte_ms: Option<i64>,
    /// Until it ended.
    latency_ms: i64,
    /// Of the request's body.
    bytes_in: i64,
    /// Of the answer's body.
    bytes_out: i64,
    /// As the upstream reported them; `null` where it did not.
    #[schema(required = true)]
    prompt_tokens: Option<i64>,
    #[schema(required = true)]
    completion_tokens: Option<i64>,
    #[schema(required = true)]
    total_tokens: Option<i64>,
    #[schema(required = true)]
    cached_tokens: Option<i64>,
    #[schema(required = true)]
    reasoning_tokens: Option<i64>,
    /// `reported` or `none`.
    usage_source: String,
    /// As the upstream gave it.
    #[schema(required = true)]
    finish_reason: Option<String>,
    /// Whether what was kept is cut short.
    truncated: bool,
    /// From where.
    client_ip: String,
}

const FILTERS: [&str; 6] = ["username", "model", "since", "until", "limit", "offset"];

/// Lists what was said.
///
/// The newest first. Everything answered before this call is in it. A page of long conversations ends before
/// its limit; its `Link` names where the next one begins. That it was read is recorded.
#[utoipa::path(
    get,
    path = "/api/v1/admin/message-logs",
    tag = "Admin: operation",
    params(
        ("username" = Option<words::SearchWord>, Query, description = "Only what this user said."),
        ("model" = Option<words::SearchWord>, Query, description = "Only what was said to this model."),
        ("since" = Option<words::Instant>, Query, description = "From this instant on."),
        ("until" = Option<words::Instant>, Query, description = "Before this instant."),
        Pages,
    ),
    responses((status = 200, description = "A page of the log.", body = Vec<LogRow>)),
)]
pub(super) async fn list_message_logs(
    State(control): State<Arc<Control>>,
    AdminSession(admin): AdminSession,
    SlowTurn(reads): SlowTurn,
    origin: Origin,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&FILTERS)?;
    let page = params.page()?;
    let filter = Filter {
        username: params.word("username")?,
        model: params.word("model")?,
        since: params.instant("since")?,
        until: params.instant("until")?,
        limit: page.limit,
        offset: page.offset,
    };
    let target = filter.username.as_deref().unwrap_or("all users");
    let detail = json!({ "model": filter.model, "since": filter.since, "until": filter.until,
        "limit": page.limit, "offset": page.offset });
    control.note_log_read(&admin, &origin, target, detail).await?;
    control.chatlog.flush().await;
    let listed = exchanges::list(&reads, &filter).await?;
    let rows: Vec<LogRow> = listed.rows.into_iter().map(LogRow::from).collect();
    Ok(params.answer_part(page, &rows, listed.total))
}

/// Shows one entry of the message log.
///
/// That it was read is recorded.
#[utoipa::path(
    get,
    path = "/api/v1/admin/message-logs/{id}",
    tag = "Admin: operation",
    params(("id" = inline(words::EntryName), Path, description = "The `id` of the entry.")),
    responses((status = 200, description = "The entry.", body = LogRow), refused::NotFound),
)]
pub(super) async fn get_message_log(
    State(control): State<Arc<Control>>,
    AdminSession(admin): AdminSession,
    origin: Origin,
    Path(id): Path<String>,
) -> Result<Json<LogRow>, Problem> {
    let missing = || Problem::NotFound("message log entry");
    let id = Uuid::parse_str(&id).map(ExchangeId).map_err(|_| missing())?;
    control.chatlog.flush().await;
    let found = exchanges::by_id(&control.db, id).await?.ok_or_else(missing)?;
    control.note_log_read(&admin, &origin, &found.username, json!({ "id": id })).await?;
    Ok(Json(LogRow::from(found)))
}

// === impl LogRow ===

impl From<Exchange> for LogRow {
    fn from(row: Exchange) -> Self {
        Self {
            id: row.id,
            username: row.username,
            email: row.email,
            model: row.model,
            messages: raw(row.messages).unwrap_or_else(empty_list),
            research_model: row.research_model,
            time: row.time,
            answer: raw(row.answer),
            request_id: row.request_id,
            route: row.route,
            call: row.call,
            status: row.status,
            stream: row.stream,
            outcome: row.outcome,
            verdict: row.verdict.as_str(),
            reason: row.reason,
            first_byte_ms: row.first_byte_ms,
            latency_ms: row.latency_ms,
            bytes_in: row.bytes_in,
            bytes_out: row.bytes_out,
            prompt_tokens: row.prompt_tokens,
            completion_tokens: row.completion_tokens,
            total_tokens: row.total_tokens,
            cached_tokens: row.cached_tokens,
            reasoning_tokens: row.reasoning_tokens,
            usage_source: row.usage_source,
            finish_reason: row.finish_reason,
            truncated: row.truncated,
            client_ip: row.client_ip,
        }
    }
}

/// Stored text as it stands; text that is no JSON, which only a damaged row has, is left out.
fn raw(stored: Option<String>) -> Option<Box<RawValue>> {
    RawValue::from_string(stored?).ok()
}

fn empty_list() -> Box<RawValue> {
    RawValue::from_string("[]".to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
