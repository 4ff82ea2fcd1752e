//! Proof that somebody was erased, which tells nobody who it was.

use std::fmt;

use hmac::{Hmac, Mac};
use secrecy::SecretString;
use sha2::Sha256;

use super::{derive_mac, hex};
use crate::ids::UserId;

const LABEL: &str = "tollgate erasure proof v1";

/// Makes the proofs of an installation.
#[derive(Clone)]
pub struct Erasures(Hmac<Sha256>);

// === impl Erasures ===

impl Erasures {
    /// With another encryption key the proofs there are can no longer be checked.
    #[must_use]
    pub fn derive(encryption_key: &SecretString) -> Self {
        Self(derive_mac(encryption_key, LABEL))
    }

    /// HMAC-SHA256 of a user's number, in 64 hexadecimal digits.
    #[must_use]
    pub fn proof(&self, user: UserId) -> String {
        let mut mac = self.0.clone();
        mac.update(&user.0.to_be_bytes());
        hex(&mac.finalize().into_bytes())
    }
}

impl fmt::Debug for Erasures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Erasures(…)")
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::{Erasures, UserId};

    #[test]
    fn a_proof_is_of_one_user_and_one_installation() {
        let here = Erasures::derive(&SecretString::from("one secret of the operator"));
        let there = Erasures::derive(&SecretString::from("another"));
        let proof = here.proof(UserId(17));
        assert_eq!((proof.len(), &proof), (64, &here.proof(UserId(17))));
        assert!(proof.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(proof, here.proof(UserId(18)));
        assert_ne!(proof, there.proof(UserId(17)));
    }
}
