//! What a body is labelled as: its media type, charset and boundary, as the laxest reader of a `Content-Type` finds
//! them.

use std::borrow::Cow;

/// Most bytes of a boundary (RFC 2046 §5.1.1).
const MAX_BOUNDARY: usize = 70;

/// The media type without its parameters, in small letters.
#[must_use]
pub fn essence(label: &[u8]) -> String {
    let label = String::from_utf8_lossy(label);
    label.split([';', ',']).next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether a media type is one of JSON.
#[must_use]
pub fn is_json(essence: &str) -> bool {
    matches!(essence, "application/json" | "text/json") || essence.ends_with("+json")
}

/// Whether a body so labelled holds no fields, if its content does not say otherwise.
#[must_use]
pub fn is_opaque(essence: &str) -> bool {
    let opaque =
        ["audio/", "image/", "video/", "application/octet-stream", "application/pdf", "application/x-ndjson"];
    opaque.iter().any(|start| essence.starts_with(start))
}

/// Whether every reader takes a body so labelled for UTF-8: the label names no charset or this one, and is one label.
///
/// Readers find `charset` by a parser of parameters or by looking for the word, so each place where it stands has
/// to say UTF-8.
#[must_use]
pub fn is_utf8(label: &[u8]) -> bool {
    let (label, is_one) = readable(label);
    let mut charsets = label.match_indices("charset").map(|(at, word)| label.get(at + word.len()..));
    is_one && charsets.all(|rest| rest.is_some_and(|rest| value(rest).is_some_and(is_name_of_utf8)))
}

/// Whether the label's charset is `binary`, which names none.
#[must_use]
pub fn is_binary(label: &[u8]) -> bool {
    let (label, is_one) = readable(label);
    is_one && label.match_indices("charset").count() == 1 && label.ends_with("charset=binary")
}

/// Whether this names UTF-8.
#[must_use]
pub fn is_name_of_utf8(charset: &str) -> bool {
    matches!(charset.to_ascii_lowercase().as_str(), "utf-8" | "utf8")
}

/// The boundary of a multipart body, where every reader finds the same one.
#[must_use]
pub fn boundary(label: &[u8]) -> Option<Vec<u8>> {
    let (lower, is_one) = readable(label);
    let mut found = lower.match_indices("boundary");
    let ((at, word), None) = (found.next()?, found.next()) else { return None };
    if !is_one || !lower.get(..at)?.trim_end().ends_with(';') {
        return None;
    }
    let text = std::str::from_utf8(label).ok()?;
    let boundary = value(text.get(at + word.len()..)?)?;
    let is_fit = |b: u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&b);
    let fits = !boundary.is_empty() && boundary.len() <= MAX_BOUNDARY && boundary.bytes().all(is_fit);
    fits.then(|| boundary.as_bytes().to_vec())
}

/// In small letters, and whether it is one label in ASCII and without escapes.
fn readable(label: &[u8]) -> (String, bool) {
    let text: Cow<'_, str> = String::from_utf8_lossy(label);
    let is_comma_apart = |text: &str| {
        // A comma may stand in a quoted boundary.
        let mut quoted = false;
        text.chars().any(|c| {
            quoted ^= c == '"';
            c == ',' && !quoted
        })
    };
    let is_one = label.is_ascii() && !text.contains('\\') && !is_comma_apart(&text);
    (text.to_ascii_lowercase(), is_one)
}

/// The value of a parameter whose name has just ended: all of what a reader with quotes, or without, takes for it.
fn value(rest: &str) -> Option<&str> {
    let rest = rest.strip_prefix('=')?;
    match rest.strip_prefix('"') {
        Some(quoted) => {
            let (value, after) = quoted.split_once('"')?;
            let after = after.trim_start();
            (after.is_empty() || after.starts_with(';')).then_some(value)
        }
        None => Some(rest.split(';').next().unwrap_or_default().trim_end()),
    }
}

/// Whether some lenient parser might find fields of JSON where a strict one finds none: in an object with
/// extensions of JSON, behind a comment or a prefix, or in another encoding, as Python's `json.loads` does.
#[must_use]
pub fn may_be_json(body: &[u8]) -> bool {
    let marks: [&[u8]; 8] =
        [b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe", b"{\0", b"\0{", b"\0\0\0{", b"\0\0\xfe\xff", b"+/v"];
    if marks.iter().any(|mark| body.starts_with(mark)) {
        return true;
    }
    let is_space = |b: &u8| *b <= b' ' || *b == 0x7f;
    let at = body.iter().position(|b| !is_space(b)).unwrap_or(body.len());
    let start = body.get(at..).unwrap_or_default();
    // White space of Unicode, to JSON5 and others.
    let spaces = ["\u{a0}", "\u{85}", "\u{feff}", "\u{2028}", "\u{2029}", "\u{3000}"];
    let starts: [&[u8]; 6] = [b"{", b"//", b"/*", b")]}'", b"\xe1\x9a\x80", b"\xe2\x80"];
    starts.iter().any(|mark| start.starts_with(mark))
        || spaces.iter().any(|space| start.starts_with(space.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::{boundary, essence, is_binary, is_json, is_utf8, may_be_json};

    #[test]
    fn only_utf_8_is_utf_8_wherever_a_reader_looks() {
        for good in [
            "",
            "application/json",
            "application/json; charset=utf-8",
            "application/json;charset=UTF-8",
            "application/json; charset=\"utf-8\"",
            "application/json; charset=\"UTF8\" ; q=1",
            "text/plain;charset=utf8;x=y",
            "multipart/form-data; boundary=\"a,b\"",
        ] {
            assert!(is_utf8(good.as_bytes()), "{good}");
        }
        for charset in
            ["utf-7", "utf-16", "utf-16le", "UTF-32", "latin1", "iso-8859-1", "us-ascii", "ibm037", "x", ""]
        {
            for label in [
                format!("application/json;charset={charset}"),
                format!("application/json; Charset=\"{charset}\""),
                format!("application/json; charset='{charset}'"),
                format!("application/json; charset = {charset}"),
                format!("application/json; charset=utf-8; charset={charset}"),
                format!("application/json; charset={charset}; charset=utf-8"),
                format!("application/json; x=\"; charset={charset}\""),
                format!("application/json; x=\"\\\"; charset={charset}\""),
                format!("application/json; charset*=utf-8''{charset}"),
                format!("application/json; charset*0={charset}"),
                format!("application/json charset={charset}"),
                format!("application/json, text/plain; charset={charset}"),
                format!("application/json; charset=utf-8 {charset}x"),
                format!("application/json; charset=\"utf-8\"{charset}x"),
                format!("multipart/form-data; boundary=x; charset={charset}"),
            ] {
                assert!(!is_utf8(label.as_bytes()), "{label}");
            }
        }
        for odd in ["application/json, text/plain", "application/json; x=\\", "application/json; charset"] {
            assert!(!is_utf8(odd.as_bytes()), "{odd}");
        }
        assert!(!is_utf8(b"application/json; x=\xe9"));
        assert!(
            is_binary(b"image/png; charset=binary")
                && !is_binary(b"image/png; charset=binary; charset=utf-7")
        );
    }

    #[test]
    fn a_boundary_is_the_one_that_all_find() {
        let found = |label: &str| boundary(label.as_bytes()).map(|found| String::from_utf8(found).unwrap());
        assert_eq!(found("multipart/form-data; boundary=aB1").as_deref(), Some("aB1"));
        assert_eq!(found("multipart/form-data;Boundary=\"a=b\"; charset=utf-8").as_deref(), Some("a=b"));
        for none in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=a; boundary=b",
            "multipart/form-data; x=\"boundary=a\"; boundary=b",
            "multipart/form-data; boundary*=utf-8''a",
            "multipart/form-data; boundary =a",
            "multipart/form-data; boundary=\"a\\\"b\"",
            "multipart/form-data; boundary=\"a\"b",
            "multipart/form-data; boundary=a b",
            "multipart/form-data; xboundary=a",
            "multipart/form-data boundary=a",
            "multipart/form-data; boundary=a, b",
        ] {
            assert_eq!(found(none), None, "{none}");
        }
        assert_eq!(found(&format!("multipart/form-data; boundary={}", "a".repeat(71))), None);
    }

    #[test]
    fn what_a_lenient_parser_reads_as_an_object_may_be_json() {
        for body in [
            "{",
            " \r\n{\"a\"",
            "\u{b}{",
            "\u{feff}{}",
            "// x\n{}",
            "/* */{}",
            ")]}'\n{}",
            "\u{a0}{}",
            "\u{2003}{}",
        ] {
            assert!(may_be_json(body.as_bytes()), "{body:?}");
        }
        for body in [&b"\xff\xfe{\0"[..], b"\xfe\xff\0{", b"{\0\"\0", b"\0{\0\"", b"\0\0\0{"] {
            assert!(may_be_json(body), "{body:?}");
        }
        for body in ["", "just words", "a=b&c=d", "--x\r\n", "/path", "<a/>", "\u{89}PNG", "[1]", "1"] {
            assert!(!may_be_json(body.as_bytes()), "{body:?}");
        }
        assert!(
            is_json("application/problem+json")
                && is_json(&essence(b"Application/JSON ; x"))
                && !is_json("a/b")
        );
    }
}
