//! An account as its owner and the admin see it.

use serde::Serialize;
use utoipa::ToSchema;

use super::Control;
use crate::clock::Timestamp;
use crate::plan::Allowance;
use crate::store::users::User;

/// An account, as its owner sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "username": "ann_lee", "name": "Ann Lee", "email": "ann@example.com", "about_me": "", "hobbies": "", "type": "Personal",
    "time_created": "2026-10-01T09:30:00Z", "subscription_plan": "free", "credits": {"main": 5, "reset": 5},
    "limits": {"conversation_limit": 41, "reset": 50}, "access_rtype": ["bpe", "tot"], "level": "basic", "additional_notes": "",
}))]
pub(super) struct Profile {
    username: String,
    name: String,
    email: String,
    about_me: String,
    hobbies: String,
    /// `Personal` or `Business`.
    #[serde(rename = "type")]
    kind: String,
    time_created: Timestamp,
    /// The name of a plan.
    subscription_plan: String,
    credits: Credits,
    limits: Limits,
    /// Which `r_type`s may be asked for.
    access_rtype: Vec<String>,
    /// Chooses among the allowances of a plan.
    level: String,
    /// What was noted of the user.
    additional_notes: String,
}

/// An account, as the admin sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminProfile, example = json!({
    "id": "1", "is_active": true, "allowed_ips": [],
    "username": "ann_lee", "name": "Ann Lee", "email": "ann@example.com", "about_me": "", "hobbies": "", "type": "Personal",
    "time_created": "2026-10-01T09:30:00Z", "subscription_plan": "free", "credits": {"main": 5, "reset": 5},
    "limits": {"conversation_limit": 41, "reset": 50}, "access_rtype": ["bpe", "tot"], "level": "basic", "additional_notes": "",
}))]
pub(super) struct AdminProfile {
    /// A number, as text.
    id: String,
    #[serde(flatten)]
    profile: Profile,
    /// False where the account is switched off.
    is_active: bool,
    /// From where its keys may be used; from everywhere where there are none.
    allowed_ips: Vec<String>,
    /// `marked` where staff or an admin marked the account as taken over, `refresh_token_reused` where a used refresh
    /// token was shown again: the next password ends every key. Absent where neither is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    takeover: Option<String>,
}

/// Credits of an account.
#[derive(Debug, Serialize, ToSchema)]
struct Credits {
    /// What there is.
    main: i64,
    /// What a reset sets it to.
    reset: i64,
}

/// Conversations of an account.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConversationLimits)]
struct Limits {
    /// What is left of today.
    conversation_limit: i64,
    /// What the next day begins with.
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
        let (allowed_ips, takeover) = (std::mem::take(&mut user.allowed_ips), user.takeover.take());
        Self { id, profile: Profile::of(user, left, reset), is_active, allowed_ips, takeover }
    }
}
