//! When a certificate is valid. rustls verifies the certificates of others, and does not say this of ours.

use chrono::{DateTime, NaiveDateTime};

use crate::clock::Timestamp;

/// From when until when every certificate of a chain is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The latest beginning.
    pub not_before: Timestamp,
    /// The earliest end.
    pub not_after: Timestamp,
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `version [0] EXPLICIT`
const VERSION: u8 = 0xa0;

const MILLIS_A_DAY: i64 = 24 * 60 * 60 * 1000;

// === impl Validity ===

impl Validity {
    /// Of a chain of certificates in DER; `None` where one has no period that can be read, or there is none.
    pub(super) fn of_chain<'a>(chain: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let each = chain.into_iter().map(Self::of_certificate);
        each.reduce(|one, other| Some(one?.and(other?)))?
    }

    /// Whole days from `now` until the end; negative once it is over.
    #[must_use]
    pub fn days_left(self, now: Timestamp) -> i64 {
        self.not_after.0.saturating_sub(now.0).div_euclid(MILLIS_A_DAY)
    }

    fn and(self, other: Self) -> Self {
        let not_before = self.not_before.max(other.not_before);
        Self { not_before, not_after: self.not_after.min(other.not_after) }
    }

    /// RFC 5280 §4.1: `Certificate { tbs { [version], serial, signature, issuer, validity, …`.
    fn of_certificate(der: &[u8]) -> Option<Self> {
        let (certificate, _) = expect(der, SEQUENCE)?;
        let (mut tbs, _) = expect(certificate, SEQUENCE)?;
        if tbs.first() == Some(&VERSION) {
            tbs = expect(tbs, VERSION)?.1;
        }
        for tag in [INTEGER, SEQUENCE, SEQUENCE] {
            tbs = expect(tbs, tag)?.1;
        }
        let (validity, _) = expect(tbs, SEQUENCE)?;
        let (not_before, rest) = time(validity)?;
        let (not_after, _) = time(rest)?;
        Some(Self { not_before, not_after })
    }
}

/// The contents of the element at the beginning, which must have this tag, and what follows it.
fn expect(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, contents, rest) = element(der)?;
    (found == tag).then_some((contents, rest))
}

fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, der) = der.split_first()?;
    let (&first, der) = der.split_first()?;
    let (length, der) = match first {
        0..=0x7f => (usize::from(first), der),
        0x81..=0x84 => {
            let (bytes, der) = der.split_at_checked(usize::from(first - 0x80))?;
            (bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)), der)
        }
        0x80 | 0x85.. => return None,
    };
    let (contents, rest) = der.split_at_checked(length)?;
    Some((tag, contents, rest))
}

/// RFC 5280 §4.1.2.5: both forms in UTC, with seconds; years of two digits are 1950 to 2049.
fn time(der: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (tag, contents, rest) = element(der)?;
    let text = std::str::from_utf8(contents).ok()?;
    let text = match tag {
        UTC_TIME if text.get(..2)? < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = NaiveDateTime::parse_from_str(&text, "%Y%m%d%H%M%SZ").ok()?;
    Some((Timestamp(DateTime::timestamp_millis(&time.and_utc())), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MILLIS_A_DAY, Validity};
    use crate::clock::Timestamp;

    fn certificate(from: i32, until: i32) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn day(year: i32) -> Timestamp {
        let date = chrono::NaiveDate::from_ymd_opt(year, 1, 1).unwrap().and_hms_opt(0, 0, 0).unwrap();
        Timestamp(date.and_utc().timestamp_millis())
    }

    #[test]
    fn a_chain_is_valid_while_all_of_it_is() {
        // UTCTime until 2049, GeneralizedTime from 2050.
        for (from, until) in [(1975, 1999), (2020, 2049), (2049, 2051), (2050, 4096)] {
            let der = certificate(from, until);
            let expected = Validity { not_before: day(from), not_after: day(until) };
            assert_eq!(Validity::of_chain([&der[..]]), Some(expected));
        }
        let (leaf, issuer) = (certificate(2024, 2030), certificate(2020, 2026));
        let both = Validity::of_chain([&leaf[..], &issuer[..]]).unwrap();
        assert_eq!(both, Validity { not_before: day(2024), not_after: day(2026) });
        assert_eq!(Validity::of_chain([&leaf[..], b"no certificate"]), None);
        assert_eq!(Validity::of_chain([]), None);
    }

    #[test]
    fn days_are_whole_ones() {
        let validity = Validity { not_before: Timestamp(0), not_after: Timestamp(21 * MILLIS_A_DAY) };
        let left = [(0, 21), (1, 20), (20 * MILLIS_A_DAY, 1), (21 * MILLIS_A_DAY - 1, 0)];
        for (now, days) in left.into_iter().chain([(21 * MILLIS_A_DAY + 1, -1)]) {
            assert_eq!(validity.days_left(Timestamp(now)), days, "{now}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            at in 0_usize..400,
            with in any::<u8>(),
        ) {
            let _ = Validity::of_chain([&bytes[..]]);
            let mut der = certificate(2024, 2030);
            let at = at % der.len();
            der[at] = with;
            let _ = Validity::of_chain([&der[..], &der[..at]]);
        }
    }
}
