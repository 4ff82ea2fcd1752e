//! Names of fields, as the laxest common parser compares them.
//!
//! An app behind the gate reads a field under more names than the one that its documentation has: Go's `encoding/json`
//! folds case, `ſ` and the Kelvin sign among it, cJSON ends a name at its first NUL, and form readers take `model[]`
//! for `model`. A rule that hangs on a field must see all of these.

use super::raw::unescape;

/// What a reader may make of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    /// Every reader takes it for the name asked for.
    Same,
    /// Some do.
    Alike,
    /// None does.
    Other,
}

/// How a raw JSON string, quotes included, compares with `name`, which is ASCII in small letters.
pub(super) fn compare(raw: &[u8], name: &str) -> Likeness {
    let written = raw.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or_default();
    let has_escapes = memchr::memchr(b'\\', written).is_some();
    // No character is longer than three bytes that folds to ASCII.
    if !has_escapes && (written.len() < name.len() || written.len() > 3 * name.len()) {
        return Likeness::Other;
    }
    if !has_escapes && written.is_ascii() {
        return of_text(std::str::from_utf8(written).unwrap_or_default(), name);
    }
    let mut text = Vec::new();
    unescape(written, |piece| text.extend_from_slice(piece));
    of_text(&String::from_utf8_lossy(&text), name)
}

/// How a text compares with `name`. Half a surrogate pair reads as U+FFFD, and some readers drop it.
fn of_text(text: &str, name: &str) -> Likeness {
    if text == name {
        return Likeness::Same;
    }
    let read = text.chars().take_while(|c| *c != '\0').filter(|c| *c != char::REPLACEMENT_CHARACTER);
    if read.flat_map(folded).eq(name.chars()) { Likeness::Alike } else { Likeness::Other }
}

/// How the name of a field of a form, or of a query, compares with `name`: some readers decode it once more, take
/// what is before a bracket for the name, and blanks and dots for underscores.
pub(super) fn compare_in_form(text: &str, name: &str) -> Likeness {
    if text == name {
        return Likeness::Same;
    }
    let decoded = percent_decoded(text, true);
    let end = decoded.find('[').unwrap_or(decoded.len());
    let (before, _) = decoded.split_at(end);
    let plain = before.trim_matches([' ', '\t', '"', '\'']).replace([' ', '.', '-'], "_");
    if of_text(&plain, name) == Likeness::Other { Likeness::Other } else { Likeness::Alike }
}

/// One layer of percent-escapes taken out; what is no escape stays, and so does what is no UTF-8, as U+FFFD.
pub(super) fn percent_decoded(text: &str, plus_is_blank: bool) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|hex| char::from(*hex).to_digit(16));
        let byte = digit(0).zip(digit(1)).and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
        rest = after;
        if let Some(byte) = byte.filter(|_| *first == b'%') {
            out.push(byte);
            rest = after.get(2..).unwrap_or_default();
        } else {
            out.push(if *first == b'+' && plus_is_blank { b' ' } else { *first });
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Without case, also where a character outside ASCII is the capital or the small form of one inside.
fn folded(c: char) -> impl Iterator<Item = char> {
    let c = if c == '\u{130}' { 'i' } else { c };
    c.to_uppercase().flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::{Likeness, compare, compare_in_form};

    #[test]
    fn a_name_is_what_the_laxest_parser_takes_for_it() {
        let model = |raw: &str| compare(format!("\"{raw}\"").as_bytes(), "model");
        for same in ["model", r"\u006dodel", r"mo\u0064e\u006C"] {
            assert_eq!(model(same), Likeness::Same, "{same}");
        }
        for alike in
            ["MODEL", "Model", r"\u004dodel", r"mode\u004c", r"model\u0000", r"model\u0000x", r"mo\ud83ddel"]
        {
            assert_eq!(model(alike), Likeness::Alike, "{alike}");
        }
        for other in
            ["models", "model ", "mode", "modell", "", "мodel", r"\\u006dodel", "model_", "the model"]
        {
            assert_eq!(model(other), Likeness::Other, "{other}");
        }
        for alike in ["\u{17f}tream", r"\u017ftream", "STREAM"] {
            assert_eq!(compare(format!("\"{alike}\"").as_bytes(), "stream"), Likeness::Alike, "{alike}");
        }
        assert_eq!(compare("\"fall\u{17f}\"".as_bytes(), "falls"), Likeness::Alike);
        assert_eq!(compare("\"to\u{212a}en\"".as_bytes(), "token"), Likeness::Alike);
    }

    #[test]
    fn a_form_has_more_names_for_a_field() {
        for alike in ["model[]", "model[0]", "Model", " model", "%6dodel", "model%00", "\"model\"", "model "]
        {
            assert_eq!(compare_in_form(alike, "model"), Likeness::Alike, "{alike}");
        }
        for alike in ["r.type", "r type", "R-Type", "r+type", "r_type[x"] {
            assert_eq!(compare_in_form(alike, "r_type"), Likeness::Alike, "{alike}");
        }
        assert_eq!(compare_in_form("model", "model"), Likeness::Same);
        for other in ["models", "a[model]", "", "[model]"] {
            assert_eq!(compare_in_form(other, "model"), Likeness::Other, "{other}");
        }
    }
}
