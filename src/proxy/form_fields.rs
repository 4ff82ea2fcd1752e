//! A multipart form of which rules depend on fields: it is held until the model is known, up to a bound, and watched
//! from there on.

use http::header::CONTENT_TYPE;
use http::request;

use super::ask::{Ask, AskError, Reading, pull};
use super::collected::Collected;
use super::entitled;
use super::outgoing::Outgoing;
use super::refusal::Refusal;
use crate::dialect::form::Form;
use crate::dialect::models;
use crate::listen::{Paced, RequestBody};
use crate::path::Path;

/// The fields that decide.
const FIELDS: &[&str] = &["model", "r_type", "session"];

/// Reads a form as far as it takes to know its model.
pub(super) async fn read(
    parts: &request::Parts,
    mut body: Paced<RequestBody>,
    mut held: Collected,
    (mut ask, reading): (Ask, &Reading<'_>),
) -> Result<(Outgoing, Ask), Refusal> {
    let bounds = reading.bounds;
    let label = parts.headers.get(CONTENT_TYPE).map_or(&b""[..], |label| label.as_bytes());
    let mut form = Form::new(label, FIELDS)?;
    let (max, mut ended, mut seen) = (usize::try_from(bounds.max_body).unwrap_or(usize::MAX), false, 0);
    let is_known = |form: &Form| form.value("model").is_some() && form.has_file();
    while !ended && !is_known(&form) && held.len() <= max {
        ended = !pull(&mut body, &mut held).await?;
        let end = held.len().min(max);
        form.feed(held.bytes().get(seen..end).unwrap_or_default())?;
        seen = end;
    }
    if ended && !form.is_whole() {
        return Err(AskError::AmbiguousForm.into());
    }
    ask.model = form.value("model").map(str::to_owned);
    ask.r_type = form.value("r_type").map(str::to_owned);
    if !ended && ask.model.is_none() && models::runs_one(&Path::new(parts.uri.path())) {
        return Err(AskError::NamedTooLate { max: bounds.max_body }.into());
    }
    if let Some(session) = form.value("session") {
        entitled::session(reading.models, session.as_bytes())?;
    }
    ask.asked.model = ask.asked.model.or_else(|| ask.model.clone());
    ask.asked.research |= ask.model.as_deref().is_some_and(|model| reading.is_research(model));
    let bytes = held.into_bytes();
    if ended {
        return Ok((Outgoing::whole(bytes), ask));
    }
    form.close();
    form.feed(bytes.get(seen..).unwrap_or_default())?;
    Ok((Outgoing::going_on(bytes, body, bounds.max_upload, Some(form)), ask))
}
