//! What an owner does with an account as a whole: another password, another address, leaving.
//!
//! Both changes ask for the password once more, end every other session, and keep the one they are
//! made in. A wrong password counts as a failed login.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::Control;
use super::caller::{Origin, UserSession};
use super::forms::{Body, Form};
use super::me::Done;
use super::openapi::{refused, words};
use super::party::Party;
use super::passwords::Urgency;
use super::problem::Problem;
use super::proof::ProofForm;
use super::second_factor::Offer;
use super::violations::Violations;
use crate::credential::password::Password;
use crate::store::audit::Actor;
use crate::store::users::{self, UserChange};

/// Another password, knowing the present one.
#[derive(Deserialize, ToSchema)]
#[schema(as = PasswordChange, example = json!({
    "current_password": "correct-horse-7", "new_password": "better-horse-8",
    "confirm_new_password": "better-horse-8",
}))]
#[serde(deny_unknown_fields)]
pub(super) struct PasswordForm {
    #[schema(value_type = words::Password)]
    current_password: Option<SecretString>,
    #[schema(value_type = words::NewPassword)]
    new_password: Option<SecretString>,
    /// The same once more.
    #[schema(value_type = words::NewPassword)]
    confirm_new_password: Option<SecretString>,
    /// Where the account has a second factor and the login is older than five minutes.
    #[schema(value_type = Option<words::TotpCode>)]
    totp_code: Option<SecretString>,
    /// Instead of a code of the app.
    #[schema(value_type = Option<words::RecoveryCode>)]
    recovery_code: Option<SecretString>,
    /// True ends every key of the account too. They end in any case where the account was marked as taken over, or a
    /// used refresh token of it was shown again.
    revoke_keys: Option<bool>,
}

/// The same, held to its rules.
pub(super) struct PasswordChange {
    current: SecretString,
    new: Password,
    offer: Offer,
    revoke_keys: bool,
}

/// The password is another; and how many keys ended with it.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"message": "Password updated successfully"}))]
pub(super) struct PasswordChanged {
    /// For people.
    message: &'static str,
    /// Keys that stopped working with it, where any did.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys_revoked: Option<u64>,
}

/// Another address, knowing the password.
#[derive(Deserialize, ToSchema)]
#[schema(as = EmailChange, example = json!({"new_email": "ann@example.org", "password": "correct-horse-7"}))]
#[serde(deny_unknown_fields)]
pub(super) struct EmailForm {
    /// Nobody else's.
    #[schema(value_type = words::Email)]
    new_email: Option<String>,
    /// Of the caller.
    #[schema(value_type = words::Password)]
    password: Option<SecretString>,
    /// Where the account has a second factor and the login is older than five minutes.
    #[schema(value_type = Option<words::TotpCode>)]
    totp_code: Option<SecretString>,
    /// Instead of a code of the app.
    #[schema(value_type = Option<words::RecoveryCode>)]
    recovery_code: Option<SecretString>,
}

/// The same, held to its rules.
pub(super) struct EmailChange {
    email: String,
    password: SecretString,
    offer: Offer,
}

/// Gives the caller another password.
///
/// Asks for the present one, and for a code where there is a second factor and the login is older than five
/// minutes. Ends every other session.
#[utoipa::path(
    put,
    path = "/api/v1/auth/password",
    tag = "Account",
    request_body = PasswordForm,
    responses(
        (status = 200, description = "The password is another.", body = PasswordChanged),
        refused::WrongPassword, refused::TotpRequired, refused::WrongSecondFactor, refused::NotFound,
        refused::TooManyLogins, refused::Busy,
    ),
)]
pub(super) async fn change_password(
    State(control): State<Arc<Control>>,
    session: UserSession,
    origin: Origin,
    Body(change): Body<PasswordForm>,
) -> Result<Json<PasswordChanged>, Problem> {
    let party = Party::from(session.user.clone());
    control.ask_owner(&party, session.since, (change.current, change.offer), &origin).await?;
    let hash = control.passwords.hash(change.new, Urgency::Now).await?;
    let password_hash = Some(hash.as_str().to_owned());
    let row = UserChange { password_hash, revoke_keys: change.revoke_keys, ..UserChange::default() };
    let keys_revoked = control.change_own(session, row, "user.change_password", &origin).await?;
    Ok(Json(PasswordChanged::new(keys_revoked)))
}

/// Gives the caller another e-mail address.
///
/// Asks for the password, and for a code where there is a second factor and the login is older than five
/// minutes. Ends every other session. Where registration is by mail, the address holds once a letter to it is
/// confirmed, and the answer is the same whether or not the address is known.
#[utoipa::path(
    put,
    path = "/api/v1/auth/email",
    tag = "Account",
    request_body = EmailForm,
    responses(
        (status = 200, description = "The address is another.", body = Done),
        (status = 202, description = "Taken; it holds once a letter is confirmed, if registration is by mail.", body = Done),
        refused::WrongPassword, refused::MailOff, refused::TotpRequired, refused::WrongSecondFactor, refused::NotFound,
        refused::Taken, refused::TooManyLogins, refused::Busy,
    ),
)]
pub(super) async fn change_email(
    State(control): State<Arc<Control>>,
    session: UserSession,
    origin: Origin,
    Body(change): Body<EmailForm>,
) -> Result<(StatusCode, Json<Done>), Problem> {
    let party = Party::from(session.user.clone());
    control.ask_owner(&party, session.since, (change.password, change.offer), &origin).await?;
    if control.settings.registration_by_mail {
        let user = (session.user.id, session.user.username);
        return control.change_email_by_mail(user, change.email, &origin).await;
    }
    let user = &session.user;
    let given_up = control.given_up(user, vec![control.digests.of_email(&user.email)]).await?;
    let row = UserChange { email: Some(change.email), given_up: Some(given_up), ..UserChange::default() };
    control.change_own(session, row, "user.change_email", &origin).await?;
    Ok((StatusCode::OK, Json(Done { message: "Email updated successfully" })))
}

/// Deletes the account of the caller.
///
/// Its keys and sessions end at once; name and address become free. An admin can bring it back for
/// thirty days. Where the account has a second factor it takes the password and a code, or a login of the last
/// five minutes.
#[utoipa::path(
    delete,
    path = "/api/v1/auth/account",
    tag = "Account",
    request_body = Option<ProofForm>,
    responses(
        (status = 200, description = "The account is gone.", body = Done), refused::NotFound,
        refused::PasswordRequired, refused::WrongPassword, refused::TotpRequired, refused::WrongSecondFactor,
        refused::TooManyLogins, refused::Busy,
    ),
)]
pub(super) async fn delete_account(
    State(control): State<Arc<Control>>,
    session: UserSession,
    origin: Origin,
    Body(proof): Body<ProofForm>,
) -> Result<Json<Done>, Problem> {
    let party = Party::from(session.user.clone());
    control.ask_proof_if_guarded(&party, session.since, proof, &origin).await?;
    let user = session.user;
    control.delete(&user, (Actor::User(user.id), &user.username), &origin).await?;
    Ok(Json(Done { message: "Account deleted successfully" }))
}

// === impl Control ===

impl Control {
    async fn change_own(
        &self,
        session: UserSession,
        change: UserChange,
        action: &'static str,
        origin: &Origin,
    ) -> Result<u64, Problem> {
        let UserSession { user, id, .. } = session;
        let kept_session = Some(id.to_string());
        let change = UserChange { bump_token_version: true, kept_session, ..change };
        let entry = origin.entry((Actor::User(user.id), &user.username), action, &user.username, json!({}));
        let revoked = users::update(&self.db, user.id, &change, origin.at, &entry).await?;
        self.directory.forget_user(user.id);
        Ok(revoked)
    }
}

// === impl PasswordChanged ===

impl PasswordChanged {
    pub(super) fn new(keys_revoked: u64) -> Self {
        let keys_revoked = (keys_revoked > 0).then_some(keys_revoked);
        Self { message: "Password updated successfully", keys_revoked }
    }
}

// === impl PasswordForm ===

impl Form for PasswordForm {
    type Checked = PasswordChange;

    fn check(self, _: &Control, found: &mut Violations) -> Option<PasswordChange> {
        let current = found.required("current_password", self.current_password);
        let new = found.required("new_password", self.new_password);
        let repeated = found.required("confirm_new_password", self.confirm_new_password);
        if let (Some(one), Some(two)) = (&new, &repeated)
            && one.expose_secret() != two.expose_secret()
        {
            found.refuse("confirm_new_password", "Passwords do not match");
        }
        let new = new.and_then(|text| found.new_password("new_password", text));
        let offer = Offer { totp_code: self.totp_code, recovery_code: self.recovery_code };
        let revoke_keys = self.revoke_keys.unwrap_or(false);
        Some(PasswordChange { current: current?, new: new?, offer, revoke_keys })
    }
}

// === impl EmailForm ===

impl Form for EmailForm {
    type Checked = EmailChange;

    fn check(self, _: &Control, found: &mut Violations) -> Option<EmailChange> {
        let email = found.required("new_email", self.new_email);
        let email = found.email("new_email", email);
        let password = found.required("password", self.password);
        let offer = Offer { totp_code: self.totp_code, recovery_code: self.recovery_code };
        Some(EmailChange { email: email?, password: password?, offer })
    }
}
