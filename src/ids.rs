//! The words by which users, keys, requests and exchanges are named.
//!
//! Database keys are newtypes so that a user's number can never be handed over where a key's is
//! meant. Exchanges carry UUIDv7, so that a record written twice is inserted once and rows sort by
//! the time they were made.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

macro_rules! row_ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type)]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

row_ids! {
    /// A row of `users`.
    UserId;
    /// A row of `keys`.
    KeyId;
    /// A row of `staff`.
    StaffId;
    /// A row of `admins`.
    AdminId;
}

/// One forwarded conversation: the log row, the ledger entry and the reservation share this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct ExchangeId(pub Uuid);

/// One login and everything renewed from it: its access tokens and refresh tokens share this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct SessionId(pub Uuid);

/// One run of the gateway, from its start to its end. Leases and spool files carry it, so that what a
/// killed run held is known to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct RunId(pub Uuid);

/// What `x-request-id` and `request-id` carry: 1 to 128 visible ASCII characters of
/// `[A-Za-z0-9._-]`, given by a trusted proxy, chosen by a client, or made by us.
///
/// It is displayed (in the audit trail, the message log and our own log) with `client:` before it where a client
/// chose it, so that a client cannot pass a request off as another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    text: String,
    chosen_by_client: bool,
}

// === impl ExchangeId ===

impl ExchangeId {
    /// A new name by the system's clock, which may have jumped; the gateway's own are made by its `Clock`.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The name that is below every name made at this instant or later, in milliseconds since 1970.
    #[must_use]
    pub fn first_at(millis: i64) -> Self {
        // A name has 48 bits for its millisecond.
        let millis = u128::try_from(millis).unwrap_or(0).min((1 << 48) - 1);
        Self(Uuid::from_u128(millis << 80))
    }
}

impl fmt::Display for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl SessionId ===

impl SessionId {
    /// A new name that nobody can guess.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

// === impl RunId ===

impl RunId {
    /// A new name, later than every one made before it on this machine.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl RequestId ===

impl RequestId {
    /// Longest identifier taken over from somebody else.
    pub const MAX_LEN: usize = 128;

    /// `req_` and a UUIDv7 without dashes.
    #[must_use]
    pub fn generate() -> Self {
        Self { text: format!("req_{}", Uuid::now_v7().simple()), chosen_by_client: false }
    }

    /// Takes over a given identifier if it is well-formed.
    #[must_use]
    pub fn parse(given: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let well_formed = !given.is_empty() && given.len() <= Self::MAX_LEN && given.bytes().all(plain);
        well_formed.then(|| Self { text: given.to_owned(), chosen_by_client: false })
    }

    /// The same identifier, marked as chosen by the client.
    #[must_use]
    pub fn chosen_by_client(self) -> Self {
        Self { chosen_by_client: true, ..self }
    }

    /// The identifier as it travels in headers.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.chosen_by_client {
            f.write_str("client:")?;
        }
        f.write_str(&self.text)
    }
}

/// As it travels, without the mark.
impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::RequestId;

    #[test]
    fn a_request_id_is_taken_over_only_when_well_formed() {
        for good in ["a", "req_0190", "A.b-c_9", &"x".repeat(RequestId::MAX_LEN)] {
            assert_eq!(RequestId::parse(good).map(|id| id.to_string()).as_deref(), Some(good));
        }
        for bad in ["", "a b", "a\r\nSet-Cookie: x", "é", "<script>", &"x".repeat(RequestId::MAX_LEN + 1)] {
            assert_eq!(RequestId::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn one_that_a_client_chose_is_marked_wherever_it_is_kept_and_travels_without_the_mark() {
        let chosen = RequestId::parse("req_1").unwrap().chosen_by_client();
        assert_eq!((chosen.to_string().as_str(), chosen.as_str()), ("client:req_1", "req_1"));
        assert_eq!(serde_json::to_value(&chosen).unwrap(), "req_1");
        assert_eq!(RequestId::parse(&chosen.to_string()), None, "the mark cannot be given");
    }
}
