//! JSON as it is written: values are found, compared and copied, and nothing is built of them.
//!
//! A tree of values takes up to ninety times the bytes that it is made of (`[{},{},…]`), so nothing that a
//! client or an upstream wrote becomes one. A [`Raw`] is a stretch of bytes that was checked once; whatever is
//! asked of it scans these bytes, without recursion and without allocating.

use std::borrow::Cow;

use super::scan::{Cursor, ScanError, reads_as};

/// A value, checked: RFC 8259, valid UTF-8, nested less than 128 levels deep. Strings may have half a
/// surrogate pair (§8.2), which reads as U+FFFD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Raw<'a>(&'a [u8]);

/// Why bytes are no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// They could be the beginning of one.
    Cut,
    /// Nothing that followed could make them one.
    Wrong,
}

/// The members of an object, in their order; none of anything else.
pub(super) struct Members<'a>(Option<Cursor<'a>>);

/// The elements of a list; none of anything else.
pub(super) struct Elements<'a>(Option<Cursor<'a>>);

/// Gives `each` the text of a string's bytes between its quotes, piece by piece.
pub(super) fn unescape(written: &[u8], mut each: impl FnMut(&[u8])) {
    let mut rest = written;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (plain, escape) = rest.split_at(at);
        each(plain);
        let (read, length) = escaped(escape);
        each(read.encode_utf8(&mut [0; 4]).as_bytes());
        rest = escape.get(length..).unwrap_or_default();
    }
    each(rest);
}

/// The character that an escape stands for, and how long it is written.
fn escaped(escape: &[u8]) -> (char, usize) {
    let simple = match escape.get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode(escape),
        Some(other) => char::from(*other),
        None => char::REPLACEMENT_CHARACTER,
    };
    (simple, 2)
}

fn unicode(escape: &[u8]) -> (char, usize) {
    let Some(first) = hex(escape) else { return (char::REPLACEMENT_CHARACTER, 6) };
    if let Some(read) = char::from_u32(first) {
        return (read, 6);
    }
    let second = escape.get(6..).filter(|_| first < 0xdc00).and_then(hex);
    match second.filter(|second| (0xdc00..0xe000).contains(second)) {
        Some(second) => {
            let read = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            (char::from_u32(read).unwrap_or(char::REPLACEMENT_CHARACTER), 12)
        }
        None => (char::REPLACEMENT_CHARACTER, 6),
    }
}

/// The four digits of an escape `\uXXXX`, if it is one.
fn hex(escape: &[u8]) -> Option<u32> {
    let digits = escape.get(..6)?.strip_prefix(b"\\u")?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

// === impl Raw ===

impl<'a> Raw<'a> {
    pub(super) const NULL: Raw<'static> = Raw(b"null");

    /// Checks that this is one value, with nothing but space around it.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Broken> {
        let mut cursor = Cursor::new(bytes);
        cursor.space();
        let broken = |error| match error {
            ScanError::NotJson { at } => {
                let rest = bytes.get(at..).unwrap_or_default();
                // Or in the middle of a character.
                let cut = std::str::from_utf8(rest)
                    .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none());
                if rest.is_empty() || cut { Broken::Cut } else { Broken::Wrong }
            }
            _ => Broken::Wrong,
        };
        let value = cursor.value().map_err(broken)?;
        cursor.space();
        if cursor.peek().is_some() { Err(Broken::Wrong) } else { Ok(Self(value)) }
    }

    /// The value that bytes begin with, whatever follows.
    pub(super) fn prefix(bytes: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        cursor.space();
        cursor.value().ok().map(Self)
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        self.0
    }

    pub(super) fn is_null(self) -> bool {
        self.0 == b"null"
    }

    pub(super) fn is_true(self) -> bool {
        self.0 == b"true"
    }

    pub(super) fn is_object(self) -> bool {
        self.0.first() == Some(&b'{')
    }

    pub(super) fn is_list(self) -> bool {
        self.0.first() == Some(&b'[')
    }

    pub(super) fn is_string(self) -> bool {
        self.0.first() == Some(&b'"')
    }

    pub(super) fn is_number(self) -> bool {
        self.0.first().is_some_and(|first| *first == b'-' || first.is_ascii_digit())
    }

    pub(super) fn members(self) -> Members<'a> {
        Members(self.inside(self.is_object()))
    }

    pub(super) fn elements(self) -> Elements<'a> {
        Elements(self.inside(self.is_list()))
    }

    /// The members of these names; of several with one name the last, and none that is null.
    pub(super) fn pick<const N: usize>(self, names: [&str; N]) -> [Option<Self>; N] {
        let mut found = [None; N];
        for (name, value) in self.members() {
            let at = names.iter().position(|asked| reads_as(name.0, asked));
            if let Some(slot) = at.and_then(|at| found.get_mut(at)) {
                *slot = Some(value).filter(|value| !value.is_null());
            }
        }
        found
    }

    /// The member of this name, unless it is null.
    pub(super) fn get(self, name: &str) -> Option<Self> {
        let [found] = self.pick([name]);
        found
    }

    /// The value at a JSON pointer (RFC 6901), unless it is null.
    pub(super) fn pointer(self, pointer: &str) -> Option<Self> {
        let mut at = self;
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            at = if at.is_list() {
                let plain = token == "0" || !token.starts_with(['0', '+']);
                at.elements().nth(token.parse().ok().filter(|_| plain)?)?
            } else {
                at.get(&token)?
            };
        }
        let is_pointer = pointer.is_empty() || pointer.starts_with('/');
        Some(at).filter(|found| is_pointer && !found.is_null())
    }

    /// A whole number that is not below zero.
    pub(super) fn count(self) -> Option<u64> {
        std::str::from_utf8(self.0).ok()?.parse().ok()
    }

    /// A string as it is written between its quotes.
    pub(super) fn written(self) -> Option<&'a [u8]> {
        self.0.strip_prefix(b"\"")?.strip_suffix(b"\"")
    }

    /// A string as it is written, unless it is empty.
    pub(super) fn said(self) -> Option<&'a [u8]> {
        self.written().filter(|written| !written.is_empty())
    }

    /// A string as it reads.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        let written = self.written()?;
        if memchr::memchr(b'\\', written).is_none() {
            return std::str::from_utf8(written).ok().map(Cow::Borrowed);
        }
        let mut text = Vec::with_capacity(written.len());
        unescape(written, |piece| text.extend_from_slice(piece));
        String::from_utf8(text).ok().map(Cow::Owned)
    }

    /// Whether this is a string that reads so.
    pub(super) fn reads(self, text: &str) -> bool {
        self.is_string() && reads_as(self.0, text)
    }

    /// After the opening bracket.
    fn inside(self, is_right: bool) -> Option<Cursor<'a>> {
        let mut cursor = Cursor::new(self.0);
        cursor.at = 1;
        cursor.space();
        let is_empty = matches!(cursor.peek(), Some(b'}' | b']'));
        (is_right && !is_empty).then_some(cursor)
    }
}

// === impl Members ===

impl<'a> Iterator for Members<'a> {
    type Item = (Raw<'a>, Raw<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let cursor = self.0.as_mut()?;
        let start = cursor.at;
        cursor.string().ok()?;
        let name = cursor.since(start);
        cursor.space();
        cursor.take(b':');
        cursor.space();
        let value = cursor.value().ok()?;
        cursor.space();
        if cursor.take(b',') {
            cursor.space();
        } else {
            self.0 = None;
        }
        Some((Raw(name), Raw(value)))
    }
}

// === impl Elements ===

impl<'a> Iterator for Elements<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let cursor = self.0.as_mut()?;
        let value = cursor.value().ok()?;
        cursor.space();
        if cursor.take(b',') {
            cursor.space();
        } else {
            self.0 = None;
        }
        Some(Raw(value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};
    use serde_json::Value;

    use super::{Broken, Raw};

    #[test]
    fn values_are_found_without_a_tree() {
        let raw = Raw::parse(br#" {"a":[1,{"b/c":"x\ud83d\ude00\n\ud83d"}],"n":null,"\u0061b":true,"z":18446744073709551615,"z":7} "#).unwrap();
        let text = |pointer| raw.pointer(pointer).and_then(Raw::text).map(std::borrow::Cow::into_owned);
        assert_eq!(text("/a/1/b~1c").as_deref(), Some("x\u{1f600}\n\u{fffd}"));
        assert!(
            raw.get("n").is_none()
                && raw.get("ab").is_some_and(Raw::is_true)
                && raw.pointer("/a/2").is_none()
        );
        assert_eq!(
            (raw.get("z").and_then(Raw::count), raw.pointer("/a/0").and_then(Raw::count)),
            (Some(7), Some(1))
        );
        assert_eq!(raw.pick(["z", "a"]).map(|found| found.is_some()), [true, true]);
    }

    #[test]
    fn what_is_cut_is_told_from_what_is_wrong() {
        for cut in [&b""[..], b"{", b"[1,", b"\"a", b"\"\xc3", b"tr", b"{\"a\":\"\\u00", b"-"] {
            assert_eq!(Raw::parse(cut), Err(Broken::Cut), "{cut:?}");
        }
        let deep = "[".repeat(100_000);
        for wrong in [&b"hello"[..], b"{\"a\":1]", b"{\"a\":\"\xff\"}", b"[1]x", deep.as_bytes()] {
            assert_eq!(Raw::parse(wrong), Err(Broken::Wrong));
        }
        assert!(Raw::parse(format!("{}{}", "[".repeat(127), "]".repeat(127)).as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn what_serde_json_reads_is_read_alike(text in r#"[\[\]{}:,"\\ua1é0-9 ]{0,40}"#, bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            for input in [text.as_bytes(), &bytes] {
                let Ok(value) = serde_json::from_slice::<Value>(input) else { continue };
                let raw = Raw::parse(input).unwrap();
                prop_assert_eq!(serde_json::from_slice::<Value>(raw.bytes()).unwrap(), value.clone());
                let text = raw.text();
                prop_assert_eq!(text.as_deref(), value.as_str());
                prop_assert_eq!(raw.count(), value.as_u64().filter(|_| !raw.bytes().starts_with(b"-")));
            }
        }
    }
}
