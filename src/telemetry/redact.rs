//! The last line of defence: no log line carries a key, whatever a library chose to print.

use std::io::{self, Write};

use memchr::memmem;

/// Characters after `pe-` in a key.
const KEY_TAIL: usize = 32;

/// Passes bytes on with every `pe-` key cut after its first seven characters.
///
/// A key split over two writes would pass; the subscriber writes each line in one.
pub(super) struct Redacting<W: Write>(W);

// === impl Redacting ===

impl<W: Write> Redacting<W> {
    pub(super) fn new(inner: W) -> Self {
        Self(inner)
    }
}

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut rest = line;
        while let Some(at) = find_key(rest) {
            let (shown, hidden) = rest.split_at(at + 7);
            self.0.write_all(shown)?;
            self.0.write_all("…".as_bytes())?;
            rest = hidden.get(KEY_TAIL - 4..).unwrap_or_default();
        }
        self.0.write_all(rest)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn find_key(bytes: &[u8]) -> Option<usize> {
    memmem::find_iter(bytes, b"pe-").find(|&at| {
        let tail = bytes.get(at + 3..at + 3 + KEY_TAIL);
        tail.is_some_and(|tail| tail.iter().all(u8::is_ascii_alphanumeric))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::Redacting;

    fn redacted(line: &str) -> String {
        let mut out = Vec::new();
        Redacting::new(&mut out).write_all(line.as_bytes()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn keys_are_cut_wherever_they_stand() {
        let key = "pe-0123456789abcdefghijABCDEFGHIJ01";
        assert_eq!(redacted(key), "pe-0123…");
        assert_eq!(redacted(&format!("a {key} b {key}\n")), "a pe-0123… b pe-0123…\n");
    }

    #[test]
    fn what_is_no_key_stays() {
        for line in ["", "pe-", "type-pe-short", "recipe-book and pe-0123456789abcdefghijABCDEFGHIJ0!"] {
            assert_eq!(redacted(line), line);
        }
    }
}
