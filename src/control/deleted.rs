//! `/api/v1/admin/deleted-users`: users who were deleted, as long as they are kept.
//!
//! They are named by their number: a name may have been deleted twice, and may be somebody else's
//! again. Who is restored gets a new key and a random password, told once in the answer, and should
//! choose another: neither is kept when an account is deleted.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::Control;
use super::caller::{AdminSession, Origin};
use super::forms::{Body, Form};
use super::openapi::{
    refused,
    words::{self, Pages},
};
use super::paging::Params;
use super::paths::Path;
use super::problem::Problem;
use super::register::is_username;
use super::slow_reads::SlowTurn;
use super::violations::Violations;
use crate::clock::Timestamp;
use crate::credential::password::{self, Password};
use crate::ids::UserId;
use crate::store::audit::Actor;
use crate::store::deleted::{self, DeletedUser, KEPT_FOR, Return};

/// One who was deleted.
#[derive(Serialize, ToSchema)]
#[schema(as = DeletedUser, example = json!({
    "user_id": "1", "username": "ann_lee", "name": "Ann Lee", "email": "ann@example.com", "type": "Personal",
    "subscription_plan": "free", "time_created": "2026-09-01T09:30:00Z", "deleted_at": "2026-10-01T09:30:00Z",
    "deleted_by": "admin", "kept_until": "2026-10-31T09:30:00Z",
}))]
pub(super) struct Departed {
    /// A number, as text.
    user_id: String,
    /// As it was.
    username: String,
    name: String,
    /// As it was.
    email: String,
    /// `Personal` or `Business`.
    #[serde(rename = "type")]
    kind: String,
    subscription_plan: String,
    time_created: Timestamp,
    deleted_at: Timestamp,
    /// Who deleted them.
    deleted_by: String,
    /// Then they are erased.
    kept_until: Timestamp,
}

/// As whom a user comes back.
#[derive(Deserialize, ToSchema)]
#[schema(as = Restoration, example = json!({"username": "ann_lee_2"}))]
#[serde(deny_unknown_fields)]
pub(super) struct RestoreForm {
    /// Where the old one is somebody else's now.
    #[schema(value_type = Option<words::Username>)]
    username: Option<String>,
    /// Where the old one is somebody else's now.
    #[schema(value_type = Option<words::Email>)]
    email: Option<String>,
}

/// What the user who comes back needs, told only here.
#[derive(Serialize, ToSchema)]
#[schema(as = RestoredUser, example = json!({
    "message": "User restored successfully", "user_id": "1", "username": "ann_lee", "email": "ann@example.com",
    "password": "7hKpWx3mRt9cVbN2qZsD", "new_key": "pe-0123456789abcdefghijABCDEFGHIJ01",
}))]
pub(super) struct Restored {
    /// For people.
    message: &'static str,
    /// A number, as text.
    user_id: String,
    username: String,
    email: String,
    /// Random: they should choose another.
    password: String,
    /// Their default key.
    new_key: String,
}

/// What is left of somebody.
#[derive(Serialize, ToSchema)]
#[schema(as = ErasedUser, example = json!({"message": "User erased successfully", "proof": "erased:6f1d0c…", "log_rows": 12, "files": 0}))]
pub(super) struct Erased {
    /// For people.
    message: &'static str,
    /// Stands in the audit trail in their stead.
    proof: String,
    /// How many rows of the log lost their words.
    log_rows: u64,
    /// How many files went that had been set aside.
    files: u64,
}

/// Lists deleted users.
///
/// The latest first; each is kept for thirty days.
#[utoipa::path(
    get,
    path = "/api/v1/admin/deleted-users",
    tag = "Admin: users",
    params(Pages),
    responses((status = 200, description = "A page of them.", body = Vec<Departed>)),
)]
pub(super) async fn list_deleted_users(
    _: AdminSession,
    SlowTurn(reads): SlowTurn,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&["limit", "offset"])?;
    let page = params.page()?;
    let listed = deleted::list(&reads, page.limit, page.offset).await?;
    let rows: Vec<Departed> = listed.rows.into_iter().map(Departed::from).collect();
    Ok(params.answer(page, &rows, listed.total))
}

/// Shows a deleted user.
///
/// As long as they are kept.
#[utoipa::path(
    get,
    path = "/api/v1/admin/deleted-users/{id}",
    tag = "Admin: users",
    params(
        ("id" = inline(words::RowNumber), Path, description = "The `user_id`: a name may have been deleted twice."),
    ),
    responses((status = 200, description = "Who they were.", body = Departed), refused::NotFound),
)]
pub(super) async fn get_deleted_user(
    State(control): State<Arc<Control>>,
    _: AdminSession,
    Path(id): Path<String>,
) -> Result<Json<Departed>, Problem> {
    Ok(Json(control.deleted_user(&id).await?.into()))
}

/// Brings a deleted user back.
///
/// As they were, with a whole day, a new key and a random password, both told only here. Where name or
/// address are somebody else's now, give others. The body may be left out.
#[utoipa::path(
    post,
    path = "/api/v1/admin/deleted-users/{id}/restore",
    tag = "Admin: users",
    params(
        ("id" = inline(words::RowNumber), Path, description = "The `user_id`: a name may have been deleted twice."),
    ),
    request_body = Option<RestoreForm>,
    responses(
        (status = 200, description = "They are back.", body = Restored),
        refused::NotFound, refused::Taken, refused::Busy,
    ),
)]
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

/// Forgets a deleted user for good.
///
/// What is kept of them, and their person and words in the log. Rows of the log stay as entries of the
/// ledger. Of what this node set aside, poison and damaged pieces of its spool, all goes that is theirs or
/// does not say whose it is.
#[utoipa::path(
    delete,
    path = "/api/v1/admin/deleted-users/{id}",
    tag = "Admin: users",
    params(
        ("id" = inline(words::RowNumber), Path, description = "The `user_id`: a name may have been deleted twice."),
    ),
    responses((status = 200, description = "They are forgotten.", body = Erased), refused::NotFound, refused::Busy),
)]
pub(super) async fn erase_user(
    State(control): State<Arc<Control>>,
    AdminSession(admin): AdminSession,
    origin: Origin,
    Path(id): Path<String>,
) -> Result<Json<Erased>, Problem> {
    let user = number(&id)?;
    let proof = control.erasures.proof(user);
    if deleted::is_here(&control.db, user).await? {
        return Err(Problem::NotFound("deleted user"));
    }
    let files = control.chatlog.forget(user).await?;
    let actor = (Actor::Admin(admin.id), admin.username.as_str());
    let entry = origin.entry(actor, "user.erase", &proof, json!({}));
    let erased = deleted::erase(&control.db, user, files, &proof, &entry).await?;
    let log_rows = erased.ok_or(Problem::NotFound("deleted user"))?;
    Ok(Json(Erased { message: "User erased successfully", proof, log_rows, files }))
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
