//! `/api/v1/staff/users`: users, in the hands of staff.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use crate::control::Control;
use crate::control::caller::{Origin, StaffSession};
use crate::control::forms::Body;
use crate::control::me::Done;
use crate::control::openapi::{
    refused,
    words::{self, Pages},
};
use crate::control::paging::Params;
use crate::control::paths::Path;
use crate::control::problem::Problem;
use crate::control::profile::Profile;
use crate::control::rights::{Action, Role};
use crate::control::slow_reads::SlowTurn;
use crate::control::users::HelpForm;
use crate::store::takeover;
use crate::store::users::{self, User};

/// Lists users, for staff.
///
/// Level `new` does not see `additional_notes`.
#[utoipa::path(
    get,
    path = "/api/v1/staff/users",
    tag = "Staff",
    params(Pages),
    responses((status = 200, description = "A page, in the order of their numbers.", body = Vec<Profile>)),
)]
pub(in crate::control) async fn staff_list_users(
    State(control): State<Arc<Control>>,
    session: StaffSession,
    SlowTurn(reads): SlowTurn,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&["limit", "offset"])?;
    let page = params.page()?;
    let listed = users::list(&reads, page.limit, page.offset).await?;
    let users = control.with_what_is_left(listed.rows).await?;
    let profiles = users.into_iter().map(|(user, left, reset)| seen_by(session.role, user, left, reset));
    let profiles: Vec<_> = profiles.collect();
    Ok(params.answer(page, &profiles, listed.total))
}

/// Shows a user, to staff.
///
/// Level `new` does not see `additional_notes`.
#[utoipa::path(
    get,
    path = "/api/v1/staff/users/{username}",
    tag = "Staff",
    params(("username" = inline(words::Username), Path, description = "Whose account.")),
    responses((status = 200, description = "The account.", body = Profile), refused::NotFound),
)]
pub(in crate::control) async fn staff_get_user(
    State(control): State<Arc<Control>>,
    session: StaffSession,
    Path(username): Path<String>,
) -> Result<Json<Profile>, Problem> {
    let user = control.user_named(&username).await?;
    let left = control.quota.left(user.id, &control.allowance(&user)).await?;
    Ok(Json(seen_by(session.role, user, left.left, left.reset)))
}

/// Helps a user: changes their address, password, limits or plan.
///
/// Another address or password ends their sessions; both by one person within a day are told to whoever
/// watches.
#[utoipa::path(
    put,
    path = "/api/v1/staff/users/{username}",
    tag = "Staff",
    params(("username" = inline(words::Username), Path, description = "Whose account.")),
    request_body = HelpForm,
    responses(
        (status = 200, description = "The account is changed.", body = Done),
        refused::NotFound, refused::Taken, refused::Busy,
    ),
)]
pub(in crate::control) async fn staff_update_user(
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

/// Deletes a user, by staff.
///
/// Their keys and sessions end at once. An admin can bring them back for thirty days.
#[utoipa::path(
    delete,
    path = "/api/v1/staff/users/{username}",
    tag = "Staff",
    params(("username" = inline(words::Username), Path, description = "Whose account.")),
    responses((status = 200, description = "The account is gone.", body = Done), refused::NotFound),
)]
pub(in crate::control) async fn staff_delete_user(
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
