//! `/api/v1/admin/deleted-users`: users who were deleted, as long as they are kept.
//!
//! They are named by their number: a name may have been deleted twice, and may be somebody else's
//! again. Who is restored gets a new key and a random password, told once in the answer, and should
//! choose another: neither is kept when an account is deleted.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Control;
use super::caller::{AdminSession, Origin};
use super::forms::{Body, Form};
use super::paging::Params;
use super::problem::Problem;
use super::register::is_username;
use super::violations::Violations;
use crate::clock::Timestamp;
use crate::credential::password::{self, Password};
use crate::ids::UserId;
use crate::store::audit::Actor;
use crate::store::deleted::{self, DeletedUser, KEPT_FOR, Return};

/// One who was deleted.
#[derive(Serialize)]
pub(super) struct Departed {
    user_id: String,
    username: String,
    name: String,
    email: String,
    #[serde(rename = "type")]
    kind: String,
    subscription_plan: String,
    time_created: Timestamp,
    deleted_at: Timestamp,
    deleted_by: String,
    kept_until: Timestamp,
}

/// `POST /api/v1/admin/deleted-users/{id}/restore`: under another name or address, where the old one
/// is somebody else's now.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RestoreForm {
    username: Option<String>,
    email: Option<String>,
}

/// What the user who comes back needs, told only here.
#[derive(Serialize)]
pub(super) struct Restored {
    message: &'static str,
    user_id: String,
    username: String,
    email: String,
    password: String,
    new_key: String,
}

/// What is left of somebody.
#[derive(Serialize)]
pub(super) struct Erased {
    message: &'static str,
    proof: String,
    log_rows: u64,
}

/// A page of them, the latest first.
pub(super) async fn list_deleted_users(
    State(control): State<Arc<Control>>,
    _: AdminSession,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&["limit", "offset"])?;
    let page = params.page()?;
    let listed = deleted::list(&control.db, page.limit, page.offset).await?;
    let rows: Vec<Departed> = listed.rows.into_iter().map(Departed::from).collect();
    Ok(params.answer(page, &rows, listed.total))
}

/// One of them.
pub(super) async fn get_deleted_user(
    State(control): State<Arc<Control>>,
    _: AdminSession,
    Path(id): Path<String>,
) -> Result<Json<Departed>, Problem> {
    Ok(Json(control.deleted_user(&id).await?.into()))
}

/// Brings a user back as they were, with a new key, a new password, and a whole day.
pub(super) async fn restore_user(
    State(control): State<Arc<Control>>,
    AdminSession(admin): AdminSession,
    origin: Origin,
    Path(id): Path<String>,
    Body(renamed): Body<RestoreForm>,
) -> Result<Json<Restored>, Problem> {
    let user = control.deleted_user(&id).await?;
    let password = password::random_password();
    let candidate = Password::check(password.clone());
    let candidate = candidate.map_err(|rule| Problem::Internal(rule.to_string()))?;
    let hash = control.passwords.hash(candidate).await?;
    let key = control.new_key();
    let username = renamed.username.clone().unwrap_or_else(|| user.username.clone());
    let email = renamed.email.clone().unwrap_or_else(|| user.email.clone());
    let given = Return {
        username: renamed.username,
        email: renamed.email,
        password_hash: hash.as_str().to_owned(),
        key: key.row,
    };
    let actor = (Actor::Admin(admin.id), admin.username.as_str());
    let entry = origin.entry(actor, "user.restore", &username, json!({ "user_id": user.user_id }));
    deleted::restore(&control.db, &user, &given, &entry).await?;
    control.forget_user(user.user_id);
    Ok(Json(Restored {
        message: "User restored successfully",
        user_id: user.user_id.to_string(),
        username,
        email,
        password: password.expose_secret().to_owned(),
        new_key: key.plain.expose().to_owned(),
    }))
}

/// Forgets a deleted user for good: what is kept of them, and their person and words in the log. Rows
/// of the log stay as entries of the ledger.
pub(super) async fn erase_user(
    State(control): State<Arc<Control>>,
    AdminSession(admin): AdminSession,
    origin: Origin,
    Path(id): Path<String>,
) -> Result<Json<Erased>, Problem> {
    let user = number(&id)?;
    let proof = control.erasures.proof(user);
    control.chatlog.forget(user).await?;
    let actor = (Actor::Admin(admin.id), admin.username.as_str());
    let entry = origin.entry(actor, "user.erase", &proof, json!({}));
    let erased = deleted::erase(&control.db, user, &proof, &entry).await?;
    let log_rows = erased.ok_or(Problem::NotFound("deleted user"))?;
    Ok(Json(Erased { message: "User erased successfully", proof, log_rows }))
}

fn number(id: &str) -> Result<UserId, Problem> {
    id.parse().map(UserId).map_err(|_| Problem::NotFound("deleted user"))
}

// === impl Control ===

impl Control {
    async fn deleted_user(&self, id: &str) -> Result<DeletedUser, Problem> {
        deleted::by_id(&self.db, number(id)?).await?.ok_or(Problem::NotFound("deleted user"))
    }
}

// === impl Departed ===

impl From<DeletedUser> for Departed {
    fn from(user: DeletedUser) -> Self {
        Self {
            user_id: user.user_id.to_string(),
            username: user.username,
            name: user.name,
            email: user.email,
            kind: user.kind,
            subscription_plan: user.subscription_plan,
            time_created: user.time_created,
            deleted_at: user.deleted_at,
            deleted_by: user.deleted_by,
            kept_until: user.deleted_at.plus(KEPT_FOR),
        }
    }
}

// === impl RestoreForm ===

impl Form for RestoreForm {
    type Checked = Self;
    const MAY_BE_LEFT_OUT: bool = true;

    fn check(self, _: &Control, found: &mut Violations) -> Option<Self> {
        if self.username.as_deref().is_some_and(|username| !is_username(username)) {
            found.refuse("username", "String should have 3 to 30 letters, digits or underscores");
        }
        let email = found.email("email", self.email);
        Some(Self { username: self.username, email })
    }
}
