//! What a call with a key pays: a token of its address until the key is known to be good, then one of its
//! user's rate.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, Method};

use super::Control;
use super::caller::Origin;
use super::problem::Problem;
use super::rights::Action;
use crate::credential::presented;
use crate::identity::Subject;
use crate::limits::{LimitError, Loan, Standing};

/// Stands beside each request of `/api/v1`. Clones are the same toll.
#[derive(Clone, Default)]
pub(super) struct Toll(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    loan: Option<Loan>,
    standing: Option<Standing>,
}

/// Calls whose credential is a key.
const WITH_KEY: [&str; 4] =
    ["/api/v1/key", "/api/v1/authz", "/api/v1/auth/verify-key", "/api/v1/auth/log-message"];

/// The toll of a request before its caller is known. A key that is known to be good already takes nothing
/// from its address.
pub(super) async fn begin(
    control: &Control,
    (method, path): (&Method, &str),
    headers: &HeaderMap,
    origin: &Origin,
) -> Result<Toll, LimitError> {
    let toll = Toll::default();
    if !WITH_KEY.contains(&path) {
        let is_preflight =
            *method == Method::OPTIONS && headers.contains_key("access-control-request-method");
        toll.lock().standing = if is_preflight { None } else { control.limits.address(origin.ip)? };
        return Ok(toll);
    }
    let is_known = presented::find(headers).is_ok_and(|key| control.directory.recalls(&key, origin.ip));
    if !is_known && *method != Method::OPTIONS {
        let loan = control.limits.lend(origin.ip).await?;
        let mut state = toll.lock();
        state.standing = loan.as_ref().map(Loan::standing);
        state.loan = loan;
    }
    Ok(toll)
}

// === impl Toll ===

impl Toll {
    /// The key is good: the address gets its token back, and the user pays, unless a charged `verify-key`
    /// paid for this `log-message` already.
    pub(super) fn settle(
        &self,
        control: &Control,
        subject: &Subject,
        action: Option<Action>,
    ) -> Result<(), Problem> {
        let mut state = self.lock();
        if let Some(loan) = state.loan.take() {
            loan.give_back();
        }
        state.standing = None;
        if action == Some(Action::LogMessage) && control.limits.was_paid_ahead(subject.user) {
            return Ok(());
        }
        match control.limits.spend(&subject.pace()) {
            Ok(standing) => state.standing = standing,
            Err(LimitError::Rate { per_minute, retry_after }) => {
                state.standing = Some(Standing { per_minute, remaining: 0, full_in: retry_after });
                return Err(Problem::TooFast { per_minute, retry_after });
            }
            Err(other) => return Err(Problem::Unavailable(other.to_string())),
        }
        Ok(())
    }

    /// How the bucket that was paid from stands.
    pub(super) fn standing(&self) -> Option<Standing> {
        self.lock().standing
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
