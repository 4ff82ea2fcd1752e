//! Whoever can log in, whatever their role: what sessions and second factors need to know of them.

use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::Control;
use super::caller::{self, permit};
use super::problem::Problem;
use super::rights::Role;
use crate::clock::Timestamp;
use crate::credential::token::Audience;
use crate::ids::{AdminId, SessionId, StaffId, UserId};
use crate::store::admins::{self, Admin};
use crate::store::audit::Actor;
use crate::store::sessions::{Owner, Standing};
use crate::store::staff::{self, Staff};
use crate::store::users::{self, User};

/// Somebody with a password. The hash of it keeps this from being `Debug`.
pub(super) struct Party {
    pub(super) owner: Owner,
    /// The name they are known by.
    pub(super) username: String,
    /// What they log in by: an e-mail address, or the name.
    pub(super) login: String,
    pub(super) password_hash: String,
    pub(super) token_version: i64,
    is_active: bool,
    role: Option<Role>,
    kept_session: Option<String>,
}

/// A party with a session of theirs, before anybody asks for a second factor: what opens the paths on
/// which one ends sessions and enrols factors. `K` names the table they are in.
pub(super) struct SignedIn<K> {
    pub(super) party: Party,
    pub(super) session: SessionId,
    /// When they logged in; renewing a session does not make it younger.
    pub(super) since: Timestamp,
    kind: PhantomData<K>,
}

/// A table of parties.
pub(super) trait Kind {
    /// Whose tokens are taken.
    const AUDIENCE: Audience;
}

/// The table of users.
pub(super) enum Users {}
/// The table of staff.
pub(super) enum StaffMembers {}
/// The table of admins.
pub(super) enum Admins {}

// === impl Party ===

impl Party {
    /// As the audit trail names them.
    pub(super) fn actor(&self) -> (Actor, &str) {
        let Owner { audience, subject } = self.owner;
        let actor = match audience {
            Audience::User => Actor::User(UserId(subject)),
            Audience::Staff => Actor::Staff(StaffId(subject)),
            Audience::Admin => Actor::Admin(AdminId(subject)),
        };
        (actor, &self.username)
    }

    /// Whether they still let this session of theirs stand.
    pub(super) fn keeps(&self, session: &Standing) -> bool {
        let kept = self.kept_session.as_deref() == Some(session.id.to_string().as_str());
        let of_before = session.version.checked_add(1) == Some(self.token_version);
        self.is_active && (session.version == self.token_version || (kept && of_before))
    }
}

impl From<User> for Party {
    fn from(user: User) -> Self {
        Self {
            owner: Owner::user(user.id),
            username: user.username,
            login: user.email,
            password_hash: user.password_hash,
            token_version: user.token_version,
            is_active: user.is_active,
            role: Some(Role::User),
            kept_session: user.kept_session,
        }
    }
}

impl From<Staff> for Party {
    fn from(staff: Staff) -> Self {
        Self {
            owner: Owner::staff(staff.id),
            login: staff.username.clone(),
            username: staff.username,
            password_hash: staff.password_hash,
            token_version: staff.token_version,
            is_active: staff.is_active,
            role: Role::of_staff(&staff.staff_level),
            kept_session: None,
        }
    }
}

impl From<Admin> for Party {
    fn from(admin: Admin) -> Self {
        Self {
            owner: Owner::admin(admin.id),
            login: admin.username.clone(),
            username: admin.username,
            password_hash: admin.password_hash,
            token_version: admin.token_version,
            is_active: admin.is_active,
            role: Role::of_admin(&admin.role),
            kept_session: None,
        }
    }
}

// === impl Control ===

impl Control {
    /// Whoever this is, if they are still there.
    pub(super) async fn party(&self, owner: Owner) -> Result<Option<Party>, Problem> {
        let (db, id) = (&self.db, owner.subject);
        Ok(match owner.audience {
            Audience::User => users::by_id(db, UserId(id)).await?.map(Party::from),
            Audience::Staff => staff::by_id(db, StaffId(id)).await?.map(Party::from),
            Audience::Admin => admins::by_id(db, AdminId(id)).await?.map(Party::from),
        })
    }
}

// === impl SignedIn ===

impl<K: Kind> FromRequestParts<Arc<Control>> for SignedIn<K> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, control: &Arc<Control>) -> Result<Self, Problem> {
        let session = caller::session(parts, control, K::AUDIENCE).await?;
        let found = control.party(session.owner).await?.filter(|owner| owner.keeps(&session));
        let owner = found.ok_or(Problem::NotAuthenticated)?;
        permit(owner.role, parts)?;
        let (id, since) = (session.id, session.began_at);
        Ok(Self { party: owner, session: id, since, kind: PhantomData })
    }
}

// === impl Kind ===

impl Kind for Users {
    const AUDIENCE: Audience = Audience::User;
}

impl Kind for StaffMembers {
    const AUDIENCE: Audience = Audience::Staff;
}

impl Kind for Admins {
    const AUDIENCE: Audience = Audience::Admin;
}
