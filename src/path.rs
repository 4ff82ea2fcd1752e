//! The canonical form of a request's path: the one in which routes, charges and other rules are compared.
//!
//! Servers disagree on which paths are the same: some ignore case, escapes, a last slash or parameters,
//! some cut a path at an escaped `?`, `#` or blank. [`Path::canonical`] reads a path as the laxest of them, so
//! paths that any of them takes for the same have the same canonical form. It serves to compare and nothing
//! else: what is forwarded is the path as it was written, and a path whose readings differ in more than case,
//! harmless escapes and a last slash is not forwarded at all ([`Path::doubt`]).

use std::borrow::Cow;

/// A request's path, without its query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path<'a> {
    written: &'a str,
    canonical: Cow<'a, str>,
}

/// Why servers may disagree on what a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Empty or dot segments, parameters, backslashes, escapes that hide a separator or that nothing needs:
    /// never forwarded.
    Always,
    /// Escapes of `?`, `#`, a blank, or of what is no UTF-8: harmless in the name of a file, but a proxy in
    /// between may write them out. Not forwarded where the route charges for the method.
    WhereCharged,
}

/// Most times that an escape is taken out of an escape.
const MAX_UNESCAPES: usize = 3;

// === impl Path ===

impl<'a> Path<'a> {
    /// Reads a path as it was written.
    #[must_use]
    pub fn new(written: &'a str) -> Self {
        let canonical = match plain(written) {
            Some(plain) => Cow::Borrowed(plain),
            None => Cow::Owned(canonical(written)),
        };
        Self { written, canonical }
    }

    /// As it was written.
    #[must_use]
    pub fn written(&self) -> &'a str {
        self.written
    }

    /// Without escapes, capitals, parameters, empty and dot segments, and whatever follows a `?`, a `#`, a blank or a
    /// control character, even an escaped one. It begins with a slash and does not end with one; the root is "".
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// Whether it was written in its canonical form, but for a slash at the end.
    #[must_use]
    pub fn is_canonical(&self) -> bool {
        matches!(self.canonical, Cow::Borrowed(_))
    }

    /// Whether it is `prefix` or below it, by the canonical form of both.
    #[must_use]
    pub fn lies_under(&self, prefix: &Path<'_>) -> bool {
        let rest = self.canonical.strip_prefix(prefix.canonical());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether it is `prefix` or below it as both are written.
    #[must_use]
    pub fn is_written_under(&self, prefix: &str) -> bool {
        let rest = self.written.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// What is left of a path below a prefix of `segments` segments, as it was written: "" or with a slash
    /// at its beginning.
    #[must_use]
    pub fn below(&self, segments: usize) -> &'a str {
        let slashes = self.written.match_indices('/').map(|(at, _)| at);
        let end = slashes.clone().nth(segments).unwrap_or(self.written.len());
        self.written.get(end..).unwrap_or_default()
    }

    /// Whether two servers could read it in two ways.
    #[must_use]
    pub fn doubt(&self) -> Option<Doubt> {
        let odd = |b: u8| b <= b' ' || b >= 0x7f || matches!(b, b'\\' | b';' | b'?' | b'#');
        if !self.written.starts_with('/') || self.written.bytes().any(odd) || has_odd_segment(self.written) {
            return Some(Doubt::Always);
        }
        self.written.contains('%').then(|| doubtful_escape(self.written.as_bytes())).flatten()
    }
}

/// The path without its last slash, where that is its canonical form.
fn plain(written: &str) -> Option<&str> {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"/-._~!$&'()*+,=:@".contains(&b);
    let plain = written.starts_with('/') && written.bytes().all(is_plain) && !has_odd_segment(written);
    plain.then(|| written.strip_suffix('/').unwrap_or(written))
}

/// An empty segment before the last one, or a dot segment (RFC 3986 §5.2.4).
fn has_odd_segment(path: &str) -> bool {
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if matches!(segment, "." | "..") || (segment.is_empty() && segments.peek().is_some()) {
            return true;
        }
    }
    false
}

fn canonical(written: &str) -> String {
    let mut bytes = Cow::Borrowed(written.as_bytes());
    for _ in 0..MAX_UNESCAPES {
        if !bytes.contains(&b'%') {
            break;
        }
        bytes = Cow::Owned(unescaped(&bytes));
    }
    let text = String::from_utf8_lossy(&bytes);
    let ends = |c: char| matches!(c, '?' | '#') || c.is_whitespace() || c.is_control();
    let folded: String = text.chars().map(narrow).take_while(|c| !ends(*c)).flat_map(folded).collect();
    let mut kept: Vec<&str> = Vec::new();
    for segment in folded.split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(kept.pop()),
            name => kept.push(name),
        }
    }
    kept.iter().flat_map(|segment| ["/", segment]).collect()
}

/// One layer of escapes taken out; what is no escape stays.
fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        let (byte, after) = escape(rest).unwrap_or((*first, tail));
        out.push(byte);
        rest = after;
    }
    out
}

/// The byte of an escape at the beginning, and what follows it.
fn escape(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let [b'%', high, low, after @ ..] = bytes else { return None };
    let digit = |hex: u8| char::from(hex).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some((digit(*high)? << 4 | digit(*low)?, after))
}

/// A backslash is a slash to some, and so are full-width characters the ASCII ones (NFKC).
fn narrow(c: char) -> char {
    match c {
        '\\' | '\u{ff3c}' => '/',
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        _ => c,
    }
}

/// Without case, also where a character outside ASCII is the capital or the small form of one inside.
fn folded(c: char) -> impl Iterator<Item = char> {
    let c = if c == '\u{130}' { 'i' } else { c };
    c.to_uppercase().flat_map(char::to_lowercase)
}

/// The worst that an escape hides. What needs none (RFC 3986 §2.3) is written in one to be read in two ways:
/// upstreams read `%63hat` as `chat`.
fn doubtful_escape(path: &[u8]) -> Option<Doubt> {
    let mut worst = None;
    let mut rest = path;
    while let Some(at) = memchr::memchr(b'%', rest) {
        let Some((byte, after)) = rest.get(at..).and_then(escape) else { return Some(Doubt::Always) };
        let hides = matches!(byte, b'.' | b'/' | b'\\' | b'%' | b';' | b'-' | b'_');
        if byte < b' ' || byte == 0x7f || hides || byte.is_ascii_alphanumeric() {
            return Some(Doubt::Always);
        }
        if matches!(byte, b'?' | b'#' | b' ') {
            worst = Some(Doubt::WhereCharged);
        }
        rest = after;
    }
    let decoded = unescaped(path);
    let is_odd = |c: char| {
        c.is_whitespace() || c.is_control() || matches!(narrow(c), '/' | '.' | ';' | '?' | '#' | '%')
    };
    let is_text =
        std::str::from_utf8(&decoded).is_ok_and(|text| !text.chars().filter(|c| !c.is_ascii()).any(is_odd));
    if is_text { worst } else { Some(Doubt::WhereCharged) }
}

#[cfg(test)]
mod tests {
    use super::{Doubt, Path};

    #[test]
    fn a_path_with_two_readings_is_in_doubt() {
        for doubtful in [
            "",
            "*",
            "v1",
            "//v1",
            "/v1//chat",
            "/./v1",
            "/v1/../admin",
            "/v1/..",
            "/v1/.",
            "/%2e%2e/admin",
            "/v1%2fchat",
            "/v1%5cchat",
            "/v1%00",
            "/v1%0a",
            "/v1%7f",
            "/v1/%2E",
            "/v1;x=1",
            "/v1%3bx",
            "/v1/%252e",
            "/v1/%",
            "/v1/%2",
            "/v1/%zz",
            "/a\\b",
            "/a b",
            "/a?b",
            "/a#b",
            "/a\nb",
            "/ä",
            "/v1/%+1",
            "/v1/%63hat",
            "/v1/%43hat",
            "/v%31",
            "/v1/a%5fb",
            "/v1/a%2Db",
        ] {
            assert_eq!(Path::new(doubtful).doubt(), Some(Doubt::Always), "{doubtful}");
        }
    }

    #[test]
    fn an_escape_that_a_proxy_may_write_out_is_in_doubt_where_it_is_charged() {
        for escaped in [
            "/v1/models/a%20b",
            "/v1%3Fx",
            "/v1%23",
            "/v1/%C2%A0",
            "/v1/%C2%85",
            "/v1%E2%80%A8",
            "/v1%E3%80%80",
            "/v1/%FF",
            "/v1/%C0%AE",
            "/v1%EF%BC%8Fchat",
            "/v1%EF%BC%9Fchat",
        ] {
            assert_eq!(Path::new(escaped).doubt(), Some(Doubt::WhereCharged), "{escaped}");
        }
        for plain in [
            "/",
            "/v1",
            "/V1/",
            "/v1/models/gpt-4o:free",
            "/v1/models/gpt-4o%3Afree",
            "/v1beta/x:generateContent",
            "/..a/b..",
            "/~x",
            "/%7Ex",
            "/wiki/f%C3%BCr",
        ] {
            assert_eq!(Path::new(plain).doubt(), None, "{plain}");
        }
    }

    #[test]
    fn what_some_server_takes_for_the_same_has_the_same_canonical_form() {
        for spelling in [
            "/v1/chat",
            "/v1/chat/",
            "/V1/Chat",
            "/v1//chat",
            "//v1/chat",
            "/./v1/chat",
            "/v1/x/../chat",
            "/x/%2e%2e/v1/chat",
            "/v1%2fchat",
            "/v1%5Cchat",
            "\\v1\\chat",
            "/v1/chat;x=1",
            "/v1;x/chat",
            "/v1/chat%3Bx",
            "/v1/%63hat",
            "/v1/%2563hat",
            "/%76%31/chat%2f",
            "/v1/chat?x",
            "/v1/chat%3Fx/y",
            "/v1/chat%253Fx",
            "/v1/chat%23/y",
            "/v1/chat%20",
            "/v1/chat%20HTTP/1.1",
            "/v1/chat%0a",
            "/v1/chat%00.png",
            "/v1/chat%09",
            "/v1/chat%C2%A0",
            "/v1/%EF%BC%A3hat",
            "/v1%EF%BC%8Fchat",
        ] {
            assert_eq!(Path::new(spelling).canonical(), "/v1/chat", "{spelling}");
        }
        for (spelling, canonical) in [
            ("/", ""),
            ("", ""),
            ("/..", ""),
            ("/V1/Completion%C5%BF", "/v1/completions"),
            ("/TO%E2%84%AAEN%C4%B0ZE", "/tokenize"),
            ("/wiki/F%C3%9CR", "/wiki/für"),
            ("/v1/100%", "/v1/100%"),
            ("/v1/%FF", "/v1/\u{fffd}"),
        ] {
            assert_eq!(Path::new(spelling).canonical(), canonical, "{spelling}");
        }
    }

    #[test]
    fn only_what_is_written_otherwise_takes_memory() {
        for (written, is_canonical) in
            [("/v1/chat/completions", true), ("/v1/chat/", true), ("/V1", false), ("/a%20b", false)]
        {
            assert_eq!(Path::new(written).is_canonical(), is_canonical, "{written}");
        }
    }

    #[test]
    fn a_prefix_ends_where_a_segment_ends() {
        let under = |path: &str, prefix: &str| Path::new(path).lies_under(&Path::new(prefix));
        assert!(under("/v1", "/v1") && under("/V1/chat", "/v1") && under("/v1/chat", "/V1/"));
        assert!(under("/anything", "/") && under("/", "") && under("/v1/chat%3Fx", "/v1/chat"));
        assert!(!under("/v12", "/v1") && !under("/v", "/v1") && !under("/", "/v1"));
        assert!(Path::new("/v1/x").is_written_under("/v1") && !Path::new("/V1/x").is_written_under("/v1"));
        for (path, segments, rest) in
            [("/V1/chat", 1, "/chat"), ("/v1/", 1, "/"), ("/v1", 1, ""), ("/a/b/c", 2, "/c"), ("/a", 0, "/a")]
        {
            assert_eq!(Path::new(path).below(segments), rest, "{path}");
        }
    }
}
