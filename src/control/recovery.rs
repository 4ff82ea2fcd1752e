//! The way back for an owner who has lost a second factor: new recovery codes by the owner, and removal by
//! an admin.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::json;

use super::Control;
use super::caller::Origin;
use super::forms::Body;
use super::me::Done;
use super::openapi::{refused, words};
use super::party::{Admins, Party, SignedIn, StaffMembers, Users};
use super::paths::Path;
use super::problem::Problem;
use super::proof::{Proof, ProofForm, RecentAdmin};
use super::totp::Confirmed;
use crate::store::admins::Admin;
use crate::store::audit::Actor;
use crate::store::second_factors;

/// Makes a handler that replaces recovery codes, for each kind of account.
macro_rules! recovery_codes {
    ($($(#[doc = $doc:literal])* $name:ident $path:literal $kind:ty;)*) => {$(
        $(#[doc = $doc])*
        ///
        /// The codes there were stop working; the new ones are told only here. Takes the password and a code, or
        /// a login of the last five minutes.
        #[utoipa::path(
            post,
            path = $path,
            tag = "Second factor",
            request_body = Option<ProofForm>,
            responses(
                (status = 200, description = "The new codes.", body = Confirmed),
                refused::TotpNotEnrolled, refused::PasswordRequired, refused::WrongPassword, refused::TotpRequired,
                refused::WrongSecondFactor, refused::TooManyLogins, refused::Busy,
            ),
        )]
        pub(super) async fn $name(
            State(control): State<Arc<Control>>,
            who: SignedIn<$kind>,
            origin: Origin,
            Body(proof): Body<ProofForm>,
        ) -> Result<Json<Confirmed>, Problem> {
            control.renew_codes(who, proof, &origin).await
        }
    )*};
}

recovery_codes! {
    /// Replaces the recovery codes of a user.
    user_recovery_codes "/api/v1/auth/totp/recovery-codes" Users;
    /// Replaces the recovery codes of a member of staff.
    staff_recovery_codes "/api/v1/staff/totp/recovery-codes" StaffMembers;
    /// Replaces the recovery codes of an admin.
    admin_recovery_codes "/api/v1/admin/totp/recovery-codes" Admins;
}

/// Makes a handler that removes a second factor, for each kind of account.
macro_rules! reset_totp {
    ($($(#[doc = $doc:literal])* $name:ident $path:literal $tag:literal $found:ident;)*) => {$(
        $(#[doc = $doc])*
        ///
        /// For an owner who has lost it. Their recovery codes stop working and their sessions end; the password
        /// alone logs them in, until they enrol another. The admin must have logged in within the last five
        /// minutes.
        #[utoipa::path(
            post,
            path = $path,
            tag = $tag,
            params(("username" = inline(words::Username), Path, description = "Whose account.")),
            responses(
                (status = 200, description = "It is asked for no longer.", body = Done),
                refused::NotFound, refused::LoginTooOld,
            ),
        )]
        pub(super) async fn $name(
            State(control): State<Arc<Control>>,
            RecentAdmin(admin): RecentAdmin,
            origin: Origin,
            Path(username): Path<String>,
        ) -> Result<Json<Done>, Problem> {
            let party = Party::from(control.$found(&username).await?);
            control.reset_totp(&admin, &party, &origin).await
        }
    )*};
}

reset_totp! {
    /// Removes the second factor of a user.
    reset_user_totp "/api/v1/admin/users/{username}/reset-totp" "Admin: users" user_named;
    /// Removes the second factor of a member of staff.
    reset_staff_totp "/api/v1/admin/staff/{username}/reset-totp" "Admin: staff" staff_named;
    /// Removes the second factor of an admin.
    reset_admin_totp "/api/v1/admin/admins/{username}/reset-totp" "Admin: admins" admin_named;
}

// === impl Control ===

impl Control {
    async fn renew_codes<K>(
        &self,
        who: SignedIn<K>,
        proof: Proof,
        origin: &Origin,
    ) -> Result<Json<Confirmed>, Problem> {
        let party = who.party;
        if !self.has_second_factor(party.owner).await? {
            return Err(Problem::TotpNotEnrolled);
        }
        self.ask_proof(&party, who.since, proof, origin).await?;
        let (codes, digests) = self.recovery_codes();
        let entry = origin.entry(party.actor(), "totp.recovery_codes", &party.username, json!({}));
        if !second_factors::renew_codes(&self.db, party.owner, &digests, &entry).await? {
            return Err(Problem::TotpNotEnrolled);
        }
        Ok(Json(Confirmed::new("Recovery codes replaced successfully", &codes)))
    }

    async fn reset_totp(&self, admin: &Admin, party: &Party, origin: &Origin) -> Result<Json<Done>, Problem> {
        let actor = (Actor::Admin(admin.id), admin.username.as_str());
        let detail = json!({ "role": party.owner.audience.as_str() });
        let entry = origin.entry(actor, "totp.reset", &party.username, detail);
        if !second_factors::reset(&self.db, party.owner, &entry).await? {
            return Err(Problem::NotFound("second factor"));
        }
        Ok(Json(Done { message: "Second factor removed successfully" }))
    }
}
