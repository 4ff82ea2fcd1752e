//! Durations and sizes as an operator writes them: a number never stands without its unit.

use std::time::Duration;

/// How to write a duration; ends every complaint about one.
const DURATION_FORM: &str =
    "write a duration with its unit, such as \"500ms\", \"30s\", \"1h30m\" or \"90d\"";
/// How to write a size.
const SIZE_FORM: &str = "write a size with its unit, such as \"512B\", \"64KiB\", \"10MiB\" or \"1GiB\"";
/// Longest duration, some 100 years: beyond it clock arithmetic has no meaning.
const LONGEST: Duration = Duration::from_hours(36_500 * 24);

const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 8] = [
    ("b", 1),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
];

/// A positive duration of at most 100 years: numbers with `d h m s ms`, larger units first, each once.
///
/// # Errors
/// What to write instead, without the text itself.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match duration_or_zero(text)? {
        Duration::ZERO => Err("must be longer than zero".into()),
        positive => Ok(positive),
    }
}

/// The same, or none at all: `0s`.
///
/// # Errors
/// What to write instead, without the text itself.
pub(super) fn duration_or_zero(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    let mut millis = 0_u64;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let (number, unit, tail) = leading_quantity(rest).ok_or(DURATION_FORM)?;
        let position = DURATION_UNITS.iter().position(|(name, _)| *name == unit).ok_or(DURATION_FORM)?;
        let factor = DURATION_UNITS.get(position).map_or(0, |(_, factor)| *factor);
        if position < next_unit {
            return Err("name each unit once, the larger first, such as \"1h30m\"".into());
        }
        millis = millis.saturating_add(number.saturating_mul(factor));
        next_unit = position + 1;
        rest = tail;
    }
    match Duration::from_millis(millis) {
        Duration::ZERO if next_unit == 0 => Err(DURATION_FORM.into()),
        long if long > LONGEST => Err("is too long: at most \"36500d\"".into()),
        fits => Ok(fits),
    }
}

/// A positive size in bytes, below 8 EiB. Units in any case: `B`, `KiB MiB GiB TiB`, `KB MB GB`.
///
/// # Errors
/// What to write instead, without the text itself.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (number, unit, tail) = leading_quantity(text.trim()).ok_or(SIZE_FORM)?;
    let unit = unit.to_ascii_lowercase();
    let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or(SIZE_FORM)?;
    if !tail.is_empty() {
        return Err(SIZE_FORM.into());
    }
    match number.checked_mul(*factor) {
        Some(0) => Err("must be larger than zero".into()),
        Some(bytes) if i64::try_from(bytes).is_ok() => Ok(bytes),
        _ => Err("is too large".into()),
    }
}

/// Splits `90s rest` into `(90, "s", " rest")`; `None` without a number or without a unit.
fn leading_quantity(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, rest) = text.split_at_checked(digits)?;
    let rest = rest.trim_start();
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, tail) = rest.split_at_checked(letters)?;
    Some((number.parse().ok()?, unit, tail.trim_start()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{duration, size};

    #[test]
    fn durations_carry_their_units() {
        let good = [
            ("500ms", 500),
            ("30s", 30_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("90d", 7_776_000_000),
            ("1d1ms", 86_400_001),
        ];
        for (text, millis) in good {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        let bad = [
            "",
            "30",
            "s",
            "30x",
            "-1s",
            "1.5h",
            "30m1h",
            "1s1s",
            "0s",
            "99999999d",
            "1sé",
            "99999999999999999999s",
        ];
        for text in bad {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_carry_their_units() {
        let good = [
            ("512B", 512),
            ("64KiB", 65_536),
            ("10MiB", 10_485_760),
            ("1 GiB", 1 << 30),
            ("10MB", 10_000_000),
        ];
        for (text, bytes) in good {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "10", "MiB", "10M", "0B", "1.5GiB", "10MiBx", "10MiB 3", "16777216TiB", "-1B"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
