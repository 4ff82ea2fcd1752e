//! What a request asks, as far as admission needs to know: the body is scanned, not parsed, and goes
//! on byte for byte.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Method, Request};
use http_body::Body;
use http_body_util::BodyExt;

use super::collected::Collected;
use super::outgoing::Outgoing;
use super::refusal::Refusal;
use super::route::Route;
use crate::chatlog::Asked;
use crate::config::{Capture, Connections};
use crate::dialect::Call;
use crate::dialect::scan::{self, ScanError};
use crate::ids::UserId;
use crate::limits::BodyBytes;
use crate::listen::{Paced, PacedError, RequestBody};
use crate::plan::any_matches;

/// What a body may take, in space and time.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    /// Of a body that is looked at, in bytes.
    pub(super) max_body: u64,
    /// Of a body that passes through, in bytes.
    pub(super) max_upload: u64,
    /// How slowly it may come.
    pub(super) pace: Connections,
}

/// A request read as far as needed.
pub(super) struct Ask {
    /// What the row will say.
    pub(super) asked: Asked,
    /// The `r_type` that the body names.
    pub(super) r_type: Option<String>,
    /// Whether it costs a conversation.
    pub(super) charged: bool,
    /// Whether it gets a row.
    pub(super) recorded: bool,
}

/// The body cannot be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AskError {
    /// Larger than the configuration allows.
    TooLarge { max: u64 },
    /// Not one JSON object.
    NotJson,
    /// Nested deeper than the scanner follows.
    TooDeep,
    /// A field that decides is named twice: two parsers might decide differently.
    Duplicate(&'static str),
    /// A field that decides has no usable value.
    WrongType(&'static str),
    /// Compressed, so that nobody could look.
    Encoded,
    /// Silent for too long, or slower than the slowest acceptable rate.
    TooSlow,
    /// Ended early.
    Broken,
}

/// The fields that admission, rows and entitlements look at.
const FIELDS: [&str; 4] = ["model", "stream", "r_type", "research_model"];

/// Reads what is needed of a request's body. What is held in memory is counted in `room`.
pub(super) async fn read(
    req: Request<RequestBody>,
    route: &Route,
    bounds: &Bounds,
    room: BodyBytes<UserId>,
) -> Result<(Request<Outgoing>, Ask), Refusal> {
    let (parts, body) = req.into_parts();
    let path = parts.uri.path();
    let call = route.call(&parts.method, path);
    let charged = route.charges(&parts.method, path, !body.is_end_stream());
    let recorded = charged || (parts.method == Method::POST && route.config.capture != Capture::Off);
    let blank =
        Asked { call, model: None, stream: false, research: false, body: Bytes::new(), cut: false, bytes: 0 };
    let unread = Ask { asked: blank, r_type: None, charged, recorded };

    if body.is_end_stream() && !(charged && call != Call::Other) {
        return Ok((Request::from_parts(parts, Outgoing::empty()), unread));
    }
    let passes =
        !(charged || call != Call::Other) && is_opaque(&parts.headers) || is_multipart(&parts.headers);
    if passes {
        refuse_announced(&parts.headers, bounds.max_upload)?;
        let body = Paced::new(body, &bounds.pace, bounds.pace.upload_timeout);
        let body = Outgoing::through(body, bounds.max_upload, charged);
        return Ok((Request::from_parts(parts, body), unread));
    }
    if parts.headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(AskError::Encoded.into());
    }
    let announced = refuse_announced(&parts.headers, bounds.max_body)?;
    let body = Paced::new(body, &bounds.pace, bounds.pace.body_timeout);
    let bytes = collect(body, bounds.max_body, Collected::new(announced, room)).await?;
    let must_be_json = call != Call::Other || is_json(&parts.headers);
    let ask = look(&bytes, unread, route, must_be_json)?;
    Ok((Request::from_parts(parts, Outgoing::whole(bytes)), ask))
}

/// Fills in what the body says.
fn look(bytes: &Bytes, mut ask: Ask, route: &Route, must_be_json: bool) -> Result<Ask, AskError> {
    let found = match scan::scan(bytes, FIELDS) {
        Ok(found) => found,
        Err(ScanError::Duplicate { index }) => {
            return Err(AskError::Duplicate(FIELDS.get(index).copied().unwrap_or("model")));
        }
        Err(ScanError::TooDeep) => return Err(AskError::TooDeep),
        Err(_) if must_be_json || may_be_json(bytes) => return Err(AskError::NotJson),
        Err(_) => [None; FIELDS.len()],
    };
    let [model, stream, r_type, research] = found;
    let model = text(model, "model")?;
    let streams_unless_told = matches!(ask.asked.call, Call::OllamaChat | Call::OllamaGenerate);
    let is_research = |model: &str| any_matches(&route.config.research_models, model);
    ask.r_type = text(r_type, "r_type")?;
    ask.asked.stream = flag(stream, "stream")?.unwrap_or(streams_unless_told);
    ask.asked.research =
        flag(research, "research_model")?.unwrap_or(false) || model.as_deref().is_some_and(is_research);
    ask.asked.model = model;
    ask.asked.bytes = bytes.len() as u64;
    if route.config.capture == Capture::Full {
        ask.asked.body = bytes.clone();
    }
    Ok(ask)
}

/// Whether a lenient parser might find fields of ours where we found none: in an object with
/// extensions of JSON, or in another encoding, as Python's `json.loads` does.
fn may_be_json(body: &[u8]) -> bool {
    let marks: [&[u8]; 5] = [b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe", b"\0{", b"\0\0\0{"];
    body.trim_ascii_start().starts_with(b"{") || marks.iter().any(|mark| body.starts_with(mark))
}

fn text(raw: Option<&[u8]>, field: &'static str) -> Result<Option<String>, AskError> {
    let Some(raw) = raw.filter(|raw| *raw != b"null") else { return Ok(None) };
    let text = scan::text(raw).ok_or(AskError::WrongType(field))?;
    Ok(Some(text.into_owned()))
}

fn flag(raw: Option<&[u8]>, field: &'static str) -> Result<Option<bool>, AskError> {
    let Some(raw) = raw.filter(|raw| *raw != b"null") else { return Ok(None) };
    scan::boolean(raw).map(Some).ok_or(AskError::WrongType(field))
}

/// The whole body, within its bounds.
async fn collect(mut body: Paced<RequestBody>, max: u64, mut held: Collected) -> Result<Bytes, Refusal> {
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(AskError::from)?.into_data() else { continue };
        if (held.len() + data.len()) as u64 > max {
            return Err(AskError::TooLarge { max }.into());
        }
        held.push(data)?;
    }
    Ok(held.into_bytes())
}

/// How long the body will be, if its head says so.
fn refuse_announced(headers: &HeaderMap, max: u64) -> Result<Option<u64>, AskError> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max) { Err(AskError::TooLarge { max }) } else { Ok(announced) }
}

fn essence(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence = essence(headers);
    essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json")
}

fn is_multipart(headers: &HeaderMap) -> bool {
    essence(headers).get(..10).is_some_and(|start| start.eq_ignore_ascii_case("multipart/"))
}

/// Bodies that hold no fields of ours.
fn is_opaque(headers: &HeaderMap) -> bool {
    let essence = essence(headers).to_ascii_lowercase();
    let opaque =
        ["audio/", "image/", "video/", "application/octet-stream", "application/pdf", "application/x-ndjson"];
    opaque.iter().any(|start| essence.starts_with(start))
}

impl<E> From<PacedError<E>> for AskError {
    fn from(error: PacedError<E>) -> Self {
        match error {
            PacedError::TooSlow => Self::TooSlow,
            PacedError::Body(_) => Self::Broken,
        }
    }
}
