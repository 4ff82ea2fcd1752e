//! Who calls: each role is a type of its own, so that a handler cannot be reached by another.
//!
//! A caller is let in only where the matrix says so ([`super::rights`]): the path says what is wanted,
//! the caller's role whether they may. A session is believed when its token was signed for this audience, its subject still exists, is
//! active, and has ended neither this session nor all of them since (`token_version`). A database that does not answer is
//! a 503, never a 401.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::header::{AUTHORIZATION, USER_AGENT};
use http::request::Parts;
use http::{Extensions, HeaderMap};
use serde_json::Value;

use super::Control;
use super::problem::Problem;
use super::rights::{Action, Role};
use super::toll::Toll;
use crate::clock::{Clock, Timestamp};
use crate::credential::key::PlainKey;
use crate::credential::presented::{self, NoKey};
use crate::credential::token::Audience;
use crate::identity::Subject;
use crate::ids::{AdminId, RequestId, SessionId, StaffId, UserId};
use crate::listen::{ClientIp, UnreadableAddress};
use crate::store::admins::{self, Admin};
use crate::store::audit::{Actor, Entry};
use crate::store::sessions::{self, Owner, Standing};
use crate::store::staff::{self, Staff};
use crate::store::users::{self, User};

/// An active user with a session of theirs.
pub(super) struct UserSession {
    pub(super) user: User,
    /// When they logged in; renewing a session does not make it younger.
    pub(super) since: Timestamp,
    /// The session, which may be kept when the others are ended.
    pub(super) id: SessionId,
}

/// An active member of staff with a session of theirs.
pub(super) struct StaffSession {
    pub(super) staff: Staff,
    /// By the level they have now, not the one they logged in with.
    pub(super) role: Role,
}

/// An administrator with a session of theirs.
pub(super) struct AdminSession(pub(super) Admin);

/// Whoever shows a live `pe-` key, from an address it may be used from.
pub(super) struct KeyHolder(pub(super) Arc<Subject>);

/// Where a request came from, and when.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) ip: IpAddr,
    pub(super) request_id: RequestId,
    pub(super) at: Timestamp,
    /// What the client calls itself; the beginning of it.
    pub(super) user_agent: Option<String>,
}

// === impl UserSession ===

impl FromRequestParts<Arc<Control>> for UserSession {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, control: &Arc<Control>) -> Result<Self, Problem> {
        let session = session(parts, control, Audience::User).await?;
        let found = users::by_id(&control.db, UserId(session.owner.subject)).await?;
        let user =
            found.filter(|user| user.is_active && user.keeps(&session.id.to_string(), session.version));
        let user = user.ok_or(Problem::NotAuthenticated)?;
        permit(Some(Role::User), parts)?;
        Ok(Self { user, since: session.began_at, id: session.id })
    }
}

// === impl StaffSession ===

impl FromRequestParts<Arc<Control>> for StaffSession {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, control: &Arc<Control>) -> Result<Self, Problem> {
        let session = session(parts, control, Audience::Staff).await?;
        let found = staff::by_id(&control.db, StaffId(session.owner.subject)).await?;
        let staff = found.filter(|staff| staff.is_active && staff.token_version == session.version);
        let staff = staff.ok_or(Problem::NotAuthenticated)?;
        let role = permit(Role::of_staff(&staff.staff_level), parts)?;
        control.wants_no_more_of(session.owner).await?;
        Ok(Self { staff, role })
    }
}

impl StaffSession {
    /// As the audit trail names them.
    pub(super) fn actor(&self) -> (Actor, &str) {
        (Actor::Staff(self.staff.id), self.staff.username.as_str())
    }
}

// === impl AdminSession ===

impl FromRequestParts<Arc<Control>> for AdminSession {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, control: &Arc<Control>) -> Result<Self, Problem> {
        Ok(Self(admin(parts, control).await?.0))
    }
}

/// The admin who calls, and when they logged in.
pub(super) async fn admin(parts: &Parts, control: &Control) -> Result<(Admin, Timestamp), Problem> {
    let session = session(parts, control, Audience::Admin).await?;
    let found = admins::by_id(&control.db, AdminId(session.owner.subject)).await?;
    let admin = found.filter(|admin| admin.is_active && admin.token_version == session.version);
    let admin = admin.ok_or(Problem::NotAuthenticated)?;
    permit(Role::of_admin(&admin.role), parts)?;
    control.wants_no_more_of(session.owner).await?;
    Ok((admin, session.began_at))
}

/// Holds a caller's role against the row of the path. A path without one lets nobody in.
pub(super) fn permit(role: Option<Role>, parts: &Parts) -> Result<Role, Problem> {
    let action = parts.extensions.get::<Action>().copied();
    let action = action.ok_or_else(|| Problem::Internal("a path has no row in the matrix".to_owned()))?;
    role.filter(|role| action.permits(*role)).ok_or(Problem::NotPermitted)
}

/// The session of the presented token, if it has not been ended. Whether its owner still lets it
/// stand is for their row to say.
pub(super) async fn session(
    parts: &Parts,
    control: &Control,
    audience: Audience,
) -> Result<Standing, Problem> {
    let now = control.clock.now();
    let token = bearer(&parts.headers).ok_or(Problem::NotAuthenticated)?;
    let told = control.tokens.verify(audience, token, now).map_err(|reason| {
        tracing::debug!(%reason, %audience, "a session token was refused");
        Problem::NotAuthenticated
    })?;
    let owner = Owner { audience, subject: told.subject };
    let found = sessions::standing(&control.db, told.id, now).await?;
    let ours = |session: &Standing| session.owner == owner && session.version == told.version;
    let session = found.filter(ours).ok_or(Problem::NotAuthenticated)?;
    if let Some(ClientIp(ip)) = parts.extensions.get::<ClientIp>() {
        control.sightings.note(&session, *ip, now);
    }
    Ok(session)
}

/// The first characters of a `User-Agent`, whatever it is.
fn told_name(given: &[u8]) -> String {
    const MOST: usize = 200;
    String::from_utf8_lossy(given).chars().take(MOST).collect()
}

// === impl KeyHolder ===

impl FromRequestParts<Arc<Control>> for KeyHolder {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, control: &Arc<Control>) -> Result<Self, Problem> {
        let key = presented_key(&parts.headers)?;
        let origin = Origin::of(&parts.extensions, &control.clock)?;
        let subject = control.directory.identify(&key).await?;
        subject.permits_address(origin.ip).map_err(|_| Problem::AddressNotAllowed)?;
        if let Some(toll) = parts.extensions.get::<Toll>() {
            toll.settle(control, &subject, parts.extensions.get::<Action>().copied())?;
        }
        permit(Some(Role::KeyHolder), parts)?;
        Ok(Self(subject))
    }
}

/// The one key of a request.
fn presented_key(headers: &HeaderMap) -> Result<PlainKey, Problem> {
    presented::find(headers).map_err(|error| match error {
        NoKey::TwoKeys => Problem::AmbiguousKey,
        NoKey::Missing | NoKey::Malformed => Problem::UnknownKey,
    })
}

/// The only bearer token of a request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = bearers(headers);
    let only = all.next()?;
    all.next().is_none().then_some(only)
}

fn bearers(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    })
}

// === impl Origin ===

impl Origin {
    /// Read from what the listener put beside the request. Whoever comes behind a proxy that names no
    /// address is nobody we could hold to a rate or a rule.
    pub(super) fn of(extensions: &Extensions, clock: &Clock) -> Result<Self, Problem> {
        if extensions.get::<UnreadableAddress>().is_some() {
            return Err(Problem::AddressNotAllowed);
        }
        let address = extensions.get::<ClientIp>().copied();
        let ClientIp(ip) = address
            .ok_or_else(|| Problem::Internal("a request came without its client address".to_owned()))?;
        let request_id = extensions.get::<RequestId>().cloned().unwrap_or_else(RequestId::generate);
        Ok(Self { ip, request_id, at: clock.now(), user_agent: None })
    }

    /// What the audit trail keeps of a change made by this request.
    pub(super) fn entry(
        &self,
        actor: (Actor, &str),
        action: &'static str,
        target: &str,
        detail: Value,
    ) -> Entry {
        Entry {
            actor: actor.0,
            actor_name: actor.1.to_owned(),
            action,
            target: target.to_owned(),
            detail,
            request_id: self.request_id.to_string(),
            client_ip: Some(self.ip),
            at: self.at,
        }
    }
}

impl FromRequestParts<Arc<Control>> for Origin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, control: &Arc<Control>) -> Result<Self, Problem> {
        let user_agent = parts.headers.get(USER_AGENT).map(|name| told_name(name.as_bytes()));
        Ok(Self { user_agent, ..Self::of(&parts.extensions, &control.clock)? })
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{Problem, bearer, presented_key};

    const KEY: &str = "pe-0123456789abcdefghijABCDEFGHIJ01";
    const OTHER: &str = "pe-0123456789abcdefghijABCDEFGHIJ02";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        pairs.collect()
    }

    fn found(pairs: &[(&'static str, &str)]) -> Result<String, Problem> {
        presented_key(&headers(pairs)).map(|key| key.expose().to_owned())
    }

    #[test]
    fn a_key_is_found_wherever_a_client_may_put_it() {
        let bearer = format!("bEaReR  {KEY}");
        let protocol = format!("realtime, openai-insecure-api-key.{KEY}");
        let named = ["x-api-key", "api-key", "x-goog-api-key"].map(|name| (name, KEY));
        let others = [("authorization", bearer.as_str()), ("sec-websocket-protocol", &protocol)];
        for place in named.into_iter().chain(others) {
            assert_eq!(found(&[place]).unwrap(), KEY, "{place:?}");
        }
        assert_eq!(found(&[("authorization", "Bearer sk-theirs"), ("x-api-key", KEY)]).unwrap(), KEY);
        assert_eq!(found(&[("authorization", &bearer), ("api-key", KEY)]).unwrap(), KEY);
    }

    #[test]
    fn no_key_a_malformed_one_and_two_are_refused() {
        for none in ["Basic cGU6", "Bearer", "Bearer sk-theirs", "Bearer pe-short", KEY] {
            assert!(matches!(found(&[("authorization", none)]), Err(Problem::UnknownKey)), "{none}");
        }
        assert!(matches!(found(&[]), Err(Problem::UnknownKey)));
        let two = [("x-api-key", KEY), ("api-key", OTHER)];
        assert!(matches!(found(&two), Err(Problem::AmbiguousKey)));
    }

    #[test]
    fn a_session_token_is_taken_only_when_it_is_alone() {
        assert_eq!(bearer(&headers(&[("authorization", "Bearer a.b.c")])), Some("a.b.c"));
        assert_eq!(bearer(&headers(&[("authorization", "Basic a")])), None);
        let mut two = HeaderMap::new();
        two.append("authorization", HeaderValue::from_static("Bearer a"));
        two.append("authorization", HeaderValue::from_static("Bearer b"));
        assert_eq!(bearer(&two), None);
    }
}
