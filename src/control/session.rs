//! Logging in: a name, a password, and where there is one a second factor, for a session.
//!
//! Whether an account exists shows neither in the answer nor in the time it takes: without one, the
//! password is compared with nobody's.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Control;
use super::backoff::{Attempt, Guarded};
use super::caller::Origin;
use super::forms::{Body, Form};
use super::openapi::{refused, words};
use super::party::Party;
use super::passwords::Comparison;
use super::problem::Problem;
use super::second_factor::Offer;
use super::violations::Violations;
use crate::credential::password::{Password, PasswordHash};
use crate::credential::ticket::Ticket;
use crate::credential::token::{Audience, Session};
use crate::ids::SessionId;
use crate::store::sessions::{self, NewSession, Owner, Standing};
use crate::store::takeover::mark::Reason;
use crate::store::{admins, users};

/// What a user logs in with.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"email": "ann@example.com", "password": "correct-horse-7"}))]
#[serde(deny_unknown_fields)]
pub(super) struct UserLogin {
    /// Of the account; in any spelling that is not blank, at most 254 characters.
    #[schema(value_type = String, min_length = 1, max_length = 254)]
    email: Option<String>,
    #[schema(value_type = words::Password)]
    password: Option<SecretString>,
    /// Where a second factor is asked for.
    #[schema(value_type = Option<words::TotpCode>)]
    totp_code: Option<SecretString>,
    /// Instead of a code of the app.
    #[schema(value_type = Option<words::RecoveryCode>)]
    recovery_code: Option<SecretString>,
}

/// What staff and admins log in with.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"username": "admin", "password": "correct-horse-7"}))]
#[serde(deny_unknown_fields)]
pub(super) struct NamedLogin {
    /// Of the account; not blank, at most 254 characters.
    #[schema(value_type = String, min_length = 1, max_length = 254)]
    username: Option<String>,
    #[schema(value_type = words::Password)]
    password: Option<SecretString>,
    /// Where a second factor is asked for.
    #[schema(value_type = Option<words::TotpCode>)]
    totp_code: Option<SecretString>,
    /// Instead of a code of the app.
    #[schema(value_type = Option<words::RecoveryCode>)]
    recovery_code: Option<SecretString>,
}

/// Who somebody says they are, and what they offer as proof.
pub(super) struct Claim {
    pub(super) name: String,
    pub(super) password: SecretString,
    pub(super) offer: Offer,
}

/// A session. The seconds are a string for older clients.
#[derive(Serialize, ToSchema)]
#[schema(as = Session, example = json!({
    "access_token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "token_type": "bearer", "expires_in": "1800",
    "refresh_token": "tgr_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg",
}))]
pub(super) struct LoggedIn {
    /// A JWT: send it as `Authorization: Bearer …`.
    access_token: String,
    /// Always `bearer`.
    token_type: &'static str,
    /// Seconds until the access token ends, as text.
    expires_in: String,
    /// Good once, for another pair of tokens.
    refresh_token: String,
}

/// Most characters of a name that anybody has.
const MAX_NAME: usize = 254;

/// Logs a user in by e-mail address.
///
/// Whether an account exists shows neither in the answer nor in the time it takes. Failed logins are
/// slowed down, by account and by address.
#[utoipa::path(
    post,
    path = "/api/v1/auth/login",
    tag = "Sessions",
    request_body = UserLogin,
    responses(
        (status = 200, description = "A session.", body = LoggedIn),
        refused::WrongCredentials, refused::TotpRequired, refused::WrongSecondFactor,
        refused::AccountDisabled, refused::TakenOver, refused::EmailNotVerified, refused::TooManyLogins, refused::Busy,
    ),
)]
pub(super) async fn user_login(
    State(control): State<Arc<Control>>,
    origin: Origin,
    Body(claim): Body<UserLogin>,
) -> Result<Json<LoggedIn>, Problem> {
    let attempt = control.attempt(Audience::User, &claim.name, &origin).await?;
    let user = match users::by_email(&control.db, &claim.name).await {
        Ok(user) => user,
        Err(error) => return Err(attempt.unanswered(error.into())),
    };
    let stored = user.as_ref().map(|user| user.password_hash.clone());
    let renewed = control.prove(claim.password, stored, attempt).await?;
    let user = user.ok_or(Problem::WrongCredentials)?;
    if !user.is_active {
        return Err(Problem::AccountDisabled);
    }
    if let Some(hash) = renewed {
        let (old, new) = (user.password_hash.as_str(), hash.as_str());
        let stored = users::update_password_hash(&control.db, user.id, old, new, origin.at).await;
        stored.unwrap_or_else(|error| tracing::warn!(%error, "a password hash was not renewed"));
    }
    if user.takeover.as_deref() == Some(Reason::Marked.as_str()) {
        return Err(Problem::TakenOver);
    }
    let party = Party::from(user);
    control.ask_second_factor(&party, &claim.offer, &origin).await?;
    control.ask_verified_email(&party).await?;
    control.begin_session(&party, &origin).await
}

/// Logs an admin in by name.
///
/// Failed logins are slowed down, and kept in the audit trail.
#[utoipa::path(
    post,
    path = "/api/v1/admin/login",
    tag = "Sessions",
    request_body = NamedLogin,
    responses(
        (status = 200, description = "A session.", body = LoggedIn),
        refused::WrongCredentials, refused::TotpRequired, refused::WrongSecondFactor,
        refused::AccountDisabled, refused::TooManyLogins, refused::Busy,
    ),
)]
pub(super) async fn admin_login(
    State(control): State<Arc<Control>>,
    origin: Origin,
    Body(claim): Body<NamedLogin>,
) -> Result<Json<LoggedIn>, Problem> {
    let attempt = control.attempt(Audience::Admin, &claim.name, &origin).await?;
    let admin = match admins::by_username(&control.db, &claim.name).await {
        Ok(admin) => admin,
        Err(error) => return Err(attempt.unanswered(error.into())),
    };
    let stored = admin.as_ref().map(|admin| admin.password_hash.clone());
    let proved = control.prove(claim.password, stored, attempt).await;
    let known = admin.as_ref().map(|admin| admin.username.as_str());
    control.recorded_login(proved, (Audience::Admin, known), &origin).await?;
    let admin = admin.ok_or(Problem::WrongCredentials)?;
    if !admin.is_active {
        return Err(Problem::AccountDisabled);
    }
    let party = Party::from(admin);
    control.ask_second_factor(&party, &claim.offer, &origin).await?;
    control.begin_session(&party, &origin).await
}

// === impl Control ===

impl Control {
    /// Takes an attempt at the password of this account.
    pub(super) async fn attempt(
        &self,
        audience: Audience,
        name: &str,
        origin: &Origin,
    ) -> Result<Attempt<'_>, Problem> {
        let account = format!("{audience}:{name}");
        self.backoff.admit(Guarded::Password, &account, origin.ip, &self.clock).await
    }

    /// Whether the password is the one that was stored; then its hash made anew, where the old one
    /// was of another cost.
    pub(super) async fn prove(
        &self,
        password: SecretString,
        stored: Option<String>,
        attempt: Attempt<'_>,
    ) -> Result<Option<PasswordHash>, Problem> {
        let Some(candidate) = Password::candidate(password) else { return Err(Problem::WrongCredentials) };
        match self.passwords.compare(candidate, stored.map(PasswordHash::from_stored)).await {
            Ok(Comparison::Right { renewed }) => {
                attempt.succeeded();
                Ok(renewed)
            }
            Ok(Comparison::Wrong) => Err(Problem::WrongCredentials),
            Err(problem) => Err(attempt.unanswered(problem)),
        }
    }

    /// A session for whoever has proved who they are.
    pub(super) async fn begin_session(
        &self,
        party: &Party,
        origin: &Origin,
    ) -> Result<Json<LoggedIn>, Problem> {
        let (now, refresh) = (self.clock.now(), Ticket::refresh());
        let new = NewSession {
            id: SessionId::generate(),
            owner: party.owner,
            version: party.token_version,
            refresh: refresh.digest(&self.refresh_key),
            began_at: now,
            expires_at: now.plus(self.settings.refresh_token_ttl),
            client_ip: Some(origin.ip),
            user_agent: origin.user_agent.clone(),
        };
        sessions::begin(&self.db, &new).await?;
        let NewSession { id, owner, version, began_at, .. } = new;
        let last_used_at = Some(began_at);
        self.logged_in(&Standing { id, owner, version, began_at, last_used_at }, &refresh)
    }

    /// What a session is handed over as, now and each time it is renewed.
    pub(super) fn logged_in(&self, session: &Standing, refresh: &Ticket) -> Result<Json<LoggedIn>, Problem> {
        let Owner { audience, subject } = session.owner;
        let now = self.clock.now();
        let session = Session { id: session.id, subject, version: session.version, issued_at: now };
        let issued = self.tokens.issue(audience, &session);
        let issued = issued.map_err(|error| Problem::Internal(error.to_string()))?;
        Ok(Json(LoggedIn {
            access_token: issued.token.expose_secret().to_owned(),
            token_type: "bearer",
            expires_in: issued.expires_in.as_secs().to_string(),
            refresh_token: refresh.expose().to_owned(),
        }))
    }
}

// === impl UserLogin ===

impl Form for UserLogin {
    type Checked = Claim;

    fn check(self, _: &Control, found: &mut Violations) -> Option<Claim> {
        let offer = Offer { totp_code: self.totp_code, recovery_code: self.recovery_code };
        claim(("email", self.email), self.password, offer, found)
    }
}

// === impl NamedLogin ===

impl Form for NamedLogin {
    type Checked = Claim;

    fn check(self, _: &Control, found: &mut Violations) -> Option<Claim> {
        let offer = Offer { totp_code: self.totp_code, recovery_code: self.recovery_code };
        claim(("username", self.username), self.password, offer, found)
    }
}

fn claim(
    (field, name): (&'static str, Option<String>),
    password: Option<SecretString>,
    offer: Offer,
    found: &mut Violations,
) -> Option<Claim> {
    let name = found.filled(field, name);
    let (name, password) = (found.required(field, name), found.required("password", password));
    let name = name?;
    if name.chars().nth(MAX_NAME).is_some() {
        found.refuse(field, "String should have at most 254 characters");
    }
    Some(Claim { name, password: password?, offer })
}
