//! Proof that the caller is the account's owner, asked for before a call that gives lasting access.
//!
//! An access token may be stolen, and lives for half an hour. So it alone enrols no second factor and makes no
//! keys: such a call takes the account's password (and a code, where the account has a second factor), or a
//! login younger than [`RECENT`]. Renewing a session is no login.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use http::request::Parts;
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;

use super::Control;
use super::caller::{self, Origin};
use super::forms::Form;
use super::openapi::words;
use super::party::Party;
use super::problem::Problem;
use super::second_factor::Offer;
use super::violations::Violations;
use crate::clock::Timestamp;
use crate::store::admins::Admin;
use crate::store::second_factors;
use crate::store::sessions::Owner;

/// Proof that the caller owns the account. Within five minutes of a login nothing is needed.
#[derive(Deserialize, ToSchema)]
#[schema(as = Proof, example = json!({"password": "correct-horse-7"}))]
#[serde(deny_unknown_fields)]
pub(super) struct ProofForm {
    /// Of the caller.
    #[schema(value_type = Option<words::Password>)]
    password: Option<SecretString>,
    /// Beside the password, where the account has a second factor.
    #[schema(value_type = Option<words::TotpCode>)]
    totp_code: Option<SecretString>,
    /// Instead of a code of the app.
    #[schema(value_type = Option<words::RecoveryCode>)]
    recovery_code: Option<SecretString>,
}

/// What a call offers as proof.
#[derive(Default)]
pub(super) struct Proof {
    pub(super) password: Option<SecretString>,
    pub(super) offer: Offer,
}

/// An admin whose login is recent; with `ALWAYS = false`, only if the admin has a second factor.
pub(super) struct RecentAdmin<const ALWAYS: bool = true>(pub(super) Admin);

/// How long after a login no further proof is needed.
pub(super) const RECENT: Duration = Duration::from_mins(5);

/// Whether a login at `login` still counts as proof.
pub(super) fn is_recent(login: Timestamp, now: Timestamp) -> bool {
    now.since(login) < RECENT
}

// === impl Proof ===

impl Proof {
    /// The proof in the fields of a form.
    pub(super) fn new(
        password: Option<SecretString>,
        totp_code: Option<SecretString>,
        recovery_code: Option<SecretString>,
    ) -> Self {
        Self { password, offer: Offer { totp_code, recovery_code } }
    }
}

// === impl ProofForm ===

impl Form for ProofForm {
    type Checked = Proof;
    const MAY_BE_LEFT_OUT: bool = true;

    fn check(self, _: &Control, _: &mut Violations) -> Option<Proof> {
        Some(Proof::new(self.password, self.totp_code, self.recovery_code))
    }
}

// === impl RecentAdmin ===

impl<const ALWAYS: bool> FromRequestParts<Arc<Control>> for RecentAdmin<ALWAYS> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, control: &Arc<Control>) -> Result<Self, Problem> {
        let (admin, login) = caller::admin(parts, control).await?;
        let asked = ALWAYS || control.has_second_factor(Owner::admin(admin.id)).await?;
        if asked && !is_recent(login, control.clock.now()) {
            return Err(Problem::LoginTooOld { within: RECENT });
        }
        Ok(Self(admin))
    }
}

// === impl Control ===

impl Control {
    /// Accepts a recent login, or the password with a code where there is a second factor.
    pub(super) async fn ask_proof(
        &self,
        party: &Party,
        login: Timestamp,
        proof: Proof,
        origin: &Origin,
    ) -> Result<(), Problem> {
        match proof.password {
            Some(password) => self.ask_owner(party, login, (password, proof.offer), origin).await,
            None if is_recent(login, origin.at) => Ok(()),
            None => {
                let second_factor = self.has_second_factor(party.owner).await?;
                Err(Problem::PasswordRequired { second_factor, within: RECENT })
            }
        }
    }

    /// [`Control::ask_proof`] only where the account has a second factor: for calls that older clients make
    /// without any proof.
    pub(super) async fn ask_proof_if_guarded(
        &self,
        party: &Party,
        login: Timestamp,
        proof: Proof,
        origin: &Origin,
    ) -> Result<(), Problem> {
        if self.has_second_factor(party.owner).await? {
            self.ask_proof(party, login, proof, origin).await
        } else {
            Ok(())
        }
    }

    /// Takes the password in any case, and a code unless the login is recent. A wrong password counts as a
    /// failed login.
    pub(super) async fn ask_owner(
        &self,
        party: &Party,
        login: Timestamp,
        (password, offer): (SecretString, Offer),
        origin: &Origin,
    ) -> Result<(), Problem> {
        let attempt = self.attempt(party.owner.audience, &party.login, origin).await?;
        match self.prove(password, Some(party.password_hash.clone()), attempt).await {
            Ok(_) if is_recent(login, origin.at) => Ok(()),
            Ok(_) => self.ask_second_factor(party, &offer, origin).await,
            Err(Problem::WrongCredentials) => Err(Problem::WrongPassword),
            Err(other) => Err(other),
        }
    }

    /// Whether a second factor is asked for at the owner's logins.
    pub(super) async fn has_second_factor(&self, owner: Owner) -> Result<bool, Problem> {
        let found = second_factors::of(&self.db, owner).await?;
        Ok(found.is_some_and(|factor| factor.confirmed_at.is_some()))
    }
}
