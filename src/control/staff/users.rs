//! `/api/v1/staff/users`: users, in the hands of staff.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::json;

use crate::control::Control;
use crate::control::caller::{Origin, StaffSession};
use crate::control::forms::Body;
use crate::control::me::Done;
use crate::control::paging::Params;
use crate::control::problem::Problem;
use crate::control::profile::Profile;
use crate::control::rights::{Action, Role};
use crate::control::users::HelpForm;
use crate::store::takeover;
use crate::store::users::{self, User};

/// A page of users.
pub(in crate::control) async fn list_users(
    State(control): State<Arc<Control>>,
    session: StaffSession,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&["limit", "offset"])?;
    let page = params.page()?;
    let listed = users::list(&control.db, page.limit, page.offset).await?;
    let users = control.with_what_is_left(listed.rows).await?;
    let profiles = users.into_iter().map(|(user, left, reset)| seen_by(session.role, user, left, reset));
    let profiles: Vec<_> = profiles.collect();
    Ok(params.answer(page, &profiles, listed.total))
}

/// One user.
pub(in crate::control) async fn get_user(
    State(control): State<Arc<Control>>,
    session: StaffSession,
    Path(username): Path<String>,
) -> Result<Json<Profile>, Problem> {
    let user = control.user_named(&username).await?;
    let left = control.quota.left(user.id, &control.allowance(&user)).await?;
    Ok(Json(seen_by(session.role, user, left.left, left.reset)))
}

/// Changes a user's address, password, limits or plan. The first two end their sessions; both by one
/// person within a day are told to whoever watches.
pub(in crate::control) async fn update_user(
    State(control): State<Arc<Control>>,
    session: StaffSession,
    origin: Origin,
    Path(username): Path<String>,
    Body(change): Body<HelpForm>,
) -> Result<Json<Done>, Problem> {
    let user = control.user_named(&username).await?;
    let changed = change.fields();
    let row = control.row_of(change, &user).await?;
    let entry = origin.entry(session.actor(), "user.update", &user.username, json!({ "fields": changed }));
    let suspected = takeover::update_by_staff(&control.db, user.id, &row, entry).await?;
    if suspected {
        let (staff, user, request_id) = (&session.staff.username, &user.username, &origin.request_id);
        tracing::warn!(staff, user, %request_id, "one member of staff changed both address and password of a user within a day");
    }
    control.forget_user(user.id);
    Ok(Json(Done { message: "User updated successfully" }))
}

/// Deletes a user, whom the admin can bring back for a while.
pub(in crate::control) async fn delete_user(
    State(control): State<Arc<Control>>,
    session: StaffSession,
    origin: Origin,
    Path(username): Path<String>,
) -> Result<Json<Done>, Problem> {
    let user = control.user_named(&username).await?;
    control.delete(&user, session.actor(), &origin).await?;
    Ok(Json(Done { message: "User deleted successfully" }))
}

/// A profile, without what was noted of the user where the matrix says so.
fn seen_by(role: Role, mut user: User, left: i64, reset: i64) -> Profile {
    if !Action::ReadNotes.permits(role) {
        user.additional_notes.clear();
    }
    Profile::of(user, left, reset)
}
