//! `/api/v1/auth/profile`: an account in its owner's hands.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::Control;
use super::caller::{Origin, UserSession};
use super::forms::{Body, Form};
use super::openapi::{refused, words};
use super::problem::Problem;
use super::profile::Profile;
use super::violations::Violations;
use crate::store::audit::Actor;
use crate::store::users::{self, UserChange};

/// What an owner may change. Everything else of an account is the admin's.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"about_me": "Reads a lot."}))]
#[serde(deny_unknown_fields)]
pub(super) struct ProfileChange {
    /// As one wants to be called.
    #[schema(value_type = Option<words::FilledText>)]
    name: Option<String>,
    #[schema(value_type = Option<words::Text>)]
    about_me: Option<String>,
    #[schema(value_type = Option<words::Text>)]
    hobbies: Option<String>,
}

/// A sentence for whoever watches.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"message": "Done successfully"}))]
pub(super) struct Done {
    /// For people.
    pub(super) message: &'static str,
}

/// Shows the account of the caller.
///
/// `limits.conversation_limit` is what is left of today.
#[utoipa::path(
    get,
    path = "/api/v1/auth/profile",
    tag = "Account",
    responses((status = 200, description = "The account.", body = Profile)),
)]
pub(super) async fn profile(
    State(control): State<Arc<Control>>,
    session: UserSession,
) -> Result<Json<Profile>, Problem> {
    let left = control.quota.left(session.user.id, &control.allowance(&session.user)).await?;
    Ok(Json(Profile::of(session.user, left.left, left.reset)))
}

/// Changes what the caller says of themselves.
///
/// What is not named stays.
#[utoipa::path(
    put,
    path = "/api/v1/auth/profile",
    tag = "Account",
    request_body = ProfileChange,
    responses((status = 200, description = "It is changed.", body = Done), refused::NotFound),
)]
pub(super) async fn update_profile(
    State(control): State<Arc<Control>>,
    session: UserSession,
    origin: Origin,
    Body(change): Body<ProfileChange>,
) -> Result<Json<Done>, Problem> {
    let user = session.user;
    let actor = (Actor::User(user.id), user.username.as_str());
    let entry = origin.entry(actor, "user.update_profile", &user.username, json!({}));
    users::update(&control.db, user.id, &change, origin.at, &entry).await?;
    control.directory.forget_user(user.id);
    Ok(Json(Done { message: "Profile updated successfully" }))
}

// === impl ProfileChange ===

impl Form for ProfileChange {
    type Checked = UserChange;

    fn check(self, _: &Control, found: &mut Violations) -> Option<UserChange> {
        Some(UserChange {
            name: found.filled("name", self.name),
            about_me: found.text("about_me", self.about_me),
            hobbies: found.text("hobbies", self.hobbies),
            ..UserChange::default()
        })
    }
}
