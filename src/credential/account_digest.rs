//! Digests of usernames and e-mail addresses, by which a deleted account's use of a day is found again.

use std::fmt;

use hmac::{Hmac, Mac};
use secrecy::SecretString;
use sha2::Sha256;

use super::{derive_mac, hex};

const LABEL: &str = "tollgate account digest v1";

/// Makes the digests of an installation. Without its encryption key a digest names no account.
#[derive(Clone)]
pub struct AccountDigests(Hmac<Sha256>);

// === impl AccountDigests ===

impl AccountDigests {
    /// With another encryption key, accounts deleted earlier on the same day are not found.
    #[must_use]
    pub fn derive(encryption_key: &SecretString) -> Self {
        Self(derive_mac(encryption_key, LABEL))
    }

    /// HMAC-SHA256 of a username in lower case, in 64 hexadecimal digits.
    #[must_use]
    pub fn of_username(&self, username: &str) -> String {
        self.of("username", username)
    }

    /// HMAC-SHA256 of an e-mail address in lower case, in 64 hexadecimal digits.
    #[must_use]
    pub fn of_email(&self, email: &str) -> String {
        self.of("e-mail", email)
    }

    fn of(&self, kind: &str, text: &str) -> String {
        let mut mac = self.0.clone();
        mac.update(kind.as_bytes());
        mac.update(&[0]);
        mac.update(text.to_lowercase().as_bytes());
        hex(&mac.finalize().into_bytes())
    }
}

impl fmt::Debug for AccountDigests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccountDigests(…)")
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::AccountDigests;

    #[test]
    fn a_digest_is_of_one_kind_one_name_and_one_installation() {
        let here = AccountDigests::derive(&SecretString::from("one secret of the operator"));
        let there = AccountDigests::derive(&SecretString::from("another secret, of another one"));
        assert_eq!(here.of_username("Ada").len(), 64);
        assert_eq!(here.of_username("Ada"), here.of_username("aDA"));
        assert_eq!(here.of_email("Ada@Example.com"), here.of_email("ada@example.COM"));
        assert_ne!(here.of_username("ada"), here.of_email("ada"));
        assert_ne!(here.of_username("ada"), here.of_username("bob"));
        assert_ne!(here.of_username("ada"), there.of_username("ada"));
    }
}
