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
            "authentication": authentication(),
            "admin": admin(),
            "staff": staff(),
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

fn authentication() -> Value {
    json!({
        "register": "POST /api/v1/auth/register",
        "login": "POST /api/v1/auth/login",
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

fn admin() -> Value {
    json!({
        "login": "POST /api/v1/admin/login",
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

fn staff() -> Value {
    json!({
        "login": "POST /api/v1/staff/login",
        "profile": "GET /api/v1/staff/profile",
        "users": "GET /api/v1/staff/users",
        "user": "GET /api/v1/staff/users/{username}",
        "update_user": "PUT /api/v1/staff/users/{username}",
        "delete_user": "DELETE /api/v1/staff/users/{username}",
    })
}
