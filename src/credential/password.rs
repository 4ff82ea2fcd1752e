//! Passwords: the rule they follow, bcrypt, and a hash for accounts that do not exist.
//!
//! bcrypt looks at 72 bytes and stops at NUL, so two long passwords could open one account. A text
//! beyond either is therefore never a [`Password`]; nothing here hashes or compares a part of one.
//!
//! Hashing takes a core for tens to hundreds of milliseconds, which is its purpose. Callers run
//! [`hash`], [`verify`] and [`dummy`] on a pool for blocking work, a bounded number at a time.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use bcrypt::{BcryptError, HashParts};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

use super::draw;

const MIN_CHARS: usize = 8;
const MAX_BYTES: usize = 72;
const COSTS: RangeInclusive<u32> = 4..=16;
/// Letters and digits that are not mistaken for each other when read aloud or copied by hand.
const READABLE: &[u8] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz";
const RANDOM_CHARS: usize = 20;

/// A text that bcrypt sees whole: at most 72 bytes, no NUL. Wiped from memory when dropped.
#[derive(Clone)]
pub struct Password(SecretString);

/// The rule that a new password breaks, with the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PasswordRule {
    /// Fewer than 8 characters.
    #[error("the password is too short: use at least 8 characters")]
    TooShort,
    /// No digit.
    #[error("the password has no digit: add at least one of 0-9")]
    NoDigit,
    /// More than 72 bytes of UTF-8.
    #[error(
        "the password is too long: use at most 72 bytes (72 characters of plain English, fewer with accents or emoji)"
    )]
    TooLong,
    /// A NUL character.
    #[error("the password has a NUL character in it: leave it out")]
    Nul,
}

/// A bcrypt hash as it is stored, `$2b$…`; not known to be well-formed. Never printed.
#[derive(Clone)]
pub struct PasswordHash(String);

/// Why no hash could be made; both are the installation's fault, not the password's.
#[derive(Debug, Error)]
pub enum HashError {
    /// The configured cost is not one that we hash with.
    #[error("a bcrypt cost of {0} is out of range: set it between 4 and 16")]
    Cost(u32),
    /// The operating system gave no salt.
    #[error("no password hash could be made")]
    Bcrypt(#[source] BcryptError),
}

/// Hashes a password with a new salt; each step of `cost` doubles the time.
///
/// # Errors
///
/// [`HashError`], for a cost outside 4 to 16 or a machine without randomness.
pub fn hash(password: &Password, cost: u32) -> Result<PasswordHash, HashError> {
    if !COSTS.contains(&cost) {
        return Err(HashError::Cost(cost));
    }
    #[expect(clippy::disallowed_methods, reason = "a Password is never longer than bcrypt reads")]
    bcrypt::hash(password.expose(), cost).map(PasswordHash).map_err(HashError::Bcrypt)
}

/// Whether this is the password that was hashed, compared in constant time.
///
/// `$2a$`, `$2b$` and `$2y$` hashes are understood. A hash that is malformed, of another kind, or
/// dearer than cost 16 (which would hold a core for minutes) is nobody's.
#[must_use]
pub fn verify(password: &Password, hash: &PasswordHash) -> bool {
    if hash.cost().is_none_or(|cost| !COSTS.contains(&cost)) {
        return false;
    }
    #[expect(clippy::disallowed_methods, reason = "a Password is never longer than bcrypt reads")]
    bcrypt::verify(password.expose(), hash.as_str()).unwrap_or(false)
}

/// After a comparison with `hash` that failed: spends what it took less than one with a hash of `cost`
/// takes. Accounts from before the cost was raised would be told by their haste otherwise. A dearer hash
/// has nothing to spend.
///
/// A step of the cost doubles the work, so a hash at each cost from the old one up to the new one adds
/// up to the difference.
pub fn spend_the_rest(password: &Password, stored: &PasswordHash, cost: u32) {
    let made_at = stored.cost().filter(|made_at| COSTS.contains(made_at));
    let missing = made_at.map_or(cost..cost.saturating_add(1), |made_at| made_at..cost);
    for step in missing {
        // A cost out of range has no account either.
        let _ = hash(password, step);
    }
}

/// Whether a hash that just proved right should be made anew: it was made at a lower cost than
/// `cost`, or in another form than ours. A dearer hash is kept.
#[must_use]
pub fn needs_rehash(hash: &PasswordHash, cost: u32) -> bool {
    !hash.as_str().starts_with("$2b$") || hash.cost().is_none_or(|made_at| made_at < cost)
}

/// A hash of a password that nobody knows, made with the live cost at start. Verifying against it
/// when an account does not exist takes as long as when it does.
///
/// # Errors
///
/// [`HashError`], as for [`hash`].
pub fn dummy(cost: u32) -> Result<PasswordHash, HashError> {
    hash(&Password(random_password()), cost)
}

/// 20 characters that are hard to misread, with at least one digit (115 bits): the first password of
/// an account that somebody else makes.
///
/// # Panics
///
/// When the operating system has no randomness to give.
#[must_use]
pub fn random_password() -> SecretString {
    loop {
        let text = draw(READABLE, RANDOM_CHARS);
        if text.bytes().any(|byte| byte.is_ascii_digit()) {
            return SecretString::from(text.as_str());
        }
    }
}

// === impl Password ===

impl Password {
    /// A new password, held to the rule: at least 8 characters, at least one digit 0-9, at most 72
    /// bytes, no NUL.
    ///
    /// # Errors
    ///
    /// The first rule that it breaks.
    pub fn check(text: impl Into<SecretString>) -> Result<Self, PasswordRule> {
        let text = text.into();
        readable_whole(text.expose_secret())?;
        if text.expose_secret().chars().nth(MIN_CHARS - 1).is_none() {
            return Err(PasswordRule::TooShort);
        }
        if !text.expose_secret().bytes().any(|byte| byte.is_ascii_digit()) {
            return Err(PasswordRule::NoDigit);
        }
        Ok(Self(text))
    }

    /// A password somebody tries. `None` when it cannot be anybody's, whatever the account: answer
    /// as for a wrong one, without asking for the account.
    #[must_use]
    pub fn candidate(text: impl Into<SecretString>) -> Option<Self> {
        let text = text.into();
        readable_whole(text.expose_secret()).ok()?;
        Some(Self(text))
    }

    fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

fn readable_whole(text: &str) -> Result<(), PasswordRule> {
    if text.len() > MAX_BYTES {
        return Err(PasswordRule::TooLong);
    }
    if text.contains('\0') {
        return Err(PasswordRule::Nul);
    }
    Ok(())
}

// === impl PasswordHash ===

impl PasswordHash {
    /// Takes over what the database holds; [`verify`] finds out whether it is a hash.
    #[must_use]
    pub fn from_stored(stored: String) -> Self {
        Self(stored)
    }

    /// The form in which it is stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The cost it was made at; `None` if it is not a hash of a kind we read. `$2x$` marks hashes
    /// of an implementation that lost bits of every non-ASCII letter.
    fn cost(&self) -> Option<u32> {
        let known = ["$2a$", "$2b$", "$2y$"].iter().any(|kind| self.0.starts_with(kind));
        known.then(|| HashParts::from_str(&self.0).ok())?.map(|parts| parts.get_cost())
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

#[cfg(test)]
#[expect(clippy::string_slice, reason = "a test may panic")]
mod tests {
    use secrecy::ExposeSecret;

    use super::{
        HashError, Password, PasswordHash, PasswordRule, dummy, hash, needs_rehash, random_password, verify,
    };

    fn candidate(text: &str) -> Password {
        Password::candidate(text).unwrap()
    }

    fn stored(text: &str) -> PasswordHash {
        PasswordHash::from_stored(text.to_owned())
    }

    #[test]
    fn a_new_password_follows_the_rule() {
        let longest = format!("1{}", "x".repeat(71));
        let accents = format!("1é{}", "é".repeat(34));
        for good in ["password123", "12345678", "ééééééé1", "Ünïcödé 1 with spaces", &longest, &accents]
        {
            assert!(Password::check(good).is_ok(), "{good:?}");
        }
        let cases = [
            ("", PasswordRule::TooShort),
            ("abcdef1", PasswordRule::TooShort),
            ("éééééé1", PasswordRule::TooShort),
            ("password", PasswordRule::NoDigit),
            ("pass١word", PasswordRule::NoDigit),
            ("pass\0word1", PasswordRule::Nul),
            (&format!("{longest}x"), PasswordRule::TooLong),
            (&format!("{accents}éé"), PasswordRule::TooLong),
        ];
        for (bad, rule) in cases {
            assert_eq!(Password::check(bad).map(|_| ()), Err(rule), "{bad:?}");
        }
    }

    #[test]
    fn a_password_beyond_72_bytes_opens_nothing() {
        let at_the_limit = "7".repeat(72);
        let hashed = hash(&candidate(&at_the_limit), 4).unwrap();
        assert!(verify(&candidate(&at_the_limit), &hashed));
        assert!(!verify(&candidate(&at_the_limit[..71]), &hashed));
        assert!(Password::candidate(format!("{at_the_limit}A")).is_none());
        assert!(Password::candidate(format!("{at_the_limit}B")).is_none());
        assert!(Password::candidate("pass\0word1").is_none());
        assert!(Password::candidate("x".repeat(1 << 20)).is_none());
    }

    #[test]
    fn somebody_who_tries_is_not_told_the_rule_for_new_passwords() {
        for tried in ["", "short", "nodigits"] {
            assert!(Password::candidate(tried).is_some());
        }
    }

    #[test]
    fn only_the_password_itself_verifies_and_every_hash_has_its_own_salt() {
        let password = Password::check("correct horse 1").unwrap();
        let (one, two) = (hash(&password, 4).unwrap(), hash(&password, 4).unwrap());
        assert_ne!(one.as_str(), two.as_str());
        assert!(verify(&password, &one) && verify(&password, &two));
        for wrong in ["correct horse 2", "correct horse 1 ", "Correct horse 1", ""] {
            assert!(!verify(&candidate(wrong), &one), "{wrong:?}");
        }
    }

    #[test]
    fn hashes_of_other_implementations_are_understood() {
        let password = candidate("hunter2hunter2");
        let python = "$2b$04$avTt8bH0OvvpgVVsUHvDr.v1D25Gx7k1ahPwJ.zd.GmURlvlAIVuG";
        let older = "$2a$04$q4rFFpVrFq2RvfiMYXDFo.jcMCO4/6.6gknXbv9ule0HjwZLyGOhG";
        for hash in [python, older, &python.replace("$2b$", "$2y$")] {
            assert!(verify(&password, &stored(hash)), "{hash}");
            assert!(!verify(&candidate("hunter2hunter3"), &stored(hash)), "{hash}");
        }
    }

    #[test]
    fn what_is_no_hash_is_nobodys_and_never_a_panic() {
        let real = hash(&candidate("hunter2hunter2"), 4).unwrap();
        let mut broken: Vec<String> = (0..60).map(|end| real.as_str()[..end].to_owned()).collect();
        broken.extend([
            real.as_str().replace("$2b$", "$2x$"),
            real.as_str().replace("$04$", "$03$"),
            real.as_str().replace("$04$", "$17$"),
            real.as_str().replace("$04$", "$31$"),
            format!("{}x", real.as_str()),
            format!("$2b$04$é{}", "x".repeat(51)),
            "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$abcdefghijklmnopqrstuvwxyz012".to_owned(),
            "hunter2hunter2".to_owned(),
        ]);
        for hash in broken {
            let password = candidate("hunter2hunter2");
            assert!(!verify(&password, &stored(&hash)), "{hash:?}");
        }
    }

    #[test]
    fn a_hash_is_made_anew_when_it_was_cheaper_or_of_another_form() {
        let hash = hash(&candidate("hunter2hunter2"), 5).unwrap();
        assert!(!needs_rehash(&hash, 4) && !needs_rehash(&hash, 5) && needs_rehash(&hash, 6));
        assert!(needs_rehash(&stored(&hash.as_str().replace("$2b$", "$2a$")), 5));
        assert!(needs_rehash(&stored("nonsense"), 5));
    }

    #[test]
    fn an_account_that_does_not_exist_costs_what_the_others_cost() {
        let dummy = dummy(5).unwrap();
        assert!(dummy.as_str().starts_with("$2b$05$") && dummy.as_str().len() == 60);
        assert!(!verify(&candidate("password123"), &dummy));
    }

    #[test]
    fn a_cost_out_of_range_is_refused() {
        for cost in [0, 3, 17, 31, u32::MAX] {
            assert!(matches!(hash(&candidate("x"), cost), Err(HashError::Cost(given)) if given == cost));
        }
    }

    #[test]
    fn a_random_password_follows_the_rule_and_is_easy_to_read() {
        for _ in 0..500 {
            let password = random_password();
            assert_eq!(password.expose_secret().len(), 20);
            assert!(!password.expose_secret().contains(['0', 'O', 'o', '1', 'l', 'I']));
            assert!(Password::check(password).is_ok());
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let password = candidate("hunter2hunter2");
        let printed = format!("{password:?} {:?}", hash(&password, 4).unwrap());
        assert_eq!(printed, "Password(…) PasswordHash(…)");
    }
}
