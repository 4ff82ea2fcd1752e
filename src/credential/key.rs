//! API keys: `pe-` and 32 letters or digits, made, recognised, and looked up by a digest.
//!
//! Format 1 is 32 random characters. Format 2, the one made here, is 26 random characters (154
//! bits) and a checksum in the last 6, by which a scanner that finds a leaked key can tell it from
//! noise. Both are 35 characters and equally good; the checksum is never a reason to refuse.
//!
//! What is stored and compared is [`KeyDigest`]. It is keyed: who can write the database, but does
//! not hold the [`Pepper`], cannot make a row that some key of theirs would match.

use std::fmt;
use std::hash::{Hash, Hasher};

use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::{derive_mac, draw};

const PREFIX: &str = "pe-";
const LENGTH: usize = 35;
const CHECKSUM_AT: usize = 29;
const SHOWN: usize = 7;
const PEPPER_LABEL: &str = "tollgate key lookup v1";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A whole API key: `^pe-[0-9A-Za-z]{32}$`. Wiped from memory when dropped, never printed.
#[derive(Clone)]
pub struct PlainKey(SecretString);

/// How the 32 characters of a key came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyFormat {
    /// 32 random characters.
    V1,
    /// 26 random characters and their checksum.
    V2,
}

/// Why a text is no key, before anybody asks whose. It never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MalformedKey {
    /// It does not begin with `pe-`.
    #[error("an API key begins with `pe-`")]
    Prefix,
    /// It is not 35 bytes long.
    #[error("an API key is 35 characters long: `pe-` and 32 letters or digits")]
    Length,
    /// Something besides ASCII letters and digits follows the prefix.
    #[error("after `pe-` an API key has only the letters A-Z and a-z and the digits 0-9")]
    Charset,
}

/// The secret half of a key look-up, the same for every key of an installation.
#[derive(Clone)]
pub struct Pepper(Hmac<Sha256>);

/// HMAC-SHA256 of a key under the [`Pepper`]: what the database and every cache know a key by, in
/// full length, so that no two keys share an entry. Compared in constant time.
#[derive(Clone, Copy)]
pub struct KeyDigest([u8; 32]);

/// Stored bytes that are no digest, because they are not 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a key digest is 32 bytes long")]
pub struct WrongDigestLength;

// === impl PlainKey ===

impl PlainKey {
    /// A new key of format 2.
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness to give.
    #[must_use]
    pub fn generate() -> Self {
        let random = draw(BASE62, CHECKSUM_AT - PREFIX.len());
        let mut text = String::with_capacity(LENGTH);
        text.push_str(PREFIX);
        text.push_str(&random);
        let sum = checksum(&text);
        text.extend(sum.map(char::from));
        Self(SecretString::from(text))
    }

    /// Reads a key by its form alone: prefix, length, characters. Both formats pass.
    ///
    /// # Errors
    ///
    /// The first rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, MalformedKey> {
        let Some(rest) = text.strip_prefix(PREFIX) else { return Err(MalformedKey::Prefix) };
        if text.len() != LENGTH {
            return Err(MalformedKey::Length);
        }
        if !rest.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(MalformedKey::Charset);
        }
        Ok(Self(SecretString::from(text)))
    }

    /// Whether a credential is meant for us rather than for a provider behind us.
    #[must_use]
    pub fn looks_like_ours(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Format 2 where the checksum fits. One in 4 thousand million keys of format 1 fits by chance,
    /// and loses nothing by it.
    #[must_use]
    pub fn format(&self) -> KeyFormat {
        let fits = self.expose().split_at_checked(CHECKSUM_AT);
        let fits = fits.is_some_and(|(body, tail)| tail.as_bytes() == checksum(body));
        if fits { KeyFormat::V2 } else { KeyFormat::V1 }
    }

    /// What this key is looked up by.
    #[must_use]
    pub fn digest(&self, pepper: &Pepper) -> KeyDigest {
        let mut mac = pepper.0.clone();
        mac.update(self.expose().as_bytes());
        KeyDigest(mac.finalize().into_bytes().into())
    }

    /// The first 7 characters: enough for its owner to recognise it, too few to guess the rest.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.expose().get(..SHOWN).unwrap_or_default()
    }

    /// The whole key. Only for handing it to its owner and for sealing it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for PlainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainKey(…)")
    }
}

/// CRC-32 of the characters before it, in six base-62 digits, most significant first.
fn checksum(body: &str) -> [u8; LENGTH - CHECKSUM_AT] {
    let mut rest = crc32fast::hash(body.as_bytes());
    let mut digits = [b'0'; LENGTH - CHECKSUM_AT];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62.get((rest % 62) as usize).copied().unwrap_or(b'0');
        rest /= 62;
    }
    digits
}

// === impl KeyFormat ===

impl KeyFormat {
    /// The number stored beside a key.
    #[must_use]
    pub fn as_i64(self) -> i64 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    /// The format of a stored number; `None` for numbers that no version wrote.
    #[must_use]
    pub fn from_i64(stored: i64) -> Option<Self> {
        match stored {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            _ => None,
        }
    }
}

// === impl Pepper ===

impl Pepper {
    /// The pepper of an installation. With another encryption key no stored digest matches any more.
    #[must_use]
    pub fn derive(encryption_key: &SecretString) -> Self {
        Self(derive_mac(encryption_key, PEPPER_LABEL))
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(…)")
    }
}

// === impl KeyDigest ===

impl KeyDigest {
    /// The form in which it is stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<&[u8]> for KeyDigest {
    type Error = WrongDigestLength;

    fn try_from(stored: &[u8]) -> Result<Self, Self::Error> {
        stored.try_into().map(Self).map_err(|_| WrongDigestLength)
    }
}

impl PartialEq for KeyDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for KeyDigest {}

impl Hash for KeyDigest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(…)")
    }
}

#[cfg(test)]
#[expect(clippy::string_slice, reason = "a test may panic")]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
    use secrecy::SecretString;

    use super::{BASE62, KeyDigest, KeyFormat, MalformedKey, Pepper, PlainKey, WrongDigestLength};

    const FORMAT_1: &str = "pe-0123456789abcdefghijABCDEFGHIJ01";

    fn pepper() -> Pepper {
        Pepper::derive(&SecretString::from("a secret of at least 32 characters, we hope"))
    }

    #[test]
    fn a_new_key_has_35_characters_and_a_checksum_that_fits() {
        let mut seen = HashSet::new();
        for _ in 0..2_000 {
            let key = PlainKey::generate();
            assert_eq!(key.expose().len(), 35);
            assert_eq!(key.format(), KeyFormat::V2);
            assert_eq!(PlainKey::parse(key.expose()).unwrap().format(), KeyFormat::V2);
            assert!(seen.insert(key.expose().to_owned()), "a key was made twice");
        }
    }

    #[test]
    fn a_key_of_format_2_stays_one_for_ever() {
        // CRC-32 of the first 29 characters is 0x04d2_b102, by zlib.
        let key = PlainKey::parse("pe-ABCDEFGHIJKLMNOPQRSTUVWXYZ05TW8g").unwrap();
        assert_eq!(key.format(), KeyFormat::V2);
    }

    #[test]
    fn a_key_of_either_format_passes_and_one_changed_letter_makes_it_format_1() {
        assert_eq!(PlainKey::parse(FORMAT_1).unwrap().format(), KeyFormat::V1);
        let key = PlainKey::generate();
        for at in 3..35 {
            let mut changed = key.expose().as_bytes().to_vec();
            changed[at] = if changed[at] == b'x' { b'y' } else { b'x' };
            let changed = PlainKey::parse(std::str::from_utf8(&changed).unwrap()).unwrap();
            assert_eq!(changed.format(), KeyFormat::V1, "letter {at}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_by_its_form() {
        let cases = [
            ("", MalformedKey::Prefix),
            ("pe", MalformedKey::Prefix),
            ("PE-0123456789abcdefghijABCDEFGHIJ01", MalformedKey::Prefix),
            (" pe-0123456789abcdefghijABCDEFGHIJ0", MalformedKey::Prefix),
            ("sk-0123456789abcdefghijABCDEFGHIJ01", MalformedKey::Prefix),
            ("pe-", MalformedKey::Length),
            ("pe-0123456789abcdefghijABCDEFGHIJ0", MalformedKey::Length),
            ("pe-0123456789abcdefghijABCDEFGHIJ012", MalformedKey::Length),
            ("pe-0123456789abcdefghijABCDEFGHIJ0\n", MalformedKey::Charset),
            ("pe-0123456789abcdefghijABCDEFGHIJ0'", MalformedKey::Charset),
            ("pe-0123456789abcdefghijABCDEFGHIJ0\0", MalformedKey::Charset),
            ("pe-0123456789abcdefghijABCDEFGHIJ0é", MalformedKey::Length),
            ("pe-0123456789abcdefghijABCDEFGHIJé", MalformedKey::Charset),
        ];
        for (text, why) in cases {
            assert_eq!(PlainKey::parse(text).map(|_| ()), Err(why), "{text:?}");
        }
    }

    #[test]
    fn only_the_prefix_says_whose_a_credential_is() {
        assert!(PlainKey::looks_like_ours("pe-"));
        assert!(PlainKey::looks_like_ours(FORMAT_1));
        for foreign in ["", "pe", "sk-ant-pe-", "Pe-0", " pe-"] {
            assert!(!PlainKey::looks_like_ours(foreign), "{foreign:?}");
        }
    }

    #[test]
    fn keys_that_share_all_but_the_last_letter_never_share_a_digest() {
        let pepper = pepper();
        let ends = BASE62.iter().flat_map(|a| BASE62.iter().map(move |b| (*a, *b)));
        let keys = ends.map(|(a, b)| format!("{}{}{}", &FORMAT_1[..33], char::from(a), char::from(b)));
        let digests: HashSet<KeyDigest> =
            keys.map(|key| PlainKey::parse(&key).unwrap().digest(&pepper)).collect();
        assert_eq!(digests.len(), 62 * 62);
    }

    #[test]
    fn a_digest_is_hmac_sha256_of_the_key() {
        // By hmac, hashlib and an HKDF of Python.
        let key = PlainKey::parse(FORMAT_1).unwrap();
        let expected = "69d3a6d7c0f3110e91c1aa10f27b1083d2b495a7ac62371d6ed392b8cd9b8174";
        assert_eq!(key.digest(&pepper()).as_bytes().map(|byte| format!("{byte:02x}")).concat(), expected);
    }

    #[test]
    fn a_digest_depends_on_the_pepper_and_on_nothing_else() {
        let key = PlainKey::parse(FORMAT_1).unwrap();
        assert_eq!(key.digest(&pepper()), PlainKey::parse(FORMAT_1).unwrap().digest(&pepper()));
        let other = Pepper::derive(&SecretString::from("another secret"));
        assert_ne!(key.digest(&pepper()), key.digest(&other));
    }

    #[test]
    fn a_digest_goes_to_the_database_and_back() {
        let digest = PlainKey::parse(FORMAT_1).unwrap().digest(&pepper());
        assert_eq!(KeyDigest::try_from(digest.as_bytes().as_slice()), Ok(digest));
        assert_eq!(KeyDigest::try_from([0u8; 31].as_slice()), Err(WrongDigestLength));
        assert_eq!(KeyDigest::try_from([0u8; 33].as_slice()), Err(WrongDigestLength));
        for format in [KeyFormat::V1, KeyFormat::V2] {
            assert_eq!(KeyFormat::from_i64(format.as_i64()), Some(format));
        }
        assert_eq!(KeyFormat::from_i64(0), None);
    }

    #[test]
    fn nothing_secret_is_printed() {
        let key = PlainKey::parse(FORMAT_1).unwrap();
        let printed = format!("{key:?} {:?} {:?}", pepper(), key.digest(&pepper()));
        assert_eq!(printed, "PlainKey(…) Pepper(…) KeyDigest(…)");
        assert_eq!(key.prefix(), "pe-0123");
    }

    proptest! {
        #[test]
        fn exactly_the_keys_of_the_rule_are_read(text in "(pe-)?[0-9A-Za-z é'\\n-]{28,36}") {
            let by_rule = text.len() == 35
                && text.starts_with("pe-")
                && text[3..].bytes().all(|byte| byte.is_ascii_alphanumeric());
            prop_assert_eq!(PlainKey::parse(&text).is_ok(), by_rule);
        }

        #[test]
        fn every_key_of_the_rule_survives(text in "pe-[0-9A-Za-z]{32}") {
            let key = PlainKey::parse(&text).unwrap();
            prop_assert_eq!(key.expose(), text.as_str());
            prop_assert!(text.starts_with(key.prefix()));
        }
    }
}
