//! What proves who somebody is: `pe-` keys, passwords, session tokens, one-time codes, and the seal
//! under which a key is kept so that it can be shown again.
//!
//! Pure knowledge: nothing here asks a database or the wall clock whether something is valid. Two
//! secrets feed it all, and neither is used as it is: every purpose derives a key of its own
//! (HKDF-SHA256, RFC 5869), so that what leaks in one place opens nothing in another. The one
//! exception is [`seal::Sealer`], whose key must stay the one that earlier installations used.
//!
//! Randomness is the operating system's. Where that fails there is nothing safe left to do, and
//! making a key panics.

use std::fmt::Write;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit};
use rand::rand_core::UnwrapErr;
use rand::{Rng, rngs::SysRng};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use zeroize::Zeroizing;

pub mod account_digest;
pub mod erasure;
pub mod fingerprint;
pub mod key;
pub mod password;
pub mod presented;
pub mod seal;
pub mod strength;
pub mod ticket;
pub mod token;
pub mod totp;

/// The key of one purpose. The same secret and label give the same 32 bytes on every machine;
/// another label gives bytes that tell nothing about these.
fn derive_key(secret: &SecretString, label: &str) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    #[expect(clippy::expect_used, reason = "HKDF refuses only more than 255 blocks; this is one")]
    Hkdf::<Sha256>::new(None, secret.expose_secret().as_bytes())
        .expand(label.as_bytes(), key.as_mut())
        .expect("one block is within HKDF's reach");
    key
}

/// HMAC-SHA256 under the key of one purpose.
fn derive_mac(secret: &SecretString, label: &str) -> Hmac<Sha256> {
    let key = derive_key(secret, label);
    // A key shorter than SHA-256's block is filled up with zeros (RFC 2104, section 2).
    let mut block = Zeroizing::new([0; 64]);
    block.iter_mut().zip(key.iter()).for_each(|(to, from)| *to = *from);
    Hmac::new((&*block).into())
}

/// Lower-case hexadecimal digits, two a byte.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String never fails.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `length` characters of an ASCII `alphabet` (at most 256 of them), each as likely as any other:
/// bytes beyond the last whole multiple of the alphabet are thrown away, not folded.
fn draw(alphabet: &[u8], length: usize) -> Zeroizing<String> {
    let fair = 256 - 256 % alphabet.len().max(1);
    let mut text = Zeroizing::new(String::with_capacity(length));
    let mut bytes = Zeroizing::new([0; 64]);
    while text.len() < length {
        UnwrapErr(SysRng).fill_bytes(bytes.as_mut());
        let wanted = length - text.len();
        let fair_bytes = bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < fair);
        let letters = fair_bytes.filter_map(|byte| alphabet.get(byte % alphabet.len()));
        text.extend(letters.take(wanted).map(|letter| char::from(*letter)));
    }
    text
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::{derive_key, draw};

    #[test]
    fn a_key_is_derived_for_one_purpose() {
        let secret = SecretString::from("one secret of the operator");
        assert_eq!(*derive_key(&secret, "a"), *derive_key(&secret, "a"));
        assert_ne!(*derive_key(&secret, "a"), *derive_key(&secret, "b"));
        assert_ne!(*derive_key(&secret, "a"), *derive_key(&SecretString::from("another"), "a"));
    }

    #[test]
    fn letters_are_drawn_evenly() {
        let text = draw(b"abcdefg", 70_000);
        assert_eq!(text.len(), 70_000);
        for letter in "abcdefg".chars() {
            // 10 000 expected, standard deviation 93: eight of them never happen by chance.
            let times = text.chars().filter(|drawn| *drawn == letter).count();
            assert!((9_250..10_750).contains(&times), "{letter} was drawn {times} times");
        }
    }
}
