//! Reads the few members of a request body that admission asks for, without building the rest.
//!
//! A body is forwarded byte for byte, so what we read in it must be what every provider behind us
//! reads. The scanner therefore accepts exactly one JSON object (RFC 8259), whole and in valid
//! UTF-8, and refuses what parsers are known to read differently: a member that we decide by and
//! that occurs twice. Half a surrogate pair is grammar (RFC 8259 §8.2), and JavaScript clients that
//! cut an emoji in two do send it: it passes where it decides nothing. The scanner neither recurses
//! nor allocates, but for names written with escapes.

use std::borrow::Cow;

use thiserror::Error;

use super::names::{self, Likeness};

/// How deep objects and lists may be nested, the body's own object included.
pub const MAX_DEPTH: u32 = 64;

/// Why a body is not scanned to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ScanError {
    /// Not JSON.
    #[error("the body is not valid JSON (at byte {at})")]
    NotJson {
        /// The first byte that cannot be part of it; the body's length if it ends too soon.
        at: usize,
    },
    /// A JSON text perhaps, but one that begins as a list, a string, a number or a word.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// More than [`MAX_DEPTH`] objects and lists inside each other.
    #[error("the body is nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// A member that was asked for occurs twice.
    #[error("the body has a member twice that may occur once")]
    Duplicate {
        /// Which of the names that were asked for.
        index: usize,
    },
}

/// The members that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a, const N: usize> {
    /// The raw JSON value of each, in the order of the names; `None` for those that the body does not have.
    pub values: [Option<&'a [u8]>; N],
    /// Whether each has a name that some parsers take for the one asked for, and others do not.
    pub misspelled: [bool; N],
}

/// The raw JSON value of each top-level member that is named. Names, in small letters, are compared as the laxest of
/// common parsers reads them: `"\u006dodel"` is `model`, and so is `"MODEL"`.
///
/// # Errors
///
/// [`ScanError`], for the first thing that is wrong from the left.
pub fn scan<'a, const N: usize>(
    body: &'a [u8],
    names: [&str; N],
) -> Result<[Option<&'a [u8]>; N], ScanError> {
    find(body, names).map(|found| found.values)
}

/// The same, and how their names are spelled.
///
/// # Errors
///
/// As of [`scan`].
pub fn find<'a, const N: usize>(body: &'a [u8], names: [&str; N]) -> Result<Found<'a, N>, ScanError> {
    let mut found = Found { values: [None; N], misspelled: [false; N] };
    let mut cursor = Cursor { body, at: 0, most: MAX_DEPTH };
    cursor.space();
    match cursor.peek() {
        Some(b'{') => cursor.at += 1,
        Some(b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => return Err(ScanError::NotAnObject),
        _ => return Err(cursor.not_json()),
    }
    cursor.space();
    if !cursor.take(b'}') {
        loop {
            let name = cursor.name()?;
            let value = cursor.value()?;
            let mut asked =
                names.iter().enumerate().map(|(index, asked)| (index, names::compare(name, asked)));
            if let Some((index, likeness)) = asked.find(|(_, likeness)| *likeness != Likeness::Other) {
                let slot = found.values.get_mut(index).ok_or(ScanError::Duplicate { index })?;
                if slot.replace(value).is_some() {
                    return Err(ScanError::Duplicate { index });
                }
                if let Some(slot) = found.misspelled.get_mut(index) {
                    *slot = likeness == Likeness::Alike;
                }
            }
            cursor.space();
            if cursor.take(b'}') {
                break;
            }
            cursor.expect(b',')?;
            cursor.space();
        }
    }
    cursor.space();
    if cursor.at == body.len() { Ok(found) } else { Err(cursor.not_json()) }
}

/// The text of a raw JSON string; `None` for every other value.
#[must_use]
pub fn text(raw: &[u8]) -> Option<Cow<'_, str>> {
    let as_written = serde_json::from_slice::<&str>(raw).ok().map(Cow::Borrowed);
    as_written.or_else(|| serde_json::from_slice::<String>(raw).ok().map(Cow::Owned))
}

/// The value of a raw JSON `true` or `false`; `None` for every other value.
#[must_use]
pub fn boolean(raw: &[u8]) -> Option<bool> {
    serde_json::from_slice(raw).ok()
}

/// Whether a raw string, quotes included, is this name.
pub(super) fn reads_as(raw: &[u8], name: &str) -> bool {
    let written = raw.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or_default();
    if written == name.as_bytes() && !name.contains('\\') {
        return true;
    }
    // No escape is shorter than the character it stands for.
    let may_be_escaped = written.len() > name.len() && memchr::memchr(b'\\', written).is_some();
    may_be_escaped && serde_json::from_slice::<String>(raw).is_ok_and(|decoded| decoded == name)
}

/// Where the scan stands. Every step either moves forward or fails.
pub(super) struct Cursor<'a> {
    body: &'a [u8],
    pub(super) at: usize,
    /// How deep values may be nested, the value that they are in included: 128 at most.
    most: u32,
}

/// The open objects and lists within the body's own object: one bit each, innermost lowest.
#[derive(Default)]
struct Nesting {
    objects: u128,
    depth: u32,
}

#[derive(Clone, Copy)]
enum Container {
    Object,
    List,
}

// === impl Cursor ===

impl<'a> Cursor<'a> {
    /// At the first byte, for values nested less than 128 levels deep.
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { body, at: 0, most: 128 }
    }

    /// A whole value of any kind, as it is written.
    pub(super) fn value(&mut self) -> Result<&'a [u8], ScanError> {
        let start = self.at;
        let mut open = Nesting::default();
        loop {
            let opened = match self.peek() {
                Some(b'{') => Some(Container::Object),
                Some(b'[') => Some(Container::List),
                _ => None,
            };
            let Some(container) = opened else {
                self.scalar()?;
                if self.close(&mut open)? {
                    continue;
                }
                return Ok(self.since(start));
            };
            self.at += 1;
            open.push(container, self.most)?;
            self.space();
            if self.peek() == Some(container.end()) {
                if self.close(&mut open)? {
                    continue;
                }
                return Ok(self.since(start));
            }
            self.name_within(container)?;
        }
    }

    /// After a value: closes what ends here, and goes to the next value if there is one. `false`
    /// when nothing is open any more.
    fn close(&mut self, open: &mut Nesting) -> Result<bool, ScanError> {
        while let Some(container) = open.innermost() {
            self.space();
            if self.take(container.end()) {
                open.pop();
                continue;
            }
            self.expect(b',')?;
            self.space();
            self.name_within(container)?;
            return Ok(true);
        }
        Ok(false)
    }

    fn name_within(&mut self, container: Container) -> Result<(), ScanError> {
        match container {
            Container::Object => self.name().map(|_| ()),
            Container::List => Ok(()),
        }
    }

    /// A member's name, its colon, and the space up to its value.
    pub(super) fn name(&mut self) -> Result<&'a [u8], ScanError> {
        let start = self.at;
        self.string()?;
        let name = self.since(start);
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(name)
    }

    fn scalar(&mut self) -> Result<(), ScanError> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => Err(self.not_json()),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), ScanError> {
        word.iter().try_for_each(|letter| self.expect(*letter))
    }

    /// RFC 8259, section 6: no sign but `-`, no leading zero, digits on both sides of the point.
    fn number(&mut self) -> Result<(), ScanError> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), ScanError> {
        let many = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += many;
        if many == 0 { Err(self.not_json()) } else { Ok(()) }
    }

    /// A string with its quotes.
    pub(super) fn string(&mut self) -> Result<(), ScanError> {
        self.expect(b'"')?;
        loop {
            let rest = self.rest();
            let run = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
            self.plain(rest.get(..run).unwrap_or_default())?;
            if self.take(b'"') {
                return Ok(());
            }
            self.expect(b'\\')?;
            self.escape()?;
        }
    }

    /// A stretch of a string without quotes and escapes: UTF-8, no control characters.
    fn plain(&mut self, run: &[u8]) -> Result<(), ScanError> {
        // Without a branch in the loop, so that the compiler checks many bytes at once.
        let (low, high) = run.iter().fold((b' ', 0), |(low, high), byte| (low.min(*byte), high | byte));
        let control_at = if low < b' ' { run.iter().position(|byte| *byte < b' ') } else { None };
        let utf8_ends = if high < 0x80 { None } else { std::str::from_utf8(run).err() };
        let broken = control_at.into_iter().chain(utf8_ends.map(|error| error.valid_up_to())).min();
        self.at += broken.unwrap_or(run.len());
        if broken.is_some() { Err(self.not_json()) } else { Ok(()) }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<(), ScanError> {
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                self.at += 1;
                self.four_hex()
            }
            _ => Err(self.not_json()),
        }
    }

    /// The four hexadecimal digits of `\u`.
    fn four_hex(&mut self) -> Result<(), ScanError> {
        for _ in 0..4 {
            self.peek().filter(u8::is_ascii_hexdigit).ok_or(self.not_json())?;
            self.at += 1;
        }
        Ok(())
    }

    pub(super) fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), ScanError> {
        if self.take(byte) { Ok(()) } else { Err(self.not_json()) }
    }

    pub(super) fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.body.get(self.at..).unwrap_or_default()
    }

    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        self.body.get(start..self.at).unwrap_or_default()
    }

    fn not_json(&self) -> ScanError {
        ScanError::NotJson { at: self.at }
    }
}

// === impl Nesting ===

impl Nesting {
    fn push(&mut self, container: Container, most: u32) -> Result<(), ScanError> {
        // The body's own object is one level and not among our bits.
        if self.depth + 1 >= most {
            return Err(ScanError::TooDeep);
        }
        self.objects = self.objects << 1 | u128::from(matches!(container, Container::Object));
        self.depth += 1;
        Ok(())
    }

    fn pop(&mut self) {
        self.objects >>= 1;
        self.depth = self.depth.saturating_sub(1);
    }

    fn innermost(&self) -> Option<Container> {
        let is_object = self.objects & 1 == 1;
        (self.depth > 0).then_some(if is_object { Container::Object } else { Container::List })
    }
}

// === impl Container ===

impl Container {
    fn end(self) -> u8 {
        match self {
            Self::Object => b'}',
            Self::List => b']',
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::collection::vec;
    use proptest::prelude::{
        ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
    };
    use proptest::sample::{Index, select};
    use serde_json::Value;

    use super::{MAX_DEPTH, ScanError, boolean, scan, text};

    const NAMES: [&str; 3] = ["model", "stream", "r_type"];

    fn accepts(body: &[u8]) -> bool {
        scan(body, NAMES).is_ok()
    }

    fn nested(depth: usize, open: &str, close: &str) -> Vec<u8> {
        format!("{{\"a\":{}1{}}}", open.repeat(depth), close.repeat(depth)).into_bytes()
    }

    #[test]
    fn the_members_asked_for_are_given_as_they_are_written() {
        let body = br#" { "messages" : [{"role":"user","content":"\"model\":\"x\""}], "model" : "gpt-4o" ,
            "stream":true, "extra":{"model":"inner","stream":[false]}} "#;
        let [model, stream, r_type] = scan(body, NAMES).unwrap();
        assert_eq!(model.and_then(text).as_deref(), Some("gpt-4o"));
        assert_eq!(model, Some(br#""gpt-4o""#.as_slice()));
        assert_eq!(stream.and_then(boolean), Some(true));
        assert_eq!(r_type, None);
        let [messages] = scan(body, ["messages"]).unwrap();
        assert_eq!(messages, Some(br#"[{"role":"user","content":"\"model\":\"x\""}]"#.as_slice()));
    }

    #[test]
    fn an_empty_object_has_no_members() {
        assert_eq!(scan(b"{}", NAMES), Ok([None; 3]));
        assert_eq!(scan(b" \t\r\n{ } \n", []), Ok([]));
    }

    #[test]
    fn names_are_compared_as_they_read() {
        let [model] = scan(br#"{"\u006dodel":1}"#, ["model"]).unwrap();
        assert_eq!(model, Some(b"1".as_slice()));
        assert_eq!(scan(br#"{"models":1,"model ":2,"mode":3,"m\u006fdul":4}"#, ["model"]), Ok([None]));
        let [odd] = scan(r#"{"a\"\\\/é\ud83d\ude00":1}"#.as_bytes(), ["a\"\\/é😀"]).unwrap();
        assert_eq!(odd, Some(b"1".as_slice()));
        // A name that looks like an escape is not the escape it looks like.
        assert_eq!(scan(br#"{"\n":1}"#, ["\\n"]), Ok([None]));
        assert_eq!(scan(br#"{"\\n":1}"#, ["\\n"]), Ok([Some(b"1".as_slice())]));
    }

    #[test]
    fn a_name_in_another_case_is_the_same_name_and_misspelled() {
        for name in ["MODEL", "Model", "\\u004dodel", "mode\\u004c", "model\\u0000x"] {
            let body = format!("{{\"a\":1,\"{name}\":\"x\"}}");
            let found = super::find(body.as_bytes(), ["model", "stream"]).unwrap();
            assert_eq!(found.values, [Some(b"\"x\"".as_slice()), None], "{name}");
            assert_eq!(found.misspelled, [true, false], "{name}");
            for twice in [format!("{{\"model\":1,\"{name}\":2}}"), format!("{{\"{name}\":1,\"model\":2}}")] {
                assert_eq!(
                    scan(twice.as_bytes(), ["model"]),
                    Err(ScanError::Duplicate { index: 0 }),
                    "{twice}"
                );
            }
        }
        assert_eq!(scan(br#"{"deep":{"MODEL":1}}"#, ["model"]), Ok([None]));
    }

    #[test]
    fn a_member_asked_for_may_occur_once() {
        let twice = br#"{"model":"a","stream":true,"\u006dodel":"b"}"#;
        assert_eq!(scan(twice, NAMES), Err(ScanError::Duplicate { index: 0 }));
        assert_eq!(scan(br#"{"stream":1,"stream":1}"#, NAMES), Err(ScanError::Duplicate { index: 1 }));
        assert!(scan(br#"{"other":1,"other":2,"deep":{"model":1,"model":2}}"#, NAMES).is_ok());
    }

    #[test]
    fn only_an_object_is_a_body() {
        for other in ["[]", "[1", "\"model\"", "1", "-1", "true", "false", "null", " []"] {
            assert_eq!(scan(other.as_bytes(), NAMES), Err(ScanError::NotAnObject), "{other}");
        }
        for (rubbish, at) in [("", 0), ("  ", 2), ("model=x", 0), ("\u{feff}{}", 0), ("{}{}", 2), ("{} x", 3)]
        {
            assert_eq!(scan(rubbish.as_bytes(), NAMES), Err(ScanError::NotJson { at }), "{rubbish:?}");
        }
    }

    #[rustfmt::skip]
    const VALUES: &[&str] = &[
        "0", "-0", "10", "-1.5e+10", "1E-2", "1e999", "true", "null", "\"\"", "\"\\u0000\"",
        "\"\\ud83d\\ude00\"", "\"\u{7f}\u{2028}é😀\"", "[]", "[ ]", "[1,2]", "[[],{},[{}]]", "{}",
        "{\"a\":1}", "\"\\ud83d\"", "\"\\ude00\"", "\"\\ud83d\\u0041\"", "\"\\ud83dx\"",
    ];
    #[rustfmt::skip]
    const NO_VALUES: &[&str] = &[
        "01", "-", "+1", ".5", "1.", "1.e2", "1e", "1e+", "0x1", "NaN", "Infinity", "1_0", "True", "tru",
        "nulll", "undefined", "\"\\x41\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\u+123\"",
        "\"\n\"", "\"\t\"", "\"\0\"", "\"a", "'a'",
        "\"\\\"", "[1,]", "[,1]", "[1 2]", "[1", "[1}", "{\"a\":1,}", "{\"a\"}", "{\"a\":}", "{a:1}",
        "{1:1}", "{,}", "{\"a\":1]", "{\"a\" 1}", "{\"a\":1 \"b\":2}", "", "1/**/", "\u{a0}1", "\u{b}1",
        "1;",
    ];

    #[test]
    fn the_grammar_is_kept_to_the_letter() {
        for (values, good) in [(VALUES, true), (NO_VALUES, false)] {
            for value in values {
                for body in [format!("{{\"a\":{value}}}"), format!(" {{ \"a\" : [ {value} , 1 ] }} ")] {
                    assert_eq!(accepts(body.as_bytes()), good, "{body}");
                }
            }
        }
    }

    #[test]
    fn half_a_character_decides_nothing() {
        let [model] = scan(br#"{"model":"\ud83d","\ud83d":"x"}"#, ["model"]).unwrap();
        assert_eq!(model.map(text), Some(None), "no text that could be compared");
    }

    #[test]
    fn strings_are_valid_utf_8() {
        let bad: [&[u8]; 7] =
            [b"\xff", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\xf0\x9f\x98"];
        for bytes in bad {
            let body = [b"{\"a\":\"ok ", bytes, b"\"}"].concat();
            assert_eq!(scan(&body, NAMES), Err(ScanError::NotJson { at: 9 }), "{bytes:x?}");
            let name = [b"{\"", bytes, b"\":1}"].concat();
            assert_eq!(scan(&name, NAMES), Err(ScanError::NotJson { at: 2 }), "{bytes:x?}");
        }
        assert!(!accepts(b"{\"a\":1\xff}"));
        assert_eq!(scan(b"{\"a\":\"\x01\xff\"}", NAMES), Err(ScanError::NotJson { at: 6 }));
        assert_eq!(scan(b"{\"a\":\"\xff\x01\"}", NAMES), Err(ScanError::NotJson { at: 6 }));
    }

    #[test]
    fn nesting_ends_at_64_and_a_bomb_costs_nothing() {
        for (open, close) in [("[", "]"), ("{\"k\":", "}")] {
            assert!(accepts(&nested(63, open, close)));
            assert_eq!(scan(&nested(64, open, close), NAMES), Err(ScanError::TooDeep));
            assert_eq!(scan(&nested(100_000, open, close), NAMES), Err(ScanError::TooDeep));
        }
        let empty = format!("{{\"a\":{}{}}}", "[".repeat(64), "]".repeat(64));
        assert_eq!(scan(empty.as_bytes(), NAMES), Err(ScanError::TooDeep));
        let mixed = format!("{{\"a\":{}{}}}", "[{\"b\":".repeat(31) + "[", "]".to_owned() + &"}]".repeat(31));
        assert!(accepts(mixed.as_bytes()));
        let wide = format!("{{\"a\":[{}[]]}}", "[],{},".repeat(10_000));
        assert!(accepts(wide.as_bytes()));
    }

    #[test]
    fn texts_and_booleans_are_read_from_raw_values() {
        assert_eq!(text(br#""gpt-4o""#).as_deref(), Some("gpt-4o"));
        assert!(matches!(text(br#""gpt-4o""#), Some(Cow::Borrowed(_))));
        assert_eq!(text(br#""\u0067pt\n""#).as_deref(), Some("gpt\n"));
        for none in ["null", "1", "[\"a\"]", "true", "", "\"", "\"a\"b", "a"] {
            assert_eq!(text(none.as_bytes()), None, "{none}");
        }
        assert_eq!((boolean(b"true"), boolean(b"false")), (Some(true), Some(false)));
        for none in ["null", "1", "0", "\"true\"", "True", "", "truex"] {
            assert_eq!(boolean(none.as_bytes()), None, "{none}");
        }
    }

    // --- against serde_json ---

    fn depth(value: &Value) -> u32 {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// The member whose name is this one without case, up to a NUL.
    fn read_laxly<'a>(members: &'a serde_json::Map<String, Value>, name: &str) -> Option<&'a Value> {
        let read = |written: &str| written.split('\0').next().unwrap().to_uppercase().to_lowercase();
        members.iter().find(|(written, _)| read(written) == name).map(|(_, value)| value)
    }

    /// The scanner and serde_json must agree on `body`, but for what we refuse on purpose.
    fn agrees(body: &[u8]) {
        let shown = String::from_utf8_lossy(body);
        match (scan(body, NAMES), serde_json::from_slice::<Value>(body)) {
            (Ok(found), Ok(Value::Object(members))) => {
                for (name, raw) in NAMES.into_iter().zip(found) {
                    let read = raw.map(|raw| serde_json::from_slice::<Value>(raw).unwrap());
                    assert_eq!(read.as_ref(), read_laxly(&members, name), "{name} of {shown}");
                }
            }
            // serde_json keeps the last of two members; which two is ours to say.
            (Err(ScanError::Duplicate { index }), Ok(Value::Object(members))) => {
                assert!(read_laxly(&members, NAMES[index]).is_some(), "{shown}");
            }
            (Err(ScanError::TooDeep), Ok(value)) => assert!(depth(&value) > MAX_DEPTH, "{shown}"),
            (Err(ScanError::NotAnObject), Ok(value)) => assert!(!value.is_object(), "{shown}"),
            (Ok(_), Err(refusal)) => {
                let ours = ["number out of range", "lone leading surrogate", "unexpected end of hex escape"];
                assert!(ours.iter().any(|why| refusal.to_string().starts_with(why)), "{refusal}: {shown}");
            }
            (Err(_), Err(_)) => {}
            (ours, theirs) => panic!("{ours:?}, but serde_json {theirs:?}: {shown}"),
        }
    }

    const ESCAPES: &[&str] = &[
        r#"\""#,
        r"\\",
        r"\/",
        r"\b",
        r"\f",
        r"\n",
        r"\r",
        r"\t",
        r"\u0000",
        r"\u00e9",
        r"\uD83D\uDE00",
        r"\ufFfF",
    ];
    const KNOWN_NAMES: &[&str] = &[
        r#""model""#,
        r#""stream""#,
        r#""r_type""#,
        r#""\u006dodel""#,
        r#""s\u0074ream""#,
        r#""mode""#,
        r#""Model""#,
        r#""\u017ftream""#,
        r#""R_TYPE\u0000x""#,
    ];
    const TOKENS: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "{\"model\":",
        "\"stream\":true",
        "\"a\":",
        "1",
        "-",
        "e",
        ".",
        "0",
        "\\u",
        "d83d",
        "\\ude00",
        "true",
        "null",
        " ",
        "\n",
        "é",
        "\u{1}",
    ];

    fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
        select(texts)
    }

    fn spaces() -> impl Strategy<Value = String> {
        "[ \n\r\t]{0,2}"
    }

    /// JSON as people and programs write it, with every kind of escape.
    fn string() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => "[a-z{}\\[\\]:, ]{0,6}",
            2 => "[é😀ÿ\u{7f}\u{2028}]",
            1 => one_of(ESCAPES).prop_map(str::to_owned),
        ];
        vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![one_of(KNOWN_NAMES).prop_map(str::to_owned), string()]
    }

    fn value() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            string(),
            "-?(0|[1-9][0-9]{0,8})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,2})?",
            "true|false|null",
        ];
        leaf.prop_recursive(6, 40, 5, |inner| {
            let items = vec((spaces(), inner.clone(), spaces()), 0..5).prop_map(|items| {
                items.into_iter().map(|(a, v, b)| a + &v + &b).collect::<Vec<_>>().join(",")
            });
            prop_oneof![
                (items, spaces()).prop_map(|(items, space)| format!("[{items}{space}]")),
                object(inner)
            ]
        })
    }

    fn object(inner: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
        let member = (spaces(), name(), spaces(), inner, spaces())
            .prop_map(|(a, name, b, value, c)| format!("{a}{name}{b}:{a}{value}{c}"));
        (vec(member, 0..5), spaces()).prop_map(|(members, space)| format!("{{{}{space}}}", members.join(",")))
    }

    fn rubbish() -> impl Strategy<Value = Vec<u8>> {
        let token = prop_oneof![
            8 => one_of(TOKENS).prop_map(|token| token.as_bytes().to_vec()),
            1 => vec(any::<u8>(), 1..3),
        ];
        vec(token, 0..24).prop_map(|tokens| tokens.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn an_object_is_read_as_serde_json_reads_it(body in object(value())) {
            prop_assert!(serde_json::from_str::<Value>(&body).is_ok(), "the generator writes JSON: {body}");
            prop_assert!(matches!(scan(body.as_bytes(), NAMES), Ok(_) | Err(ScanError::Duplicate { .. })), "{body}");
            agrees(body.as_bytes());
        }

        #[test]
        fn a_changed_object_is_judged_as_serde_json_judges_it(
            body in object(value()), at in any::<Index>(), byte in any::<u8>(), how in 0..4,
        ) {
            let mut body = body.into_bytes();
            let at = at.index(body.len());
            match how {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                2 => drop(body.remove(at)),
                _ => body[at] ^= 1 << (byte % 8),
            }
            agrees(&body);
        }

        #[test]
        fn a_cut_object_is_never_accepted(body in object(value()), at in any::<Index>()) {
            let cut = &body.as_bytes()[..at.index(body.len())];
            prop_assert!(scan(cut, NAMES).is_err());
            agrees(cut);
        }

        #[test]
        fn rubbish_is_judged_as_serde_json_judges_it(body in rubbish()) {
            agrees(&body);
            agrees(&[b"{\"model\":", body.as_slice(), b"}"].concat());
        }

        #[test]
        fn a_text_is_the_text_that_serde_json_reads(raw in string()) {
            let read = serde_json::from_str::<String>(&raw).ok();
            prop_assert_eq!(text(raw.as_bytes()).map(Cow::into_owned), read);
        }
    }
}
