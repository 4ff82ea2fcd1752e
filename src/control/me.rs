//! `/api/v1/auth/profile`: an account in its owner's hands.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Control;
use super::caller::{Origin, UserSession};
use super::forms::{Body, Form};
use super::problem::Problem;
use super::profile::Profile;
use super::violations::Violations;
use crate::store::audit::Actor;
use crate::store::users::{self, UserChange};

/// What an owner may change. Everything else of an account is the admin's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProfileChange {
    name: Option<String>,
    about_me: Option<String>,
    hobbies: Option<String>,
}

/// A sentence for whoever watches.
#[derive(Serialize)]
pub(super) struct Done {
    pub(super) message: &'static str,
}

/// The caller's account.
pub(super) async fn profile(
    State(control): State<Arc<Control>>,
    session: UserSession,
) -> Result<Json<Profile>, Problem> {
    let left = control.quota.left(session.user.id, &control.allowance(&session.user)).await?;
    Ok(Json(Profile::of(session.user, left.left, left.reset)))
}

/// Changes the caller's account.
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
