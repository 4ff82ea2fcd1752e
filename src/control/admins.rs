//! `/api/v1/admin/admins`: who runs the gateway, and who only looks on.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::Control;
use super::caller::{AdminSession, Origin};
use super::forms::{Body, Form};
use super::me::Done;
use super::openapi::{
    refused,
    words::{self, Pages},
};
use super::paging::Params;
use super::passwords::Urgency;
use super::paths::Path;
use super::problem::Problem;
use super::proof::RecentAdmin;
use super::register::is_username;
use super::slow_reads::SlowTurn;
use super::violations::Violations;
use crate::clock::Timestamp;
use crate::credential::password::Password;
use crate::store::admins::{self, Admin, AdminChange};
use crate::store::audit::Actor;

/// An admin, as admins see them.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "id": 2, "username": "olga", "role": "auditor", "is_active": true, "time_created": "2026-10-01T09:30:00Z",
}))]
pub(super) struct AdminAccount {
    id: i64,
    username: String,
    /// `admin`, or `auditor`, who reads everything and changes nothing.
    role: String,
    /// False where they may not log in.
    is_active: bool,
    time_created: Timestamp,
}

/// Another admin.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewAdmin, example = json!({"username": "olga", "password": "correct-horse-7", "role": "auditor"}))]
#[serde(deny_unknown_fields)]
pub(super) struct NewAdminForm {
    /// Unique among admins.
    #[schema(value_type = words::Username)]
    username: Option<String>,
    #[schema(value_type = words::NewPassword)]
    password: Option<SecretString>,
    /// `admin` where it is left out.
    #[schema(value_type = Option<words::AdminRole>)]
    role: Option<String>,
}

/// The same, held to its rules.
pub(super) struct NewAdmin {
    username: String,
    password: Password,
    role: String,
}

/// What is to be changed of an admin.
#[derive(Deserialize, ToSchema)]
#[schema(as = AdminChange, example = json!({"role": "auditor"}))]
#[serde(deny_unknown_fields)]
pub(super) struct AdminForm {
    #[schema(value_type = Option<words::NewPassword>)]
    password: Option<SecretString>,
    #[schema(value_type = Option<words::AdminRole>)]
    role: Option<String>,
    /// False keeps them from logging in.
    is_active: Option<bool>,
}

/// The same, held to its rules; the password is yet to be hashed.
pub(super) struct CheckedChange {
    row: AdminChange,
    password: Option<Password>,
}

/// Lists the admins.
///
/// In the order in which they were made.
#[utoipa::path(
    get,
    path = "/api/v1/admin/admins",
    tag = "Admin: admins",
    params(Pages),
    responses((status = 200, description = "A page of them.", body = Vec<AdminAccount>)),
)]
pub(super) async fn list_admins(
    _: AdminSession,
    SlowTurn(reads): SlowTurn,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&["limit", "offset"])?;
    let page = params.page()?;
    let listed = admins::list(&reads, page.limit, page.offset).await?;
    let profiles: Vec<AdminAccount> = listed.rows.into_iter().map(AdminAccount::from).collect();
    Ok(params.answer(page, &profiles, listed.total))
}

/// Makes another admin.
///
/// An auditor reads everything that an admin reads, and changes nothing. Takes a login of the last five minutes.
#[utoipa::path(
    post,
    path = "/api/v1/admin/admins",
    tag = "Admin: admins",
    request_body = NewAdminForm,
    responses(
        (status = 201, description = "The admin.", body = AdminAccount),
        refused::Taken, refused::LoginTooOld, refused::Busy,
    ),
)]
pub(super) async fn create_admin(
    State(control): State<Arc<Control>>,
    RecentAdmin(admin): RecentAdmin,
    origin: Origin,
    Body(new): Body<NewAdminForm>,
) -> Result<(StatusCode, Json<AdminAccount>), Problem> {
    let NewAdmin { username, password, role } = new;
    let hash = control.passwords.hash(password, Urgency::Now).await?;
    let actor = (Actor::Admin(admin.id), admin.username.as_str());
    let entry = origin.entry(actor, "admin.create", &username, json!({ "role": role }));
    let id = admins::insert(&control.db, (&username, hash.as_str(), &role), &entry).await?;
    let made = AdminAccount { id: id.0, username, role, is_active: true, time_created: origin.at };
    Ok((StatusCode::CREATED, Json(made)))
}

/// Shows an admin.
///
/// With the role they have now.
#[utoipa::path(
    get,
    path = "/api/v1/admin/admins/{username}",
    tag = "Admin: admins",
    params(("username" = inline(words::Username), Path, description = "Which admin.")),
    responses((status = 200, description = "Who they are.", body = AdminAccount), refused::NotFound),
)]
pub(super) async fn get_admin(
    State(control): State<Arc<Control>>,
    _: AdminSession,
    Path(username): Path<String>,
) -> Result<Json<AdminAccount>, Problem> {
    Ok(Json(control.admin_named(&username).await?.into()))
}

/// Changes an admin.
///
/// What is not named stays. Their sessions end, one's own too. The last active admin who is no auditor
/// stays one. Takes a login of the last five minutes.
#[utoipa::path(
    put,
    path = "/api/v1/admin/admins/{username}",
    tag = "Admin: admins",
    params(("username" = inline(words::Username), Path, description = "Which admin.")),
    request_body = AdminForm,
    responses(
        (status = 200, description = "They are changed.", body = Done),
        refused::NotFound, refused::LastAdmin, refused::LoginTooOld, refused::Busy,
    ),
)]
pub(super) async fn update_admin(
    State(control): State<Arc<Control>>,
    RecentAdmin(admin): RecentAdmin,
    origin: Origin,
    Path(username): Path<String>,
    Body(change): Body<AdminForm>,
) -> Result<Json<Done>, Problem> {
    let changed = control.admin_named(&username).await?;
    let fields = change.fields();
    let CheckedChange { mut row, password } = change;
    if let Some(password) = password {
        row.password_hash = Some(control.passwords.hash(password, Urgency::Now).await?.as_str().to_owned());
    }
    let actor = (Actor::Admin(admin.id), admin.username.as_str());
    let entry = origin.entry(actor, "admin.update", &changed.username, json!({ "fields": fields }));
    admins::change(&control.db, changed.id, &row, &entry).await?;
    Ok(Json(Done { message: "Admin updated successfully" }))
}

/// Deletes an admin.
///
/// Their sessions end; what they did stays in the audit trail. The last active admin who is no auditor
/// stays.
#[utoipa::path(
    delete,
    path = "/api/v1/admin/admins/{username}",
    tag = "Admin: admins",
    params(("username" = inline(words::Username), Path, description = "Which admin.")),
    responses(
        (status = 200, description = "They are gone.", body = Done),
        refused::NotFound, refused::LastAdmin,
    ),
)]
pub(super) async fn delete_admin(
    State(control): State<Arc<Control>>,
    AdminSession(admin): AdminSession,
    origin: Origin,
    Path(username): Path<String>,
) -> Result<Json<Done>, Problem> {
    let deleted = control.admin_named(&username).await?;
    let actor = (Actor::Admin(admin.id), admin.username.as_str());
    let detail = json!({ "admin_id": deleted.id });
    let entry = origin.entry(actor, "admin.delete", &deleted.username, detail);
    admins::delete(&control.db, deleted.id, &entry).await?;
    Ok(Json(Done { message: "Admin deleted successfully" }))
}

// === impl Control ===

impl Control {
    /// The first admin may have any name that the configuration gives.
    pub(super) async fn admin_named(&self, username: &str) -> Result<Admin, Problem> {
        admins::by_username(&self.db, username).await?.ok_or(Problem::NotFound("admin"))
    }
}

// === impl AdminAccount ===

impl From<Admin> for AdminAccount {
    fn from(admin: Admin) -> Self {
        let Admin { id, username, role, is_active, time_created, .. } = admin;
        Self { id: id.0, username, role, is_active, time_created }
    }
}

// === impl NewAdminForm ===

impl Form for NewAdminForm {
    type Checked = NewAdmin;

    fn check(self, _: &Control, found: &mut Violations) -> Option<NewAdmin> {
        let username = found.required("username", self.username);
        if username.as_deref().is_some_and(|username| !is_username(username)) {
            found.refuse("username", "String should have 3 to 30 letters, digits or underscores");
        }
        let password = found.required("password", self.password);
        let password = password.and_then(|text| found.new_password("password", text));
        let role = self.role.unwrap_or_else(|| admins::FULL.to_owned());
        let role = found.one_of("role", Some(role), &admins::ROLES);
        Some(NewAdmin { username: username?, password: password?, role: role? })
    }
}

// === impl AdminForm ===

impl Form for AdminForm {
    type Checked = CheckedChange;

    fn check(self, _: &Control, found: &mut Violations) -> Option<CheckedChange> {
        let role = found.one_of("role", self.role, &admins::ROLES);
        let row = AdminChange { password_hash: None, role, is_active: self.is_active };
        let password = self.password.and_then(|text| found.new_password("password", text));
        Some(CheckedChange { row, password })
    }
}

// === impl CheckedChange ===

impl CheckedChange {
    /// The names of what is changed, for the audit trail, which keeps no values.
    fn fields(&self) -> Vec<&'static str> {
        let named = [
            ("password", self.password.is_some()),
            ("role", self.row.role.is_some()),
            ("is_active", self.row.is_active.is_some()),
        ];
        named.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
    }
}
