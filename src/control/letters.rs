//! Tokens by mail, and what they open: an e-mail address is verified, a forgotten password replaced.
//!
//! Who asks for a letter learns nothing of whose address it is: the request is only noted, and all that
//! depends on an account happens behind, after the answer. Who shows a token is answered alike, and
//! after the same work, whether account, token, or neither are there.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::Control;
use super::backoff::{Attempt, Guarded};
use super::caller::Origin;
use super::forms::{Body, Form};
use super::me::Done;
use super::my_account::PasswordChanged;
use super::openapi::{refused, words};
use super::passwords::Urgency;
use super::problem::Problem;
use super::violations::Violations;
use crate::background::Background;
use crate::credential::password::Password;
use crate::credential::ticket::Ticket;
use crate::notify::mail::{Letter, Mailer};
use crate::store::audit::Actor;
use crate::store::mail_tokens::{self, Purpose, Shown};
use crate::store::users;

/// Where letters are asked for: a bounded number at a time, behind.
pub struct Letters {
    mailer: Mailer,
    background: Background,
    places: Arc<Semaphore>,
}

/// Who wants a letter.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"email": "ann@example.com"}))]
#[serde(deny_unknown_fields)]
pub(super) struct AskForLetter {
    /// Where the letter goes, if it is an account's.
    #[schema(value_type = words::Email)]
    email: Option<String>,
}

/// What shows that one reads an address.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"email": "ann@example.com", "token": "7hKpWx3mRt9cVbN2qZsD"}))]
#[serde(deny_unknown_fields)]
pub(super) struct ConfirmEmail {
    /// The address the letter went to.
    #[schema(value_type = words::Email)]
    email: Option<String>,
    /// From the letter.
    #[schema(value_type = words::MailToken)]
    token: Option<SecretString>,
}

/// Another password, by a letter.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({
    "email": "ann@example.com", "token": "7hKpWx3mRt9cVbN2qZsD",
    "new_password": "correct-horse-7", "confirm_new_password": "correct-horse-7",
}))]
#[serde(deny_unknown_fields)]
pub(super) struct ConfirmReset {
    /// The address the letter went to.
    #[schema(value_type = words::Email)]
    email: Option<String>,
    /// From the letter.
    #[schema(value_type = words::MailToken)]
    token: Option<SecretString>,
    #[schema(value_type = words::NewPassword)]
    new_password: Option<SecretString>,
    /// The same once more.
    #[schema(value_type = words::NewPassword)]
    confirm_new_password: Option<SecretString>,
    /// True ends every key of the account too: choose it where somebody else may have made one. They end in any case
    /// where the account was marked as taken over.
    revoke_keys: Option<bool>,
}

/// Somebody who has read a letter, or says so.
pub(super) struct Reader {
    email: String,
    token: Ticket,
}

/// Letters that may be in the making at a time.
const PLACES: usize = 64;
/// How long a token is good.
pub(super) const GOOD_FOR: Duration = Duration::from_mins(30);
const ASKED: Done = Done { message: "If the address belongs to an account, a letter is on its way" };

/// Asks for a letter that verifies an address.
///
/// The answer is the same whether or not the address belongs to an account.
#[utoipa::path(
    post,
    path = "/api/v1/auth/verify-email/request",
    tag = "Account",
    request_body = AskForLetter,
    responses(
        (status = 202, description = "Taken, whether or not the address is anybody's.", body = Done),
        refused::MailOff, refused::TooManyLogins, refused::Busy,
    ),
)]
pub(super) async fn request_email_verification(
    State(control): State<Arc<Control>>,
    origin: Origin,
    Body(email): Body<AskForLetter>,
) -> Result<(StatusCode, Json<Done>), Problem> {
    control.ask_for_letter(Purpose::VerifyEmail, email, &origin).await
}

/// Asks for a letter that lets one choose another password.
///
/// The answer is the same whether or not the address belongs to an account.
#[utoipa::path(
    post,
    path = "/api/v1/auth/password-reset/request",
    tag = "Account",
    request_body = AskForLetter,
    responses(
        (status = 202, description = "Taken, whether or not the address is anybody's.", body = Done),
        refused::MailOff, refused::TooManyLogins, refused::Busy,
    ),
)]
pub(super) async fn request_password_reset(
    State(control): State<Arc<Control>>,
    origin: Origin,
    Body(email): Body<AskForLetter>,
) -> Result<(StatusCode, Json<Done>), Problem> {
    control.ask_for_letter(Purpose::ResetPassword, email, &origin).await
}

/// Verifies an address with the token of a letter.
///
/// A token is good once, for thirty minutes. Where registration is by mail this opens the account, and makes another
/// address of an account hold, which ends its sessions.
#[utoipa::path(
    post,
    path = "/api/v1/auth/verify-email/confirm",
    tag = "Account",
    request_body = ConfirmEmail,
    responses(
        (status = 200, description = "The address is verified.", body = Done),
        refused::WrongMailToken, refused::Taken, refused::NotFound, refused::TooManyLogins,
    ),
)]
pub(super) async fn confirm_email_verification(
    State(control): State<Arc<Control>>,
    origin: Origin,
    Body(reader): Body<ConfirmEmail>,
) -> Result<Json<Done>, Problem> {
    let attempt = control.token_attempt(Purpose::VerifyEmail, &reader.email, &origin).await?;
    let token = reader.token.digest(&control.code_key);
    let shown = Shown { email: &reader.email, token: &token };
    let entry = origin.entry((Actor::Nobody, ""), "user.verify_email", "", json!({}));
    match mail_tokens::verify_email(&control.db, shown, &entry).await {
        Ok(Some(_)) => attempt.put_back(),
        Ok(None) => match control.confirm_pending(shown, &origin).await {
            Ok(true) => attempt.put_back(),
            Ok(false) => return Err(Problem::WrongMailToken),
            Err(problem) => return Err(attempt.unanswered(problem)),
        },
        Err(error) => return Err(attempt.unanswered(error.into())),
    }
    Ok(Json(Done { message: "E-mail address verified successfully" }))
}

/// Chooses another password with the token of a letter.
///
/// Every session of the user ends, and with `revoke_keys` every key, so that nothing made before lives on.
#[utoipa::path(
    post,
    path = "/api/v1/auth/password-reset/confirm",
    tag = "Account",
    request_body = ConfirmReset,
    responses(
        (status = 200, description = "The password is another.", body = PasswordChanged),
        refused::WrongMailToken, refused::TooManyLogins, refused::Busy,
    ),
)]
pub(super) async fn confirm_password_reset(
    State(control): State<Arc<Control>>,
    origin: Origin,
    Body((reader, password, revoke_keys)): Body<ConfirmReset>,
) -> Result<Json<PasswordChanged>, Problem> {
    let attempt = control.token_attempt(Purpose::ResetPassword, &reader.email, &origin).await?;
    let hash = match control.passwords.hash(password, Urgency::Later).await {
        Ok(hash) => hash,
        Err(problem) => return Err(attempt.unanswered(problem)),
    };
    let token = reader.token.digest(&control.code_key);
    let shown = Shown { email: &reader.email, token: &token };
    let entry = origin.entry((Actor::Nobody, ""), "user.reset_password", "", json!({}));
    let keys_revoked =
        match mail_tokens::reset_password(&control.db, shown, (hash.as_str(), revoke_keys), &entry).await {
            Ok(Some((user, keys_revoked))) => {
                control.directory.forget_user(user);
                keys_revoked
            }
            Ok(None) => return Err(Problem::WrongMailToken),
            Err(error) => return Err(attempt.unanswered(error.into())),
        };
    attempt.put_back();
    Ok(Json(PasswordChanged::new(keys_revoked)))
}

// === impl Letters ===

impl Letters {
    /// Letters are written on `background` and handed to `mailer`.
    #[must_use]
    pub fn new(mailer: Mailer, background: Background) -> Self {
        Self { mailer, background, places: Arc::new(Semaphore::new(PLACES)) }
    }

    /// Does `work`, which writes a letter, behind the answer.
    pub(super) fn behind(
        &self,
        purpose: &'static str,
        work: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> Result<(), Problem> {
        if !self.mailer.is_on() {
            return Err(Problem::MailOff);
        }
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| Problem::Busy("too many letters are being written"))?;
        self.background.spawn(async move {
            if let Err(error) = work.await {
                tracing::error!(%error, purpose, "a letter was not written");
            }
            drop(place);
        });
        Ok(())
    }

    /// Hands a letter over to be sent.
    pub(super) fn send(&self, letter: Letter) -> anyhow::Result<()> {
        Ok(self.mailer.send(letter)?)
    }
}

// === impl Control ===

impl Control {
    /// Has a token sent to this address, if it is an active account's. Returns at once and says
    /// nothing of whether it is.
    pub(super) fn send_token(self: &Arc<Self>, purpose: Purpose, email: String) -> Result<(), Problem> {
        let control = Arc::clone(self);
        self.letters.behind(purpose.as_str(), async move { control.write_letter(purpose, &email).await })
    }

    async fn ask_for_letter(
        self: &Arc<Self>,
        purpose: Purpose,
        email: String,
        origin: &Origin,
    ) -> Result<(StatusCode, Json<Done>), Problem> {
        // Never given back: nobody's mailbox is filled by strangers.
        let account = format!("{}:{email}", purpose.as_str());
        let counted = self.backoff.admit(Guarded::Letter, &account, origin.ip, &self.clock).await?;
        // Enough letters are on their way: a stranger who asked for them keeps nobody from their answer.
        if !counted.is_braked() || !self.letters.mailer.is_on() {
            self.send_token(purpose, email)?;
        }
        Ok((StatusCode::ACCEPTED, Json(ASKED)))
    }

    async fn token_attempt(
        &self,
        purpose: Purpose,
        email: &str,
        origin: &Origin,
    ) -> Result<Attempt<'_>, Problem> {
        let account = format!("{}:{email}", purpose.as_str());
        self.backoff.admit(Guarded::MailToken, &account, origin.ip, &self.clock).await
    }

    async fn write_letter(&self, purpose: Purpose, email: &str) -> anyhow::Result<()> {
        let found = users::by_email(&self.db, email).await?.filter(|user| user.is_active);
        let Some(user) = found else { return Ok(()) };
        if purpose == Purpose::VerifyEmail && mail_tokens::is_verified(&self.db, user.id).await? {
            return Ok(());
        }
        let token = Ticket::mailed();
        let (digest, expires_at) = (token.digest(&self.code_key), self.clock.now().plus(GOOD_FOR));
        mail_tokens::keep(&self.db, user.id, purpose, (&user.email, &digest), expires_at).await?;
        self.letters.mailer.send(letter(purpose, user.email, &user.username, &token))?;
        Ok(())
    }
}

/// Nothing in it is of a user's own choosing but their name, which has letters and digits only: nobody
/// sends their words to others through us.
fn letter(purpose: Purpose, to: String, username: &str, token: &Ticket) -> Letter {
    let (subject, wish, path) = match purpose {
        Purpose::VerifyEmail => (
            "Verify your e-mail address",
            "this address was given as yours. To confirm that it is",
            "verify-email/confirm",
        ),
        Purpose::ResetPassword => {
            ("Reset your password", "another password was asked for. To choose one", "password-reset/confirm")
        }
    };
    let more = match purpose {
        Purpose::VerifyEmail => "",
        Purpose::ResetPassword => {
            "With \"revoke_keys\": true every key of the account ends too: choose it where somebody else may have had \
             the account in hand.\n\n"
        }
    };
    let token = token.expose();
    let text = format!(
        "Hello {username},\n\n{wish}, use this token within 30 minutes, once:\n\n    {token}\n\n\
         It is the \"token\" of POST /api/v1/auth/{path}, together with your \"email\".\n\n{more}\
         If it was not you who asked, do nothing; your account stays as it is.\n"
    );
    Letter { to, subject, text }
}

// === forms ===

impl Form for AskForLetter {
    type Checked = String;

    fn check(self, _: &Control, found: &mut Violations) -> Option<String> {
        let email = found.required("email", self.email);
        found.email("email", email)
    }
}

impl Form for ConfirmEmail {
    type Checked = Reader;

    fn check(self, _: &Control, found: &mut Violations) -> Option<Reader> {
        reader(self.email, self.token, found)
    }
}

impl Form for ConfirmReset {
    type Checked = (Reader, Password, bool);

    fn check(self, _: &Control, found: &mut Violations) -> Option<Self::Checked> {
        let reader = reader(self.email, self.token, found);
        let password = found.required("new_password", self.new_password);
        let repeated = found.required("confirm_new_password", self.confirm_new_password);
        if let (Some(one), Some(two)) = (&password, &repeated)
            && one.expose_secret() != two.expose_secret()
        {
            found.refuse("confirm_new_password", "Passwords do not match");
        }
        let password = password.and_then(|text| found.new_password("new_password", text));
        Some((reader?, password?, self.revoke_keys.unwrap_or(false)))
    }
}

fn reader(email: Option<String>, token: Option<SecretString>, found: &mut Violations) -> Option<Reader> {
    let email = found.required("email", email);
    let email = found.email("email", email);
    let token = found.required("token", token)?;
    let ticket = Ticket::presented(&token);
    if ticket.is_none() {
        found.refuse("token", "String should be the token of a letter");
    }
    Some(Reader { email: email?, token: ticket? })
}
