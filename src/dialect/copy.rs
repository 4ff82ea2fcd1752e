//! Copies JSON as it is written, but for space, and for media, which are replaced by their digest.
//!
//! A copy is at most as long as what it is made of, in one pass and with a stack of 128 levels.

use sha2::{Digest, Sha256};

use super::media::{self, Kinds, Media};
use super::raw::Raw;

/// Appends with little to spare: doubling would take twice what is kept.
pub(super) fn append(to: &mut Vec<u8>, bytes: &[u8]) {
    make_room(to, bytes.len());
    to.extend_from_slice(bytes);
}

/// For the few bytes that come after a text: an end of line, a bracket.
const SPARE: usize = 64;

/// What comes in many pieces has its room at once: to grow takes the old bytes and the new.
fn make_room(to: &mut Vec<u8>, bytes: usize) {
    if to.capacity() - to.len() < bytes {
        to.reserve_exact(bytes.max(to.len() / 8));
    }
}

/// Bytes of `text` as it is written between quotes.
fn escaped(text: &[u8]) -> usize {
    let length = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..b' ' => 6,
        _ => 1,
    };
    let lengths = |chunk: std::str::Utf8Chunk<'_>| {
        let bad = if chunk.invalid().is_empty() { 0 } else { 3 };
        chunk.valid().as_bytes().iter().map(length).sum::<usize>() + bad
    };
    text.utf8_chunks().map(lengths).sum()
}

/// Appends a copy of `value`.
pub(super) fn copy(value: Raw<'_>, to: &mut Vec<u8>) {
    copy_without(value, &[], to);
}

/// Appends a copy of `value`; an object leaves out its members of these names.
pub(super) fn copy_without(value: Raw<'_>, left_out: &[&str], to: &mut Vec<u8>) {
    Copier { bytes: value.bytes(), at: 0, levels: Vec::new(), left_out, to }.run();
}

/// Appends a string, given as it is written between its quotes; a data URL is replaced.
pub(super) fn copy_text(written: &[u8], to: &mut Vec<u8>) {
    if let Some(omitted) = media::data_url(written) {
        return append(to, omitted.as_bytes());
    }
    make_room(to, written.len() + 2);
    append(to, b"\"");
    clean(written, to);
    append(to, b"\"");
}

/// Appends `text` as it is written between quotes, in at most `most` bytes; whether that was all of it. What
/// is not UTF-8 becomes U+FFFD.
pub(super) fn escape(text: &[u8], most: usize, to: &mut Vec<u8>) -> bool {
    let end = to.len().saturating_add(most);
    make_room(to, escaped(text).min(most) + SPARE);
    for chunk in text.utf8_chunks() {
        let mut rest = chunk.valid();
        while !rest.is_empty() {
            let plain = rest.find(|c: char| c < ' ' || c == '"' || c == '\\').unwrap_or(rest.len());
            let room = end.saturating_sub(to.len());
            let (run, after) = rest.split_at(rest.floor_char_boundary(plain.min(room)));
            append(to, run.as_bytes());
            if run.len() < plain {
                return false;
            }
            let Some(special) = after.chars().next() else { break };
            let written = match special {
                '"' => "\\\"".to_owned(),
                '\\' => "\\\\".to_owned(),
                '\n' => "\\n".to_owned(),
                '\r' => "\\r".to_owned(),
                '\t' => "\\t".to_owned(),
                other => format!("\\u{:04x}", u32::from(other)),
            };
            if to.len() + written.len() > end {
                return false;
            }
            append(to, written.as_bytes());
            rest = after.get(special.len_utf8()..).unwrap_or_default();
        }
        if !chunk.invalid().is_empty() {
            if to.len() + 3 > end {
                return false;
            }
            append(to, "\u{fffd}".as_bytes());
        }
    }
    true
}

/// Half a surrogate pair, which many parsers refuse, becomes U+FFFD.
fn clean(written: &[u8], to: &mut Vec<u8>) {
    let mut rest = written;
    while let Some(at) = memchr::memmem::find(rest, b"\\") {
        let half = |from: &[u8], low: bool| {
            let digit = from.get(2..4).map(<[u8]>::to_ascii_lowercase).unwrap_or_default();
            let is_second = matches!(digit.get(1), Some(b'c'..=b'f'));
            from.starts_with(b"\\u")
                && digit.first() == Some(&b'd')
                && if low { is_second } else { matches!(digit.get(1), Some(b'8' | b'9' | b'a' | b'b')) }
        };
        let (plain, escape) = rest.split_at(at);
        append(to, plain);
        let (keep, length) = if half(escape, false) {
            let whole = half(escape.get(6..).unwrap_or_default(), true);
            (whole, if whole { 12 } else { 6 })
        } else if half(escape, true) {
            (false, 6)
        } else {
            (true, 2)
        };
        let (this, after) = escape.split_at(length.min(escape.len()));
        append(to, if keep { this } else { b"\\ufffd" });
        rest = after;
    }
    append(to, rest);
}

struct Copier<'a, 'b> {
    bytes: &'a [u8],
    at: usize,
    levels: Vec<Level<'a>>,
    left_out: &'b [&'b str],
    to: &'b mut Vec<u8>,
}

/// An object or a list that is being copied.
struct Level<'a> {
    is_object: bool,
    /// In an object: the next string is a name.
    before_name: bool,
    /// The name of the member that is being read, with its quotes.
    name: Raw<'a>,
    /// What an object says so far of media in it.
    kinds: Kinds<'a>,
    /// A list under a name for media has media in it, of this type.
    media: Option<Media>,
    is_empty: bool,
}

// === impl Copier ===

impl<'a> Copier<'a, '_> {
    fn run(mut self) {
        while let Some(byte) = self.bytes.get(self.at) {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' | b',' => self.at += 1,
                b'{' | b'[' => self.open(*byte),
                b'}' | b']' => {
                    append(self.to, &[*byte]);
                    self.levels.pop();
                    self.at += 1;
                }
                b':' => {
                    append(self.to, b":");
                    self.at += 1;
                }
                b'"' => self.string(),
                _ => self.scalar(),
            }
        }
    }

    /// Before a name, or a value that has none: the comma.
    fn separate(&mut self, is_name: bool) {
        if let Some(level) = self.levels.last_mut()
            && level.is_object == is_name
            && !std::mem::replace(&mut level.is_empty, false)
        {
            append(self.to, b",");
        }
    }

    /// What is at hand, up to its end.
    fn token(&self) -> Raw<'a> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        Raw::prefix(rest).unwrap_or(Raw::NULL)
    }

    fn open(&mut self, byte: u8) {
        self.separate(false);
        append(self.to, &[byte]);
        let media = self.media_here().filter(|_| byte == b'[');
        if let Some(level) = self.levels.last_mut() {
            level.before_name = level.is_object;
        }
        self.levels.push(Level {
            is_object: byte == b'{',
            before_name: byte == b'{',
            name: Raw::NULL,
            kinds: Kinds::default(),
            media,
            is_empty: true,
        });
        self.at += 1;
    }

    fn string(&mut self) {
        let token = self.token();
        let is_name = self.levels.last().is_some_and(|level| level.before_name);
        self.at += token.bytes().len().max(1);
        if is_name {
            return self.name(token);
        }
        self.separate(false);
        let written = token.written().unwrap_or_default();
        let media = if written.len() > media::KEPT { self.media_here() } else { None };
        let omitted = media.and_then(|media_type| media::base64(written, &media_type));
        match omitted {
            Some(omitted) => append(self.to, omitted.as_bytes()),
            None => copy_text(written, self.to),
        }
        if let Some(level) = self.levels.last_mut().filter(|level| level.is_object) {
            level.kinds.note(level.name, token);
            level.before_name = true;
        }
    }

    fn name(&mut self, name: Raw<'a>) {
        if self.levels.len() == 1 && self.left_out.iter().any(|left_out| name.reads(left_out)) {
            // Its colon and its value too.
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let colon = memchr::memchr(b':', rest).map_or(rest.len(), |at| at + 1);
            self.at += colon;
            let value = self.bytes.get(self.at..).unwrap_or_default();
            self.at += value.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.at += self.token().bytes().len();
            return;
        }
        self.separate(true);
        append(self.to, b"\"");
        clean(name.written().unwrap_or_default(), self.to);
        append(self.to, b"\"");
        if let Some(level) = self.levels.last_mut() {
            (level.name, level.before_name) = (name, false);
        }
    }

    fn scalar(&mut self) {
        let token = self.token();
        self.at += token.bytes().len().max(1);
        self.separate(false);
        let number = std::str::from_utf8(token.bytes()).ok().and_then(|text| text.parse::<f64>().ok());
        if token.is_number() && !number.is_some_and(f64::is_finite) {
            // Beyond what parsers take for a number.
            append(self.to, b"\"");
            append(self.to, token.bytes());
            append(self.to, b"\"");
        } else {
            append(self.to, token.bytes());
        }
        if let Some(level) = self.levels.last_mut() {
            level.before_name = level.is_object;
        }
    }

    /// Whether a string that is the value here may be media, and of which type.
    fn media_here(&self) -> Option<Media> {
        let level = self.levels.last()?;
        if !level.is_object {
            return level.media.clone();
        }
        let after = self.bytes.get(self.at..).unwrap_or_default();
        level.kinds.media(level.name, after)
    }
}

/// The digest of some bytes, in hexadecimal.
pub(super) fn hex(digest: Sha256) -> String {
    let digits = |byte: u8| [byte >> 4, byte & 0x0f].map(|digit| char::from_digit(u32::from(digit), 16));
    digest.finalize().iter().flat_map(|byte| digits(*byte)).flatten().collect()
}
