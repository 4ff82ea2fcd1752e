//! `/api/v1/admin/audit`: who changed what.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;

use super::Control;
use super::caller::AdminSession;
use super::paging::Params;
use super::problem::Problem;
use crate::clock::Timestamp;
use crate::store::audit::{self, AuditRow};

/// One recorded change.
#[derive(Serialize)]
pub(super) struct Change {
    id: i64,
    at: Timestamp,
    actor_kind: String,
    actor_id: Option<i64>,
    actor_name: String,
    action: String,
    target: String,
    detail: Value,
    request_id: String,
    client_ip: Option<String>,
}

/// A page of the trail, newest first.
pub(super) async fn list_audit(
    State(control): State<Arc<Control>>,
    _: AdminSession,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&["limit", "offset"])?;
    let page = params.page()?;
    let listed = audit::list(&control.db, page.limit, page.offset).await?;
    let rows: Vec<Change> = listed.rows.into_iter().map(Change::from).collect();
    Ok(params.answer(page, &rows, listed.total))
}

// === impl Change ===

impl From<AuditRow> for Change {
    fn from(row: AuditRow) -> Self {
        Self {
            id: row.id,
            at: row.at,
            actor_kind: row.actor_kind,
            actor_id: row.actor_id,
            actor_name: row.actor_name,
            action: row.action,
            target: row.target,
            detail: row.detail,
            request_id: row.request_id,
            client_ip: row.client_ip,
        }
    }
}
