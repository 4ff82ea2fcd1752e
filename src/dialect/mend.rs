//! Closes a JSON document that was cut short, so that its beginning can still be read.

use super::raw::{Broken, Raw};

/// Reads the beginning of a document whose end is missing: the last string is closed where it was
/// cut, a member without a value is dropped, and what is open is closed. `None` for a document that
/// is wrong rather than cut, or too short to say anything, or nested too deep.
pub(super) fn mend(bytes: &[u8]) -> Option<Vec<u8>> {
    match Raw::parse(bytes) {
        Ok(whole) => return Some(whole.bytes().to_vec()),
        Err(Broken::Wrong) => return None,
        // A cut may fall inside a character or an escape: both are cut off below.
        Err(Broken::Cut) => {}
    }
    let mut scan = Scan::default();
    for (at, byte) in bytes.iter().enumerate() {
        scan.step(at, *byte);
        if scan.open.len() > MOST_OPEN {
            return None;
        }
    }
    scan.close(bytes)
}

/// Deeper documents are not read.
const MOST_OPEN: usize = 128;

#[derive(Default)]
struct Scan {
    /// The closing bracket of each array and object that is open.
    open: Vec<u8>,
    string: Option<Text>,
    /// In an object: a key was read and its `:` too, so that a string now is a value.
    after_colon: bool,
    /// The document up to here is whole but for what was then open.
    whole_up_to: usize,
    open_then: usize,
}

/// The string that is being read.
struct Text {
    is_value: bool,
    escape: Escape,
    /// The end of the last whole character or escape.
    whole_up_to: usize,
}

enum Escape {
    No,
    Begun,
    Hex { left: u8 },
}

// === impl Scan ===

impl Scan {
    fn step(&mut self, at: usize, byte: u8) {
        if let Some(text) = &mut self.string {
            if text.step(at, byte) {
                let is_value = text.is_value;
                self.string = None;
                if is_value {
                    self.mark(at + 1);
                }
            }
            return;
        }
        match byte {
            b'"' => {
                let is_value = self.after_colon || self.open.last() != Some(&b'}');
                self.string = Some(Text { is_value, escape: Escape::No, whole_up_to: at + 1 });
            }
            b'{' | b'[' => {
                self.open.push(if byte == b'{' { b'}' } else { b']' });
                self.after_colon = false;
                self.mark(at + 1);
            }
            b'}' | b']' => {
                self.open.pop();
                self.after_colon = false;
                self.mark(at + 1);
            }
            b':' => self.after_colon = true,
            b',' => {
                self.after_colon = false;
                self.mark(at);
            }
            _ => {}
        }
    }

    fn mark(&mut self, at: usize) {
        self.whole_up_to = at;
        self.open_then = self.open.len();
    }

    fn close(self, bytes: &[u8]) -> Option<Vec<u8>> {
        let closers = |depth: usize| self.open.get(..depth).unwrap_or_default().iter().rev();
        let text = self.string.as_ref().filter(|text| text.is_value);
        let (end, quote, depth) = match text {
            Some(text) => (text.whole_up_to, "\"", self.open.len()),
            None => (self.whole_up_to, "", self.open_then),
        };
        let head = bytes.get(..end)?;
        // A cut character is the last of a value's string, if anywhere.
        let head = match std::str::from_utf8(head) {
            Ok(_) => head,
            Err(error) => head.get(..error.valid_up_to())?,
        };
        // The cut may have parted two halves of a surrogate pair, each one an escape of six bytes.
        let half = head.len().checked_sub(6).and_then(|at| head.get(at..)).unwrap_or_default();
        let is_half = text.is_some() && half.starts_with(b"\\u") && is_first_half(half);
        let head = if is_half { head.get(..head.len() - half.len())? } else { head };
        let mut mended = Vec::with_capacity(head.len() + MOST_OPEN + 1);
        mended.extend_from_slice(head);
        mended.extend_from_slice(quote.as_bytes());
        mended.extend(closers(depth));
        Raw::parse(&mended).is_ok().then_some(mended)
    }
}

/// Of a surrogate pair, as an escape.
fn is_first_half(escape: &[u8]) -> bool {
    matches!(escape.get(2..4), Some([b'd' | b'D', b'8' | b'9' | b'a' | b'A' | b'b' | b'B']))
}

// === impl Text ===

impl Text {
    /// Whether the string ended here.
    fn step(&mut self, at: usize, byte: u8) -> bool {
        match self.escape {
            Escape::Begun if byte == b'u' => self.escape = Escape::Hex { left: 4 },
            Escape::Begun | Escape::Hex { left: 1 } => self.escape = Escape::No,
            Escape::Hex { left } => self.escape = Escape::Hex { left: left - 1 },
            Escape::No if byte == b'"' => return true,
            Escape::No if byte == b'\\' => self.escape = Escape::Begun,
            Escape::No => {}
        }
        if matches!(self.escape, Escape::No) {
            self.whole_up_to = at + 1;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};
    use serde_json::{Value, json};

    fn mend(bytes: &[u8]) -> Option<Value> {
        let mended = super::mend(bytes)?;
        Some(serde_json::from_slice(&mended).unwrap())
    }

    const DOCUMENT: &str = r#"{"id":"1","choices":[{"index":0,"message":{"role":"assistant","content":"h\u00e9 \ud83d\ude00 \"é😀\" end","n":12.5}}],"usage":{"a":1,"b":[true,null]}}"#;

    #[test]
    fn wherever_it_is_cut_the_beginning_is_read() {
        let mut longest = 0;
        for end in 1..DOCUMENT.len() {
            let mended = mend(&DOCUMENT.as_bytes()[..end]).unwrap_or_else(|| panic!("{}", end));
            let content = mended.pointer("/choices/0/message/content").and_then(|text| text.as_str());
            let said = content.unwrap_or_default();
            assert!("hé 😀 \"é😀\" end".starts_with(said), "{said}");
            assert!(said.len() >= longest, "{end}");
            longest = said.len();
        }
        assert_eq!(longest, "hé 😀 \"é😀\" end".len());
    }

    #[test]
    fn a_member_without_a_value_is_dropped() {
        assert_eq!(mend(br#"{"a":1,"b":"#), Some(json!({"a": 1})));
        assert_eq!(mend(br#"{"a":1,"b":tr"#), Some(json!({"a": 1})));
        assert_eq!(mend(br#"{"a":1,"b"#), Some(json!({"a": 1})));
        assert_eq!(mend(br"[1,2"), Some(json!([1])));
    }

    #[test]
    fn what_is_wrong_is_not_mended() {
        assert_eq!(mend(b""), None);
        assert_eq!(mend(b"hello"), None);
        assert_eq!(mend(br#"{"a":1]"#), None);
        assert_eq!(mend(b"{\"a\":\"\xff\"}"), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..100), text in r#"[\[\]{}:,"\\ua1é ]{0,40}"#) {
            super::mend(&bytes);
            super::mend(text.as_bytes());
        }
    }
}
