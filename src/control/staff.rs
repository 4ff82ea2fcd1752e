//! `/api/v1/staff`: those who help users, and how far each may.
//!
//! What a member of staff may do follows from the level in their row, by the matrix
//! ([`super::rights`]); a token says nothing of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Control;
use super::caller::{Origin, StaffSession};
use super::forms::Body;
use super::openapi::refused;
use super::party::Party;
use super::problem::Problem;
use super::session::{LoggedIn, NamedLogin};
use crate::clock::Timestamp;
use crate::credential::token::Audience;
use crate::store::staff::{self, Staff};

pub(super) mod accounts;
pub(super) mod users;

/// A session, and how far it reaches now.
#[derive(Serialize, ToSchema)]
#[schema(as = StaffSession, example = json!({
    "access_token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "token_type": "bearer", "expires_in": "1800",
    "refresh_token": "tgr_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg", "staff_level": "support",
}))]
pub(super) struct StaffLoggedIn {
    #[serde(flatten)]
    session: LoggedIn,
    /// `new`, `support` or `advanced`.
    staff_level: String,
}

/// A member of staff, as they and the admin see them.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "id": 1, "name": "Sam Roe", "username": "sam", "email": "sam@example.com", "staff_level": "support",
    "time_created": "2026-10-01T09:30:00Z", "is_active": true,
}))]
pub(super) struct StaffProfile {
    id: i64,
    name: String,
    username: String,
    email: String,
    /// `new`, `support` or `advanced`.
    staff_level: String,
    time_created: Timestamp,
    /// False where they may not log in.
    is_active: bool,
}

/// Logs a member of staff in by name.
///
/// Failed logins are slowed down, and kept in the audit trail.
#[utoipa::path(
    post,
    path = "/api/v1/staff/login",
    tag = "Sessions",
    request_body = NamedLogin,
    responses(
        (status = 200, description = "A session, and how far it reaches.", body = StaffLoggedIn),
        refused::WrongCredentials, refused::TotpRequired, refused::WrongSecondFactor,
        refused::AccountDisabled, refused::TooManyLogins, refused::Busy,
    ),
)]
pub(super) async fn staff_login(
    State(control): State<Arc<Control>>,
    origin: Origin,
    Body(claim): Body<NamedLogin>,
) -> Result<Json<StaffLoggedIn>, Problem> {
    let attempt = control.attempt(Audience::Staff, &claim.name, &origin).await?;
    let staff = match staff::by_username(&control.db, &claim.name).await {
        Ok(staff) => staff,
        Err(error) => return Err(attempt.unanswered(error.into())),
    };
    let stored = staff.as_ref().map(|staff| staff.password_hash.clone());
    let proved = control.prove(claim.password, stored, attempt).await;
    let known = staff.as_ref().map(|staff| staff.username.as_str());
    control.recorded_login(proved, (Audience::Staff, known), &origin).await?;
    let staff = staff.ok_or(Problem::WrongCredentials)?;
    if !staff.is_active {
        return Err(Problem::AccountDisabled);
    }
    let staff_level = staff.staff_level.clone();
    let party = Party::from(staff);
    control.ask_second_factor(&party, &claim.offer, &origin).await?;
    let Json(session) = control.begin_session(&party, &origin).await?;
    Ok(Json(StaffLoggedIn { session, staff_level }))
}

/// Shows the caller as staff.
///
/// With the level they have now.
#[utoipa::path(
    get,
    path = "/api/v1/staff/profile",
    tag = "Staff",
    responses((status = 200, description = "Who they are.", body = StaffProfile)),
)]
pub(super) async fn staff_profile(session: StaffSession) -> Json<StaffProfile> {
    Json(session.staff.into())
}

// === impl StaffProfile ===

impl From<Staff> for StaffProfile {
    fn from(staff: Staff) -> Self {
        Self {
            id: staff.id.0,
            name: staff.name,
            username: staff.username,
            email: staff.email,
            staff_level: staff.staff_level,
            time_created: staff.time_created,
            is_active: staff.is_active,
        }
    }
}
