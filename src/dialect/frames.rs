//! Cuts a stream into its events: server-sent events and newline-delimited JSON, in any split.
//!
//! Sources: WHATWG HTML §9.2.6 "Interpreting an event stream"; github.com/ndjson/ndjson-spec. Two
//! departures on purpose: an event that the end of the stream cuts short is delivered by `finish`
//! (a part that was received is worth keeping), and an event over the cap is skipped and counted.

use std::mem::take;

use memchr::{memchr, memchr2};

use super::copy::append;

/// The most bytes of one event or line that are held; a longer one is skipped.
pub const MAX_EVENT: usize = 16 * 1024 * 1024;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// One event of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event:` field; empty where there is none, and always in NDJSON.
    pub name: &'a str,
    /// The `data:` lines joined by `\n`, or the NDJSON line without its end.
    pub data: &'a [u8],
}

/// A framer of `text/event-stream`.
#[derive(Debug)]
pub struct Sse {
    cap: usize,
    line: Vec<u8>,
    name: String,
    data: Vec<u8>,
    has_data: bool,
    after_cr: bool,
    at_start: bool,
    oversized: Oversized,
    cut: u64,
}

/// A framer of `application/x-ndjson`: one JSON text a line.
#[derive(Debug)]
pub struct Ndjson {
    cap: usize,
    line: Vec<u8>,
    at_start: bool,
    skipping: bool,
    cut: u64,
}

/// Where an event that is too long to keep stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Oversized {
    No,
    /// Skipping, and the line being read has this many bytes so far: 0 makes it the blank one.
    Skipping {
        line_is_blank: bool,
    },
}

// === impl Sse ===

impl Sse {
    /// A framer at the start of a stream, holding at most [`MAX_EVENT`] bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::with_cap(MAX_EVENT)
    }

    /// A framer that skips events of more than `cap` bytes.
    #[must_use]
    pub fn with_cap(cap: usize) -> Self {
        Self {
            cap,
            line: Vec::new(),
            name: String::new(),
            data: Vec::new(),
            has_data: false,
            after_cr: false,
            at_start: true,
            oversized: Oversized::No,
            cut: 0,
        }
    }

    /// Takes the next bytes and gives `each` every event that they complete.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Event<'_>)) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if take(&mut self.after_cr)
                && let Some(after) = rest.strip_prefix(b"\n")
            {
                rest = after;
                continue;
            }
            let Some(end) = memchr2(b'\r', b'\n', rest) else {
                self.keep(rest);
                return;
            };
            let (part, ending) = rest.split_at(end);
            self.after_cr = ending.first() == Some(&b'\r');
            rest = ending.get(1..).unwrap_or_default();
            self.end_line(part, &mut each);
        }
    }

    /// Gives `each` the event that the end of the stream left without its blank line, if any, and
    /// returns how many events were skipped for their size.
    pub fn finish(mut self, mut each: impl FnMut(Event<'_>)) -> u64 {
        if self.oversized == Oversized::No {
            if !self.line.is_empty() {
                self.end_line(b"", &mut each);
            }
            self.end_line(b"", &mut each);
        }
        self.cut
    }

    fn keep(&mut self, part: &[u8]) {
        if let Oversized::Skipping { line_is_blank } = &mut self.oversized {
            *line_is_blank &= part.is_empty();
            return;
        }
        if self.room() < part.len() {
            self.skip(part);
            return;
        }
        append(&mut self.line, part);
    }

    /// Bytes left under the cap. What counts is what is held: data, name, and the line begun.
    fn room(&self) -> usize {
        self.cap.saturating_sub(self.data.len() + self.name.len() + self.line.len())
    }

    fn skip(&mut self, part: &[u8]) {
        self.oversized = Oversized::Skipping { line_is_blank: self.line.is_empty() && part.is_empty() };
        self.line = Vec::new();
        self.data = Vec::new();
        self.name.clear();
        self.has_data = false;
        self.cut += 1;
    }

    fn end_line(&mut self, part: &[u8], each: &mut impl FnMut(Event<'_>)) {
        self.keep_unless_whole(part);
        if let Oversized::Skipping { line_is_blank } = self.oversized {
            self.at_start = false;
            self.oversized =
                if line_is_blank { Oversized::No } else { Oversized::Skipping { line_is_blank: true } };
            return;
        }
        let held = take(&mut self.line);
        let whole = if held.is_empty() { part } else { &held };
        let line = if take(&mut self.at_start) { whole.strip_prefix(BOM).unwrap_or(whole) } else { whole };
        if line.is_empty() {
            self.dispatch(each);
        } else {
            self.field(line);
        }
        self.line = held;
        self.line.clear();
    }

    /// A line that arrived in one piece is read where it lies; only the rest of a line is copied.
    fn keep_unless_whole(&mut self, part: &[u8]) {
        let whole = self.line.is_empty() && self.oversized == Oversized::No && part.len() <= self.room();
        if !whole {
            self.keep(part);
        }
    }

    fn field(&mut self, line: &[u8]) {
        let colon = memchr(b':', line).unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                if self.has_data {
                    append(&mut self.data, b"\n");
                }
                append(&mut self.data, value);
                self.has_data = true;
            }
            b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
            _ => {}
        }
    }

    fn dispatch(&mut self, each: &mut impl FnMut(Event<'_>)) {
        if self.has_data {
            each(Event { name: &self.name, data: &self.data });
        }
        self.name.clear();
        self.data.clear();
        self.has_data = false;
    }
}

impl Default for Sse {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Ndjson ===

impl Ndjson {
    /// A framer at the start of a stream, holding at most [`MAX_EVENT`] bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::with_cap(MAX_EVENT)
    }

    /// A framer that skips lines of more than `cap` bytes.
    #[must_use]
    pub fn with_cap(cap: usize) -> Self {
        Self { cap, line: Vec::new(), at_start: true, skipping: false, cut: 0 }
    }

    /// Takes the next bytes and gives `each` every line that they complete; blank lines are not events.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Event<'_>)) {
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            let (part, ending) = rest.split_at(end);
            rest = ending.get(1..).unwrap_or_default();
            self.keep(part);
            self.end_line(&mut each);
        }
        self.keep(rest);
    }

    /// Gives `each` the last line if it has no end, and returns how many lines were skipped for
    /// their size.
    pub fn finish(mut self, mut each: impl FnMut(Event<'_>)) -> u64 {
        self.end_line(&mut each);
        self.cut
    }

    fn keep(&mut self, part: &[u8]) {
        if self.skipping {
            return;
        }
        if self.cap.saturating_sub(self.line.len()) < part.len() {
            self.skipping = true;
            self.line = Vec::new();
            self.cut += 1;
            return;
        }
        append(&mut self.line, part);
    }

    fn end_line(&mut self, each: &mut impl FnMut(Event<'_>)) {
        let at_start = take(&mut self.at_start);
        if take(&mut self.skipping) {
            return;
        }
        let line = self.line.as_slice();
        let line = if at_start { line.strip_prefix(BOM).unwrap_or(line) } else { line };
        let data = line.trim_ascii();
        if !data.is_empty() {
            each(Event { name: "", data });
        }
        self.line.clear();
    }
}

impl Default for Ndjson {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

    use super::{Ndjson, Sse};

    type Events = Vec<(String, String)>;

    fn sse(cap: usize, chunks: &[&[u8]]) -> (Events, u64) {
        let mut events = Vec::new();
        let mut framer = Sse::with_cap(cap);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for chunk in chunks {
            framer.feed(chunk, |event| events.push((event.name.to_owned(), text(event.data))));
        }
        let cut = framer.finish(|event| events.push((event.name.to_owned(), text(event.data))));
        (events, cut)
    }

    fn ndjson(cap: usize, chunks: &[&[u8]]) -> (Vec<String>, u64) {
        let mut events = Vec::new();
        let mut framer = Ndjson::with_cap(cap);
        for chunk in chunks {
            framer.feed(chunk, |event| events.push(String::from_utf8_lossy(event.data).into_owned()));
        }
        let cut = framer.finish(|event| events.push(String::from_utf8_lossy(event.data).into_owned()));
        (events, cut)
    }

    fn data(events: &Events) -> Vec<&str> {
        events.iter().map(|(_, data)| data.as_str()).collect()
    }

    #[test]
    fn every_line_end_of_the_standard_ends_a_line() {
        for end in ["\n", "\r", "\r\n"] {
            let stream = format!("event: a{end}data: 1{end}{end}data: 2{end}{end}");
            let (events, _) = sse(1000, &[stream.as_bytes()]);
            assert_eq!(
                events,
                [("a".to_owned(), "1".to_owned()), (String::new(), "2".to_owned())],
                "{end:?}"
            );
        }
    }

    #[test]
    fn a_chunk_may_end_between_cr_and_lf() {
        let (events, _) = sse(1000, &[b"data: 1\r", b"\ndata: 2\r", b"\n\r", b"\ndata: 3\r\n\r\n"]);
        assert_eq!(data(&events), ["1\n2", "3"]);
    }

    #[test]
    fn comments_other_fields_and_missing_spaces_are_understood() {
        let (events, _) =
            sse(1000, &["\u{feff}: ping\n\nid: 7\nretry: 10\ndata:no\ndata:  two\ndata\n\n".as_bytes()]);
        assert_eq!(data(&events), ["no\n two\n"]);
    }

    #[test]
    fn the_end_of_the_stream_delivers_what_it_cut_short() {
        assert_eq!(data(&sse(1000, &[b"data: 1\n\ndata: 2\n"]).0), ["1", "2"]);
        assert_eq!(data(&sse(1000, &[b"data: 1\n\ndata: 2"]).0), ["1", "2"]);
        assert!(sse(1000, &[b"event: only-a-name\n"]).0.is_empty());
        assert_eq!(ndjson(1000, &[b"{\"a\":1}\r\n\r\n{\"b\"", b":2}"]).0, ["{\"a\":1}", "{\"b\":2}"]);
    }

    #[test]
    fn an_oversized_event_is_skipped_and_the_next_one_is_heard() {
        let big = "x".repeat(100);
        let stream = format!("data: 1\n\nevent: big\ndata: {big}\ndata: more\n\ndata: 2\n\n");
        let (events, cut) = sse(40, &[stream.as_bytes()]);
        assert_eq!((data(&events), cut), (vec!["1", "2"], 1));

        let lines = format!("1\n{big}\n2\n{big}");
        assert_eq!(ndjson(40, &[lines.as_bytes()]), (vec!["1".to_owned(), "2".to_owned()], 2));
    }

    #[test]
    fn many_small_lines_of_one_event_cannot_pass_the_cap_together() {
        let stream = format!("{}\n\ndata: 2\n\n", "data: 12345678\n".repeat(10));
        assert_eq!(sse(40, &[stream.as_bytes()]), (vec![(String::new(), "2".to_owned())], 1));
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"\n".to_vec()),
            Just(b"\r".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"data".to_vec()),
            Just(b"data: ".to_vec()),
            Just(b"event:x".to_vec()),
            Just(b": c".to_vec()),
            Just(b"\xef\xbb\xbf".to_vec()),
            Just(b"\xc3\xa9\xff".to_vec()),
            Just(vec![b'y'; 30]),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    fn split<'a>(bytes: &'a [u8], at: &[usize]) -> Vec<&'a [u8]> {
        let mut ends: Vec<_> = at.iter().map(|n| n % (bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        let starts = [0].into_iter().chain(ends.clone());
        starts.zip(ends.clone()).map(|(start, end)| &bytes[start..end]).collect()
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(bytes in stream(), at in prop::collection::vec(any::<usize>(), 0..12)) {
            let single: Vec<_> = bytes.chunks(1).collect();
            let parts = split(&bytes, &at);
            for cap in [20, 50, 10_000] {
                let whole = sse(cap, &[&bytes]);
                prop_assert_eq!(&whole, &sse(cap, &parts));
                prop_assert_eq!(&whole, &sse(cap, &single));
                let whole = ndjson(cap, &[&bytes]);
                prop_assert_eq!(&whole, &ndjson(cap, &parts));
                prop_assert_eq!(&whole, &ndjson(cap, &single));
            }
        }
    }
}
