//! An account as its owner and the admin see it.

use serde::Serialize;

use super::Control;
use crate::clock::Timestamp;
use crate::plan::Allowance;
use crate::store::users::User;

/// What an account's owner sees.
#[derive(Debug, Serialize)]
pub(super) struct Profile {
    username: String,
    name: String,
    email: String,
    about_me: String,
    hobbies: String,
    #[serde(rename = "type")]
    kind: String,
    time_created: Timestamp,
    subscription_plan: String,
    credits: Credits,
    limits: Limits,
    access_rtype: Vec<String>,
    level: String,
    additional_notes: String,
}

/// What the admin sees.
#[derive(Debug, Serialize)]
pub(super) struct AdminProfile {
    id: String,
    #[serde(flatten)]
    profile: Profile,
    is_active: bool,
    allowed_ips: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Credits {
    main: i64,
    reset: i64,
}

/// `conversation_limit` is what is left now, `reset` what the next day begins with.
#[derive(Debug, Serialize)]
struct Limits {
    conversation_limit: i64,
    reset: i64,
}

// === impl Control ===

impl Control {
    /// Conversations a day of a user: their own number, or their plan's.
    pub(super) fn allowance(&self, user: &User) -> Allowance {
        let plan = self.plans.resolve(&user.subscription_plan, &user.level);
        let per_day = user.quota_reset.unwrap_or(plan.allowance.per_day);
        Allowance { per_day, zone: plan.allowance.zone }
    }
}

// === impl Profile ===

impl Profile {
    /// `left` conversations of today, `reset` when the next day begins.
    pub(super) fn of(user: User, left: i64, reset: i64) -> Self {
        Self {
            username: user.username,
            name: user.name,
            email: user.email,
            about_me: user.about_me,
            hobbies: user.hobbies,
            kind: user.kind,
            time_created: user.time_created,
            subscription_plan: user.subscription_plan,
            credits: Credits { main: user.credits_main, reset: user.credits_reset },
            limits: Limits { conversation_limit: left, reset },
            access_rtype: user.access_rtype,
            level: user.level,
            additional_notes: user.additional_notes,
        }
    }
}

// === impl AdminProfile ===

impl AdminProfile {
    /// As [`Profile::of`], and what only the admin sees.
    pub(super) fn of(mut user: User, left: i64, reset: i64) -> Self {
        let (id, is_active) = (user.id.to_string(), user.is_active);
        let allowed_ips = std::mem::take(&mut user.allowed_ips);
        Self { id, profile: Profile::of(user, left, reset), is_active, allowed_ips }
    }
}
