//! What a subject may ask for: models by plan, `r_type`s by user.

use super::ask::Ask;
use super::refusal::Refusal;
use super::route::Route;
use crate::dialect::Call;
use crate::identity::Subject;
use crate::plan::Permitted;

/// What was asked, as far as plans and accounts decide on it; it outlives the request's body, for a plan may
/// change while the answer runs.
pub(super) struct Claim {
    r_types: [Option<String>; 2],
    model: Option<String>,
    call: Call,
}

// === impl Claim ===

impl Claim {
    pub(super) fn of(route: &Route, ask: &Ask) -> Self {
        Self {
            r_types: [route.config.r_type.clone(), ask.r_type.clone()],
            model: ask.asked.model.clone(),
            call: ask.asked.call,
        }
    }

    /// Refuses what the subject's plan or account does not include.
    pub(super) fn check(&self, subject: &Subject) -> Result<(), Refusal> {
        if self.r_types.iter().flatten().any(|r_type| !subject.may_ask_rtype(r_type)) {
            return Err(Refusal::RType);
        }
        match self.model.as_deref() {
            Some(model) if !subject.plan.models.permits(model) => Err(Refusal::Model),
            // An upstream's default model may be one that the plan leaves out.
            None if subject.plan.models != Permitted::All && self.call != Call::Other => {
                Err(Refusal::ModelMissing)
            }
            _ => Ok(()),
        }
    }
}
