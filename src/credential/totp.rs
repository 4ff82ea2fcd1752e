//! Time-based one-time passwords (RFC 6238) as a second factor: SHA-1, six digits, thirty seconds,
//! which is what every authenticator app understands.
//!
//! A code is good in its own step and one step to either side. That a step is accepted only once
//! (section 5.2) is for whoever keeps the last one.

use std::fmt;

use secrecy::SecretString;
use thiserror::Error;
use totp_rs::{Builder, Secret, Totp};

use crate::clock::Timestamp;

const DIGITS: usize = 6;
/// Steps before and after the present one whose codes are accepted.
const SKEW: u16 = 1;
const ISSUER: &str = "Tollgate";

/// The secret that an authenticator app and we share: 160 bits. Wiped from memory when dropped.
pub struct TotpSecret(Secret);

/// A stored text that is no secret of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the stored TOTP secret is not one")]
pub struct MalformedTotpSecret;

// === impl TotpSecret ===

impl TotpSecret {
    /// A new secret.
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness to give.
    #[must_use]
    pub fn generate() -> Self {
        Self(Secret::generate())
    }

    /// Reads the form that [`to_text`](Self::to_text) writes.
    ///
    /// # Errors
    ///
    /// [`MalformedTotpSecret`], also for one of less than 128 bits.
    pub fn from_text(text: &str) -> Result<Self, MalformedTotpSecret> {
        let secret = Secret::try_from_base32(text).map_err(|_| MalformedTotpSecret)?;
        if secret.as_bytes().len() < 16 { Err(MalformedTotpSecret) } else { Ok(Self(secret)) }
    }

    /// Base32 without padding, as it is typed into an app by hand.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        SecretString::from(self.0.to_base32())
    }

    /// The `otpauth://` URL that an app reads from a QR code. A colon in the account's name, which the
    /// URL cannot hold, becomes a blank.
    #[must_use]
    pub fn url(&self, account: &str) -> SecretString {
        let account = account.replace(':', " ");
        let totp = Builder::new().with_secret(self.0.clone()).with_account_name(account);
        let totp = totp.with_issuer(Some(ISSUER)).build();
        let url = totp.ok().and_then(|totp| totp.to_url().ok());
        SecretString::from(url.unwrap_or_default())
    }

    /// The step whose code this is, if it is one of those accepted at `now`.
    #[must_use]
    pub fn step_of(&self, code: &str, now: Timestamp) -> Option<i64> {
        let code = code.trim();
        if code.len() != DIGITS || !code.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let seconds = u64::try_from(now.unix_seconds()).ok()?;
        self.totp()?.check(code, seconds).and_then(|step| i64::try_from(step).ok())
    }

    fn totp(&self) -> Option<Totp> {
        Builder::new().with_secret(self.0.clone()).with_skew(SKEW).build().ok()
    }
}

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::TotpSecret;
    use crate::clock::Timestamp;

    /// "12345678901234567890", the secret of RFC 6238, appendix B.
    const RFC: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    #[test]
    fn the_test_vectors_of_rfc_6238_hold() {
        let secret = TotpSecret::from_text(RFC).unwrap();
        // The last six of the eight digits in the table, and T.
        let vectors = [
            (59, "287082", 0x1),
            (1_111_111_109, "081804", 0x235_23EC),
            (1_111_111_111, "050471", 0x235_23ED),
            (1_234_567_890, "005924", 0x273_EF07),
            (2_000_000_000, "279037", 0x3F9_40AA),
            (20_000_000_000_i64, "353130", 0x27BC_86AA),
        ];
        for (seconds, code, step) in vectors {
            assert_eq!(secret.step_of(code, Timestamp(seconds * 1000)), Some(step), "{seconds}");
        }
    }

    #[test]
    fn a_code_is_good_for_one_step_to_either_side() {
        let secret = TotpSecret::from_text(RFC).unwrap();
        let at = |seconds: i64| secret.step_of("005924", Timestamp(seconds * 1000));
        let begin = 1_234_567_890 / 30 * 30;
        for (from_begin, good) in [(-31, false), (-30, true), (0, true), (59, true), (60, false)] {
            assert_eq!(at(begin + from_begin).is_some(), good, "{from_begin}");
        }
    }

    #[test]
    fn what_is_not_six_digits_is_no_code() {
        let secret = TotpSecret::from_text(RFC).unwrap();
        for code in ["", "5924", "0059240", "00592a", "００５９２４", "+05924", "005 924"] {
            assert_eq!(secret.step_of(code, Timestamp(1_234_567_890_000)), None, "{code}");
        }
        assert!(secret.step_of(" 005924 ", Timestamp(1_234_567_890_000)).is_some());
    }

    #[test]
    fn a_secret_is_read_back_and_told_as_a_url() {
        let secret = TotpSecret::generate();
        let text = secret.to_text();
        assert_eq!(text.expose_secret().len(), 32);
        let again = TotpSecret::from_text(text.expose_secret()).unwrap();
        assert_eq!(again.to_text().expose_secret(), text.expose_secret());
        let url = secret.url("ann:@example.com");
        assert!(url.expose_secret().starts_with("otpauth://totp/Tollgate:ann%20%40example.com?"));
        assert!(url.expose_secret().contains(&format!("secret={}", text.expose_secret())));
        assert!(url.expose_secret().contains("issuer=Tollgate"));
        assert!(TotpSecret::from_text("GEZDG").is_err());
        assert_eq!(format!("{secret:?}"), "TotpSecret(…)");
    }
}
