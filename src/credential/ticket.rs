//! Tickets: secret texts that are handed out once and stored only as their digests. Refresh tokens,
//! the tokens that travel by mail, and recovery codes.
//!
//! Each kind is long enough for what guards it: a refresh token (43 letters and digits, 256 bits) is
//! guarded by nothing else; a mailed token (20 readable characters, 116 bits) and a recovery code (10,
//! 58 bits) by a bounded number of guesses.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::{derive_key, draw};

const REFRESH_PREFIX: &str = "tgr_";
const REFRESH_CHARS: usize = 43;
const MAILED_CHARS: usize = 20;
/// A recovery code is two groups of this many.
const RECOVERY_GROUP: usize = 5;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Letters and digits that are not mistaken for each other when copied by hand.
const READABLE: &[u8] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz";
/// Nothing longer is looked at.
const MAX_BYTES: usize = 128;

/// A ticket in plain text. Wiped from memory when dropped, never printed.
#[derive(Clone)]
pub struct Ticket(SecretString);

/// The secret half of a ticket's digest, one for each use.
#[derive(Clone)]
pub struct TicketKey(Hmac<Sha256>);

/// HMAC-SHA256 of a ticket: what the database knows it by. Compared in constant time.
#[derive(Clone, Copy)]
pub struct TicketDigest([u8; 32]);

// === impl Ticket ===

impl Ticket {
    /// A refresh token: `tgr_` and 43 letters and digits.
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness to give.
    #[must_use]
    pub fn refresh() -> Self {
        Self(SecretString::from(format!("{REFRESH_PREFIX}{}", *draw(BASE62, REFRESH_CHARS))))
    }

    /// A token to be sent by mail: 20 characters that are hard to misread.
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness to give.
    #[must_use]
    pub fn mailed() -> Self {
        Self(SecretString::from(draw(READABLE, MAILED_CHARS).as_str()))
    }

    /// A recovery code, such as `7hKpW-x3mRt`.
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness to give.
    #[must_use]
    pub fn recovery() -> Self {
        let group = || draw(READABLE, RECOVERY_GROUP);
        Self(SecretString::from(format!("{}-{}", *group(), *group())))
    }

    /// What somebody presents as a ticket, blanks around it taken away; `None` when it is longer than
    /// any. Whether it is one, its digest tells.
    #[must_use]
    pub fn presented(text: &SecretString) -> Option<Self> {
        let text = text.expose_secret().trim();
        (!text.is_empty() && text.len() <= MAX_BYTES).then(|| Self(SecretString::from(text)))
    }

    /// What this ticket is stored and found by.
    #[must_use]
    pub fn digest(&self, key: &TicketKey) -> TicketDigest {
        let mut mac = key.0.clone();
        mac.update(self.expose().as_bytes());
        TicketDigest(mac.finalize().into_bytes().into())
    }

    /// The ticket itself. Only for handing it over.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(…)")
    }
}

// === impl TicketKey ===

impl TicketKey {
    /// For refresh tokens: with another signing secret they end, as the sessions they renew do.
    #[must_use]
    pub fn of_sessions(secret_key: &SecretString) -> Self {
        Self::derive(secret_key, "tollgate refresh token v1")
    }

    /// For recovery codes and mailed tokens: like the sealed secrets beside which they are stored,
    /// they end with the encryption key.
    #[must_use]
    pub fn of_codes(encryption_key: &SecretString) -> Self {
        Self::derive(encryption_key, "tollgate code v1")
    }

    fn derive(secret: &SecretString, label: &str) -> Self {
        let key = derive_key(secret, label);
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        Self(Hmac::new_from_slice(key.as_ref()).expect("any length is a key"))
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey(…)")
    }
}

// === impl TicketDigest ===

impl TicketDigest {
    /// The form in which it is stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether these stored bytes are this digest, in constant time.
    #[must_use]
    pub fn is(&self, stored: &[u8]) -> bool {
        self.0.as_slice().ct_eq(stored).into()
    }
}

impl fmt::Debug for TicketDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketDigest(…)")
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::{Ticket, TicketKey};

    fn key() -> TicketKey {
        TicketKey::of_codes(&SecretString::from("an encryption key of these tests"))
    }

    #[test]
    fn every_kind_has_its_form_and_no_two_are_equal() {
        let (refresh, mailed, recovery) = (Ticket::refresh(), Ticket::mailed(), Ticket::recovery());
        assert!(refresh.expose().starts_with("tgr_") && refresh.expose().len() == 47);
        assert_eq!((mailed.expose().len(), recovery.expose().len()), (20, 11));
        assert_eq!(recovery.expose().as_bytes()[5], b'-');
        assert_ne!(Ticket::refresh().expose(), refresh.expose());
        assert_ne!(Ticket::recovery().expose(), recovery.expose());
    }

    #[test]
    fn a_ticket_is_known_by_its_digest_under_one_key() {
        let ticket = Ticket::mailed();
        let presented = Ticket::presented(&SecretString::from(format!(" {}\n", ticket.expose()))).unwrap();
        let digest = ticket.digest(&key());
        assert!(presented.digest(&key()).is(digest.as_bytes()));
        assert!(!Ticket::mailed().digest(&key()).is(digest.as_bytes()));
        let same_secret = SecretString::from("an encryption key of these tests");
        assert!(!presented.digest(&TicketKey::of_sessions(&same_secret)).is(digest.as_bytes()));
        assert!(!digest.is(&[]));
    }

    #[test]
    fn what_is_empty_or_endless_is_no_ticket_and_none_is_printed() {
        assert!(Ticket::presented(&SecretString::from("  ")).is_none());
        assert!(Ticket::presented(&SecretString::from("x".repeat(129))).is_none());
        let ticket = Ticket::refresh();
        let printed = format!("{ticket:?} {:?} {:?}", ticket.digest(&key()), key());
        assert_eq!(printed, "Ticket(…) TicketDigest(…) TicketKey(…)");
    }
}
