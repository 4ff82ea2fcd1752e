//! `/api/v1/admin/audit`: who changed what.

use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::caller::AdminSession;
use super::openapi::words::Pages;
use super::paging::Params;
use super::problem::Problem;
use super::slow_reads::SlowTurn;
use crate::clock::Timestamp;
use crate::store::audit::{self, AuditRow};

/// One recorded change.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry, example = json!({
    "id": 42, "at": "2026-10-01T09:30:00Z", "actor_kind": "admin", "actor_id": 1, "actor_name": "admin",
    "action": "user.update", "target": "ann_lee", "detail": {"fields": ["level"]},
    "request_id": "req_0190f3a2c4d07e51", "client_ip": "203.0.113.9",
}))]
pub(super) struct Change {
    /// Its place in the trail.
    id: i64,
    /// When.
    at: Timestamp,
    /// Who did it: `nobody`, `user`, `staff`, `admin` or `system`.
    actor_kind: String,
    /// Their number, where they have one.
    #[schema(required = true)]
    actor_id: Option<i64>,
    /// Their name then.
    actor_name: String,
    /// Such as `user.update`.
    action: String,
    /// To whom or what.
    target: String,
    /// What there is to say of it; never a secret.
    detail: Value,
    /// Of the call that did it.
    request_id: String,
    /// From where.
    #[schema(required = true)]
    client_ip: Option<String>,
}

/// Lists the audit trail.
///
/// Who changed what, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/admin/audit",
    tag = "Admin: operation",
    params(Pages),
    responses((status = 200, description = "A page of it.", body = Vec<Change>)),
)]
pub(super) async fn list_audit(
    _: AdminSession,
    SlowTurn(reads): SlowTurn,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&["limit", "offset"])?;
    let page = params.page()?;
    let listed = audit::list(&reads, page.limit, page.offset).await?;
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
