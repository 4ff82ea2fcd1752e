//! Media in what was said: base64 that is replaced by `{"omitted": {"media_type", "bytes", "sha256"}}`, the
//! size and digest of the media itself. They are read in pieces, never decoded as a whole.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::copy::{escape, hex};
use super::raw::{Raw, unescape};
use super::scan::Cursor;

/// Base64 of at most this length is kept as it is.
pub(super) const KEPT: usize = 256;

/// Members that hold base64 without saying so by a data URL: audio and files of OpenAI, sources of
/// Anthropic, images of Ollama.
const KEYS: [&str; 4] = ["data", "file_data", "images", "b64_json"];

/// Longest head of a data URL, and longest media type.
const MAX_HEAD: usize = 1024;
/// As many bytes behind media are looked at for their type.
const LOOKED_AT: usize = 2048;
/// Characters that are decoded at a time: whole groups of four.
const PIECE: usize = 4096;

const FORGIVING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, FORGIVING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, FORGIVING);

/// Members of an object that tell the type of the media in it.
#[derive(Clone, Copy, Default)]
pub(super) struct Kinds<'a> {
    media_type: Option<Raw<'a>>,
    mime_type: Option<Raw<'a>>,
    format: Option<Raw<'a>>,
    is_image: bool,
}

/// What is known of media that may be in a string.
#[derive(Clone, Debug)]
pub(super) struct Media {
    media_type: Option<String>,
}

/// What takes the place of a data URL (RFC 2397) with base64, `data:image/png;base64,…`, that is given as it
/// is written; `None` for anything else, and for a short one.
pub(super) fn data_url(written: &[u8]) -> Option<String> {
    if written.len() <= KEPT || !written.starts_with(b"data:") {
        return None;
    }
    let comma = memchr::memchr(b',', written.get(..MAX_HEAD).unwrap_or(written))?;
    let (head, base64) = (written.get(b"data:".len()..comma)?, written.get(comma + 1..)?);
    let mut text = Vec::new();
    unescape(head, |piece| text.extend_from_slice(piece));
    let head = text.strip_suffix(b";base64")?;
    let media_type = head.split(|byte| *byte == b';').next().filter(|name| !name.is_empty());
    let media_type = media_type.map(|name| String::from_utf8_lossy(name).into_owned());
    Some(omitted(media_type.as_deref(), base64))
}

/// What takes the place of base64 that is given as it is written; `None` where it is none, or short.
pub(super) fn base64(written: &[u8], media: &Media) -> Option<String> {
    let (mut length, mut is_base64) = (0, true);
    unescape(written, |piece| {
        length += piece.len();
        is_base64 &= piece.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/-_=\r\n".contains(byte));
    });
    (is_base64 && length > KEPT).then(|| omitted(media.media_type.as_deref(), written))
}

/// What does not decode, as when it was cut, is measured as it stands.
fn omitted(media_type: Option<&str>, base64: &[u8]) -> String {
    let decoded = measure(base64, Some(&STANDARD)).or_else(|| measure(base64, Some(&URL_SAFE)));
    let (bytes, digest) = decoded.or_else(|| measure(base64, None)).unwrap_or_default();
    let media_type = match media_type {
        Some(name) => {
            let mut text = vec![b'"'];
            escape(name.as_bytes(), 6 * MAX_HEAD, &mut text);
            text.push(b'"');
            String::from_utf8(text).unwrap_or_default()
        }
        None => Value::Null.to_string(),
    };
    format!("{{\"omitted\":{{\"bytes\":{bytes},\"media_type\":{media_type},\"sha256\":\"{digest}\"}}}}")
}

/// Size and digest of what `written` decodes to; without an engine, of the text itself without its space.
/// `None`: it does not decode.
fn measure(written: &[u8], engine: Option<&GeneralPurpose>) -> Option<(usize, String)> {
    let mut measure =
        Measure { engine, held: Vec::with_capacity(PIECE), bytes: 0, digest: Sha256::new(), is_good: true };
    unescape(written, |piece| {
        for byte in piece.iter().filter(|byte| !byte.is_ascii_whitespace()) {
            if measure.held.len() == PIECE {
                measure.digest(false);
            }
            measure.held.push(*byte);
        }
    });
    measure.digest(true);
    measure.is_good.then(|| (measure.bytes, hex(measure.digest)))
}

struct Measure<'a> {
    engine: Option<&'a GeneralPurpose>,
    held: Vec<u8>,
    bytes: usize,
    digest: Sha256,
    is_good: bool,
}

// === impl Measure ===

impl Measure<'_> {
    /// Takes what is held; padding may only be at the very end.
    fn digest(&mut self, is_last: bool) {
        let decoded = match self.engine {
            None => Some(std::mem::take(&mut self.held)),
            Some(_) if !self.is_good || (!is_last && self.held.contains(&b'=')) => None,
            Some(engine) => engine.decode(&self.held).ok(),
        };
        self.held.clear();
        self.is_good &= decoded.is_some();
        let decoded = decoded.unwrap_or_default();
        self.bytes += decoded.len();
        self.digest.update(&decoded);
    }
}

// === impl Kinds ===

impl<'a> Kinds<'a> {
    /// A string that an object has.
    pub(super) fn note(&mut self, name: Raw<'a>, value: Raw<'a>) {
        match name.bytes() {
            b"\"media_type\"" => self.media_type = Some(value),
            b"\"mime_type\"" => self.mime_type = Some(value),
            b"\"format\"" => self.format = Some(value),
            b"\"type\"" => self.is_image = value.reads("image_generation_call"),
            _ => {}
        }
    }

    /// Whether the member of this name may be media, and of which type, as the members before it tell, or the
    /// next ones do, which are `after` it.
    pub(super) fn media(mut self, name: Raw<'a>, after: &'a [u8]) -> Option<Media> {
        let is_media = |name: Raw<'_>| KEYS.iter().any(|key| name.reads(key));
        let may_be_result = name.reads("result");
        if !is_media(name) && !may_be_result {
            return None;
        }
        let mut cursor = Cursor::new(after.get(..LOOKED_AT).unwrap_or(after));
        cursor.space();
        while cursor.take(b',') {
            cursor.space();
            let start = cursor.at;
            let Ok(()) = cursor.string() else { break };
            let name = cursor.since(start);
            cursor.space();
            cursor.take(b':');
            cursor.space();
            let Ok(value) = cursor.value() else { break };
            if let (Ok(name), Ok(value)) = (Raw::parse(name), Raw::parse(value))
                && value.is_string()
            {
                self.note(name, value);
            }
            cursor.space();
        }
        if may_be_result && !self.is_image {
            return None;
        }
        let text = |raw: Option<Raw<'_>>| {
            raw.filter(|raw| raw.bytes().len() <= MAX_HEAD)
                .and_then(Raw::text)
                .map(std::borrow::Cow::into_owned)
        };
        let format = || text(self.format).map(|format| format!("audio/{format}"));
        Some(Media { media_type: text(self.media_type).or_else(|| text(self.mime_type)).or_else(format) })
    }
}
