//! Reads the few fields of a multipart form that rules hang on, while its bytes go by.
//!
//! Form parsers differ more than parsers of JSON: on bare line feeds, folded headers, escapes in names, preambles. The
//! form is forwarded byte for byte, so one that two of them could take apart in two ways is refused
//! ([`FormError::Ambiguous`]); what clients write (RFC 7578, RFC 2046 §5.1) has one reading. Nothing is kept but a
//! part's head, the value of a field that was asked for, and as many bytes as could be the beginning of a delimiter.

use memchr::memmem;
use thiserror::Error;

use super::label;
use super::names::{self, Likeness};

/// Most bytes of a part's head.
const MAX_HEAD: usize = 8 * 1024;
/// Most bytes of the value of a field that was asked for.
const MAX_VALUE: usize = 64 * 1024;
/// Where a form says what its fields are written in (RFC 7578 §4.6).
const CHARSET: &str = "_charset_";

/// Why a form is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FormError {
    /// Parsers take it apart in different ways.
    #[error("the form can be read in two ways")]
    Ambiguous,
    /// A field that was asked for occurs twice.
    #[error("the form has the field {0} twice")]
    Duplicate(&'static str),
    /// Only some parsers take a field's name for one that was asked for.
    #[error("the form spells the field {0} in another way")]
    Misspelled(&'static str),
    /// A field that was asked for comes when it is no longer looked for.
    #[error("the form has the field {0} too late")]
    Late(&'static str),
    /// A field that was asked for is no text, or is too long.
    #[error("the form has no usable value for {0}")]
    Value(&'static str),
    /// Not in UTF-8.
    #[error("the form is not written in UTF-8")]
    Charset,
}

/// A form as far as it was seen.
#[derive(Debug)]
pub struct Form {
    names: &'static [&'static str],
    values: Vec<Option<String>>,
    /// `--` and the boundary.
    delimiter: Vec<u8>,
    /// Seen, and not yet understood.
    rest: Vec<u8>,
    state: State,
    has_file: bool,
    is_closed: bool,
}

#[derive(Debug)]
enum State {
    /// Before the first delimiter.
    Start,
    /// After a delimiter: another part, or the end.
    Delimited,
    Head,
    Body(Part),
    End,
}

/// The part that is being read.
#[derive(Debug)]
struct Part {
    /// Which of the fields that were asked for it is, and its value so far.
    field: Option<(Field, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug)]
enum Field {
    Asked(usize),
    Charset,
}

/// What a part's head says.
#[derive(Default)]
struct Head {
    name: Option<String>,
    has_file: bool,
    is_plain: bool,
    is_utf8: bool,
}

// === impl Form ===

impl Form {
    /// A form with this `Content-Type`, of which these fields are asked for.
    ///
    /// # Errors
    ///
    /// When parsers could find different boundaries in it.
    pub fn new(content_type: &[u8], names: &'static [&'static str]) -> Result<Self, FormError> {
        let boundary = label::boundary(content_type).ok_or(FormError::Ambiguous)?;
        let delimiter = [b"--", boundary.as_slice()].concat();
        let values = vec![None; names.len()];
        let (rest, state) = (Vec::new(), State::Start);
        Ok(Self { names, values, delimiter, rest, state, has_file: false, is_closed: false })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// [`FormError`]; nothing that follows mends it.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), FormError> {
        self.rest.extend_from_slice(bytes);
        while self.step()? {}
        Ok(())
    }

    /// From here on no field may come, or end, that was asked for.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    /// Whether the form is whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// Whether a file, or what may be large, has begun.
    #[must_use]
    pub fn has_file(&self) -> bool {
        self.has_file
    }

    /// The value of a field that was asked for, once its end was seen.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        let index = self.names.iter().position(|asked| *asked == name)?;
        self.values.get(index)?.as_deref()
    }

    /// Whether a step forward was made.
    fn step(&mut self) -> Result<bool, FormError> {
        match self.state {
            State::Start => self.start(),
            State::Delimited => self.after_delimiter(),
            State::Head => self.head(),
            State::Body(_) => self.body(),
            State::End if self.rest.iter().all(|b| b" \t\r\n".contains(b)) => {
                self.rest.clear();
                Ok(false)
            }
            State::End => Err(FormError::Ambiguous),
        }
    }

    fn start(&mut self) -> Result<bool, FormError> {
        let length = self.delimiter.len().min(self.rest.len());
        if self.rest.get(..length) != self.delimiter.get(..length) {
            return Err(FormError::Ambiguous);
        }
        let is_whole = length == self.delimiter.len();
        if is_whole {
            self.rest.drain(..length);
            self.state = State::Delimited;
        }
        Ok(is_whole)
    }

    fn after_delimiter(&mut self) -> Result<bool, FormError> {
        let Some(two) = self.rest.get(..2) else { return Ok(false) };
        self.state = match two {
            b"\r\n" => State::Head,
            b"--" => State::End,
            _ => return Err(FormError::Ambiguous),
        };
        self.rest.drain(..2);
        Ok(true)
    }

    fn head(&mut self) -> Result<bool, FormError> {
        let Some(end) = memmem::find(&self.rest, b"\r\n\r\n") else {
            return if self.rest.len() > MAX_HEAD { Err(FormError::Ambiguous) } else { Ok(false) };
        };
        let written: Vec<u8> = self.rest.drain(..end + 4).take(end).collect();
        if end > MAX_HEAD || memmem::find(&written, &self.delimiter).is_some() {
            return Err(FormError::Ambiguous);
        }
        let head = Head::read(&written)?;
        self.has_file |= head.has_file;
        let field = match head.name.as_deref() {
            Some(name) => self.field(name)?,
            None => None,
        };
        if let Some(Field::Asked(index)) = field {
            let name = self.names.get(index).copied().unwrap_or_default();
            if self.values.get(index).is_some_and(Option::is_some) {
                return Err(FormError::Duplicate(name));
            }
            if self.is_closed {
                return Err(FormError::Late(name));
            }
            if !head.is_plain || head.has_file {
                return Err(FormError::Value(name));
            }
            if !head.is_utf8 {
                return Err(FormError::Charset);
            }
        }
        self.state = State::Body(Part { field: field.map(|field| (field, Vec::new())) });
        Ok(true)
    }

    /// Which field a part of this name is.
    fn field(&self, name: &str) -> Result<Option<Field>, FormError> {
        if names::compare_in_form(name, CHARSET) != Likeness::Other {
            return Ok(Some(Field::Charset));
        }
        for (index, asked) in self.names.iter().enumerate() {
            match names::compare_in_form(name, asked) {
                Likeness::Same => return Ok(Some(Field::Asked(index))),
                Likeness::Alike => return Err(FormError::Misspelled(asked)),
                Likeness::Other => {}
            }
        }
        Ok(None)
    }

    fn body(&mut self) -> Result<bool, FormError> {
        let found = memmem::find(&self.rest, &self.delimiter);
        // What could be the line break before a delimiter, and its beginning, stays.
        let sure = match found {
            Some(at) => at.checked_sub(2).ok_or(FormError::Ambiguous)?,
            None => self.rest.len().saturating_sub(self.delimiter.len() + 1),
        };
        if found.is_some() && self.rest.get(sure..sure + 2) != Some(b"\r\n") {
            return Err(FormError::Ambiguous);
        }
        let data: Vec<u8> = self.rest.drain(..sure).collect();
        let State::Body(part) = &mut self.state else { return Ok(false) };
        if let Some((field, value)) = &mut part.field {
            if value.len() + data.len() > MAX_VALUE {
                return Err(FormError::Value(field.name(self.names)));
            }
            value.extend_from_slice(&data);
        }
        if found.is_none() {
            return Ok(false);
        }
        let ended = part.field.take();
        self.rest.drain(..2 + self.delimiter.len());
        self.state = State::Delimited;
        if let Some((field, value)) = ended {
            self.end(field, value)?;
        }
        Ok(true)
    }

    fn end(&mut self, field: Field, value: Vec<u8>) -> Result<(), FormError> {
        let text = String::from_utf8(value).map_err(|_| FormError::Value(field.name(self.names)))?;
        match field {
            Field::Charset if label::is_name_of_utf8(text.trim()) => {}
            Field::Charset => return Err(FormError::Charset),
            Field::Asked(_) if self.is_closed => return Err(FormError::Late(field.name(self.names))),
            Field::Asked(index) => {
                if let Some(slot) = self.values.get_mut(index) {
                    *slot = Some(text);
                }
            }
        }
        Ok(())
    }
}

// === impl Field ===

impl Field {
    fn name(self, names: &'static [&'static str]) -> &'static str {
        match self {
            Self::Asked(index) => names.get(index).copied().unwrap_or(CHARSET),
            Self::Charset => CHARSET,
        }
    }
}

// === impl Head ===

impl Head {
    fn read(head: &[u8]) -> Result<Self, FormError> {
        let mut read = Self { is_plain: true, is_utf8: true, ..Self::default() };
        let mut has_disposition = false;
        for line in split_lines(head)? {
            let colon = line.find(':').ok_or(FormError::Ambiguous)?;
            let (name, value) = line.split_at(colon);
            let value = value.get(1..).unwrap_or_default().trim();
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
                return Err(FormError::Ambiguous);
            }
            match name.to_ascii_lowercase().as_str() {
                "content-disposition" if std::mem::replace(&mut has_disposition, true) => {
                    return Err(FormError::Ambiguous);
                }
                "content-disposition" => (read.name, read.has_file) = disposition(value)?,
                "content-transfer-encoding" => {
                    let codings = ["7bit", "8bit", "binary"];
                    read.is_plain &= codings.iter().any(|coding| value.eq_ignore_ascii_case(coding));
                }
                "content-type" => {
                    read.is_utf8 &= label::is_utf8(value.as_bytes());
                    // A form within the form may have fields of its own.
                    if label::essence(value.as_bytes()).starts_with("multipart/") {
                        return Err(FormError::Ambiguous);
                    }
                }
                _ => {}
            }
        }
        Ok(read)
    }
}

/// The lines of a head. None is folded, and only CR LF ends one.
fn split_lines(head: &[u8]) -> Result<Vec<&str>, FormError> {
    let text = std::str::from_utf8(head).map_err(|_| FormError::Ambiguous)?;
    let lines: Vec<&str> = text.split("\r\n").collect();
    let is_odd = |line: &&str| line.starts_with([' ', '\t']) || line.contains(['\r', '\n', '\0']);
    if lines.iter().any(is_odd) { Err(FormError::Ambiguous) } else { Ok(lines) }
}

/// The name of a part, and whether it is a file: `form-data; name="…"; filename="…"` (RFC 7578 §4.2).
fn disposition(value: &str) -> Result<(Option<String>, bool), FormError> {
    let (kind, mut rest) = value.split_once(';').unwrap_or((value, ""));
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return Err(FormError::Ambiguous);
    }
    let (mut name, mut has_file) = (None, false);
    while !rest.trim().is_empty() {
        let (parameter, after) = rest.split_once('=').ok_or(FormError::Ambiguous)?;
        let (text, after) = parameter_value(after)?;
        rest = after;
        match parameter.trim_start().to_ascii_lowercase().as_str() {
            "name" if name.is_some() || text.contains(['\\', '\0']) || text.contains("=?") => {
                return Err(FormError::Ambiguous);
            }
            "name" => name = Some(text.to_owned()),
            "filename" | "filename*" => has_file = true,
            _ => return Err(FormError::Ambiguous),
        }
    }
    Ok((name, has_file))
}

/// A parameter's value, in quotes or a token, and what follows its semicolon.
fn parameter_value(text: &str) -> Result<(&str, &str), FormError> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, after) = text.split_once(';').unwrap_or((text, ""));
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~[]".contains(&b);
        let value = value.trim_end();
        return if !value.is_empty() && value.bytes().all(is_token) {
            Ok((value, after))
        } else {
            Err(FormError::Ambiguous)
        };
    };
    let (value, after) = quoted.split_once('"').ok_or(FormError::Ambiguous)?;
    let after = after.trim_start();
    // An escaped quote ends the value for some, and not for others.
    let after = if after.is_empty() { Some(after) } else { after.strip_prefix(';') };
    after.filter(|_| !value.ends_with('\\')).map(|after| (value, after)).ok_or(FormError::Ambiguous)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::{Form, FormError};

    const LABEL: &[u8] = b"multipart/form-data; boundary=xYz";
    const NAMES: &[&str] = &["model", "r_type"];

    fn read(form: &str, chunk: usize) -> Result<Form, FormError> {
        let mut read = Form::new(LABEL, NAMES)?;
        form.as_bytes().chunks(chunk).try_for_each(|chunk| read.feed(chunk))?;
        Ok(read)
    }

    fn part(head: &str, value: &str) -> String {
        format!("--xYz\r\n{head}\r\n\r\n{value}\r\n")
    }

    fn field(name: &str, value: &str) -> String {
        part(&format!("Content-Disposition: form-data; name=\"{name}\""), value)
    }

    const FILE: &str =
        "Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav";

    #[test]
    fn fields_are_found_wherever_they_stand_and_however_they_come() {
        let audio = "RIFF\r\n--xY\r\n\r\n--\r\n\n--x".repeat(20);
        for form in [
            field("model", "small-1") + &part(FILE, &audio) + "--xYz--\r\n",
            part(FILE, &audio) + &field("model", "small-1") + "--xYz--",
            field("prompt", "")
                + &field("model", "small-1")
                + &field("size", "1\r\n")
                + &part(FILE, "")
                + "--xYz--\r\n",
        ] {
            for chunk in [1, 2, 3, 7, 64, 10_000] {
                let read = read(&form, chunk).unwrap();
                assert_eq!((read.value("model"), read.value("r_type")), (Some("small-1"), None), "{form:?}");
                assert!(read.is_whole() && read.has_file());
                assert!(read.rest.len() < 64);
            }
        }
    }

    #[test]
    fn a_form_that_two_parsers_take_apart_in_two_ways_is_refused() {
        let small = field("model", "small-1");
        let hidden = "Content-Disposition: form-data; name=\"model\"\r\n\r\ndear";
        let cases = [
            ("a preamble", format!("x\r\n{small}--xYz--")),
            ("an empty line first", format!("\r\n{small}--xYz--")),
            ("JSON", "{\"model\":\"dear\"}".to_owned()),
            ("a bare line feed before a delimiter", part(FILE, &format!("a\n--xYz\r\n{hidden}")) + "--xYz--"),
            ("a bare return before a delimiter", part(FILE, &format!("a\r--xYz\r\n{hidden}")) + "--xYz--"),
            ("a delimiter in a line", part(FILE, &format!("a--xYz\r\n{hidden}")) + "--xYz--"),
            (
                "a delimiter right after a head",
                format!("--xYz\r\n{FILE}\r\n\r\n--xYz\r\n{hidden}\r\n--xYz--"),
            ),
            ("a delimiter in a head", format!("--xYz\r\nA: b\r\n--xYz\r\n{hidden}\r\n--xYz--")),
            ("blanks after a delimiter", format!("--xYz \r\n{hidden}\r\n--xYz--")),
            ("a longer boundary", format!("{small}--xYzz\r\n{hidden}\r\n--xYz--")),
            ("line feeds in a head", format!("--xYz\r\nA: b\n{hidden}\r\n--xYz--")),
            ("line feeds only", format!("--xYz\n{}", hidden.replace('\r', ""))),
            ("an epilogue", format!("{small}--xYz--\r\n--xYz\r\n{hidden}\r\n--xYz--")),
            ("no end of a head", format!("--xYz\r\n{}", "A: b\r\n".repeat(2_000))),
        ];
        for (case, form) in cases {
            for chunk in [1, 5, 10_000] {
                assert_eq!(read(&form, chunk).err(), Some(FormError::Ambiguous), "{case}, by {chunk}");
            }
        }
        for head in [
            "Content-Disposition: form-data;\r\n name=\"model\"",
            "Content-Disposition : form-data; name=\"model\"",
            "Content-Disposition: form-data; name=\"a\"; name=\"model\"",
            "Content-Disposition: form-data; name*=utf-8''model",
            "Content-Disposition: form-data; name=\"mod\\el\"",
            "Content-Disposition: form-data; name=\"=?utf-8?q?model?=\"",
            "Content-Disposition: form-data; filename=\"a\\\"; name=\\\"model\"; name=\"x\"",
            "Content-Disposition: form-data; name=\"a\"\r\nContent-Disposition: form-data; name=\"model\"",
            "Content-Disposition: attachment; name=\"model\"",
            "Content-Disposition: form-data; name=\"model",
            "Content-Disposition: form-data; name=mo del",
            "Content-Disposition: form-data; name=\"a\"; x=\"y\"",
            "Content-Disposition form-data",
            "Content-Disposition: form-data; name=\"a\"\r\nContent-Type: multipart/mixed; boundary=b",
        ] {
            let form = part(head, "dear") + "--xYz--";
            assert_eq!(read(&form, 9).err(), Some(FormError::Ambiguous), "{head}");
        }
    }

    #[test]
    fn a_field_asked_for_occurs_once_spelled_as_it_is_and_as_text() {
        let form = |second: String| {
            read(&(field("model", "small-1") + &part(FILE, "x") + &second + "--xYz--"), 50).err()
        };
        assert_eq!(form(field("model", "dear")), Some(FormError::Duplicate("model")));
        for name in ["Model", "model[]", "model[0]", "%6dodel", " model", "MODEL%00"] {
            assert_eq!(form(field(name, "dear")), Some(FormError::Misspelled("model")), "{name}");
        }
        assert_eq!(form(field("R.TYPE", "x")), Some(FormError::Misspelled("r_type")));
        assert_eq!(form(field("_charset_", "utf-7")), Some(FormError::Charset));
        assert_eq!(form(field("_charset_", "UTF-8")), None);
        assert_eq!(form(field("models", "dear") + &field("a[model]", "x")), None);
        for (more, why) in [
            ("; filename=\"m\"", FormError::Value("r_type")),
            ("\r\nContent-Transfer-Encoding: base64", FormError::Value("r_type")),
            ("\r\nContent-Type: text/plain; charset=utf-16", FormError::Charset),
        ] {
            let head = format!("Content-Disposition: form-data; name=r_type{more}");
            assert_eq!(form(part(&head, "x")), Some(why), "{more}");
        }
        assert_eq!(form(field("r_type", &"x".repeat(70_000))), Some(FormError::Value("r_type")));
        assert_eq!(
            Form::new(b"multipart/form-data; boundary=a; boundary=b", NAMES).err(),
            Some(FormError::Ambiguous)
        );
    }

    #[test]
    fn no_field_comes_after_the_last_one_that_counts() {
        let late = |before: &str, after: &str| {
            let mut read = Form::new(LABEL, NAMES).unwrap();
            read.feed(before.as_bytes()).unwrap();
            read.close();
            read.feed(after.as_bytes()).err()
        };
        let small = field("model", "small-1");
        let known = format!("{small}--xYz\r\n{FILE}\r\n\r\nRIFF");
        assert_eq!(late(&known, "F\r\n--xYz--\r\n"), None);
        let then = |part: String| format!("F\r\n{part}--xYz--\r\n");
        assert_eq!(late(&known, &then(field("model", "dear"))), Some(FormError::Duplicate("model")));
        assert_eq!(late(&known, &then(field("r_type", "x"))), Some(FormError::Late("r_type")));
        let (begun, rest) = small.split_at(small.len() - 5);
        assert_eq!(late(begun, &format!("{rest}--xYz--")), Some(FormError::Late("model")));
    }

    proptest! {
        #[test]
        fn any_split_reads_the_same(
            values in prop::collection::vec("[a-z\r\n-]{0,30}|--xY|\r\n--x", 1..5), at in any::<prop::sample::Index>(), chunk in 1_usize..40,
            noise in any::<u8>(), spoil in any::<bool>(),
        ) {
            let names = ["file", "prompt", "model", "size", "r_type"];
            let parts: String = names.iter().zip(&values).map(|(name, value)| field(name, value)).collect();
            let mut form = (parts + "--xYz--\r\n").into_bytes();
            if spoil {
                let at = at.index(form.len());
                form[at] = noise;
            }
            let told = |chunk: usize| {
                let mut read = Form::new(LABEL, NAMES).unwrap();
                let error = form.chunks(chunk).find_map(|chunk| read.feed(chunk).err());
                (error, read.value("model").map(str::to_owned), error.is_none() && read.is_whole())
            };
            let whole = told(form.len());
            if !spoil {
                prop_assert_eq!(&whole, &(None, values.get(2).cloned(), true));
            }
            prop_assert_eq!(whole.0.is_some(), told(chunk).0.is_some());
            if whole.0.is_none() {
                prop_assert_eq!(whole, told(chunk));
            }
        }
    }
}
