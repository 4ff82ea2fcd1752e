//! What this is and where everything stands, for people and for clients that look around.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Control;

/// What this is.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "message": "Tollgate: the gate in front of your chat models", "version": "0.1.0", "status": "running",
    "docs": "/docs", "health": "/health", "features": ["API keys"],
}))]
pub(super) struct Root {
    message: &'static str,
    version: &'static str,
    /// Always `running`.
    status: &'static str,
    /// Where the documentation is.
    docs: &'static str,
    /// Where to ask how the gateway is.
    health: &'static str,
    features: [&'static str; 7],
}

/// What the API offers.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "api_name": "Tollgate User Management API", "version": "0.1.0",
    "endpoints": {"authentication": {"login": "POST /api/v1/auth/login"}, "admin": {}, "staff": {}},
    "authentication_methods": {
        "jwt_token": "Authorization: Bearer <token from login>", "api_key": "Authorization: Bearer pe-<key>",
    },
    "rate_limits": {"default": "60 requests per minute", "conversation_limits": "per user and day"},
}))]
pub(super) struct Info {
    api_name: &'static str,
    version: &'static str,
    endpoints: Endpoints,
    authentication_methods: AuthenticationMethods,
    rate_limits: RateLimits,
}

/// Calls, by a name of each.
#[derive(Serialize, ToSchema)]
struct Endpoints {
    /// For users and apps.
    #[schema(value_type = BTreeMap<String, String>)]
    authentication: Value,
    /// For admins.
    #[schema(value_type = BTreeMap<String, String>)]
    admin: Value,
    /// For staff.
    #[schema(value_type = BTreeMap<String, String>)]
    staff: Value,
}

/// How one says who one is.
#[derive(Serialize, ToSchema)]
struct AuthenticationMethods {
    jwt_token: &'static str,
    api_key: &'static str,
}

/// How often one may ask, in words.
#[derive(Serialize, ToSchema)]
struct RateLimits {
    /// Of one address.
    default: String,
    conversation_limits: &'static str,
}

const FEATURES: [&str; 7] = [
    "user registration and authentication",
    "API keys",
    "daily conversation limits",
    "address rules",
    "rate limits",
    "message log",
    "admin API",
];
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Says what this is and where to go on.
///
/// Answers only while no route of the configuration takes `/`.
#[utoipa::path(
    get,
    path = "/",
    tag = "About",
    responses((status = 200, description = "What this is.", body = Root)),
)]
pub(super) async fn root() -> Json<Root> {
    Json(Root {
        message: "Tollgate: the gate in front of your chat models",
        version: VERSION,
        status: "running",
        docs: "/docs",
        health: "/health",
        features: FEATURES,
    })
}

/// Says what the API offers.
///
/// Names the calls, the ways to say who one is, and the rate that an address is held to.
#[utoipa::path(
    get,
    path = "/api/v1/info",
    tag = "About",
    responses((status = 200, description = "What the API offers.", body = Info)),
)]
pub(super) async fn info(State(control): State<Arc<Control>>) -> Json<Info> {
    let per_minute = match control.settings.rate_limit_per_minute {
        0 => "unlimited".to_owned(),
        limit => format!("{limit} requests per minute"),
    };
    Json(Info {
        api_name: "Tollgate User Management API",
        version: VERSION,
        endpoints: Endpoints { authentication: for_users(), admin: for_admins(), staff: for_staff() },
        authentication_methods: AuthenticationMethods {
            jwt_token: "Authorization: Bearer <token from login>",
            api_key: "Authorization: Bearer pe-<key>",
        },
        rate_limits: RateLimits {
            default: per_minute,
            conversation_limits: "per user and day, by plan; see limits in the profile",
        },
    })
}

fn for_users() -> Value {
    json!({
        "register": "POST /api/v1/auth/register",
        "login": "POST /api/v1/auth/login",
        "refresh": "POST /api/v1/auth/refresh",
        "logout": "POST /api/v1/auth/logout",
        "logout_all": "POST /api/v1/auth/logout-all",
        "enroll_totp": "POST /api/v1/auth/totp/enroll",
        "confirm_totp": "POST /api/v1/auth/totp/confirm",
        "disable_totp": "POST /api/v1/auth/totp/disable",
        "request_email_verification": "POST /api/v1/auth/verify-email/request",
        "confirm_email_verification": "POST /api/v1/auth/verify-email/confirm",
        "request_password_reset": "POST /api/v1/auth/password-reset/request",
        "confirm_password_reset": "POST /api/v1/auth/password-reset/confirm",
        "profile": "GET /api/v1/auth/profile",
        "update_profile": "PUT /api/v1/auth/profile",
        "password": "PUT /api/v1/auth/password",
        "email": "PUT /api/v1/auth/email",
        "delete_account": "DELETE /api/v1/auth/account",
        "api_key": "GET /api/v1/auth/api-key",
        "regenerate_key": "POST /api/v1/auth/regenerate-key",
        "keys": "GET /api/v1/auth/keys",
        "create_key": "POST /api/v1/auth/keys",
        "rotate_key": "POST /api/v1/auth/keys/{id}/rotate",
        "key": "GET /api/v1/key",
        "authz": "GET /api/v1/authz",
        "verify_key": "POST /api/v1/auth/verify-key",
        "log_message": "POST /api/v1/auth/log-message",
    })
}

fn for_admins() -> Value {
    json!({
        "login": "POST /api/v1/admin/login",
        "refresh": "POST /api/v1/admin/refresh",
        "logout": "POST /api/v1/admin/logout",
        "logout_all": "POST /api/v1/admin/logout-all",
        "enroll_totp": "POST /api/v1/admin/totp/enroll",
        "confirm_totp": "POST /api/v1/admin/totp/confirm",
        "disable_totp": "POST /api/v1/admin/totp/disable",
        "users": "GET /api/v1/admin/users",
        "user": "GET /api/v1/admin/users/{username}",
        "update_user": "PUT /api/v1/admin/users/{username}",
        "delete_user": "DELETE /api/v1/admin/users/{username}",
        "regenerate_key": "POST /api/v1/admin/users/{username}/regenerate-key",
        "user_keys": "GET /api/v1/admin/users/{username}/keys",
        "explain": "POST /api/v1/admin/explain",
        "reset_limits": "POST /api/v1/admin/reset-limits",
        "message_logs": "GET /api/v1/admin/message-logs",
        "staff": "GET, POST /api/v1/admin/staff",
        "staff_member": "GET, PUT, DELETE /api/v1/admin/staff/{username}",
        "deleted_users": "GET /api/v1/admin/deleted-users",
        "restore_user": "POST /api/v1/admin/deleted-users/{id}/restore",
        "erase_user": "DELETE /api/v1/admin/deleted-users/{id}",
        "audit": "GET /api/v1/admin/audit",
        "usage": "GET /api/v1/admin/usage",
        "statistics": "GET /api/v1/admin/statistics",
        "jobs": "GET /api/v1/admin/jobs",
        "run_job": "POST /api/v1/admin/jobs/{name}/run",
    })
}

fn for_staff() -> Value {
    json!({
        "login": "POST /api/v1/staff/login",
        "refresh": "POST /api/v1/staff/refresh",
        "logout": "POST /api/v1/staff/logout",
        "logout_all": "POST /api/v1/staff/logout-all",
        "enroll_totp": "POST /api/v1/staff/totp/enroll",
        "confirm_totp": "POST /api/v1/staff/totp/confirm",
        "disable_totp": "POST /api/v1/staff/totp/disable",
        "profile": "GET /api/v1/staff/profile",
        "users": "GET /api/v1/staff/users",
        "user": "GET /api/v1/staff/users/{username}",
        "update_user": "PUT /api/v1/staff/users/{username}",
        "delete_user": "DELETE /api/v1/staff/users/{username}",
    })
}
