//! `/api/v1/admin/users`: every account in the admin's hands, and what staff do the same way.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use chrono_tz::Tz;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::Control;
use super::caller::{AdminSession, Origin};
use super::forms::Body;
use super::me::Done;
use super::openapi::{
    refused,
    words::{self, Pages},
};
use super::paging::Params;
use super::passwords::Urgency;
use super::paths::Path;
use super::problem::Problem;
use super::profile::AdminProfile;
use super::proof::RecentAdmin;
use super::register::is_username;
use super::slow_reads::SlowTurn;
use crate::ids::UserId;
use crate::store::audit::Actor;
use crate::store::carried::Names;
use crate::store::deleted;
use crate::store::users::{self, User, UserChange};

mod change;

pub(super) use change::{AccountChange, HelpForm};

use change::AccountForm;
pub(super) use change::{networks, plan};

/// The new key, which is told only here.
#[derive(Serialize, ToSchema)]
#[schema(as = RegeneratedKey, example = json!({
    "message": "API key regenerated successfully", "new_key": "pe-0123456789abcdefghijABCDEFGHIJ01",
}))]
pub(super) struct NewKeyTold {
    /// For people.
    message: &'static str,
    /// The key itself.
    new_key: String,
}

/// Lists users.
///
/// With what is left of their day.
#[utoipa::path(
    get,
    path = "/api/v1/admin/users",
    tag = "Admin: users",
    params(Pages),
    responses(
        (status = 200, description = "A page, in the order of their numbers.", body = Vec<AdminProfile>),
    ),
)]
pub(super) async fn list_users(
    State(control): State<Arc<Control>>,
    _: AdminSession,
    SlowTurn(reads): SlowTurn,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&["limit", "offset"])?;
    let page = params.page()?;
    let listed = users::list(&reads, page.limit, page.offset).await?;
    let users = control.with_what_is_left(listed.rows).await?;
    let profiles = users.into_iter().map(|(user, left, reset)| AdminProfile::of(user, left, reset));
    let profiles: Vec<_> = profiles.collect();
    Ok(params.answer(page, &profiles, listed.total))
}

/// Shows a user.
///
/// With what is left of their day.
#[utoipa::path(
    get,
    path = "/api/v1/admin/users/{username}",
    tag = "Admin: users",
    params(("username" = inline(words::Username), Path, description = "Whose account.")),
    responses((status = 200, description = "The account.", body = AdminProfile), refused::NotFound),
)]
pub(super) async fn get_user(
    State(control): State<Arc<Control>>,
    _: AdminSession,
    Path(username): Path<String>,
) -> Result<Json<AdminProfile>, Problem> {
    let user = control.user_named(&username).await?;
    let left = control.quota.left(user.id, &control.allowance(&user)).await?;
    Ok(Json(AdminProfile::of(user, left.left, left.reset)))
}

/// Changes a user.
///
/// What is not named stays. Switching the account off, another e-mail address, password or level ends
/// their sessions.
#[utoipa::path(
    put,
    path = "/api/v1/admin/users/{username}",
    tag = "Admin: users",
    params(("username" = inline(words::Username), Path, description = "Whose account.")),
    request_body = AccountForm,
    responses(
        (status = 200, description = "The account is changed.", body = Done),
        refused::NotFound, refused::Taken, refused::Busy,
    ),
)]
pub(super) async fn update_user(
    State(control): State<Arc<Control>>,
    AdminSession(admin): AdminSession,
    origin: Origin,
    Path(username): Path<String>,
    Body(change): Body<AccountForm>,
) -> Result<Json<Done>, Problem> {
    let user = control.user_named(&username).await?;
    let changed = change.fields();
    let row = control.row_of(change, &user).await?;
    let actor = (Actor::Admin(admin.id), admin.username.as_str());
    let entry = origin.entry(actor, "user.update", &user.username, json!({ "fields": changed }));
    users::update(&control.db, user.id, &row, origin.at, &entry).await?;
    control.forget_user(user.id);
    Ok(Json(Done { message: "User updated successfully" }))
}

/// Deletes a user.
///
/// Their keys and sessions end at once; they can be restored for thirty days.
#[utoipa::path(
    delete,
    path = "/api/v1/admin/users/{username}",
    tag = "Admin: users",
    params(("username" = inline(words::Username), Path, description = "Whose account.")),
    responses((status = 200, description = "The account is gone.", body = Done), refused::NotFound),
)]
pub(super) async fn delete_user(
    State(control): State<Arc<Control>>,
    AdminSession(admin): AdminSession,
    origin: Origin,
    Path(username): Path<String>,
) -> Result<Json<Done>, Problem> {
    let user = control.user_named(&username).await?;
    control.delete(&user, (Actor::Admin(admin.id), &admin.username), &origin).await?;
    Ok(Json(Done { message: "User deleted successfully" }))
}

/// Gives a user another default key.
///
/// The old one stops working at once. The new one is told only here. An admin with a second factor must have
/// logged in within the last five minutes.
#[utoipa::path(
    post,
    path = "/api/v1/admin/users/{username}/regenerate-key",
    tag = "Admin: users",
    params(("username" = inline(words::Username), Path, description = "Whose account.")),
    responses(
        (status = 200, description = "The new key.", body = NewKeyTold), refused::NotFound, refused::LoginTooOld,
    ),
)]
pub(super) async fn regenerate_user_key(
    State(control): State<Arc<Control>>,
    RecentAdmin(admin): RecentAdmin<false>,
    origin: Origin,
    Path(username): Path<String>,
) -> Result<Json<NewKeyTold>, Problem> {
    let user = control.user_named(&username).await?;
    let actor = (Actor::Admin(admin.id), admin.username.as_str());
    let entry = origin.entry(actor, "key.regenerate", &user.username, json!({}));
    let made = control.replace_key(user.id, origin.at, &entry).await?;
    let new_key = made.plain.expose().to_owned();
    Ok(Json(NewKeyTold { message: "API key regenerated successfully", new_key }))
}

// === impl Control ===

impl Control {
    /// The user of a path. What cannot be a name is nobody's, and is not looked up.
    pub(super) async fn user_named(&self, username: &str) -> Result<User, Problem> {
        if !is_username(username) {
            return Err(Problem::NotFound("user"));
        }
        users::by_username(&self.db, username).await?.ok_or(Problem::NotFound("user"))
    }

    /// Accounts with what is left of their day and what the next begins with, by one question for all
    /// of them.
    pub(super) async fn with_what_is_left(&self, users: Vec<User>) -> Result<Vec<(User, i64, i64)>, Problem> {
        let asked: Vec<_> = users.iter().map(|user| (user.id, self.allowance(user))).collect();
        let left = self.quota.left_many(&asked).await?;
        let found = users.into_iter().filter_map(|user| {
            let left = left.get(&user.id)?;
            Some((user, left.left, left.reset))
        });
        Ok(found.collect())
    }

    /// Makes a change of an account hold here at once: what is known of its keys and of its day is forgotten.
    pub(super) fn forget_user(&self, user: UserId) {
        self.directory.forget_user(user);
        self.quota.forget(user);
    }

    /// The row of a change, its password hashed.
    pub(super) async fn row_of(&self, change: AccountChange, user: &User) -> Result<UserChange, Problem> {
        let (password, mut row) = change.into_row(self, user);
        if let Some(password) = password {
            row.password_hash = Some(self.passwords.hash(password, Urgency::Now).await?.as_str().to_owned());
        }
        Ok(row)
    }

    /// The names a user is about to give up. Units of theirs that are in no use here go back first, so that they do
    /// not count as used.
    pub(super) async fn given_up(&self, user: &User, digests: Vec<String>) -> Result<Names, Problem> {
        let names = self.names(digests);
        self.quota.forget(user.id);
        // Days are read once nothing is on its way back any more.
        self.quota.used_since(user.id, names.since).await?;
        Ok(names)
    }

    /// These names, and the days that may not be over: a day has ended everywhere once the next one has in UTC.
    pub(super) fn names(&self, digests: Vec<String>) -> Names {
        Names { digests, since: self.quota.today(Tz::UTC).day - 1 }
    }

    /// Deletes an account, on whoever's behalf.
    pub(super) async fn delete(
        &self,
        user: &User,
        actor: (Actor, &str),
        origin: &Origin,
    ) -> Result<(), Problem> {
        let entry = origin.entry(actor, "user.delete", &user.username, json!({ "user_id": user.id }));
        let digests = [self.digests.of_username(&user.username), self.digests.of_email(&user.email)];
        let names = self.given_up(user, digests.into()).await?;
        if !deleted::delete(&self.db, user.id, &names, &entry).await? {
            return Err(Problem::NotFound("user"));
        }
        self.forget_user(user.id);
        Ok(())
    }
}
