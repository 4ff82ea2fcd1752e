//! Secrets that must not guard an installation: those printed in somebody's documentation, and
//! those that can be guessed. What is said about one never contains it.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

const MIN_SECRET_BYTES: usize = 32;
const MIN_BITS_PER_CHAR: f64 = 3.5;
const MIN_ADMIN_CHARS: usize = 12;

/// Placeholders that stand in examples, in lower case.
const KNOWN_SECRETS: [&str; 20] = [
    "your-super-secret-key-here-change-this-in-production",
    "your-super-secret-key-change-this-in-production",
    "your-very-secure-secret-key-at-least-32-characters",
    "your-very-secure-secret-key-here",
    "your-encryption-key-here-32-bytes",
    "your-32-byte-encryption-key-here",
    "your-secret-key-here",
    "your-secret-key",
    "your-encryption-key",
    "your_secret_key_here_at_least_32_characters",
    "change-this-to-a-long-random-secret-value",
    "changeme",
    "change-me",
    "changethis",
    "secret",
    "secret-key",
    "supersecret",
    "super-secret-key",
    "password",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
];

/// Administrators' passwords that stand in examples, in lower case.
const KNOWN_ADMIN_PASSWORDS: [&str; 14] = [
    "admin123!",
    "admin123",
    "admin",
    "administrator",
    "administrator1",
    "password",
    "password123",
    "password1234",
    "changeme",
    "change-me-please",
    "secure-admin-password",
    "your-admin-password",
    "your-secure-admin-password",
    "secure-admin-password-here",
];

/// What is wrong with a secret that signs or encrypts, with the way out; `None` when nothing is.
///
/// It must not be a known placeholder, must have 32 bytes, and 3.5 bits of entropy a character
/// (Shannon, over its own letters).
#[must_use]
pub fn weakness(secret: &SecretString) -> Option<&'static str> {
    let text = secret.expose_secret();
    if known(text, &KNOWN_SECRETS) {
        return Some(
            "it is a placeholder from public documentation: make one with `openssl rand -base64 48`",
        );
    }
    if text.len() < MIN_SECRET_BYTES {
        return Some("it is shorter than 32 bytes: make one with `openssl rand -base64 48`");
    }
    if bits_per_char(text) < MIN_BITS_PER_CHAR {
        return Some("it repeats too few characters: make one with `openssl rand -base64 48`");
    }
    None
}

/// What is wrong with the first administrator's password, with the way out; `None` when nothing is.
///
/// It must not be a known default and must have 12 characters.
#[must_use]
pub fn weak_admin_password(password: &SecretString) -> Option<&'static str> {
    let text = password.expose_secret();
    if known(text, &KNOWN_ADMIN_PASSWORDS) {
        return Some("it is a default from public documentation: choose another of at least 12 characters");
    }
    if text.chars().nth(MIN_ADMIN_CHARS - 1).is_none() {
        return Some("it is shorter than 12 characters: choose a longer one");
    }
    None
}

fn known(text: &str, list: &[&str]) -> bool {
    list.iter().any(|listed| text.trim().eq_ignore_ascii_case(listed))
}

#[expect(clippy::cast_precision_loss, reason = "secrets are far shorter than 2^52 characters")]
fn bits_per_char(text: &str) -> f64 {
    let mut times: BTreeMap<char, usize> = BTreeMap::new();
    for letter in text.chars() {
        *times.entry(letter).or_default() += 1;
    }
    let length = text.chars().count().max(1) as f64;
    times.values().map(|count| *count as f64 / length).map(|share| -share * share.log2()).sum()
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::{KNOWN_ADMIN_PASSWORDS, KNOWN_SECRETS, bits_per_char, weak_admin_password, weakness};
    use crate::credential::password::random_password;

    fn weak(text: &str) -> Option<&'static str> {
        weakness(&SecretString::from(text))
    }

    #[test]
    fn placeholders_short_and_monotonous_secrets_are_refused_without_being_repeated() {
        let mut bad: Vec<String> = KNOWN_SECRETS.iter().map(ToString::to_string).collect();
        bad.extend(KNOWN_SECRETS.iter().map(|text| format!(" {}\n", text.to_uppercase())));
        bad.extend(["", "0123456789abcdefghijABCDEFGHIJ0"].map(ToOwned::to_owned));
        bad.extend([&"a".repeat(64), &"0123456789".repeat(10), &"changeme".repeat(8)].map(ToOwned::to_owned));
        for text in bad {
            let said = weak(&text).unwrap_or_else(|| panic!("{text:?} passed"));
            assert!(text.trim().len() < 7 || !said.contains(text.trim()), "{said}");
        }
    }

    #[test]
    fn random_secrets_pass() {
        for good in [
            "kP3x/9Qm0ZrT6uVwYb1cJd4eFgHiLnAoSsKqXt2M5y8=",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        ] {
            assert_eq!(weak(good), None);
        }
    }

    #[test]
    fn entropy_is_shannons() {
        assert!(bits_per_char("").abs() < 1e-9);
        assert!(bits_per_char("aaaa").abs() < 1e-9);
        assert!((bits_per_char("abab") - 1.0).abs() < 1e-9);
        assert!((bits_per_char("0123456789abcdef") - 4.0).abs() < 1e-9);
    }

    #[test]
    fn an_administrators_password_is_no_default_and_not_short() {
        let bad = KNOWN_ADMIN_PASSWORDS.into_iter().chain(["Admin123!", "ADMIN", "", "elevenchars"]);
        for text in bad {
            assert!(weak_admin_password(&SecretString::from(text)).is_some(), "{text:?}");
        }
        assert_eq!(weak_admin_password(&SecretString::from("twelve chars")), None);
        assert_eq!(weak_admin_password(&random_password()), None);
    }
}
