//! What a subject may ask for: models by plan, `r_type`s by user.

use super::ask::Ask;
use super::refusal::Refusal;
use super::route::Route;
use crate::dialect::Call;
use crate::identity::Subject;
use crate::plan::Permitted;

/// Refuses what the subject's plan or account does not include.
pub(super) fn check(subject: &Subject, route: &Route, ask: &Ask) -> Result<(), Refusal> {
    let r_types = [route.config.r_type.as_deref(), ask.r_type.as_deref()];
    if r_types.into_iter().flatten().any(|r_type| !subject.may_ask_rtype(r_type)) {
        return Err(Refusal::RType);
    }
    match ask.asked.model.as_deref() {
        Some(model) if !subject.plan.models.permits(model) => Err(Refusal::Model),
        // An upstream's default model may be one that the plan leaves out.
        None if subject.plan.models != Permitted::All && ask.asked.call != Call::Other => {
            Err(Refusal::ModelMissing)
        }
        _ => Ok(()),
    }
}
