//! Accounts that open, and addresses that change, only by a letter (`security.registration_by_mail`).
//!
//! Who registers learns nothing of whose e-mail address is known. Whether it is, the same work is done before the
//! answer: a password is hashed, a row is written, and a letter is on its way, with a token or with the news that there
//! is an account already. The name is not taken before the letter is confirmed, so it tells nothing either.

use std::sync::Arc;

use axum::Json;
use http::StatusCode;
use serde_json::json;

use super::Control;
use super::backoff::{Attempt, Guarded};
use super::caller::Origin;
use super::letters::GOOD_FOR;
use super::me::Done;
use super::passwords::Urgency;
use super::problem::Problem;
use super::register::{Registrant, beginning, newcomer};
use crate::credential::password::PasswordHash;
use crate::credential::ticket::Ticket;
use crate::ids::UserId;
use crate::notify::mail::Letter;
use crate::store::accounts::InsertAccount;
use crate::store::audit::Actor;
use crate::store::mail_tokens::Shown;
use crate::store::registrations::{self, KeepPending, Pending};
use crate::store::users::{self, NewUser};

const REGISTERED: Done =
    Done { message: "If the e-mail address is free, a message that opens the account is on its way" };
const CHANGING: Done = Done {
    message: "If the e-mail address is free, a message is on its way to it; it is yours once you confirm it",
};

// === impl Control ===

impl Control {
    /// Registers somebody whose account opens once they confirm a letter.
    pub(super) async fn register_by_mail(
        self: &Arc<Self>,
        registrant: Registrant,
        origin: &Origin,
    ) -> Result<(StatusCode, Json<Done>), Problem> {
        let is_known = match users::are_free(&self.db, &registrant.username, &registrant.email).await {
            Ok(()) => false,
            Err(InsertAccount::EmailTaken) => true,
            Err(error) => return Err(error.into()),
        };
        let counted = self.letter_attempt("register", &registrant.email, origin).await?;
        let place = self.backoff.admit(Guarded::Registration, "", origin.ip, &self.clock).await?;
        let hash = self.passwords.hash(registrant.password, Urgency::Later).await;
        place.put_back();
        let pending = Pending {
            username: registrant.username,
            name: registrant.name,
            email: registrant.email,
            password_hash: hash?.as_str().to_owned(),
            about_me: registrant.about_me,
            hobbies: registrant.hobbies,
            kind: registrant.kind,
        };
        let token = Ticket::mailed();
        let digest = token.digest(&self.code_key);
        registrations::keep(&self.db, &pending, &digest, (origin.at, origin.at.plus(GOOD_FOR))).await?;
        if !counted.is_braked() {
            let Pending { username, email, .. } = pending;
            self.write_to(email, is_known, move |to| opening(to, &username, &token))?;
        }
        Ok((StatusCode::ACCEPTED, Json(REGISTERED)))
    }

    /// Gives a user another address once they confirm a letter to it.
    pub(super) async fn change_email_by_mail(
        self: &Arc<Self>,
        (user, username): (UserId, String),
        email: String,
        origin: &Origin,
    ) -> Result<(StatusCode, Json<Done>), Problem> {
        let is_known = users::by_email(&self.db, &email).await?.is_some();
        let counted = self.letter_attempt("change-email", &email, origin).await?;
        let token = Ticket::mailed();
        let digest = token.digest(&self.code_key);
        registrations::keep_change(&self.db, user, (&email, &digest), origin.at.plus(GOOD_FOR)).await?;
        if !counted.is_braked() {
            self.write_to(email, is_known, move |to| changing(to, &username, &token))?;
        }
        Ok((StatusCode::ACCEPTED, Json(CHANGING)))
    }

    /// Opens the account, or makes the address hold, that this token confirms; `false` where it confirms neither.
    pub(super) async fn confirm_pending(&self, shown: Shown<'_>, origin: &Origin) -> Result<bool, Problem> {
        if !self.settings.registration_by_mail {
            return Ok(false);
        }
        let complete = |pending: Pending| {
            let Pending { username, name, email, password_hash, about_me, hobbies, kind } = pending;
            let hash = PasswordHash::from_stored(password_hash);
            let user = NewUser { about_me, hobbies, kind, ..newcomer(username, name, email, &hash) };
            (beginning(user, &self.digests, &self.plans, &self.clock), self.new_key().row)
        };
        let entry = origin.entry((Actor::Nobody, ""), "user.register", "", json!({ "by_mail": true }));
        if registrations::open(&self.db, shown, complete, &entry).await?.is_some() {
            return Ok(true);
        }
        let entry = origin.entry((Actor::Nobody, ""), "user.change_email", "", json!({ "by_mail": true }));
        let given_up = |email: &str| self.names(vec![self.digests.of_email(email)]);
        let changed = registrations::change_email(&self.db, shown, given_up, &entry).await?;
        if let Some(user) = changed {
            self.forget_user(user);
        }
        Ok(changed.is_some())
    }

    /// Counts a letter to this address; it is never given back, so that nobody's mailbox is filled.
    async fn letter_attempt(&self, what: &str, email: &str, origin: &Origin) -> Result<Attempt<'_>, Problem> {
        self.backoff.admit(Guarded::Letter, &format!("{what}:{email}"), origin.ip, &self.clock).await
    }

    /// Writes behind the answer: to who may have the address, or to who has an account with it.
    fn write_to(
        self: &Arc<Self>,
        email: String,
        is_known: bool,
        with_token: impl FnOnce(String) -> Letter + Send + 'static,
    ) -> Result<(), Problem> {
        let control = Arc::clone(self);
        self.letters.behind("registration", async move {
            let letter = if is_known {
                let Some(owner) = users::by_email(&control.db, &email).await? else { return Ok(()) };
                known(owner.email, &owner.username)
            } else {
                with_token(email)
            };
            control.letters.send(letter)
        })
    }
}

impl From<KeepPending> for Problem {
    fn from(error: KeepPending) -> Self {
        match error {
            KeepPending::TooMany => Self::Busy("too many registrations wait for confirmation"),
            KeepPending::Store(error) => error.into(),
        }
    }
}

fn opening(to: String, username: &str, token: &Ticket) -> Letter {
    confirming(
        to,
        username,
        "Open your account",
        "this address was given for a new account. To open it",
        token,
    )
}

fn changing(to: String, username: &str, token: &Ticket) -> Letter {
    confirming(
        to,
        username,
        "Confirm your e-mail address",
        "this is to be the new address of your account. To confirm it",
        token,
    )
}

fn confirming(to: String, username: &str, subject: &'static str, wish: &str, token: &Ticket) -> Letter {
    let token = token.expose();
    let text = format!(
        "Hello {username},\n\n{wish}, use this token within 30 minutes, once:\n\n    {token}\n\n\
         It is the \"token\" of POST /api/v1/auth/verify-email/confirm, together with your \"email\".\n\n\
         If it was not you who asked, do nothing.\n"
    );
    Letter { to, subject, text }
}

fn known(to: String, username: &str) -> Letter {
    let text = format!(
        "Hello {username},\n\nthis address was given for a new account or as another account's, and it is yours already. \
         Nothing was changed.\n\nIf it was you, log in with it; POST /api/v1/auth/password-reset/request is the way to \
         another password. If it was not you, do nothing.\n"
    );
    Letter { to, subject: "You have an account already", text }
}
