//! `/api/v1/admin/staff`: who is on the staff, which the admin decides.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::StaffProfile;
use crate::control::Control;
use crate::control::caller::{AdminSession, Origin};
use crate::control::forms::{Body, Form};
use crate::control::me::Done;
use crate::control::openapi::{
    refused,
    words::{self, Pages},
};
use crate::control::paging::Params;
use crate::control::passwords::Urgency;
use crate::control::paths::Path;
use crate::control::problem::Problem;
use crate::control::proof::RecentAdmin;
use crate::control::register::is_username;
use crate::control::slow_reads::SlowTurn;
use crate::control::violations::Violations;
use crate::credential::password::Password;
use crate::store::audit::Actor;
use crate::store::staff::{self, NewStaff, Staff, StaffChange};

/// Who is taken on.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewStaff, example = json!({
    "name": "Sam Roe", "username": "sam", "email": "sam@example.com", "password": "correct-horse-7",
    "staff_level": "support",
}))]
#[serde(deny_unknown_fields)]
pub(in crate::control) struct HireForm {
    #[schema(value_type = words::FilledText)]
    name: Option<String>,
    /// Nobody else's on the staff.
    #[schema(value_type = words::Username)]
    username: Option<String>,
    /// Nobody else's on the staff.
    #[schema(value_type = words::Email)]
    email: Option<String>,
    #[schema(value_type = words::NewPassword)]
    password: Option<SecretString>,
    #[schema(value_type = words::StaffLevel)]
    staff_level: Option<String>,
}

/// The same, held to its rules.
pub(in crate::control) struct Hire {
    name: String,
    username: String,
    email: String,
    password: Password,
    staff_level: String,
}

/// What is to be another of a member of staff.
#[derive(Deserialize, ToSchema)]
#[schema(as = StaffChange, example = json!({"staff_level": "advanced"}))]
#[serde(deny_unknown_fields)]
pub(in crate::control) struct StaffForm {
    #[schema(value_type = Option<words::FilledText>)]
    name: Option<String>,
    /// Nobody else's on the staff.
    #[schema(value_type = Option<words::Email>)]
    email: Option<String>,
    #[schema(value_type = Option<words::NewPassword>)]
    password: Option<SecretString>,
    #[schema(value_type = Option<words::StaffLevel>)]
    staff_level: Option<String>,
    /// False keeps them from logging in.
    is_active: Option<bool>,
}

/// The same, held to its rules; the password is yet to be hashed.
pub(in crate::control) struct Reform {
    row: StaffChange,
    password: Option<Password>,
}

/// Who was taken on. The number is a string for older clients.
#[derive(Serialize, ToSchema)]
#[schema(as = HiredStaff, example = json!({"message": "Staff member created successfully", "staff_id": "1", "username": "sam"}))]
pub(in crate::control) struct Hired {
    /// For people.
    message: &'static str,
    /// The number, as text.
    staff_id: String,
    username: String,
}

/// How far staff may go, from the least to the most.
pub(in crate::control) const LEVELS: [&str; 3] = ["new", "support", "advanced"];

/// Takes somebody on.
///
/// What they may do follows from their level. An admin with a second factor must have logged in within the last
/// five minutes.
#[utoipa::path(
    post,
    path = "/api/v1/admin/staff",
    tag = "Admin: staff",
    request_body = HireForm,
    responses(
        (status = 201, description = "They are on the staff.", body = Hired),
        refused::Taken, refused::LoginTooOld, refused::Busy,
    ),
)]
pub(in crate::control) async fn create_staff(
    State(control): State<Arc<Control>>,
    RecentAdmin(admin): RecentAdmin<false>,
    origin: Origin,
    Body(hire): Body<HireForm>,
) -> Result<(StatusCode, Json<Hired>), Problem> {
    let hash = control.passwords.hash(hire.password, Urgency::Now).await?;
    let new = NewStaff {
        name: hire.name,
        username: hire.username,
        email: hire.email,
        password_hash: hash.as_str().to_owned(),
        staff_level: hire.staff_level,
    };
    let actor = (Actor::Admin(admin.id), admin.username.as_str());
    let detail = json!({ "staff_level": new.staff_level });
    let entry = origin.entry(actor, "staff.create", &new.username, detail);
    let id = staff::insert(&control.db, &new, origin.at, &entry).await?;
    let (message, staff_id) = ("Staff member created successfully", id.to_string());
    Ok((StatusCode::CREATED, Json(Hired { message, staff_id, username: new.username })))
}

/// Lists the staff.
///
/// In the order of their numbers.
#[utoipa::path(
    get,
    path = "/api/v1/admin/staff",
    tag = "Admin: staff",
    params(Pages),
    responses((status = 200, description = "A page of them.", body = Vec<StaffProfile>)),
)]
pub(in crate::control) async fn list_staff(
    _: AdminSession,
    SlowTurn(reads): SlowTurn,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&["limit", "offset"])?;
    let page = params.page()?;
    let listed = staff::list(&reads, page.limit, page.offset).await?;
    let profiles: Vec<StaffProfile> = listed.rows.into_iter().map(StaffProfile::from).collect();
    Ok(params.answer(page, &profiles, listed.total))
}

/// Shows a member of staff.
///
/// With the level they have now.
#[utoipa::path(
    get,
    path = "/api/v1/admin/staff/{username}",
    tag = "Admin: staff",
    params(("username" = inline(words::Username), Path, description = "Which member of staff.")),
    responses((status = 200, description = "Who they are.", body = StaffProfile), refused::NotFound),
)]
pub(in crate::control) async fn get_staff(
    State(control): State<Arc<Control>>,
    _: AdminSession,
    Path(username): Path<String>,
) -> Result<Json<StaffProfile>, Problem> {
    Ok(Json(control.staff_named(&username).await?.into()))
}

/// Changes a member of staff.
///
/// What is not named stays. All but the name ends their sessions. An admin with a second factor must have logged
/// in within the last five minutes.
#[utoipa::path(
    put,
    path = "/api/v1/admin/staff/{username}",
    tag = "Admin: staff",
    params(("username" = inline(words::Username), Path, description = "Which member of staff.")),
    request_body = StaffForm,
    responses(
        (status = 200, description = "They are changed.", body = Done),
        refused::NotFound, refused::Taken, refused::LoginTooOld, refused::Busy,
    ),
)]
pub(in crate::control) async fn update_staff(
    State(control): State<Arc<Control>>,
    RecentAdmin(admin): RecentAdmin<false>,
    origin: Origin,
    Path(username): Path<String>,
    Body(reform): Body<StaffForm>,
) -> Result<Json<Done>, Problem> {
    let staff = control.staff_named(&username).await?;
    let fields = reform.fields();
    let Reform { mut row, password } = reform;
    if let Some(password) = password {
        row.password_hash = Some(control.passwords.hash(password, Urgency::Now).await?.as_str().to_owned());
    }
    let actor = (Actor::Admin(admin.id), admin.username.as_str());
    let entry = origin.entry(actor, "staff.update", &staff.username, json!({ "fields": fields }));
    staff::update(&control.db, staff.id, &row, &entry).await?;
    Ok(Json(Done { message: "Staff member updated successfully" }))
}

/// Lets somebody go.
///
/// Their sessions end; what they did stays in the audit trail.
#[utoipa::path(
    delete,
    path = "/api/v1/admin/staff/{username}",
    tag = "Admin: staff",
    params(("username" = inline(words::Username), Path, description = "Which member of staff.")),
    responses((status = 200, description = "They are gone.", body = Done), refused::NotFound),
)]
pub(in crate::control) async fn delete_staff(
    State(control): State<Arc<Control>>,
    AdminSession(admin): AdminSession,
    origin: Origin,
    Path(username): Path<String>,
) -> Result<Json<Done>, Problem> {
    let staff = control.staff_named(&username).await?;
    let actor = (Actor::Admin(admin.id), admin.username.as_str());
    let detail = json!({ "staff_id": staff.id });
    let entry = origin.entry(actor, "staff.delete", &staff.username, detail);
    if !staff::delete(&control.db, staff.id, &entry).await? {
        return Err(Problem::NotFound("staff member"));
    }
    Ok(Json(Done { message: "Staff member deleted successfully" }))
}

// === impl Control ===

impl Control {
    pub(in crate::control) async fn staff_named(&self, username: &str) -> Result<Staff, Problem> {
        let missing = Problem::NotFound("staff member");
        if !is_username(username) {
            return Err(missing);
        }
        staff::by_username(&self.db, username).await?.ok_or(missing)
    }
}

// === impl HireForm ===

impl Form for HireForm {
    type Checked = Hire;

    fn check(self, _: &Control, found: &mut Violations) -> Option<Hire> {
        let name = found.required("name", self.name);
        let name = found.filled("name", name);
        let username = found.required("username", self.username);
        if username.as_deref().is_some_and(|username| !is_username(username)) {
            found.refuse("username", "String should have 3 to 30 letters, digits or underscores");
        }
        let email = found.required("email", self.email);
        let email = found.email("email", email);
        let password = found.required("password", self.password);
        let password = password.and_then(|text| found.new_password("password", text));
        let level = found.required("staff_level", self.staff_level);
        let level = found.one_of("staff_level", level, &LEVELS);
        let (name, username, email) = (name?, username?, email?);
        Some(Hire { name, username, email, password: password?, staff_level: level? })
    }
}

// === impl StaffForm ===

impl Form for StaffForm {
    type Checked = Reform;

    fn check(self, _: &Control, found: &mut Violations) -> Option<Reform> {
        let row = StaffChange {
            name: found.filled("name", self.name),
            email: found.email("email", self.email),
            password_hash: None,
            staff_level: found.one_of("staff_level", self.staff_level, &LEVELS),
            is_active: self.is_active,
        };
        let password = self.password.and_then(|text| found.new_password("password", text));
        Some(Reform { row, password })
    }
}

// === impl Reform ===

impl Reform {
    /// The names of what is changed, for the audit trail, which keeps no values.
    fn fields(&self) -> Vec<&'static str> {
        let row = &self.row;
        let named = [
            ("name", row.name.is_some()),
            ("email", row.email.is_some()),
            ("password", self.password.is_some()),
            ("staff_level", row.staff_level.is_some()),
            ("is_active", row.is_active.is_some()),
        ];
        named.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
    }
}
