//! Text from outside, made fit for a terminal: the one place through which commands and log lines pass what
//! clients, upstreams, databases and files wrote.
//!
//! A character that moves the cursor, speaks to the terminal, ends a line, turns the direction of text or
//! shows nothing is written as `\u001b`. The form is JSON's, so that escaped JSON stays the same JSON.

use std::borrow::Cow;
use std::fmt::Write;

/// A value within a line: no character of it ends the line, or acts on the terminal.
#[must_use]
pub fn field(text: &str) -> Cow<'_, str> {
    escaped(text, is_unsafe)
}

/// Text of several lines that is composed of such fields: its line breaks and tabs stay.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| !matches!(character, '\n' | '\t') && is_unsafe(character))
}

fn escaped(text: &str, is_unsafe: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_unsafe(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a `String` does not fail.
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

/// C0, DEL and C1; line and paragraph separators; marks of direction (UAX #9); what has no width, but for
/// the joiners that emoji and scripts need; tags.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::{field, is_unsafe, lines};

    #[test]
    fn what_acts_on_a_terminal_is_written_out() {
        let forged = "gpt\u{1b}]0;owned\u{7}\r\nann on 2026-10-01\u{9b}2J\u{202e}\u{e0041}";
        let shown = field(forged);
        assert_eq!(
            shown,
            "gpt\\u001b]0;owned\\u0007\\u000d\\u000aann on 2026-10-01\\u009b2J\\u202e\\udb40\\udc41"
        );
        assert_eq!(lines("a\n\tb\r\u{1b}[1m"), "a\n\tb\\u000d\\u001b[1m");
    }

    #[test]
    fn what_people_write_stays() {
        for text in ["gpt-4o", "Zoë → 日本語 עברית 👩\u{200d}🚀", "=1+1", "a\\u001b"] {
            assert_eq!(field(text), text);
        }
    }

    proptest! {
        #[test]
        fn no_text_keeps_a_character_that_acts(text in any::<String>()) {
            prop_assert!(!field(&text).contains(is_unsafe));
            prop_assert!(!lines(&text).contains(|c| c != '\n' && c != '\t' && is_unsafe(c)));
        }

        #[test]
        fn json_stays_the_same_json(text in any::<String>()) {
            let written = serde_json::to_string(&text).unwrap();
            let read: String = serde_json::from_str(&field(&written)).unwrap();
            prop_assert_eq!(read, text);
        }
    }
}
