//! What is asked for beyond a password: a code of an authenticator app, or a recovery code; and an
//! e-mail address that is known to be its user's.
//!
//! Whoever is asked has shown the right password already, so the answers here may say what is missing.
//! Guesses are counted for each owner, apart from failed logins.

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::Control;
use super::backoff::Attempt;
use super::caller::Origin;
use super::party::Party;
use super::problem::Problem;
use crate::credential::ticket::Ticket;
use crate::credential::token::Audience;
use crate::credential::totp::TotpSecret;
use crate::ids::UserId;
use crate::store::mail_tokens;
use crate::store::second_factors::{self, SecondFactor};
use crate::store::sessions::Owner;

/// What somebody offers beyond their password.
#[derive(Default)]
pub(super) struct Offer {
    pub(super) totp_code: Option<SecretString>,
    pub(super) recovery_code: Option<SecretString>,
}

// === impl Control ===

impl Control {
    /// Passes where the party has no second factor, or the offer is good; a good one is used up.
    pub(super) async fn ask_second_factor(
        &self,
        party: &Party,
        offer: &Offer,
        origin: &Origin,
    ) -> Result<(), Problem> {
        let found = second_factors::of(&self.db, party.owner).await?;
        let Some(factor) = found.filter(|factor| factor.confirmed_at.is_some()) else { return Ok(()) };
        if offer.totp_code.is_none() && offer.recovery_code.is_none() {
            return Err(Problem::TotpRequired);
        }
        let attempt = self.code_attempt(party.owner, origin)?;
        match self.accepts(party, &factor, offer, origin).await {
            Ok(true) => {
                attempt.put_back();
                Ok(())
            }
            Ok(false) => {
                tracing::warn!(owner = %party.owner, "the password was right and the second factor wrong");
                self.record_wrong_factor(party, origin).await;
                Err(Problem::WrongSecondFactor)
            }
            Err(problem) => Err(attempt.unanswered(problem)),
        }
    }

    /// Passes where verified addresses are not wanted, or the user's is.
    pub(super) async fn ask_verified_email(&self, party: &Party) -> Result<(), Problem> {
        if !self.settings.require_verified_email {
            return Ok(());
        }
        let verified = mail_tokens::is_verified(&self.db, UserId(party.owner.subject)).await?;
        if verified { Ok(()) } else { Err(Problem::EmailNotVerified) }
    }

    /// Passes where the operator wants no second factor of this role, or there is one. Asked for each
    /// call, so that it holds for sessions that began before.
    pub(super) async fn wants_no_more_of(&self, owner: Owner) -> Result<(), Problem> {
        let wanted = match owner.audience {
            Audience::User => false,
            Audience::Staff => self.settings.require_totp.staff,
            Audience::Admin => self.settings.require_totp.admin,
        };
        if !wanted {
            return Ok(());
        }
        let found = second_factors::of(&self.db, owner).await?;
        let enabled = found.is_some_and(|factor| factor.confirmed_at.is_some());
        if enabled { Ok(()) } else { Err(Problem::TotpEnrolmentRequired) }
    }

    /// One guess at a code of `owner`.
    pub(super) fn code_attempt(&self, owner: Owner, origin: &Origin) -> Result<Attempt<'_>, Problem> {
        self.backoff.admit(&format!("second factor of {owner}"), origin.ip, self.clock.elapsed())
    }

    /// The secret as it was before it was sealed.
    pub(super) fn open_factor(&self, factor: &SecondFactor) -> Result<TotpSecret, Problem> {
        let opened = self.sealer.open(&factor.sealed);
        // After `serve --accept-lost-keys` no code is right any more; the owner needs another factor.
        let opened = opened.map_err(|error| {
            tracing::error!(%error, "second factor cannot be opened");
            Problem::WrongSecondFactor
        })?;
        let secret = TotpSecret::from_text(opened.expose_secret());
        secret.map_err(|error| Problem::Internal(error.to_string()))
    }

    async fn accepts(
        &self,
        party: &Party,
        factor: &SecondFactor,
        offer: &Offer,
        origin: &Origin,
    ) -> Result<bool, Problem> {
        if let Some(code) = &offer.totp_code {
            let step = self.open_factor(factor)?.step_of(code.expose_secret(), origin.at);
            let Some(step) = step else { return Ok(false) };
            return Ok(second_factors::accept_step(&self.db, party.owner, step).await?);
        }
        let code = offer.recovery_code.as_ref().and_then(Ticket::presented);
        let Some(code) = code else { return Ok(false) };
        let entry = origin.entry(party.actor(), "totp.recovery_code", &party.username, json!({}));
        let digest = code.digest(&self.code_key);
        Ok(second_factors::use_code(&self.db, party.owner, &digest, &entry).await?)
    }
}
