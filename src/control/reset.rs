//! `POST /api/v1/admin/reset-limits`: everybody begins the day anew.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::json;

use super::Control;
use super::caller::{AdminSession, Origin};
use super::me::Done;
use super::problem::Problem;
use crate::store;
use crate::store::audit::Actor;

/// Gives every user a whole day.
///
/// Whatever they used of this one. It is computed from the clock as it is now: whoever was led into a later
/// day by a clock that ran ahead is back.
#[utoipa::path(
    post,
    path = "/api/v1/admin/reset-limits",
    tag = "Admin: operation",
    responses((status = 200, description = "Everybody begins anew.", body = Done)),
)]
pub(super) async fn reset_limits(
    State(control): State<Arc<Control>>,
    AdminSession(admin): AdminSession,
    origin: Origin,
) -> Result<Json<Done>, Problem> {
    let actor = (Actor::Admin(admin.id), admin.username.as_str());
    let entry = origin.entry(actor, "limits.reset", "all users", json!({}));
    let users = store::quota::reset_all(&control.db, &entry).await?;
    control.quota.forget_all();
    tracing::info!(users, admin = admin.username, "all limits were reset");
    Ok(Json(Done { message: "All user limits reset successfully" }))
}
