//! What a request asks, as far as admission needs to know: the body is scanned, not parsed, and goes
//! on byte for byte.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, request};
use http_body::Body;
use http_body_util::BodyExt;

use super::collected::Collected;
use super::entitled;
use super::form_fields;
use super::outgoing::Outgoing;
use super::refusal::Refusal;
use super::route::Route;
use crate::chatlog::Asked;
use crate::config::{Capture, Connections};
use crate::dialect::form::FormError;
use crate::dialect::label;
use crate::dialect::scan::{self, ScanError};
use crate::dialect::{Call, models};
use crate::ids::UserId;
use crate::limits::BodyBytes;
use crate::listen::{Paced, PacedError, RequestBody};
use crate::plan::{Permitted, any_matches};

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
    /// The model that the body names.
    pub(super) model: Option<String>,
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
    /// Only some parsers take a field's name for that of a field that decides.
    Misspelled(&'static str),
    /// A field that decides has no usable value.
    WrongType(&'static str),
    /// In a charset other than UTF-8, or with two labels: an app might read other fields than the gateway.
    Charset,
    /// A form that parsers take apart in different ways.
    AmbiguousForm,
    /// A field that decides comes in a form when it is no longer looked for.
    Late(&'static str),
    /// A field that decides comes in a form otherwise than as plain text.
    NotPlain(&'static str),
    /// A form that names no model in as many bytes as are looked at.
    NamedTooLate { max: u64 },
    /// Compressed, so that nobody could look.
    Encoded,
    /// Silent for too long, or slower than the slowest acceptable rate.
    TooSlow,
    /// Ended early.
    Broken,
}

/// The fields that admission, rows and entitlements look at.
const FIELDS: [&str; 4] = ["model", "stream", "r_type", "research_model"];

/// What decides how a body is read.
pub(super) struct Reading<'a> {
    pub(super) route: &'a Route,
    pub(super) bounds: &'a Bounds,
    /// The models that are open to whoever asks.
    pub(super) models: &'a Permitted,
}

/// Reads what is needed of a request's body. What is held in memory is counted in `room`.
pub(super) async fn read(
    req: Request<RequestBody>,
    reading: &Reading<'_>,
    room: BodyBytes<UserId>,
) -> Result<(Request<Outgoing>, Ask), Refusal> {
    let (parts, body) = req.into_parts();
    let (ask, bounds) = (reading.unread(&parts, !body.is_end_stream()), reading.bounds);
    let knows = ask.charged || ask.asked.call != Call::Other;
    if body.is_end_stream() && !(ask.charged && ask.asked.call != Call::Other) {
        return Ok((Request::from_parts(parts, Outgoing::empty()), ask));
    }
    let essence = one_label(&parts.headers)?;
    let is_form = essence.starts_with("multipart/");
    let may_pass = is_form || !knows && label::is_opaque(&essence);
    if !may_pass || reading.is_narrowed() {
        refuse_unreadable(&parts.headers, may_pass)?;
    }
    let (max, patience) = if may_pass {
        (bounds.max_upload, bounds.pace.upload_timeout)
    } else {
        (bounds.max_body, bounds.pace.body_timeout)
    };
    let announced = refuse_announced(&parts.headers, max)?;
    let body = Paced::new(body, &bounds.pace, patience);
    if is_form && !reading.is_narrowed() {
        let body = Outgoing::through(body, max, ask.charged);
        return Ok((Request::from_parts(parts, body), ask));
    }
    let held = Collected::new(announced, room);
    let (body, ask) = if is_form {
        form_fields::read(&parts, body, held, (ask, reading)).await?
    } else if may_pass {
        peek(body, held, ask, reading).await?
    } else {
        let bytes = collect(body, bounds.max_body, held).await?;
        let must_be_json = ask.asked.call != Call::Other || label::is_json(&essence);
        let ask = look(&bytes, ask, reading, must_be_json || label::may_be_json(&bytes))?;
        (Outgoing::whole(bytes), ask)
    };
    Ok((Request::from_parts(parts, body), ask))
}

/// A body that its label calls opaque: passed on as it comes, unless its first bytes are those of JSON.
async fn peek(
    mut body: Paced<RequestBody>,
    mut held: Collected,
    ask: Ask,
    reading: &Reading<'_>,
) -> Result<(Outgoing, Ask), Refusal> {
    let bounds = reading.bounds;
    let is_known = |held: &Collected| {
        let start = held.bytes();
        let at = start.iter().position(|b| *b > b' ');
        at.is_some_and(|at| at + 4 <= start.len()) || held.len() as u64 > bounds.max_body
    };
    let mut ended = false;
    while !ended && !is_known(&held) {
        ended = !pull(&mut body, &mut held).await?;
    }
    let must_be_json = label::may_be_json(held.bytes());
    let is_list = matches!(held.bytes().trim_ascii_start().first(), Some(b'[' | b'"'));
    let is_json = must_be_json || reading.is_narrowed() && is_list;
    while !ended && is_json && held.len() as u64 <= bounds.max_body {
        ended = !pull(&mut body, &mut held).await?;
    }
    if reading.is_narrowed() && is_json && held.len() as u64 > bounds.max_body {
        return Err(AskError::TooLarge { max: bounds.max_body }.into());
    }
    let bytes = held.into_bytes();
    if !ended {
        return Ok((Outgoing::going_on(bytes, body, bounds.max_upload, None), ask));
    }
    let ask = look(&bytes, ask, reading, reading.is_narrowed() && must_be_json)?;
    Ok((Outgoing::whole(bytes), ask))
}

/// The next piece of a body; whether there was one.
pub(super) async fn pull(body: &mut Paced<RequestBody>, held: &mut Collected) -> Result<bool, Refusal> {
    let Some(frame) = body.frame().await else { return Ok(false) };
    if let Ok(data) = frame.map_err(AskError::from)?.into_data() {
        held.push(data)?;
    }
    Ok(true)
}

/// Fills in what the body says.
fn look(bytes: &Bytes, mut ask: Ask, reading: &Reading<'_>, must_be_json: bool) -> Result<Ask, Refusal> {
    let config = &reading.route.config;
    let found = match scan::find(bytes, FIELDS) {
        Ok(found) => Some(found),
        Err(ScanError::Duplicate { index }) => {
            return Err(AskError::Duplicate(FIELDS.get(index).copied().unwrap_or("model")).into());
        }
        Err(ScanError::TooDeep) if must_be_json => return Err(AskError::TooDeep.into()),
        Err(_) if must_be_json => return Err(AskError::NotJson.into()),
        Err(_) => None,
    };
    let [model, stream, r_type, research] = found.map_or([None; FIELDS.len()], |found| found.values);
    let model = text(model, "model")?;
    if reading.is_narrowed() {
        if let Some([true, ..]) = found.map(|found| found.misspelled) {
            return Err(AskError::Misspelled("model").into());
        }
        entitled::deeper(reading.models, bytes, found.is_some())?;
    }
    let streams_unless_told = matches!(ask.asked.call, Call::OllamaChat | Call::OllamaGenerate);
    ask.r_type = text(r_type, "r_type")?;
    ask.asked.stream = flag(stream, "stream")?.unwrap_or(streams_unless_told);
    ask.asked.research |= flag(research, "research_model")?.unwrap_or(false)
        || model.as_deref().is_some_and(|m| reading.is_research(m));
    ask.asked.model = ask.asked.model.or_else(|| model.clone());
    ask.model = model;
    ask.asked.bytes = bytes.len() as u64;
    if config.capture == Capture::Full {
        ask.asked.body = bytes.clone();
    }
    Ok(ask)
}

// === impl Reading ===

impl Reading<'_> {
    /// Whether the models that a request names decide on it.
    pub(super) fn is_narrowed(&self) -> bool {
        !self.models.is_open()
    }

    pub(super) fn is_research(&self, model: &str) -> bool {
        any_matches(&self.route.config.research_models, model)
    }

    /// What the head says.
    fn unread(&self, parts: &request::Parts, has_body: bool) -> Ask {
        let path = parts.uri.path();
        let call = self.route.call(&parts.method, path);
        let charged = self.route.charges(&parts.method, path, has_body);
        let posts = parts.method == Method::POST && self.route.config.capture != Capture::Off;
        let model = models::in_path(path).into_iter().find(|named| named.is_call).map(|named| named.model);
        let research = model.as_deref().is_some_and(|model| self.is_research(model));
        let asked = Asked { call, model, stream: false, research, body: Bytes::new(), cut: false, bytes: 0 };
        Ask { asked, model: None, r_type: None, charged, recorded: charged || posts }
    }
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
    while pull(&mut body, &mut held).await? {
        if held.len() as u64 > max {
            return Err(AskError::TooLarge { max }.into());
        }
    }
    Ok(held.into_bytes())
}

/// How long the body will be, if its head says so.
fn refuse_announced(headers: &HeaderMap, max: u64) -> Result<Option<u64>, AskError> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max) { Err(AskError::TooLarge { max }) } else { Ok(announced) }
}

/// The media type, of a body that does not have two different labels.
fn one_label(headers: &HeaderMap) -> Result<String, AskError> {
    let mut labels = headers.get_all(CONTENT_TYPE).iter();
    let Some(first) = labels.next() else { return Ok(String::new()) };
    if labels.all(|other| other == first) {
        Ok(label::essence(first.as_bytes()))
    } else {
        Err(AskError::Charset)
    }
}

/// Refuses what an app would decode before it reads fields in it. What is `opaque` may say that it is no text.
fn refuse_unreadable(headers: &HeaderMap, opaque: bool) -> Result<(), AskError> {
    if headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(AskError::Encoded);
    }
    let label = headers.get(CONTENT_TYPE).map_or(&b""[..], |label| label.as_bytes());
    let is_readable = label::is_utf8(label) || opaque && label::is_binary(label);
    if is_readable { Ok(()) } else { Err(AskError::Charset) }
}

impl From<FormError> for AskError {
    fn from(error: FormError) -> Self {
        match error {
            FormError::Ambiguous => Self::AmbiguousForm,
            FormError::Duplicate(field) => Self::Duplicate(field),
            FormError::Misspelled(field) => Self::Misspelled(field),
            FormError::Late(field) => Self::Late(field),
            FormError::Value(field) => Self::NotPlain(field),
            FormError::Charset => Self::Charset,
        }
    }
}

impl<E> From<PacedError<E>> for AskError {
    fn from(error: PacedError<E>) -> Self {
        match error {
            PacedError::TooSlow => Self::TooSlow,
            PacedError::Body(_) => Self::Broken,
        }
    }
}
