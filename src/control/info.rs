//! What this is and where everything stands, for people and for clients that look around.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Control;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `GET /`
pub(super) async fn root() -> Json<Value> {
    Json(json!({
        "message": "Tollgate: the gate in front of your chat models",
        "version": VERSION,
        "status": "running",
        "docs": "/docs",
        "health": "/health",
        "features": [
            "user registration and authentication",
            "API keys",
            "daily conversation limits",
            "address rules",
            "rate limits",
            "message log",
            "admin API",
        ],
    }))
}

/// `GET /api/v1/info`
pub(super) async fn info(State(control): State<Arc<Control>>) -> Json<Value> {
    let per_minute = match control.settings.rate_limit_per_minute {
        0 => "unlimited".to_owned(),
        limit => format!("{limit} requests per minute"),
    };
    Json(json!({
        "api_name": "Tollgate User Management API",
        "version": VERSION,
        "endpoints": {
            "authentication": for_users(),
            "admin": for_admins(),
            "staff": for_staff(),
        },
        "authentication_methods": {
            "jwt_token": "Authorization: Bearer <token from login>",
            "api_key": "Authorization: Bearer pe-<key>",
        },
        "rate_limits": {
            "default": per_minute,
            "conversation_limits": "per user and day, by plan; see limits in the profile",
        },
    }))
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
