//! `/api/v1/admin/message-logs`: what was said, and what became of it, as the admin reads it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Control;
use super::caller::{AdminSession, Origin};
use super::paging::Params;
use super::problem::Problem;
use crate::clock::Timestamp;
use crate::ids::ExchangeId;
use crate::store::exchanges::{self, Exchange, Filter};

/// One row: the seed's columns first, then what the gateway itself saw.
#[derive(Serialize)]
pub(super) struct LogRow {
    id: ExchangeId,
    username: String,
    email: String,
    model: String,
    /// Empty where nothing was kept.
    messages: Box<RawValue>,
    research_model: bool,
    time: Timestamp,
    /// What was answered; `null` where nothing was, or was kept.
    answer: Option<Box<RawValue>>,
    request_id: String,
    route: String,
    call: String,
    status: Option<i64>,
    stream: bool,
    outcome: String,
    verdict: &'static str,
    reason: String,
    first_byte_ms: Option<i64>,
    latency_ms: i64,
    bytes_in: i64,
    bytes_out: i64,
    prompt_tokens: Option<i64>,
    completion_tokens: Option<i64>,
    total_tokens: Option<i64>,
    cached_tokens: Option<i64>,
    reasoning_tokens: Option<i64>,
    usage_source: String,
    finish_reason: Option<String>,
    truncated: bool,
    client_ip: String,
}

const FILTERS: [&str; 6] = ["username", "model", "since", "until", "limit", "offset"];

/// A page of the log, newest first. Everything answered before this call is in it. A page of long
/// conversations ends before its limit; its `Link` names where the next one begins.
pub(super) async fn list_message_logs(
    State(control): State<Arc<Control>>,
    AdminSession(admin): AdminSession,
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
    let listed = exchanges::list(&control.db, &filter).await?;
    let rows: Vec<LogRow> = listed.rows.into_iter().map(LogRow::from).collect();
    Ok(params.answer_part(page, &rows, listed.total))
}

/// One row of the log.
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
