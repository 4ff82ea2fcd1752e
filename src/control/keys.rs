//! `/api/v1/auth/keys`: several keys of one user, each with a name, an end, and rules of its own. The one
//! named `default` is the one old clients know.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::Control;
use super::caller::{AdminSession, Origin, UserSession};
use super::forms::Body;
use super::me::Done;
use super::my_key::may_reveal;
use super::openapi::{refused, words};
use super::paging::Params;
use super::party::Party;
use super::paths::Path;
use super::problem::Problem;
use super::proof::Proof;
use crate::clock::Timestamp;
use crate::ids::KeyId;
use crate::store::audit::Actor;
use crate::store::keys::Key;
use crate::store::keys::named::{self, Change, KeyError};
use crate::store::users::User;

mod form;

use form::{ChangeForm, KeyForm, RotationForm};

/// A key as its owner and the admin see it.
#[derive(Serialize, ToSchema)]
#[schema(as = Key, example = json!({
    "id": "17", "name": "laptop", "label": "Ann's laptop", "prefix": "pe-0123", "created_at": "2026-10-01T09:30:00Z",
    "last_used_at": null, "expires_at": "2027-01-01T00:00:00Z", "allowed_ips": ["203.0.113.0/24"], "plan": null,
    "previous_expires_at": null,
}))]
pub(super) struct KeyTold {
    /// A number, as text.
    id: String,
    /// Unique among the keys of the account; `default` is the one that older clients know.
    name: String,
    /// A note of the owner's.
    label: String,
    /// The first characters of the key.
    prefix: String,
    created_at: Timestamp,
    /// To the minute; `null` until it is used.
    #[schema(required = true)]
    last_used_at: Option<Timestamp>,
    /// `null` where it does not end.
    #[schema(required = true)]
    expires_at: Option<Timestamp>,
    /// From where it may be used; from everywhere where there are none.
    allowed_ips: Vec<String>,
    /// The plan it is narrowed to, if any.
    #[schema(required = true)]
    plan: Option<String>,
    /// Until when the secret before the last rotation works.
    #[schema(required = true)]
    previous_expires_at: Option<Timestamp>,
    /// The key itself, when it was just made or asked for right after a login.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    api_key: Option<String>,
}

/// Lists the keys of the caller.
///
/// Never the keys themselves.
#[utoipa::path(
    get,
    path = "/api/v1/auth/keys",
    tag = "Keys",
    responses((status = 200, description = "All of them.", body = Vec<KeyTold>)),
)]
pub(super) async fn list_keys(
    State(control): State<Arc<Control>>,
    session: UserSession,
) -> Result<Json<Vec<KeyTold>>, Problem> {
    Ok(Json(control.keys_of(&session.user).await?))
}

/// Makes another key for the caller.
///
/// It may end, be bound to addresses, and be narrowed to a plan. The key itself is told only here and
/// within five minutes of a login. Takes the password (and a code, where there is a second factor), or a login
/// of the last five minutes.
#[utoipa::path(
    post,
    path = "/api/v1/auth/keys",
    tag = "Keys",
    request_body = KeyForm,
    responses(
        (status = 201, description = "The key.", body = KeyTold), refused::Taken,
        refused::PasswordRequired, refused::WrongPassword, refused::TotpRequired, refused::WrongSecondFactor,
        refused::TooManyLogins, refused::Busy,
    ),
)]
pub(super) async fn create_key(
    State(control): State<Arc<Control>>,
    session: UserSession,
    origin: Origin,
    Body((rules, proof)): Body<KeyForm>,
) -> Result<(StatusCode, Json<KeyTold>), Problem> {
    let user = control.proven(session, proof, &origin).await?;
    let made = control.new_key();
    let entry = origin.entry(of(&user), "key.create", &user.username, json!({ "name": rules.name }));
    let id = named::create(&control.db, user.id, (&made.row, &rules), origin.at, &entry).await?;
    let key = control.key_of(&user, id).await?;
    Ok((StatusCode::CREATED, Json(control.told(key, Some(made.plain.expose().to_owned())))))
}

/// Shows a key of the caller.
///
/// With `reveal=true` the key itself too.
#[utoipa::path(
    get,
    path = "/api/v1/auth/keys/{id}",
    tag = "Keys",
    params(
        ("id" = inline(words::RowNumber), Path, description = "The `id` of the key."),
        ("reveal" = Option<words::Flag>, Query, description = "Show the key itself; within five minutes of a login only."),
    ),
    responses(
        (status = 200, description = "The key.", body = KeyTold),
        refused::LoginTooOld, refused::NotFound,
    ),
)]
pub(super) async fn get_key(
    State(control): State<Arc<Control>>,
    session: UserSession,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<KeyTold>, Problem> {
    let reveal = may_reveal(&params, &session, control.clock.now())?;
    let key = control.key_of(&session.user, key_id(&id)?).await?;
    let api_key = if reveal { Some(control.open_key(&key.sealed)?) } else { None };
    Ok(Json(control.told(key, api_key)))
}

/// Changes a key of the caller.
///
/// What is not named stays; `null` takes an end or a plan away. The default key keeps its name. Whatever lets
/// the key do more takes the password (and a code), or a login of the last five minutes; a name and a label do not.
#[utoipa::path(
    put,
    path = "/api/v1/auth/keys/{id}",
    tag = "Keys",
    params(("id" = inline(words::RowNumber), Path, description = "The `id` of the key.")),
    request_body = ChangeForm,
    responses(
        (status = 200, description = "The key, changed.", body = KeyTold),
        refused::NotFound, refused::Taken,
        refused::PasswordRequired, refused::WrongPassword, refused::TotpRequired, refused::WrongSecondFactor,
        refused::TooManyLogins, refused::Busy,
    ),
)]
pub(super) async fn update_key(
    State(control): State<Arc<Control>>,
    session: UserSession,
    origin: Origin,
    Path(id): Path<String>,
    Body((change, proof)): Body<ChangeForm>,
) -> Result<Json<KeyTold>, Problem> {
    let id = key_id(&id)?;
    let user = if change.reaches() { control.proven(session, proof, &origin).await? } else { session.user };
    let key = control.key_of(&user, id).await?;
    if key.is_default() && change.name.as_deref().is_some_and(|name| name != key.name) {
        return Err(form::default_keeps_its_name());
    }
    let detail = json!({ "key": id, "name": key.name, "fields": fields(&change) });
    let entry = origin.entry(of(&user), "key.update", &user.username, detail);
    named::update(&control.db, (user.id, id), &change, &entry).await?;
    control.directory.forget_user(user.id);
    let changed = control.key_of(&user, id).await?;
    Ok(Json(control.told(changed, None)))
}

/// Gives a key of the caller another secret.
///
/// At once, under the same `id`. The old secret works on for `grace_period` seconds. Takes the password (and a
/// code, where there is a second factor), or a login of the last five minutes.
#[utoipa::path(
    post,
    path = "/api/v1/auth/keys/{id}/rotate",
    tag = "Keys",
    params(("id" = inline(words::RowNumber), Path, description = "The `id` of the key.")),
    request_body = RotationForm,
    responses(
        (status = 200, description = "The key, with its new secret.", body = KeyTold),
        refused::NotFound,
        refused::PasswordRequired, refused::WrongPassword, refused::TotpRequired, refused::WrongSecondFactor,
        refused::TooManyLogins, refused::Busy,
    ),
)]
pub(super) async fn rotate_key(
    State(control): State<Arc<Control>>,
    session: UserSession,
    origin: Origin,
    Path(id): Path<String>,
    Body((grace, proof)): Body<RotationForm>,
) -> Result<Json<KeyTold>, Problem> {
    let id = key_id(&id)?;
    let user = control.proven(session, proof, &origin).await?;
    let key = control.key_of(&user, id).await?;
    let made = control.new_key();
    let former_until = (grace > Duration::ZERO).then(|| origin.at.plus(grace));
    let detail = json!({ "key": id, "name": key.name, "grace_period": grace.as_secs() });
    let entry = origin.entry(of(&user), "key.rotate", &user.username, detail);
    named::rotate(&control.db, (user.id, id), &made.row, former_until, &entry).await?;
    control.directory.forget_user(user.id);
    let rotated = control.key_of(&user, id).await?;
    Ok(Json(control.told(rotated, Some(made.plain.expose().to_owned()))))
}

/// Revokes a key of the caller.
///
/// It stops working at once, for good.
#[utoipa::path(
    delete,
    path = "/api/v1/auth/keys/{id}",
    tag = "Keys",
    params(("id" = inline(words::RowNumber), Path, description = "The `id` of the key.")),
    responses((status = 200, description = "The key is dead.", body = Done), refused::NotFound),
)]
pub(super) async fn revoke_key(
    State(control): State<Arc<Control>>,
    session: UserSession,
    origin: Origin,
    Path(id): Path<String>,
) -> Result<Json<Done>, Problem> {
    let user = session.user;
    control.revoke_key(&user, &id, of(&user), &origin).await
}

/// Lists the keys of a user.
///
/// Never the keys themselves.
#[utoipa::path(
    get,
    path = "/api/v1/admin/users/{username}/keys",
    tag = "Admin: users",
    params(("username" = inline(words::Username), Path, description = "Whose account.")),
    responses((status = 200, description = "All of them.", body = Vec<KeyTold>), refused::NotFound),
)]
pub(super) async fn list_user_keys(
    State(control): State<Arc<Control>>,
    _: AdminSession,
    Path(username): Path<String>,
) -> Result<Json<Vec<KeyTold>>, Problem> {
    let user = control.user_named(&username).await?;
    Ok(Json(control.keys_of(&user).await?))
}

/// Revokes a key of a user.
///
/// It stops working at once, for good.
#[utoipa::path(
    delete,
    path = "/api/v1/admin/users/{username}/keys/{id}",
    tag = "Admin: users",
    params(
        ("username" = inline(words::Username), Path, description = "Whose account."),
        ("id" = inline(words::RowNumber), Path, description = "The `id` of the key."),
    ),
    responses((status = 200, description = "The key is dead.", body = Done), refused::NotFound),
)]
pub(super) async fn revoke_user_key(
    State(control): State<Arc<Control>>,
    AdminSession(admin): AdminSession,
    origin: Origin,
    Path((username, id)): Path<(String, String)>,
) -> Result<Json<Done>, Problem> {
    let user = control.user_named(&username).await?;
    control.revoke_key(&user, &id, (Actor::Admin(admin.id), &admin.username), &origin).await
}

fn of(user: &User) -> (Actor, &str) {
    (Actor::User(user.id), user.username.as_str())
}

/// What cannot be a number names no key.
fn key_id(text: &str) -> Result<KeyId, Problem> {
    text.parse().map(KeyId).map_err(|_| Problem::NotFound("API key"))
}

/// The names of what is changed, for the audit trail, which keeps no values.
fn fields(change: &Change) -> Vec<&'static str> {
    let named = [
        ("name", change.name.is_some()),
        ("label", change.label.is_some()),
        ("expires_at", change.expires_at.is_change()),
        ("allowed_ips", change.allowed_ips.is_some()),
        ("plan", change.plan.is_change()),
    ];
    named.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
}

// === impl Control ===

impl Control {
    /// The user of a session, once it is proven that they are the one who calls.
    async fn proven(&self, session: UserSession, proof: Proof, origin: &Origin) -> Result<User, Problem> {
        let party = Party::from(session.user.clone());
        self.ask_proof(&party, session.since, proof, origin).await?;
        Ok(session.user)
    }

    async fn keys_of(&self, user: &User) -> Result<Vec<KeyTold>, Problem> {
        let keys = named::list(&self.db, user.id).await?;
        Ok(keys.into_iter().map(|key| self.told(key, None)).collect())
    }

    async fn key_of(&self, user: &User, id: KeyId) -> Result<Key, Problem> {
        named::by_id(&self.db, user.id, id).await?.ok_or(Problem::NotFound("API key"))
    }

    async fn revoke_key(
        &self,
        user: &User,
        id: &str,
        actor: (Actor, &str),
        origin: &Origin,
    ) -> Result<Json<Done>, Problem> {
        let id = key_id(id)?;
        let key = self.key_of(user, id).await?;
        let detail = json!({ "key": id, "name": key.name });
        let entry = origin.entry(actor, "key.revoke", &user.username, detail);
        named::revoke(&self.db, (user.id, id), origin.at, &entry).await?;
        self.directory.forget_user(user.id);
        Ok(Json(Done { message: "API key revoked successfully" }))
    }

    fn told(&self, key: Key, api_key: Option<String>) -> KeyTold {
        let now = self.clock.now();
        KeyTold {
            id: key.id.to_string(),
            name: key.name,
            label: key.label,
            prefix: key.prefix,
            created_at: key.created_at,
            last_used_at: key.last_used_at,
            expires_at: key.expires_at,
            allowed_ips: key.allowed_ips,
            plan: key.plan,
            previous_expires_at: key.former_until.filter(|end| *end > now),
            api_key,
        }
    }
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::NameTaken => Self::Taken("key name"),
            KeyError::TooMany => form::too_many(),
            KeyError::NotFound => Self::NotFound("API key"),
            KeyError::Store(error) => error.into(),
        }
    }
}
