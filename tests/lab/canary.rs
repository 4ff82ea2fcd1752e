//! What a request carries, by which it is known wherever it comes: its name, and what the origin is to do.

use std::fmt;

/// The name of one request, in its body: `lab-USER-NUMBER-ACT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Canary {
    pub(crate) user: u32,
    pub(crate) number: u32,
}

/// What the origin is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Quick,
    Slow,
    Long,
    Fail,
}

// === impl Canary ===

impl Canary {
    /// The content of a message that carries it.
    pub(crate) fn says(self, act: Act) -> String {
        format!("{self}-{}", act.word())
    }

    /// The canary in these bytes.
    pub(crate) fn find(bytes: &[u8]) -> Option<(Self, Act)> {
        let at = memchr::memmem::find(bytes, b"lab-")?;
        let rest = &bytes[at + 4..];
        let end = rest.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-')?;
        let mut words = std::str::from_utf8(&rest[..end]).ok()?.split('-');
        let (user, number) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((Self { user, number }, Act::from_word(words.next()?)?))
    }
}

impl fmt::Display for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lab-{}-{}", self.user, self.number)
    }
}

// === impl Act ===

impl Act {
    const ALL: [(Self, &str); 4] =
        [(Self::Quick, "quick"), (Self::Slow, "slow"), (Self::Long, "long"), (Self::Fail, "fail")];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(act, _)| *act == self).unwrap().1
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == word).map(|(act, _)| *act)
    }
}

#[cfg(test)]
mod tests {
    use super::{Act, Canary};

    #[test]
    fn a_canary_is_found_in_what_it_is_written_into() {
        let canary = Canary { user: 17, number: 4_000_000_000 };
        let body = format!("{{\"content\":\"{} xx\"}}", canary.says(Act::Slow));
        assert_eq!(Canary::find(body.as_bytes()), Some((canary, Act::Slow)));
        assert_eq!(Canary::find(b"lab-1-2"), None);
        assert_eq!(Canary::find(b"lab-1-2-other "), None);
    }
}
