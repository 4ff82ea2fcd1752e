//! Going on and leaving: a session is renewed with its refresh token, and ended alone or with all
//! others of its owner.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::Control;
use super::caller::Origin;
use super::forms::{Body, Form};
use super::me::Done;
use super::openapi::{refused, words};
use super::party::{Admins, Kind, Party, SignedIn, StaffMembers, Users};
use super::problem::Problem;
use super::session::LoggedIn;
use super::violations::Violations;
use crate::credential::ticket::Ticket;
use crate::ids::SessionId;
use crate::store::audit::Actor;
use crate::store::sessions::{self, Renewal};

/// What a session is renewed with.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"refresh_token": "tgr_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg"}))]
#[serde(deny_unknown_fields)]
pub(super) struct Refresh {
    /// The latest of the session.
    #[schema(value_type = words::RefreshToken)]
    refresh_token: Option<SecretString>,
}

/// Renews the session of a user.
///
/// The refresh token is spent by being shown: go on with the one in the answer. A spent one that comes
/// back ends the session, since nobody can tell which holder is the thief.
#[utoipa::path(
    post,
    path = "/api/v1/auth/refresh",
    tag = "Sessions",
    request_body = Refresh,
    responses(
        (status = 200, description = "The session goes on.", body = LoggedIn),
        refused::InvalidRefreshToken,
    ),
)]
pub(super) async fn user_refresh(
    State(control): State<Arc<Control>>,
    origin: Origin,
    Body(shown): Body<Refresh>,
) -> Result<Json<LoggedIn>, Problem> {
    control.renew::<Users>(&shown, &origin).await
}

/// Renews the session of a member of staff.
///
/// The refresh token is spent by being shown: go on with the one in the answer. A spent one that comes
/// back ends the session, since nobody can tell which holder is the thief.
#[utoipa::path(
    post,
    path = "/api/v1/staff/refresh",
    tag = "Sessions",
    request_body = Refresh,
    responses(
        (status = 200, description = "The session goes on.", body = LoggedIn),
        refused::InvalidRefreshToken,
    ),
)]
pub(super) async fn staff_refresh(
    State(control): State<Arc<Control>>,
    origin: Origin,
    Body(shown): Body<Refresh>,
) -> Result<Json<LoggedIn>, Problem> {
    control.renew::<StaffMembers>(&shown, &origin).await
}

/// Renews the session of an admin.
///
/// The refresh token is spent by being shown: go on with the one in the answer. A spent one that comes
/// back ends the session, since nobody can tell which holder is the thief.
#[utoipa::path(
    post,
    path = "/api/v1/admin/refresh",
    tag = "Sessions",
    request_body = Refresh,
    responses(
        (status = 200, description = "The session goes on.", body = LoggedIn),
        refused::InvalidRefreshToken,
    ),
)]
pub(super) async fn admin_refresh(
    State(control): State<Arc<Control>>,
    origin: Origin,
    Body(shown): Body<Refresh>,
) -> Result<Json<LoggedIn>, Problem> {
    control.renew::<Admins>(&shown, &origin).await
}

/// Ends this session of a user.
///
/// Its access and refresh tokens stop working at once.
#[utoipa::path(
    post,
    path = "/api/v1/auth/logout",
    tag = "Sessions",
    responses((status = 200, description = "The session is over.", body = Done)),
)]
pub(super) async fn user_logout(
    State(control): State<Arc<Control>>,
    who: SignedIn<Users>,
) -> Result<Json<Done>, Problem> {
    control.log_out(who.session).await
}

/// Ends this session of a member of staff.
///
/// Its access and refresh tokens stop working at once.
#[utoipa::path(
    post,
    path = "/api/v1/staff/logout",
    tag = "Sessions",
    responses((status = 200, description = "The session is over.", body = Done)),
)]
pub(super) async fn staff_logout(
    State(control): State<Arc<Control>>,
    who: SignedIn<StaffMembers>,
) -> Result<Json<Done>, Problem> {
    control.log_out(who.session).await
}

/// Ends this session of an admin.
///
/// Its access and refresh tokens stop working at once.
#[utoipa::path(
    post,
    path = "/api/v1/admin/logout",
    tag = "Sessions",
    responses((status = 200, description = "The session is over.", body = Done)),
)]
pub(super) async fn admin_logout(
    State(control): State<Arc<Control>>,
    who: SignedIn<Admins>,
) -> Result<Json<Done>, Problem> {
    control.log_out(who.session).await
}

/// Ends every session of a user.
///
/// This one too.
#[utoipa::path(
    post,
    path = "/api/v1/auth/logout-all",
    tag = "Sessions",
    responses((status = 200, description = "Every session is over.", body = Done)),
)]
pub(super) async fn user_logout_all(
    State(control): State<Arc<Control>>,
    who: SignedIn<Users>,
    origin: Origin,
) -> Result<Json<Done>, Problem> {
    control.log_out_everywhere(&who.party, &origin).await
}

/// Ends every session of a member of staff.
///
/// This one too.
#[utoipa::path(
    post,
    path = "/api/v1/staff/logout-all",
    tag = "Sessions",
    responses((status = 200, description = "Every session is over.", body = Done)),
)]
pub(super) async fn staff_logout_all(
    State(control): State<Arc<Control>>,
    who: SignedIn<StaffMembers>,
    origin: Origin,
) -> Result<Json<Done>, Problem> {
    control.log_out_everywhere(&who.party, &origin).await
}

/// Ends every session of an admin.
///
/// This one too.
#[utoipa::path(
    post,
    path = "/api/v1/admin/logout-all",
    tag = "Sessions",
    responses((status = 200, description = "Every session is over.", body = Done)),
)]
pub(super) async fn admin_logout_all(
    State(control): State<Arc<Control>>,
    who: SignedIn<Admins>,
    origin: Origin,
) -> Result<Json<Done>, Problem> {
    control.log_out_everywhere(&who.party, &origin).await
}

// === impl Control ===

impl Control {
    /// The token is spent by being shown, also where its owner has ended the session otherwise.
    async fn renew<K: Kind>(&self, shown: &Ticket, origin: &Origin) -> Result<Json<LoggedIn>, Problem> {
        let next = Ticket::refresh();
        let (shown, kept) = (shown.digest(&self.refresh_key), next.digest(&self.refresh_key));
        let entry = origin.entry((Actor::Nobody, ""), "session.reuse", "", json!({}));
        let session = match sessions::renew(&self.db, K::AUDIENCE, &shown, &kept, &entry).await? {
            Renewal::Renewed(session) => session,
            Renewal::Unknown => return Err(Problem::InvalidRefreshToken),
            Renewal::Reused(owner) => {
                tracing::warn!(%owner, "a used refresh token was shown again: its session is over");
                return Err(Problem::InvalidRefreshToken);
            }
        };
        let party = self.party(session.owner).await?;
        if !party.is_some_and(|party| party.keeps(&session)) {
            return Err(Problem::InvalidRefreshToken);
        }
        self.logged_in(&session, &next)
    }

    async fn log_out(&self, session: SessionId) -> Result<Json<Done>, Problem> {
        sessions::end(&self.db, session).await?;
        Ok(Json(Done { message: "Logged out successfully" }))
    }

    async fn log_out_everywhere(&self, party: &Party, origin: &Origin) -> Result<Json<Done>, Problem> {
        let entry = origin.entry(party.actor(), "session.end_all", &party.username, json!({}));
        sessions::end_all(&self.db, party.owner, &entry).await?;
        Ok(Json(Done { message: "Logged out everywhere successfully" }))
    }
}

// === impl Refresh ===

impl Form for Refresh {
    type Checked = Ticket;

    fn check(self, _: &Control, found: &mut Violations) -> Option<Ticket> {
        let shown = found.required("refresh_token", self.refresh_token)?;
        let ticket = Ticket::presented(&shown);
        if ticket.is_none() {
            found.refuse("refresh_token", "String should be a refresh token");
        }
        ticket
    }
}
