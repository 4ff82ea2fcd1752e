//! What a database remembers a secret by, so that a start with another one is noticed.
//!
//! The fingerprint is a bcrypt hash, with a salt of its own, of a value derived from the secret for this purpose
//! alone (HKDF-SHA256). It opens nothing. For a random secret that is all there is to say. For one that an
//! operator made up, a guess at it costs whoever reads the database as much here as a guess at a password, and
//! no less than it cost before: a sealed key, or a session token for the other secret, has always confirmed a
//! guess, and for the price of one HMAC.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::derive_key;
use super::password::{self, HashError, Password, PasswordHash};

/// Makes the fingerprint of the secret called `name`; each step of `cost` doubles the time.
///
/// # Errors
///
/// [`HashError`], for a cost out of range or a machine without randomness.
pub fn of(name: &str, secret: &SecretString, cost: u32) -> Result<String, HashError> {
    let hash = match hashed(name, secret) {
        Some(derived) => password::hash(&derived, cost)?,
        None => return Err(HashError::Cost(cost)),
    };
    Ok(hash.as_str().to_owned())
}

/// Whether `fingerprint` is of this secret. Takes as long as a comparison of passwords.
#[must_use]
pub fn is_of(name: &str, secret: &SecretString, fingerprint: &str) -> bool {
    let stored = PasswordHash::from_stored(fingerprint.to_owned());
    hashed(name, secret).is_some_and(|derived| password::verify(&derived, &stored))
}

/// 43 characters, within what bcrypt reads.
fn hashed(name: &str, secret: &SecretString) -> Option<Password> {
    let derived = derive_key(secret, &format!("tollgate fingerprint of {name} v1"));
    let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(derived.as_slice()));
    Password::candidate(SecretString::from(text.as_str()))
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::{is_of, of};

    #[test]
    fn a_fingerprint_is_of_one_secret_and_one_name_and_never_twice_the_same() {
        let secret = SecretString::from("one secret of the operator");
        let one = of("secret_key", &secret, 4).unwrap();
        assert!(is_of("secret_key", &secret, &one));
        assert!(!is_of("encryption_key", &secret, &one));
        assert!(!is_of("secret_key", &SecretString::from("another"), &one));
        assert!(!is_of("secret_key", &secret, "rubbish"));
        assert_ne!(of("secret_key", &secret, 4).unwrap(), one);
        assert!(one.starts_with("$2b$04$") && !one.contains("operator"), "{one}");
    }

    #[test]
    fn secrets_longer_than_bcrypt_reads_are_told_apart() {
        let long = |end: &str| SecretString::from("x".repeat(100) + end);
        let one = of("secret_key", &long("a"), 4).unwrap();
        assert!(is_of("secret_key", &long("a"), &one) && !is_of("secret_key", &long("b"), &one));
    }
}
