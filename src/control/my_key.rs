//! A user's own `pe-` key: sealed for keeping, plain right after a login, new on demand.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::Control;
use super::caller::{Origin, UserSession};
use super::forms::Body;
use super::openapi::{refused, words};
use super::paging::Params;
use super::party::Party;
use super::problem::Problem;
use super::proof::{ProofForm, RECENT, is_recent};
use crate::clock::Timestamp;
use crate::credential::key::{Pepper, PlainKey};
use crate::credential::seal::Sealer;
use crate::ids::UserId;
use crate::store::audit::{Actor, Entry};
use crate::store::keys::{self, NewKey};

/// A key as its owner sees it. `api_key` is there only when it was asked for and the login is young.
#[derive(Serialize, ToSchema)]
#[schema(as = DefaultKey, example = json!({"key": "gAAAAABo3S3o…", "created_at": "2026-10-01T09:30:00Z"}))]
pub(super) struct ShownKey {
    /// The key as a Fernet token, which the installation can open.
    key: String,
    created_at: Timestamp,
    /// The key itself, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    api_key: Option<String>,
}

/// A key just made, and the row that will know it.
pub struct MadeKey {
    /// What its holder is told, once.
    pub plain: PlainKey,
    /// What is kept of it.
    pub row: NewKey,
}

/// Shows the default key of the caller.
///
/// Sealed as a Fernet token; with `reveal=true` also as it is.
#[utoipa::path(
    get,
    path = "/api/v1/auth/api-key",
    tag = "Keys",
    params(
        ("reveal" = Option<words::Flag>, Query, description = "Show the key itself; within five minutes of a login only."),
    ),
    responses(
        (status = 200, description = "The key.", body = ShownKey),
        refused::LoginTooOld, refused::NotFound,
    ),
)]
pub(super) async fn show_key(
    State(control): State<Arc<Control>>,
    session: UserSession,
    params: Params,
) -> Result<Json<ShownKey>, Problem> {
    let reveal = may_reveal(&params, &session, control.clock.now())?;
    let found = keys::current(&control.db, session.user.id).await?;
    let key = found.ok_or(Problem::NotFound("API key"))?;
    let api_key = if reveal { Some(control.open_key(&key.sealed)?) } else { None };
    Ok(Json(ShownKey { key: key.sealed, created_at: key.created_at, api_key }))
}

/// Gives the caller another default key.
///
/// The old one stops working at once. Where the account has a second factor it takes the password and a code,
/// or a login of the last five minutes.
#[utoipa::path(
    post,
    path = "/api/v1/auth/regenerate-key",
    tag = "Keys",
    params(
        ("reveal" = Option<words::Flag>, Query, description = "Show the key itself; within five minutes of a login only."),
    ),
    request_body = Option<ProofForm>,
    responses(
        (status = 200, description = "The new key.", body = ShownKey),
        refused::LoginTooOld, refused::PasswordRequired, refused::WrongPassword, refused::TotpRequired,
        refused::WrongSecondFactor, refused::TooManyLogins, refused::Busy,
    ),
)]
pub(super) async fn regenerate_key(
    State(control): State<Arc<Control>>,
    session: UserSession,
    origin: Origin,
    params: Params,
    Body(proof): Body<ProofForm>,
) -> Result<Json<ShownKey>, Problem> {
    let reveal = may_reveal(&params, &session, origin.at)?;
    let party = Party::from(session.user.clone());
    control.ask_proof_if_guarded(&party, session.since, proof, &origin).await?;
    let user = session.user;
    let actor = (Actor::User(user.id), user.username.as_str());
    let entry = origin.entry(actor, "key.regenerate", &user.username, json!({}));
    let made = control.replace_key(user.id, origin.at, &entry).await?;
    let api_key = reveal.then(|| made.plain.expose().to_owned());
    Ok(Json(ShownKey { key: made.row.sealed, created_at: origin.at, api_key }))
}

/// Whether the key itself is asked for, and the login young enough to show it.
pub(super) fn may_reveal(params: &Params, session: &UserSession, now: Timestamp) -> Result<bool, Problem> {
    params.only(&["reveal"])?;
    if !params.flag("reveal")? {
        return Ok(false);
    }
    if is_recent(session.since, now) { Ok(true) } else { Err(Problem::LoginTooOld { within: RECENT }) }
}

// === impl MadeKey ===

impl MadeKey {
    /// A new key, not yet anybody's.
    #[must_use]
    pub fn generate(pepper: &Pepper, sealer: &Sealer) -> Self {
        let plain = PlainKey::generate();
        let row = NewKey {
            digest: plain.digest(pepper),
            sealed: sealer.seal(plain.expose()),
            prefix: plain.prefix().to_owned(),
            format: plain.format().as_i64(),
        };
        Self { plain, row }
    }
}

// === impl Control ===

impl Control {
    /// A new key, not yet anybody's.
    pub(super) fn new_key(&self) -> MadeKey {
        MadeKey::generate(&self.pepper, &self.sealer)
    }

    /// Gives a user a new key in the old one's stead.
    pub(super) async fn replace_key(
        &self,
        user: UserId,
        now: Timestamp,
        entry: &Entry,
    ) -> Result<MadeKey, Problem> {
        let made = self.new_key();
        keys::replace(&self.db, user, &made.row, now, entry).await?;
        self.directory.forget_user(user);
        Ok(made)
    }

    /// The key under a seal.
    pub(super) fn open_key(&self, sealed: &str) -> Result<String, Problem> {
        match self.sealer.open(sealed) {
            Ok(plain) => Ok(plain.expose_secret().to_owned()),
            Err(error) => Err(Problem::Internal(error.to_string())),
        }
    }
}
