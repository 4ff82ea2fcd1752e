//! `…/sessions` and `…/second-factors` of the caller: what lets them in, and its end.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Control;
use super::caller::Origin;
use super::me::Done;
use super::openapi::{refused, words};
use super::party::{Admins, Party, SignedIn, StaffMembers, Users};
use super::paths::Path;
use super::problem::Problem;
use crate::clock::Timestamp;
use crate::ids::SessionId;
use crate::store::audit::Actor;
use crate::store::second_factors;
use crate::store::sessions::seen::{self, Seen};

/// A session: one login, and what is renewed from it.
#[derive(Serialize, ToSchema)]
#[schema(as = SessionSeen, example = json!({
    "id": "0190f3a2c4d07e51a3b2c1d0e9f80716", "began_at": "2026-10-01T09:30:00Z", "expires_at": "2026-10-31T09:30:00Z",
    "last_used_at": "2026-10-01T09:41:00Z", "client_ip": "203.0.113.9", "last_ip": "203.0.113.9",
    "user_agent": "Mozilla/5.0", "current": true,
}))]
pub(super) struct SessionTold {
    /// By which it is ended.
    id: String,
    /// The login.
    began_at: Timestamp,
    /// The end of it, however often it is renewed.
    expires_at: Timestamp,
    /// To the minute; `null` where an earlier version began it.
    #[schema(required = true)]
    last_used_at: Option<Timestamp>,
    /// Where the login came from; `null` where an earlier version began it.
    #[schema(required = true)]
    client_ip: Option<String>,
    /// Where it was last used from.
    #[schema(required = true)]
    last_ip: Option<String>,
    /// What the client of the login called itself.
    #[schema(required = true)]
    user_agent: Option<String>,
    /// Whether this call belongs to it.
    current: bool,
}

/// A second factor: never its secret, nor its codes.
#[derive(Serialize, ToSchema)]
#[schema(as = SecondFactor, example = json!({
    "kind": "totp", "enrolled_at": "2026-10-01T09:30:00Z", "confirmed_at": "2026-10-01T09:31:00Z",
    "recovery_codes_left": 9,
}))]
pub(super) struct FactorTold {
    /// Always `totp`.
    kind: &'static str,
    /// When it was begun.
    enrolled_at: Timestamp,
    /// Since when it is asked for; `null` where it was begun only.
    #[schema(required = true)]
    confirmed_at: Option<Timestamp>,
    /// Recovery codes that still work.
    recovery_codes_left: usize,
}

/// Makes a handler that lists the sessions of the caller, for each kind of account.
macro_rules! list_sessions {
    ($($(#[doc = $doc:literal])* $name:ident $path:literal $kind:ty;)*) => {$(
        $(#[doc = $doc])*
        ///
        /// Where each began, when it was last used, and from where; the newest first.
        #[utoipa::path(
            get,
            path = $path,
            tag = "Sessions",
            responses((status = 200, description = "A hundred at most.", body = Vec<SessionTold>)),
        )]
        pub(super) async fn $name(
            State(control): State<Arc<Control>>,
            who: SignedIn<$kind>,
        ) -> Result<Json<Vec<SessionTold>>, Problem> {
            Ok(Json(control.sessions_of(&who.party, Some(who.session)).await?))
        }
    )*};
}

list_sessions! {
    /// Lists the sessions of a user.
    user_sessions "/api/v1/auth/sessions" Users;
    /// Lists the sessions of a member of staff.
    staff_sessions "/api/v1/staff/sessions" StaffMembers;
    /// Lists the sessions of an admin.
    admin_sessions "/api/v1/admin/sessions" Admins;
}

/// Makes a handler that ends a session of the caller, for each kind of account.
macro_rules! end_session {
    ($($(#[doc = $doc:literal])* $name:ident $path:literal $kind:ty;)*) => {$(
        $(#[doc = $doc])*
        ///
        /// Its access and refresh tokens stop working at once.
        #[utoipa::path(
            delete,
            path = $path,
            tag = "Sessions",
            params(("id" = inline(words::SessionName), Path, description = "The `id` of the session.")),
            responses((status = 200, description = "The session is over.", body = Done), refused::NotFound),
        )]
        pub(super) async fn $name(
            State(control): State<Arc<Control>>,
            who: SignedIn<$kind>,
            origin: Origin,
            Path(id): Path<String>,
        ) -> Result<Json<Done>, Problem> {
            control.end_session(&who.party, &id, who.party.actor(), &origin).await
        }
    )*};
}

end_session! {
    /// Ends a session of a user.
    end_user_session "/api/v1/auth/sessions/{id}" Users;
    /// Ends a session of a member of staff.
    end_staff_session "/api/v1/staff/sessions/{id}" StaffMembers;
    /// Ends a session of an admin.
    end_admin_session "/api/v1/admin/sessions/{id}" Admins;
}

/// Makes a handler that lists the second factors of the caller, for each kind of account.
macro_rules! list_factors {
    ($($(#[doc = $doc:literal])* $name:ident $path:literal $kind:ty;)*) => {$(
        $(#[doc = $doc])*
        ///
        /// One at most, begun or asked for; `totp/disable` ends it.
        #[utoipa::path(
            get,
            path = $path,
            tag = "Second factor",
            responses((status = 200, description = "All of them.", body = Vec<FactorTold>)),
        )]
        pub(super) async fn $name(
            State(control): State<Arc<Control>>,
            who: SignedIn<$kind>,
        ) -> Result<Json<Vec<FactorTold>>, Problem> {
            Ok(Json(control.factors_of(&who.party).await?))
        }
    )*};
}

list_factors! {
    /// Lists the second factors of a user.
    user_second_factors "/api/v1/auth/second-factors" Users;
    /// Lists the second factors of a member of staff.
    staff_second_factors "/api/v1/staff/second-factors" StaffMembers;
    /// Lists the second factors of an admin.
    admin_second_factors "/api/v1/admin/second-factors" Admins;
}

// === impl Control ===

impl Control {
    /// The sessions that stand of an account.
    pub(super) async fn sessions_of(
        &self,
        party: &Party,
        current: Option<SessionId>,
    ) -> Result<Vec<SessionTold>, Problem> {
        let listed = seen::list(&self.db, party.owner, self.clock.now()).await?;
        let standing = listed.into_iter().filter(|seen| party.keeps(&seen.standing));
        Ok(standing.map(|seen| SessionTold::new(seen, current)).collect())
    }

    /// Ends one session of an account.
    pub(super) async fn end_session(
        &self,
        party: &Party,
        id: &str,
        actor: (Actor, &str),
        origin: &Origin,
    ) -> Result<Json<Done>, Problem> {
        let id = Uuid::try_parse(id).map(SessionId).map_err(|_| Problem::NotFound("session"))?;
        let detail = json!({ "role": party.owner.audience.as_str(), "session": id.to_string() });
        let entry = origin.entry(actor, "session.end", &party.username, detail);
        if !seen::end(&self.db, party.owner, id, &entry).await? {
            return Err(Problem::NotFound("session"));
        }
        Ok(Json(Done { message: "Session ended successfully" }))
    }

    /// The second factors of an account.
    pub(super) async fn factors_of(&self, party: &Party) -> Result<Vec<FactorTold>, Problem> {
        let found = second_factors::overview(&self.db, party.owner).await?;
        let told = found.map(|one| FactorTold {
            kind: "totp",
            enrolled_at: one.enrolled_at,
            confirmed_at: one.confirmed_at,
            recovery_codes_left: one.recovery_codes,
        });
        Ok(told.into_iter().collect())
    }
}

// === impl SessionTold ===

impl SessionTold {
    fn new(seen: Seen, current: Option<SessionId>) -> Self {
        let Seen { standing, expires_at, client_ip, user_agent, last_used_at, last_ip } = seen;
        Self {
            id: standing.id.to_string(),
            began_at: standing.began_at,
            expires_at,
            last_used_at,
            client_ip,
            last_ip,
            user_agent,
            current: current == Some(standing.id),
        }
    }
}
