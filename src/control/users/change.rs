//! What the admin and staff may change of an account, and what follows from it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::control::Control;
use crate::control::forms::{Form, Object};
use crate::control::openapi::words;
use crate::control::register::KINDS;
use crate::control::violations::Violations;
use crate::credential::password::Password;
use crate::store::users::{QuotaChange, User, UserChange};

/// What an admin may change of an account.
#[derive(Deserialize, ToSchema)]
#[schema(as = UserChange, example = json!({"level": "advanced", "limits": {"conversation_limit": 50, "reset": 50}, "is_active": true}))]
#[serde(deny_unknown_fields)]
pub(in crate::control) struct AccountForm {
    #[schema(value_type = Option<words::FilledText>)]
    name: Option<String>,
    /// Nobody else's.
    #[schema(value_type = Option<words::Email>)]
    email: Option<String>,
    #[schema(value_type = Option<words::NewPassword>)]
    password: Option<SecretString>,
    #[schema(value_type = Option<words::Text>)]
    about_me: Option<String>,
    #[schema(value_type = Option<words::Text>)]
    hobbies: Option<String>,
    #[serde(rename = "type")]
    #[schema(value_type = Option<words::AccountKind>)]
    kind: Option<String>,
    #[schema(value_type = Option<words::PlanName>)]
    subscription_plan: Option<String>,
    #[schema(value_type = Option<CreditsForm>)]
    credits: Option<Object<CreditsForm>>,
    #[schema(value_type = Option<LimitsForm>)]
    limits: Option<Object<LimitsForm>>,
    /// Which `r_type`s may be asked for, instead of those there are.
    #[schema(value_type = Option<Vec<words::Word>>, max_items = 100)]
    access_rtype: Option<Vec<String>>,
    /// Chooses among the allowances of a plan.
    #[schema(value_type = Option<words::Word>)]
    level: Option<String>,
    /// For staff and admins.
    #[schema(value_type = Option<words::Text>)]
    additional_notes: Option<String>,
    /// False switches the account off.
    is_active: Option<bool>,
    /// From where its keys may be used; from everywhere where there are none.
    #[schema(value_type = Option<Vec<words::Network>>, max_items = 100)]
    allowed_ips: Option<Vec<String>>,
    /// True ends every key of the account.
    revoke_keys: Option<bool>,
    /// True marks the account as taken over: its sessions and keys end, and nobody logs in until the password is
    /// another. False clears the mark.
    taken_over: Option<bool>,
}

/// What staff may change of an account.
#[derive(Deserialize, ToSchema)]
#[schema(as = UserHelp, example = json!({"limits": {"conversation_limit": 50, "reset": 50}}))]
#[serde(deny_unknown_fields)]
pub(in crate::control) struct HelpForm {
    /// Nobody else's.
    #[schema(value_type = Option<words::Email>)]
    email: Option<String>,
    #[schema(value_type = Option<words::NewPassword>)]
    password: Option<SecretString>,
    #[schema(value_type = Option<LimitsForm>)]
    limits: Option<Object<LimitsForm>>,
    #[schema(value_type = Option<words::PlanName>)]
    subscription_plan: Option<String>,
    /// True ends every key of the account.
    revoke_keys: Option<bool>,
    /// True marks the account as taken over: its sessions and keys end, and nobody logs in until the password is
    /// another. False clears the mark.
    taken_over: Option<bool>,
}

/// Credits of an account.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[schema(as = CreditsChange)]
#[serde(deny_unknown_fields)]
struct CreditsForm {
    /// What there is.
    #[schema(value_type = Option<words::Amount>)]
    main: Option<i64>,
    /// What a reset sets it to.
    #[schema(value_type = Option<words::Amount>)]
    reset: Option<i64>,
}

/// Conversations of an account.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[schema(as = LimitsChange)]
#[serde(deny_unknown_fields)]
struct LimitsForm {
    /// What is left of today.
    #[schema(value_type = Option<words::Amount>)]
    conversation_limit: Option<i64>,
    /// What the next day begins with.
    #[schema(value_type = Option<words::Amount>)]
    reset: Option<i64>,
}

/// The same, held to its rules; what becomes of the day depends on whose account it is.
pub(in crate::control) struct AccountChange {
    row: UserChange,
    limits: Option<LimitsForm>,
    password: Option<Password>,
}

/// Most of anything that can be counted out to a user.
const MAX_AMOUNT: i64 = 1_000_000;
/// Most entries of a list, and characters of a word.
const MAX_ENTRIES: usize = 100;
const MAX_WORD: usize = 64;

// === impl AccountForm ===

impl Form for AccountForm {
    type Checked = AccountChange;

    fn check(self, control: &Control, found: &mut Violations) -> Option<AccountChange> {
        let Object(credits) = self.credits.unwrap_or_default();
        amount("credits.main", credits.main, found);
        amount("credits.reset", credits.reset, found);
        let limits = limits(self.limits, found);
        let password = self.password.and_then(|text| found.new_password("password", text));
        let email = found.email("email", self.email);
        let row = UserChange {
            name: found.filled("name", self.name),
            bump_token_version: self.is_active == Some(false)
                || self.taken_over == Some(true)
                || email.is_some()
                || password.is_some()
                || self.level.is_some(),
            email,
            about_me: found.text("about_me", self.about_me),
            hobbies: found.text("hobbies", self.hobbies),
            kind: found.one_of("type", self.kind, &KINDS),
            subscription_plan: plan("subscription_plan", self.subscription_plan, control, found),
            credits_main: credits.main,
            credits_reset: credits.reset,
            access_rtype: words("access_rtype", self.access_rtype, found),
            level: word("level", self.level, found),
            additional_notes: found.text("additional_notes", self.additional_notes),
            is_active: self.is_active,
            allowed_ips: networks("allowed_ips", self.allowed_ips, found),
            revoke_keys: self.revoke_keys.unwrap_or(false),
            taken_over: self.taken_over,
            ..UserChange::default()
        };
        Some(AccountChange { row, limits, password })
    }
}

// === impl HelpForm ===

impl Form for HelpForm {
    type Checked = AccountChange;

    fn check(self, control: &Control, found: &mut Violations) -> Option<AccountChange> {
        let email = found.email("email", self.email);
        let password = self.password.and_then(|text| found.new_password("password", text));
        let row = UserChange {
            bump_token_version: email.is_some() || password.is_some() || self.taken_over == Some(true),
            revoke_keys: self.revoke_keys.unwrap_or(false),
            taken_over: self.taken_over,
            email,
            subscription_plan: plan("subscription_plan", self.subscription_plan, control, found),
            ..UserChange::default()
        };
        Some(AccountChange { row, limits: limits(self.limits, found), password })
    }
}

fn limits(given: Option<Object<LimitsForm>>, found: &mut Violations) -> Option<LimitsForm> {
    let Object(limits) = given?;
    amount("limits.conversation_limit", limits.conversation_limit, found);
    amount("limits.reset", limits.reset, found);
    Some(limits)
}

fn amount(field: &'static str, given: Option<i64>, found: &mut Violations) {
    if given.is_some_and(|amount| !(0..=MAX_AMOUNT).contains(&amount)) {
        found.refuse(field, "Input should be from 0 to 1000000");
    }
}

/// The name of a plan there is.
pub(in crate::control) fn plan(
    field: &'static str,
    given: Option<String>,
    control: &Control,
    found: &mut Violations,
) -> Option<String> {
    let name = given?;
    if !control.plans.contains(&name) {
        let known: BTreeSet<&str> = control.plans.all().map(|plan| plan.name.as_str()).collect();
        let known: Vec<&str> = known.into_iter().filter(|name| control.plans.contains(name)).collect();
        found.refuse(field, &format!("Input should be one of: {}", known.join(", ")));
    }
    Some(name)
}

fn word(field: &'static str, given: Option<String>, found: &mut Violations) -> Option<String> {
    let word = given?;
    if !is_word(&word) {
        found.refuse(field, "String should have 1 to 64 visible ASCII characters");
    }
    Some(word)
}

fn words(field: &'static str, given: Option<Vec<String>>, found: &mut Violations) -> Option<Vec<String>> {
    let words = given?;
    if words.len() > MAX_ENTRIES || !words.iter().all(|word| is_word(word)) {
        found.refuse(field, "List should have at most 100 items of 1 to 64 visible ASCII characters");
    }
    Some(words)
}

fn is_word(text: &str) -> bool {
    (1..=MAX_WORD).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Networks in CIDR; a bare address is a network of one.
pub(in crate::control) fn networks(
    field: &'static str,
    given: Option<Vec<String>>,
    found: &mut Violations,
) -> Option<Vec<String>> {
    let given = given?;
    if given.len() > MAX_ENTRIES {
        found.refuse(field, "List should have at most 100 items");
        return None;
    }
    let mut networks = Vec::with_capacity(given.len());
    for (at, text) in given.iter().enumerate() {
        match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) => networks.push(network.to_string()),
            Err(_) => found.refuse_at(field, at, "Input should be a network such as 203.0.113.0/24"),
        }
    }
    Some(networks)
}

// === impl AccountChange ===

impl AccountChange {
    /// The names of what is changed, for the audit trail, which keeps no values.
    pub(in crate::control) fn fields(&self) -> Vec<&'static str> {
        let row = &self.row;
        let limits = self.limits.unwrap_or_default();
        let named = [
            ("name", row.name.is_some()),
            ("email", row.email.is_some()),
            ("password", self.password.is_some()),
            ("about_me", row.about_me.is_some()),
            ("hobbies", row.hobbies.is_some()),
            ("type", row.kind.is_some()),
            ("subscription_plan", row.subscription_plan.is_some()),
            ("credits.main", row.credits_main.is_some()),
            ("credits.reset", row.credits_reset.is_some()),
            ("limits.conversation_limit", limits.conversation_limit.is_some()),
            ("limits.reset", limits.reset.is_some()),
            ("access_rtype", row.access_rtype.is_some()),
            ("level", row.level.is_some()),
            ("additional_notes", row.additional_notes.is_some()),
            ("is_active", row.is_active.is_some()),
            ("allowed_ips", row.allowed_ips.is_some()),
            ("revoke_keys", row.revoke_keys),
            ("taken_over", row.taken_over.is_some()),
        ];
        named.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
    }

    /// The new password, yet to be hashed, and the change of `user`'s row. Another plan or level, like other limits, is settled with the day.
    pub(in crate::control) fn into_row(
        self,
        control: &Control,
        user: &User,
    ) -> (Option<Password>, UserChange) {
        let Self { mut row, limits, password } = self;
        let moves = row.subscription_plan.is_some() || row.level.is_some();
        if limits.is_none() && !moves {
            return (password, row);
        }
        let name = row.subscription_plan.as_deref().unwrap_or(&user.subscription_plan);
        let level = row.level.as_deref().unwrap_or(&user.level);
        let allowance = control.plans.resolve(name, level).allowance.clone();
        let limits = limits.unwrap_or_default();
        row.quota = Some(QuotaChange {
            day: control.quota.today(allowance.zone).day,
            left: limits.conversation_limit,
            reset: limits.reset,
            plan_limit: allowance.per_day,
        });
        (password, row)
    }
}

#[cfg(test)]
mod tests {
    use super::{Violations, is_word, networks};

    #[test]
    fn networks_are_written_in_cidr_and_an_address_is_a_network_of_one() {
        let mut found = Violations::default();
        let given = ["10.0.0.0/8", "203.0.113.9", "2001:db8::/48", "::1"].map(str::to_owned).to_vec();
        let kept = networks("allowed_ips", Some(given), &mut found).unwrap();
        assert_eq!(kept, ["10.0.0.0/8", "203.0.113.9/32", "2001:db8::/48", "::1/128"]);
        assert!(found.is_empty());
        networks("allowed_ips", Some(vec!["10.0.0.0/8".into(), "localhost".into()]), &mut found);
        let told = found.into_value();
        assert_eq!(told[0]["loc"], serde_json::json!(["body", "allowed_ips", 1]));
    }

    #[test]
    fn a_word_is_visible_and_short() {
        assert!(is_word("advanced") && is_word("tot") && is_word("a:b"));
        for bad in ["", "two words", "é", "\0", &"x".repeat(65)] {
            assert!(!is_word(bad), "{bad:?}");
        }
    }
}
