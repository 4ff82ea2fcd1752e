//! The seal under which API keys are stored so that their owners can read them again: Fernet, as
//! the earlier service wrote it, so that its database and its encryption key carry over.
//!
//! A sealed key is as good as the key where the installation accepts sealed keys as bearers; it is
//! kept out of logs like one.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use fernet::Fernet;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

const MAX_TOKEN_BYTES: usize = 4096;
/// What [`Sealer::open`] takes for the time: later than any token is dated, and far enough from the end
/// that the minute of grace can be added to it.
const LATEST: u64 = u64::MAX >> 1;
const FERNET_KEY_CHARS: usize = 44;

/// Seals and opens short texts with one key. Age plays no part: what was sealed opens for good.
#[derive(Clone)]
pub struct Sealer(Fernet);

/// A text that this key did not seal, or that was changed since. It never says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("this was not sealed with the present encryption key")]
pub struct Unsealable;

// === impl Sealer ===

impl Sealer {
    /// A Fernet key (44 characters of url-safe base64 for 32 bytes) is used as it is; of any other
    /// text the SHA-256 becomes the key.
    #[must_use]
    pub fn new(encryption_key: &SecretString) -> Self {
        let text = encryption_key.expose_secret();
        let as_it_is = (text.len() == FERNET_KEY_CHARS).then(|| Fernet::new(text)).flatten();
        Self(as_it_is.unwrap_or_else(|| of_text(text)))
    }

    /// Seals a text. Twice the same text gives two different tokens.
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness to give.
    #[must_use]
    pub fn seal(&self, plain: &str) -> String {
        self.0.encrypt(plain.as_bytes())
    }

    /// Opens what [`seal`](Self::seal) or the earlier service made with this key. Tokens beyond 4 KiB
    /// are refused before they are decoded. When it is dated plays no part: a clock that was wrong and is
    /// set back makes nothing unreadable.
    ///
    /// # Errors
    ///
    /// [`Unsealable`], whatever the reason.
    pub fn open(&self, token: &str) -> Result<SecretString, Unsealable> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Unsealable);
        }
        // Without a time to live: with one, an unchecked number from the token is added to before its
        // signature is checked, so that a forged token panics.
        let plain = self.0.decrypt_at_time(token, None, LATEST).map_err(|_| Unsealable)?;
        let plain = Zeroizing::new(plain);
        std::str::from_utf8(&plain).map(SecretString::from).map_err(|_| Unsealable)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(…)")
    }
}

fn of_text(text: &str) -> Fernet {
    let key = Zeroizing::new(URL_SAFE.encode(Sha256::digest(text.as_bytes())));
    #[expect(clippy::expect_used, reason = "a SHA-256 is the 32 bytes that a Fernet key is")]
    Fernet::new(&key).expect("32 bytes make a Fernet key")
}

#[cfg(test)]
#[expect(clippy::string_slice, reason = "a test may panic")]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE;
    use secrecy::{ExposeSecret, SecretString};

    use super::{Sealer, Unsealable};

    const KEY: &str = "pe-0123456789abcdefghijABCDEFGHIJ01";

    // Made with `cryptography` 48 for Python, at the time 1 700 000 000.
    const FERNET_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const BY_FERNET_KEY: &str = "gAAAAABlU_EA6pgoRoxZggkC8JtO7qxDEfZE5sP4HRq2Uh3orSOrDj--7d6MofOaR-G0whiv9fzu9R6N54n4QjMQXj2TkcrwbwDgaw5dpmnTRM9_Rsg9QYiYepG22i6JnUZMTm6512tD";
    const TEXT_KEY: &str = "a text key, not a Fernet key, of the seed's kind";
    const BY_TEXT_KEY: &str = "gAAAAABlU_EAP7k78E-NKIOyDOwWrkkemoPNZmDuNIAlvkHMjF6HAveXiRrFCC_TuEus4lzuebzzebqpYolJL3e3zTbwY3GNIg==";
    const NOT_UTF_8: &str = "gAAAAABlU_EAa6qMl7mbgst4p9_xlkHq6SdnlJV5bvkFiLDKvvLquGwNZGs8OlmJcg0kJFvAAV28Xgls9qnPkDkgTWF64Bwv1w==";

    fn sealer(key: &str) -> Sealer {
        Sealer::new(&SecretString::from(key))
    }

    fn opened(sealer: &Sealer, token: &str) -> Result<String, Unsealable> {
        sealer.open(token).map(|plain| plain.expose_secret().to_owned())
    }

    #[test]
    fn what_the_earlier_service_sealed_opens() {
        assert_eq!(opened(&sealer(FERNET_KEY), BY_FERNET_KEY).as_deref(), Ok(KEY));
        assert_eq!(opened(&sealer(TEXT_KEY), BY_TEXT_KEY).as_deref(), Ok("pe-Grüße"));
    }

    #[test]
    fn a_sealed_key_opens_again_and_is_140_characters() {
        for key in [FERNET_KEY, TEXT_KEY, "", "x"] {
            let sealer = sealer(key);
            let (one, two) = (sealer.seal(KEY), sealer.seal(KEY));
            assert_ne!(one, two);
            assert_eq!(one.len(), 140);
            assert_eq!(opened(&sealer, &one).as_deref(), Ok(KEY));
            assert_eq!(opened(&sealer, &two).as_deref(), Ok(KEY));
        }
    }

    #[test]
    fn what_was_sealed_while_the_clock_was_years_ahead_opens_after_it_is_set_back() {
        let sealer = sealer(FERNET_KEY);
        let in_2100 = 4_102_444_800;
        for dated in [0, in_2100, u64::MAX >> 1] {
            let token = sealer.0.encrypt_at_time(KEY.as_bytes(), dated);
            assert_eq!(opened(&sealer, &token).as_deref(), Ok(KEY), "{dated}");
        }
    }

    #[test]
    fn another_key_opens_nothing() {
        assert_eq!(opened(&sealer(TEXT_KEY), BY_FERNET_KEY), Err(Unsealable));
        assert_eq!(opened(&sealer(FERNET_KEY), BY_TEXT_KEY), Err(Unsealable));
        // 43 characters are a text to Python, which insists on the padding, and so to us.
        assert_eq!(opened(&sealer(&FERNET_KEY[..43]), BY_FERNET_KEY), Err(Unsealable));
    }

    #[test]
    fn a_changed_token_does_not_open_and_never_panics() {
        let sealer = sealer(FERNET_KEY);
        for at in 0..BY_FERNET_KEY.len() {
            let mut changed = BY_FERNET_KEY.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(opened(&sealer, std::str::from_utf8(&changed).unwrap()), Err(Unsealable), "{at}");
            assert_eq!(opened(&sealer, &BY_FERNET_KEY[..at]), Err(Unsealable), "{at}");
        }
        let mut forged = vec![0x80];
        forged.extend([0xff; 8 + 16 + 16 + 32]);
        for rubbish in ["", "=", "é", "pe-", &URL_SAFE.encode(forged), NOT_UTF_8, &"A".repeat(4097)] {
            assert_eq!(opened(&sealer, rubbish), Err(Unsealable), "{rubbish}");
        }
    }

    #[test]
    fn what_is_longer_than_4_kib_is_not_looked_at() {
        let sealer = sealer(FERNET_KEY);
        assert!(sealer.open(&sealer.seal(&"x".repeat(2_900))).is_ok());
        assert_eq!(opened(&sealer, &sealer.seal(&"x".repeat(3_100))), Err(Unsealable));
    }

    #[test]
    fn nothing_secret_is_printed() {
        assert_eq!(format!("{:?}", sealer(FERNET_KEY)), "Sealer(…)");
    }
}
