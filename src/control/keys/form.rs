//! What an owner may say of a key.

use std::time::Duration;

use chrono::DateTime;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::control::Control;
use crate::control::forms::Form;
use crate::control::openapi::words;
use crate::control::problem::Problem;
use crate::control::proof::Proof;
use crate::control::users::{networks, plan};
use crate::control::violations::Violations;
use crate::store::keys::named::{Change, MOST, Rules, Setting};

/// Another key.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewKey, example = json!({
    "name": "laptop", "label": "Ann's laptop", "expires_at": "2099-01-01T00:00:00Z", "allowed_ips": ["203.0.113.0/24"],
}))]
#[serde(deny_unknown_fields)]
pub(in crate::control) struct KeyForm {
    /// Unique among the keys of the account.
    #[schema(value_type = words::KeyName)]
    name: Option<String>,
    /// A note.
    #[schema(value_type = Option<words::Text>)]
    label: Option<String>,
    /// In the future.
    #[schema(value_type = Option<words::Instant>)]
    expires_at: Option<String>,
    /// From where it may be used; from everywhere where there are none.
    #[schema(value_type = Option<Vec<words::Network>>, max_items = 100)]
    allowed_ips: Option<Vec<String>>,
    /// Narrows the key to what this plan includes.
    #[schema(value_type = Option<words::PlanName>)]
    plan: Option<String>,
    /// Of the caller; not needed within five minutes of a login.
    #[schema(value_type = Option<words::Password>)]
    password: Option<SecretString>,
    /// Beside the password, where the account has a second factor.
    #[schema(value_type = Option<words::TotpCode>)]
    totp_code: Option<SecretString>,
    /// Instead of a code of the app.
    #[schema(value_type = Option<words::RecoveryCode>)]
    recovery_code: Option<SecretString>,
}

/// What is to be another in a key.
#[derive(Deserialize, ToSchema)]
#[schema(as = KeyChange, example = json!({"label": "Ann's old laptop", "expires_at": null}))]
#[serde(deny_unknown_fields)]
pub(in crate::control) struct ChangeForm {
    /// Unique among the keys of the account.
    #[schema(value_type = Option<words::KeyName>)]
    name: Option<String>,
    /// A note.
    #[schema(value_type = Option<words::Text>)]
    label: Option<String>,
    /// In the future; `null` takes the end away.
    #[serde(default)]
    #[schema(value_type = Option<words::Instant>)]
    expires_at: Given,
    /// Instead of those there are.
    #[schema(value_type = Option<Vec<words::Network>>, max_items = 100)]
    allowed_ips: Option<Vec<String>>,
    /// `null` takes the narrowing away.
    #[serde(default)]
    #[schema(value_type = Option<words::PlanName>)]
    plan: Given,
    /// Of the caller; not needed within five minutes of a login.
    #[schema(value_type = Option<words::Password>)]
    password: Option<SecretString>,
    /// Beside the password, where the account has a second factor.
    #[schema(value_type = Option<words::TotpCode>)]
    totp_code: Option<SecretString>,
    /// Instead of a code of the app.
    #[schema(value_type = Option<words::RecoveryCode>)]
    recovery_code: Option<SecretString>,
}

/// How long the old secret works on.
#[derive(Deserialize, ToSchema)]
#[schema(as = Rotation, example = json!({"grace_period": 3600}))]
#[serde(deny_unknown_fields)]
pub(in crate::control) struct RotationForm {
    /// Seconds that the old secret works on: 0 where it is left out, at most thirty days.
    #[schema(minimum = 0, maximum = 2_592_000)]
    grace_period: Option<u64>,
    /// Of the caller; not needed within five minutes of a login.
    #[schema(value_type = Option<words::Password>)]
    password: Option<SecretString>,
    /// Beside the password, where the account has a second factor.
    #[schema(value_type = Option<words::TotpCode>)]
    totp_code: Option<SecretString>,
    /// Instead of a code of the app.
    #[schema(value_type = Option<words::RecoveryCode>)]
    recovery_code: Option<SecretString>,
}

/// A field that may be cleared by `null`, which is not the same as leaving it out.
#[derive(Default)]
enum Given {
    #[default]
    LeftOut,
    Cleared,
    Text(String),
}

/// Most characters of a name.
const MAX_NAME: usize = 64;
/// Longest grace, in seconds: thirty days.
const MAX_GRACE: u64 = 30 * 86_400;

pub(super) fn too_many() -> Problem {
    refusal("name", &format!("There are {MOST} keys already: revoke one first"))
}

pub(super) fn default_keeps_its_name() -> Problem {
    refusal("name", "The default key keeps its name")
}

fn refusal(field: &str, message: &str) -> Problem {
    let mut found = Violations::default();
    found.refuse(field, message);
    Problem::Invalid(found)
}

// === impl Given ===

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(field: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(field)?.map_or(Self::Cleared, Self::Text))
    }
}

// === impl KeyForm ===

impl Form for KeyForm {
    type Checked = (Rules, Proof);

    fn check(self, control: &Control, found: &mut Violations) -> Option<Self::Checked> {
        let proof = Proof::new(self.password, self.totp_code, self.recovery_code);
        let given = found.required("name", self.name);
        let name = name(given, found);
        let label = found.text("label", self.label).unwrap_or_default();
        let expires_at = self.expires_at.and_then(|text| end(&text, control, found));
        let allowed_ips = networks("allowed_ips", self.allowed_ips, found).unwrap_or_default();
        let plan = plan("plan", self.plan, control, found);
        Some((Rules { name: name?, label, expires_at, allowed_ips, plan }, proof))
    }
}

// === impl ChangeForm ===

impl Form for ChangeForm {
    type Checked = (Change, Proof);

    fn check(self, control: &Control, found: &mut Violations) -> Option<Self::Checked> {
        let proof = Proof::new(self.password, self.totp_code, self.recovery_code);
        let change = Change {
            name: name(self.name, found),
            label: found.text("label", self.label),
            expires_at: match self.expires_at {
                Given::LeftOut => Setting::Keep,
                Given::Cleared => Setting::Clear,
                Given::Text(text) => end(&text, control, found).map_or(Setting::Keep, Setting::To),
            },
            allowed_ips: networks("allowed_ips", self.allowed_ips, found),
            plan: match self.plan {
                Given::LeftOut => Setting::Keep,
                Given::Cleared => Setting::Clear,
                Given::Text(name) => {
                    plan("plan", Some(name), control, found).map_or(Setting::Keep, Setting::To)
                }
            },
        };
        Some((change, proof))
    }
}

// === impl RotationForm ===

impl Form for RotationForm {
    type Checked = (Duration, Proof);

    fn check(self, _: &Control, found: &mut Violations) -> Option<Self::Checked> {
        let proof = Proof::new(self.password, self.totp_code, self.recovery_code);
        let seconds = self.grace_period.unwrap_or(0);
        if seconds > MAX_GRACE {
            found.refuse("grace_period", "Input should be from 0 to 2592000 seconds");
        }
        Some((Duration::from_secs(seconds), proof))
    }
}

fn name(given: Option<String>, found: &mut Violations) -> Option<String> {
    let name = given?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(plain) {
        found.refuse("name", "String should have 1 to 64 letters, digits, dots, underscores or hyphens");
    }
    Some(name)
}

fn end(text: &str, control: &Control, found: &mut Violations) -> Option<Timestamp> {
    let Ok(instant) = DateTime::parse_from_rfc3339(text) else {
        found.refuse("expires_at", "Input should be a time such as 2027-01-01T00:00:00Z");
        return None;
    };
    let end = Timestamp(instant.timestamp_millis());
    if end <= control.clock.now() {
        found.refuse("expires_at", "Input should be in the future");
    }
    Some(end)
}
