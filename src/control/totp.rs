//! `…/totp/enroll`, `confirm` and `disable`: a second factor in its owner's hands.
//!
//! Enrolling hands out a secret; nothing is asked for until a code of it has been shown. Then the
//! recovery codes are told, once, and the owner's other sessions end, which began with less.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::Control;
use super::caller::Origin;
use super::forms::{Body, Form};
use super::me::Done;
use super::openapi::{refused, words};
use super::party::{Admins, Party, SignedIn, StaffMembers, Users};
use super::problem::Problem;
use super::proof::ProofForm;
use super::second_factor::Offer;
use super::violations::Violations;
use crate::credential::ticket::{Ticket, TicketDigest};
use crate::credential::totp::TotpSecret;
use crate::ids::SessionId;
use crate::store::second_factors::{self, Confirmation};

/// What shows that an authenticator app has the secret.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"totp_code": "492039"}))]
#[serde(deny_unknown_fields)]
pub(super) struct ConfirmTotp {
    /// Of the secret that was handed out.
    #[schema(value_type = words::TotpCode)]
    totp_code: Option<SecretString>,
}

/// What it takes to do without a second factor.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"password": "correct-horse-7"}))]
#[serde(deny_unknown_fields)]
pub(super) struct DisableTotp {
    /// Of the caller.
    #[schema(value_type = words::Password)]
    password: Option<SecretString>,
    /// Where the login is older than five minutes.
    #[schema(value_type = Option<words::TotpCode>)]
    totp_code: Option<SecretString>,
    /// Instead of a code of the app.
    #[schema(value_type = Option<words::RecoveryCode>)]
    recovery_code: Option<SecretString>,
}

/// A new secret, twice: to be typed, and to be drawn as a QR code.
#[derive(Serialize, ToSchema)]
#[schema(as = TotpSecret, example = json!({
    "secret": "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP",
    "otpauth_url": "otpauth://totp/Tollgate:ann_lee?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Tollgate",
}))]
pub(super) struct Enrolled {
    /// To be typed, in Base32.
    secret: String,
    /// To be drawn as a QR code.
    otpauth_url: String,
}

/// The recovery codes, told once.
#[derive(Serialize, ToSchema)]
#[schema(as = RecoveryCodes, example = json!({
    "message": "Second factor enabled successfully", "recovery_codes": ["7hKpW-x3mRt", "9cVbN-2qZsD"],
}))]
pub(super) struct Confirmed {
    /// For people.
    message: &'static str,
    /// Ten; each lets one in once, without the app.
    recovery_codes: Vec<String>,
}

const RECOVERY_CODES: usize = 10;

/// Begins a second factor of a user.
///
/// Hands out a secret for an authenticator app. Nothing is asked for until it is confirmed; beginning
/// again replaces the secret. Takes the password, or a login of the last five minutes.
#[utoipa::path(
    post,
    path = "/api/v1/auth/totp/enroll",
    tag = "Second factor",
    request_body = Option<ProofForm>,
    responses(
        (status = 200, description = "The secret, told only here.", body = Enrolled),
        refused::TotpEnabled, refused::PasswordRequired, refused::WrongPassword, refused::TotpRequired,
        refused::WrongSecondFactor, refused::TooManyLogins, refused::Busy,
    ),
)]
pub(super) async fn user_totp_enroll(
    State(control): State<Arc<Control>>,
    who: SignedIn<Users>,
    origin: Origin,
    Body(proof): Body<ProofForm>,
) -> Result<Json<Enrolled>, Problem> {
    control.ask_proof(&who.party, who.since, proof, &origin).await?;
    control.enrol(&who.party, &origin).await
}

/// Begins a second factor of a member of staff.
///
/// Hands out a secret for an authenticator app. Nothing is asked for until it is confirmed; beginning
/// again replaces the secret. Takes the password, or a login of the last five minutes.
#[utoipa::path(
    post,
    path = "/api/v1/staff/totp/enroll",
    tag = "Second factor",
    request_body = Option<ProofForm>,
    responses(
        (status = 200, description = "The secret, told only here.", body = Enrolled),
        refused::TotpEnabled, refused::PasswordRequired, refused::WrongPassword, refused::TotpRequired,
        refused::WrongSecondFactor, refused::TooManyLogins, refused::Busy,
    ),
)]
pub(super) async fn staff_totp_enroll(
    State(control): State<Arc<Control>>,
    who: SignedIn<StaffMembers>,
    origin: Origin,
    Body(proof): Body<ProofForm>,
) -> Result<Json<Enrolled>, Problem> {
    control.ask_proof(&who.party, who.since, proof, &origin).await?;
    control.enrol(&who.party, &origin).await
}

/// Begins a second factor of an admin.
///
/// Hands out a secret for an authenticator app. Nothing is asked for until it is confirmed; beginning
/// again replaces the secret. Takes the password, or a login of the last five minutes.
#[utoipa::path(
    post,
    path = "/api/v1/admin/totp/enroll",
    tag = "Second factor",
    request_body = Option<ProofForm>,
    responses(
        (status = 200, description = "The secret, told only here.", body = Enrolled),
        refused::TotpEnabled, refused::PasswordRequired, refused::WrongPassword, refused::TotpRequired,
        refused::WrongSecondFactor, refused::TooManyLogins, refused::Busy,
    ),
)]
pub(super) async fn admin_totp_enroll(
    State(control): State<Arc<Control>>,
    who: SignedIn<Admins>,
    origin: Origin,
    Body(proof): Body<ProofForm>,
) -> Result<Json<Enrolled>, Problem> {
    control.ask_proof(&who.party, who.since, proof, &origin).await?;
    control.enrol(&who.party, &origin).await
}

/// Enables the second factor of a user.
///
/// Takes a code of the secret that was handed out. From now on a login asks for one. The other sessions
/// end.
#[utoipa::path(
    post,
    path = "/api/v1/auth/totp/confirm",
    tag = "Second factor",
    request_body = ConfirmTotp,
    responses(
        (status = 200, description = "It is asked for from now on.", body = Confirmed),
        refused::TotpNotEnrolled, refused::TotpEnabled, refused::WrongSecondFactor, refused::TooManyLogins,
    ),
)]
pub(super) async fn user_totp_confirm(
    State(control): State<Arc<Control>>,
    who: SignedIn<Users>,
    origin: Origin,
    Body(code): Body<ConfirmTotp>,
) -> Result<Json<Confirmed>, Problem> {
    control.confirm(&who.party, who.session, &code, &origin).await
}

/// Enables the second factor of a member of staff.
///
/// Takes a code of the secret that was handed out. From now on a login asks for one. The other sessions
/// end.
#[utoipa::path(
    post,
    path = "/api/v1/staff/totp/confirm",
    tag = "Second factor",
    request_body = ConfirmTotp,
    responses(
        (status = 200, description = "It is asked for from now on.", body = Confirmed),
        refused::TotpNotEnrolled, refused::TotpEnabled, refused::WrongSecondFactor, refused::TooManyLogins,
    ),
)]
pub(super) async fn staff_totp_confirm(
    State(control): State<Arc<Control>>,
    who: SignedIn<StaffMembers>,
    origin: Origin,
    Body(code): Body<ConfirmTotp>,
) -> Result<Json<Confirmed>, Problem> {
    control.confirm(&who.party, who.session, &code, &origin).await
}

/// Enables the second factor of an admin.
///
/// Takes a code of the secret that was handed out. From now on a login asks for one. The other sessions
/// end.
#[utoipa::path(
    post,
    path = "/api/v1/admin/totp/confirm",
    tag = "Second factor",
    request_body = ConfirmTotp,
    responses(
        (status = 200, description = "It is asked for from now on.", body = Confirmed),
        refused::TotpNotEnrolled, refused::TotpEnabled, refused::WrongSecondFactor, refused::TooManyLogins,
    ),
)]
pub(super) async fn admin_totp_confirm(
    State(control): State<Arc<Control>>,
    who: SignedIn<Admins>,
    origin: Origin,
    Body(code): Body<ConfirmTotp>,
) -> Result<Json<Confirmed>, Problem> {
    control.confirm(&who.party, who.session, &code, &origin).await
}

/// Disables the second factor of a user.
///
/// Asks for the password once more, and for a code unless the login is younger than five minutes.
#[utoipa::path(
    post,
    path = "/api/v1/auth/totp/disable",
    tag = "Second factor",
    request_body = DisableTotp,
    responses(
        (status = 200, description = "It is asked for no longer.", body = Done),
        refused::WrongCredentials, refused::TotpRequired, refused::WrongSecondFactor, refused::TooManyLogins,
        refused::Busy,
    ),
)]
pub(super) async fn user_totp_disable(
    State(control): State<Arc<Control>>,
    who: SignedIn<Users>,
    origin: Origin,
    Body(given): Body<DisableTotp>,
) -> Result<Json<Done>, Problem> {
    control.disable(who, given, &origin).await
}

/// Disables the second factor of a member of staff.
///
/// Asks for the password once more, and for a code unless the login is younger than five minutes.
#[utoipa::path(
    post,
    path = "/api/v1/staff/totp/disable",
    tag = "Second factor",
    request_body = DisableTotp,
    responses(
        (status = 200, description = "It is asked for no longer.", body = Done),
        refused::WrongCredentials, refused::TotpRequired, refused::WrongSecondFactor, refused::TooManyLogins,
        refused::Busy,
    ),
)]
pub(super) async fn staff_totp_disable(
    State(control): State<Arc<Control>>,
    who: SignedIn<StaffMembers>,
    origin: Origin,
    Body(given): Body<DisableTotp>,
) -> Result<Json<Done>, Problem> {
    control.disable(who, given, &origin).await
}

/// Disables the second factor of an admin.
///
/// Asks for the password once more, and for a code unless the login is younger than five minutes.
#[utoipa::path(
    post,
    path = "/api/v1/admin/totp/disable",
    tag = "Second factor",
    request_body = DisableTotp,
    responses(
        (status = 200, description = "It is asked for no longer.", body = Done),
        refused::WrongCredentials, refused::TotpRequired, refused::WrongSecondFactor, refused::TooManyLogins,
        refused::Busy,
    ),
)]
pub(super) async fn admin_totp_disable(
    State(control): State<Arc<Control>>,
    who: SignedIn<Admins>,
    origin: Origin,
    Body(given): Body<DisableTotp>,
) -> Result<Json<Done>, Problem> {
    control.disable(who, given, &origin).await
}

// === impl Confirmed ===

impl Confirmed {
    pub(super) fn new(message: &'static str, codes: &[Ticket]) -> Self {
        Self { message, recovery_codes: codes.iter().map(|code| code.expose().to_owned()).collect() }
    }
}

// === impl Control ===

impl Control {
    async fn enrol(&self, party: &Party, origin: &Origin) -> Result<Json<Enrolled>, Problem> {
        let secret = TotpSecret::generate();
        let text = secret.to_text();
        let sealed = self.sealer.seal(text.expose_secret());
        if !second_factors::enrol(&self.db, party.owner, &sealed, origin.at).await? {
            return Err(Problem::TotpEnabled);
        }
        let otpauth_url = secret.url(&party.username).expose_secret().to_owned();
        Ok(Json(Enrolled { secret: text.expose_secret().to_owned(), otpauth_url }))
    }

    async fn confirm(
        &self,
        party: &Party,
        session: SessionId,
        code: &SecretString,
        origin: &Origin,
    ) -> Result<Json<Confirmed>, Problem> {
        let factor = second_factors::of(&self.db, party.owner).await?.ok_or(Problem::TotpNotEnrolled)?;
        if factor.confirmed_at.is_some() {
            return Err(Problem::TotpEnabled);
        }
        let attempt = self.code_attempt(party.owner, origin).await?;
        let step = self.open_factor(&factor)?.step_of(code.expose_secret(), origin.at);
        let step = step.ok_or(Problem::WrongSecondFactor)?;
        attempt.succeeded();
        let (codes, digests) = self.recovery_codes();
        let confirmation = Confirmation { sealed: &factor.sealed, step, recovery: &digests, kept: session };
        let entry = origin.entry(party.actor(), "totp.enable", &party.username, json!({}));
        if !second_factors::confirm(&self.db, party.owner, &confirmation, &entry).await? {
            return Err(Problem::TotpNotEnrolled);
        }
        Ok(Json(Confirmed::new("Second factor enabled successfully", &codes)))
    }

    /// New recovery codes, and what is stored of them.
    pub(super) fn recovery_codes(&self) -> (Vec<Ticket>, Vec<TicketDigest>) {
        let codes: Vec<Ticket> = (0..RECOVERY_CODES).map(|_| Ticket::recovery()).collect();
        let digests = codes.iter().map(|code| code.digest(&self.code_key)).collect();
        (codes, digests)
    }

    async fn disable<K>(
        &self,
        who: SignedIn<K>,
        given: (SecretString, Offer),
        origin: &Origin,
    ) -> Result<Json<Done>, Problem> {
        let party = who.party;
        self.ask_owner(&party, who.since, given, origin).await.map_err(|problem| match problem {
            Problem::WrongPassword => Problem::WrongCredentials,
            other => other,
        })?;
        let entry = origin.entry(party.actor(), "totp.disable", &party.username, json!({}));
        second_factors::remove(&self.db, party.owner, &entry).await?;
        Ok(Json(Done { message: "Second factor disabled successfully" }))
    }
}

// === impl ConfirmTotp ===

impl Form for ConfirmTotp {
    type Checked = SecretString;

    fn check(self, _: &Control, found: &mut Violations) -> Option<SecretString> {
        found.required("totp_code", self.totp_code)
    }
}

// === impl DisableTotp ===

impl Form for DisableTotp {
    type Checked = (SecretString, Offer);

    fn check(self, _: &Control, found: &mut Violations) -> Option<Self::Checked> {
        let password = found.required("password", self.password)?;
        Some((password, Offer { totp_code: self.totp_code, recovery_code: self.recovery_code }))
    }
}
