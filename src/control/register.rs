//! `POST /api/v1/auth/register`: a new account, with its key.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::Control;
use super::backoff::Guarded;
use super::caller::Origin;
use super::forms::{Body, Form};
use super::me::Done;
use super::openapi::{refused, words};
use super::passwords::Urgency;
use super::problem::Problem;
use super::violations::Violations;
use crate::clock::Clock;
use crate::credential::account_digest::AccountDigests;
use crate::credential::password::{Password, PasswordHash};
use crate::plan::{Allowance, Plans};
use crate::quota::Window;
use crate::store::audit::Actor;
use crate::store::carried::Beginning;
use crate::store::mail_tokens::Purpose;
use crate::store::users::{self, NewUser};

/// What somebody who registers says of themselves.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({
    "username": "ann_lee", "name": "Ann Lee", "email": "ann@example.com",
    "password": "correct-horse-7", "confirm_password": "correct-horse-7", "type": "Personal",
}))]
#[serde(deny_unknown_fields)]
pub(super) struct Registration {
    /// Nobody else's.
    #[schema(value_type = words::Username)]
    username: Option<String>,
    /// As one wants to be called.
    #[schema(value_type = words::FilledText)]
    name: Option<String>,
    /// Nobody else's.
    #[schema(value_type = words::Email)]
    email: Option<String>,
    #[schema(value_type = words::NewPassword)]
    password: Option<SecretString>,
    /// The same once more.
    #[schema(value_type = words::NewPassword)]
    confirm_password: Option<SecretString>,
    #[schema(value_type = Option<words::Text>)]
    about_me: Option<String>,
    #[schema(value_type = Option<words::Text>)]
    hobbies: Option<String>,
    /// `Personal` where it is left out.
    #[serde(rename = "type")]
    #[schema(value_type = Option<words::AccountKind>)]
    kind: Option<String>,
}

/// The same, held to its rules.
pub(super) struct Registrant {
    pub(super) username: String,
    pub(super) name: String,
    pub(super) email: String,
    pub(super) password: Password,
    pub(super) about_me: String,
    pub(super) hobbies: String,
    pub(super) kind: String,
}

/// The account that was opened. The number is a string for older clients.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "message": "User registered successfully", "user_id": "1", "username": "ann_lee",
}))]
pub(super) struct Registered {
    /// For people.
    message: &'static str,
    /// The number of the account, as text.
    user_id: String,
    username: String,
}

/// Passes while anybody may register; asked before a body is read.
pub(super) struct RegistrationOpen;

/// Kinds of account.
pub(super) const KINDS: [&str; 2] = [PERSONAL, "Business"];
const PERSONAL: &str = "Personal";

/// What everybody begins with.
const PLAN: &str = "free";
const LEVEL: &str = "basic";
const CREDITS: i64 = 5;
const ACCESS_RTYPE: [&str; 2] = ["bpe", "tot"];

/// Opens an account.
///
/// It begins on the plan `free` with a default key, which `GET /api/v1/auth/api-key` shows after a
/// login. Where verified addresses are wanted, a letter is on its way. Where registration is by mail, the account
/// opens once the letter is confirmed, and the answer is the same whether or not the address is known.
#[utoipa::path(
    post,
    path = "/api/v1/auth/register",
    tag = "Account",
    request_body = Registration,
    responses(
        (status = 201, description = "The account is open.", body = Registered),
        (status = 202, description = "Taken; a letter is on its way, if registration is by mail.", body = Done),
        refused::RegistrationClosed, refused::Taken, refused::MailOff, refused::TooManyLogins, refused::Busy,
    ),
)]
pub(super) async fn register(
    State(control): State<Arc<Control>>,
    origin: Origin,
    RegistrationOpen: RegistrationOpen,
    Body(registrant): Body<Registration>,
) -> Result<Response, Problem> {
    if control.settings.registration_by_mail {
        return Ok(control.register_by_mail(registrant, &origin).await?.into_response());
    }
    users::are_free(&control.db, &registrant.username, &registrant.email).await?;
    let place = control.backoff.admit(Guarded::Registration, "", origin.ip, &control.clock).await?;
    let hash = control.passwords.hash(registrant.password, Urgency::Later).await;
    place.put_back();
    let hash = hash?;
    let key = control.new_key();
    let user = NewUser {
        about_me: registrant.about_me,
        hobbies: registrant.hobbies,
        kind: registrant.kind,
        ..newcomer(registrant.username, registrant.name, registrant.email, &hash)
    };
    let user = beginning(user, &control.digests, &control.plans, &control.clock);
    let entry = origin.entry((Actor::Nobody, &user.username), "user.register", &user.username, json!({}));
    let id = users::insert(&control.db, &user, &key.row, origin.at, &entry).await?;
    if control.settings.require_verified_email
        && let Err(problem) = control.send_token(Purpose::VerifyEmail, user.email)
    {
        tracing::warn!(?problem, "a new user has to ask for their letter themselves");
    }
    let username = user.username;
    let registered =
        Registered { message: "User registered successfully", user_id: id.to_string(), username };
    Ok((StatusCode::CREATED, Json(registered)).into_response())
}

/// An account as it begins, whoever opens it.
#[must_use]
pub fn newcomer(username: String, name: String, email: String, password: &PasswordHash) -> NewUser {
    NewUser {
        username,
        name,
        email,
        password_hash: password.as_str().to_owned(),
        about_me: String::new(),
        hobbies: String::new(),
        kind: PERSONAL.to_owned(),
        subscription_plan: PLAN.to_owned(),
        credits: CREDITS,
        access_rtype: ACCESS_RTYPE.map(str::to_owned).to_vec(),
        level: LEVEL.to_owned(),
        beginning: None,
    }
}

/// The account with what was used today under its names: by an account that was deleted, or that gave up the
/// e-mail address.
#[must_use]
pub fn beginning(new: NewUser, digests: &AccountDigests, plans: &Plans, clock: &Clock) -> NewUser {
    let Allowance { per_day, zone } = plans.resolve(&new.subscription_plan, &new.level).allowance;
    let beginning = Beginning {
        digests: [digests.of_username(&new.username), digests.of_email(&new.email)],
        day: Window::at(clock.now(), zone).day,
        allowance: per_day,
    };
    NewUser { beginning: Some(beginning), ..new }
}

// === impl Registration ===

impl Form for Registration {
    type Checked = Registrant;

    fn check(self, _: &Control, found: &mut Violations) -> Option<Registrant> {
        let username = found.required("username", self.username);
        if username.as_deref().is_some_and(|username| !is_username(username)) {
            found.refuse("username", "String should have 3 to 30 letters, digits or underscores");
        }
        let name = found.required("name", self.name);
        let name = found.filled("name", name);
        let email = found.required("email", self.email);
        let email = found.email("email", email);
        let password = found.required("password", self.password);
        let repeated = found.required("confirm_password", self.confirm_password);
        if let (Some(one), Some(two)) = (&password, &repeated)
            && one.expose_secret() != two.expose_secret()
        {
            found.refuse("confirm_password", "Passwords do not match");
        }
        let password = password.and_then(|text| found.new_password("password", text));
        let about_me = found.text("about_me", self.about_me).unwrap_or_default();
        let hobbies = found.text("hobbies", self.hobbies).unwrap_or_default();
        let kind = found.one_of("type", self.kind, &KINDS).unwrap_or_else(|| PERSONAL.to_owned());
        let (username, name, email, password) = (username?, name?, email?, password?);
        Some(Registrant { username, name, email, password, about_me, hobbies, kind })
    }
}

/// `^[A-Za-z0-9_]{3,30}$`
#[must_use]
pub fn is_username(text: &str) -> bool {
    (3..=30).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

// === impl RegistrationOpen ===

impl FromRequestParts<Arc<Control>> for RegistrationOpen {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, control: &Arc<Control>) -> Result<Self, Problem> {
        if control.settings.allow_registration { Ok(Self) } else { Err(Problem::RegistrationClosed) }
    }
}
