//! What is recorded of calls that change nothing: who failed to log in, and who read what was said.

use serde_json::{Value, json};

use super::Control;
use super::caller::Origin;
use super::party::Party;
use super::problem::Problem;
use crate::credential::token::Audience;
use crate::store::admins::Admin;
use crate::store::audit::{self, Actor};

// === impl Control ===

impl Control {
    /// Passes `proved` on, and records it when it is the failed login of staff or an admin. A name that
    /// nobody has is not kept: it may be a password in the wrong field. With and without an account it
    /// costs the same.
    pub(super) async fn recorded_login<T>(
        &self,
        proved: Result<T, Problem>,
        (role, known): (Audience, Option<&str>),
        origin: &Origin,
    ) -> Result<T, Problem> {
        if !matches!(proved, Err(Problem::WrongCredentials)) {
            return proved;
        }
        let name = known.unwrap_or_default();
        let detail = json!({ "role": role.as_str(), "account": known.is_some() });
        let entry = origin.entry((Actor::Nobody, name), "login.failed", name, detail);
        if let Err(error) = audit::record(&self.db, &entry).await {
            tracing::error!(%error, "a failed login was not recorded");
        }
        proved
    }

    /// Records that staff or an admin gave their password and a wrong second factor: somebody else may
    /// have the password.
    pub(super) async fn record_wrong_factor(&self, party: &Party, origin: &Origin) {
        let (role, name) = (party.owner.audience, party.username.as_str());
        if role == Audience::User {
            return;
        }
        let detail = json!({ "role": role.as_str(), "account": true, "second_factor": "wrong" });
        let entry = origin.entry((Actor::Nobody, name), "login.failed", name, detail);
        if let Err(error) = audit::record(&self.db, &entry).await {
            tracing::error!(%error, "a wrong second factor was not recorded");
        }
    }

    /// Records that an admin reads the log: which rows of whom. What is not recorded is not read.
    pub(super) async fn note_log_read(
        &self,
        admin: &Admin,
        origin: &Origin,
        target: &str,
        detail: Value,
    ) -> Result<(), Problem> {
        let actor = (Actor::Admin(admin.id), admin.username.as_str());
        Ok(audit::record(&self.db, &origin.entry(actor, "message_log.read", target, detail)).await?)
    }
}
