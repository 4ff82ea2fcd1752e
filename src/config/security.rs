//! `[security]` as it is written, before its secrets are read.

use std::path::Path;
use std::time::Duration;

use super::file::{DAY, SecretSource, secret};
use super::forms;
use super::secrets::RequireTotp;
use super::tree::Section;

/// `[security]` before its secrets are read.
pub(super) struct SecurityDraft {
    pub(super) secret_key: SecretSource,
    pub(super) encryption_key: SecretSource,
    pub(super) admin_password: SecretSource,
    pub(super) admin_username: String,
    pub(super) access_token_ttl: Duration,
    pub(super) refresh_token_ttl: Duration,
    pub(super) bcrypt_rounds: u32,
    pub(super) allow_registration: bool,
    pub(super) registration_by_mail: bool,
    pub(super) accept_v1_keys: Option<bool>,
    pub(super) require_totp: RequireTotp,
    pub(super) require_verified_email: bool,
}

/// Reads the section; mistakes go to the tree.
pub(super) fn read(mut s: Section<'_>, base: &Path) -> SecurityDraft {
    let security = SecurityDraft {
        secret_key: secret(&mut s, "secret_key", "secret_key_file", base),
        encryption_key: secret(&mut s, "encryption_key", "encryption_key_file", base),
        admin_password: secret(&mut s, "admin_password", "admin_password_file", base),
        admin_username: s.value_or("admin_username", forms::name, "admin".into()),
        access_token_ttl: s.value_or("access_token_ttl", forms::duration, Duration::from_mins(30)),
        refresh_token_ttl: s.value_or("refresh_token_ttl", forms::duration, 30 * DAY),
        bcrypt_rounds: s.value_or("bcrypt_rounds", forms::whole(4..=16), 12),
        allow_registration: s.value_or("allow_registration", forms::switch, true),
        registration_by_mail: s.value_or("registration_by_mail", forms::switch, false),
        accept_v1_keys: s.value("accept_v1_keys", forms::switch),
        require_totp: require_totp(&mut s),
        require_verified_email: s.value_or("require_verified_email", forms::switch, false),
    };
    s.finish();
    security
}

fn require_totp(s: &mut Section<'_>) -> RequireTotp {
    let roles = [("staff", "staff"), ("admin", "admin")];
    let named = s.list("require_totp", forms::choice(roles)).unwrap_or_default();
    RequireTotp { staff: named.contains(&"staff"), admin: named.contains(&"admin") }
}
