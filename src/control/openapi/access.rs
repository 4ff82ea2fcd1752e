//! Who may call, and how they show that they are it: read from the matrix.

use utoipa::openapi::Components;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};

use super::refused::Refusal;
use crate::control::paths::Listed;
use crate::control::rights::{Action, Role};

/// Whose doors a path's are. Staff and admins share actions, and have paths of their own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plane {
    Open,
    Key,
    User,
    Staff,
    Admin,
}

const USER_TOKEN: &str = "user_token";
const STAFF_TOKEN: &str = "staff_token";
const ADMIN_TOKEN: &str = "admin_token";
const API_KEY: &str = "api_key";
const API_KEY_HEADER: &str = "api_key_header";

/// What somebody without a second factor must be able to do where one is wanted.
const BEFORE_A_SECOND_FACTOR: [Action; 11] = [
    Action::ReadOwnLogins,
    Action::EndStaffSessions,
    Action::EnrolStaffTotp,
    Action::ConfirmStaffTotp,
    Action::DisableStaffTotp,
    Action::RenewStaffCodes,
    Action::EndAdminSessions,
    Action::EnrolAdminTotp,
    Action::ConfirmAdminTotp,
    Action::DisableAdminTotp,
    Action::RenewAdminCodes,
];

/// Adds the ways to say who one is.
pub(super) fn describe(components: &mut Components) {
    let bearer = |format: &str, about: &str| {
        let http = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format(format);
        SecurityScheme::Http(http.description(Some(about)).build())
    };
    let token = |whose: &str, path: &str| {
        bearer("JWT", &format!("The `access_token` of {whose}, from `POST {path}`."))
    };
    components.add_security_scheme(USER_TOKEN, token("a user", "/api/v1/auth/login"));
    components.add_security_scheme(STAFF_TOKEN, token("a member of staff", "/api/v1/staff/login"));
    components.add_security_scheme(ADMIN_TOKEN, token("an admin", "/api/v1/admin/login"));
    components.add_security_scheme(API_KEY, bearer("pe-…", "A key of a user, as a bearer token."));
    let header = ApiKeyValue::with_description("x-api-key", "A key of a user, in a header of its own.");
    components.add_security_scheme(API_KEY_HEADER, SecurityScheme::ApiKey(ApiKey::Header(header)));
}

/// One of these is needed; none where anybody may call.
pub(super) fn security(listed: &Listed) -> Vec<SecurityRequirement> {
    let schemes: &[&str] = match Plane::of(listed) {
        Plane::Open => &[],
        Plane::Key => &[API_KEY, API_KEY_HEADER],
        Plane::User => &[USER_TOKEN],
        Plane::Staff => &[STAFF_TOKEN],
        Plane::Admin => &[ADMIN_TOKEN],
    };
    schemes.iter().map(|scheme| SecurityRequirement::new::<_, [&str; 0], _>(*scheme, [])).collect()
}

/// Who may call, in words.
pub(super) fn callers(listed: &Listed) -> String {
    match Plane::of(listed) {
        Plane::Open => "anybody".to_owned(),
        Plane::Key => "whoever holds a key".to_owned(),
        Plane::User => "users".to_owned(),
        Plane::Admin if listed.action.permits(Role::Auditor) => "admins, auditors too".to_owned(),
        Plane::Admin => "admins".to_owned(),
        Plane::Staff => {
            let levels = [(Role::New, "new"), (Role::Support, "support"), (Role::Advanced, "advanced")];
            let may = levels.iter().filter(|(role, _)| listed.action.permits(*role));
            let may: Vec<String> = may.map(|(_, level)| format!("`{level}`")).collect();
            format!("staff of level {}", may.join(", "))
        }
    }
}

/// What meets those who may not.
pub(super) fn refusals(listed: &Listed) -> Vec<Refusal> {
    let plane = Plane::of(listed);
    match plane {
        Plane::Open => vec![],
        Plane::Key => vec![Refusal::UnknownKey, Refusal::AccountDisabled, Refusal::AddressNotAllowed],
        Plane::User => vec![Refusal::NotAuthenticated],
        Plane::Staff | Plane::Admin => {
            let mut met = vec![Refusal::NotAuthenticated];
            let levels = [Role::New, Role::Support, Role::Advanced];
            if plane == Plane::Admin && !listed.action.permits(Role::Auditor) {
                met.push(Refusal::NotPermitted);
            }
            if plane == Plane::Staff && !levels.iter().all(|level| listed.action.permits(*level)) {
                met.push(Refusal::NotPermitted);
            }
            if !BEFORE_A_SECOND_FACTOR.contains(&listed.action) {
                met.push(Refusal::TotpEnrolmentRequired);
            }
            met
        }
    }
}

// === impl Plane ===

impl Plane {
    fn of(listed: &Listed) -> Self {
        let roles = listed.action.row().roles;
        match listed.path {
            _ if roles.contains(&Role::Stranger) => Self::Open,
            _ if roles.contains(&Role::KeyHolder) => Self::Key,
            admin if admin.starts_with("/api/v1/admin/") => Self::Admin,
            staff if staff.starts_with("/api/v1/staff/") => Self::Staff,
            _ => Self::User,
        }
    }
}
