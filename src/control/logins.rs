//! `/api/v1/admin/{users,staff,admins}/{username}/sessions` and `…/second-factors`: what lets an account in, and
//! its end, in the hands of an admin.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::json;

use super::Control;
use super::caller::{AdminSession, Origin};
use super::me::Done;
use super::openapi::{refused, words};
use super::own_logins::{FactorTold, SessionTold};
use super::party::Party;
use super::paths::Path;
use super::problem::Problem;
use crate::store::admins::Admin;
use crate::store::audit::Actor;
use crate::store::sessions;

/// Makes the handlers of one kind of account: list sessions, end one, end all, list second factors.
macro_rules! logins {
    (
        $tag:literal, $found:ident;
        $list_doc:literal $list:ident $list_path:literal;
        $end_doc:literal $end:ident $end_path:literal;
        $end_all_doc:literal $end_all:ident;
        $factors_doc:literal $factors:ident $factors_path:literal;
    ) => {
        #[doc = $list_doc]
        ///
        /// Where each began, when it was last used, and from where; the newest first.
        #[utoipa::path(
            get,
            path = $list_path,
            tag = $tag,
            params(("username" = inline(words::Username), Path, description = "Whose account.")),
            responses(
                (status = 200, description = "A hundred at most.", body = Vec<SessionTold>),
                refused::NotFound,
            ),
        )]
        pub(super) async fn $list(
            State(control): State<Arc<Control>>,
            _: AdminSession,
            Path(username): Path<String>,
        ) -> Result<Json<Vec<SessionTold>>, Problem> {
            let party = Party::from(control.$found(&username).await?);
            Ok(Json(control.sessions_of(&party, None).await?))
        }

        #[doc = $end_doc]
        ///
        /// Its access and refresh tokens stop working at once.
        #[utoipa::path(
            delete,
            path = $end_path,
            tag = $tag,
            params(
                ("username" = inline(words::Username), Path, description = "Whose account."),
                ("id" = inline(words::SessionName), Path, description = "The `id` of the session."),
            ),
            responses((status = 200, description = "The session is over.", body = Done), refused::NotFound),
        )]
        pub(super) async fn $end(
            State(control): State<Arc<Control>>,
            AdminSession(admin): AdminSession,
            origin: Origin,
            Path((username, id)): Path<(String, String)>,
        ) -> Result<Json<Done>, Problem> {
            let party = Party::from(control.$found(&username).await?);
            control.end_session(&party, &id, (Actor::Admin(admin.id), &admin.username), &origin).await
        }

        #[doc = $end_all_doc]
        ///
        /// Keys go on.
        #[utoipa::path(
            delete,
            path = $list_path,
            tag = $tag,
            params(("username" = inline(words::Username), Path, description = "Whose account.")),
            responses((status = 200, description = "Every session is over.", body = Done), refused::NotFound),
        )]
        pub(super) async fn $end_all(
            State(control): State<Arc<Control>>,
            AdminSession(admin): AdminSession,
            origin: Origin,
            Path(username): Path<String>,
        ) -> Result<Json<Done>, Problem> {
            let party = Party::from(control.$found(&username).await?);
            control.end_sessions_of(&admin, &party, &origin).await
        }

        #[doc = $factors_doc]
        ///
        /// One at most, begun or asked for; `reset-totp` ends it.
        #[utoipa::path(
            get,
            path = $factors_path,
            tag = $tag,
            params(("username" = inline(words::Username), Path, description = "Whose account.")),
            responses((status = 200, description = "All of them.", body = Vec<FactorTold>), refused::NotFound),
        )]
        pub(super) async fn $factors(
            State(control): State<Arc<Control>>,
            _: AdminSession,
            Path(username): Path<String>,
        ) -> Result<Json<Vec<FactorTold>>, Problem> {
            let party = Party::from(control.$found(&username).await?);
            Ok(Json(control.factors_of(&party).await?))
        }
    };
}

logins! {
    "Admin: users", user_named;
    "Lists the sessions of a user." list_user_sessions "/api/v1/admin/users/{username}/sessions";
    "Ends a session of a user." end_session_of_user "/api/v1/admin/users/{username}/sessions/{id}";
    "Ends every session of a user." end_sessions_of_user;
    "Lists the second factors of a user." list_user_second_factors "/api/v1/admin/users/{username}/second-factors";
}

logins! {
    "Admin: staff", staff_named;
    "Lists the sessions of a member of staff." list_staff_sessions "/api/v1/admin/staff/{username}/sessions";
    "Ends a session of a member of staff." end_session_of_staff "/api/v1/admin/staff/{username}/sessions/{id}";
    "Ends every session of a member of staff." end_sessions_of_staff;
    "Lists the second factors of a member of staff." list_staff_second_factors "/api/v1/admin/staff/{username}/second-factors";
}

logins! {
    "Admin: admins", admin_named;
    "Lists the sessions of an admin." list_admin_sessions "/api/v1/admin/admins/{username}/sessions";
    "Ends a session of an admin." end_session_of_admin "/api/v1/admin/admins/{username}/sessions/{id}";
    "Ends every session of an admin." end_sessions_of_admin;
    "Lists the second factors of an admin." list_admin_second_factors "/api/v1/admin/admins/{username}/second-factors";
}

// === impl Control ===

impl Control {
    async fn end_sessions_of(
        &self,
        admin: &Admin,
        party: &Party,
        origin: &Origin,
    ) -> Result<Json<Done>, Problem> {
        let actor = (Actor::Admin(admin.id), admin.username.as_str());
        let detail = json!({ "role": party.owner.audience.as_str() });
        let entry = origin.entry(actor, "session.end_all", &party.username, detail);
        sessions::end_all(&self.db, party.owner, &entry).await?;
        Ok(Json(Done { message: "Sessions ended successfully" }))
    }
}
