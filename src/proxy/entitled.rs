//! What a subject may ask for: models by plan, `r_type`s by user.
//!
//! A plan that lists models holds for every model that a call names, wherever it names it, and what cannot be looked
//! at is refused.

use std::ops::ControlFlow;

use http::{Method, Request};

use super::ask::{Ask, AskError};
use super::refusal::Refusal;
use super::route::Route;
use super::upgrade;
use crate::dialect::scan::{self, ScanError};
use crate::dialect::{Call, Dialect, models};
use crate::identity::Subject;
use crate::path::Path;
use crate::plan::Permitted;

/// What was asked, as far as plans and accounts decide on it; it outlives the request's body, for a plan may
/// change while the answer runs.
pub(super) struct Claim {
    r_types: [Option<String>; 2],
    in_path: Vec<String>,
    in_query: Vec<String>,
    in_body: Option<String>,
    /// Whether an upstream would take a model of its own where none is named.
    runs_one: bool,
    is_batch: bool,
}

// === impl Claim ===

impl Claim {
    pub(super) fn of<B>(route: &Route, req: &Request<B>, ask: &Ask) -> Self {
        let (path, posts) = (Path::new(req.uri().path()), req.method() == Method::POST);
        let is_plain = route.config.dialect == Some(Dialect::Plain);
        let in_path = models::in_path(path.written()).into_iter().filter(|named| named.is_call || !is_plain);
        let mut in_query = Vec::new();
        let _: ControlFlow<()> = models::in_query(req.uri().query().unwrap_or_default(), &mut |model| {
            in_query.push(model.to_owned());
            ControlFlow::Continue(())
        });
        let runs_one = posts && !is_plain && models::runs_one(&path);
        Self {
            r_types: [route.config.r_type.clone(), ask.r_type.clone()],
            in_path: in_path.map(|named| named.model).collect(),
            in_query,
            in_body: ask.model.clone(),
            runs_one: ask.asked.call != Call::Other || runs_one || upgrade::is_unread(req, route),
            is_batch: posts && models::is_batch(&path),
        }
    }

    /// Refuses what the subject's plan or account does not include.
    pub(super) fn check(&self, subject: &Subject) -> Result<(), Refusal> {
        if self.r_types.iter().flatten().any(|r_type| !subject.may_ask_rtype(r_type)) {
            return Err(Refusal::RType);
        }
        let open = &subject.plan.models;
        if open.is_open() { Ok(()) } else { self.check_models(open) }
    }

    fn check_models(&self, open: &Permitted) -> Result<(), Refusal> {
        let Self { in_path, in_query, in_body, .. } = self;
        if self.is_batch {
            return Err(Refusal::Batch);
        }
        let first = in_path.first().or(in_query.first()).map(String::as_str);
        // A path's model is below `models/` in a body of Gemini's.
        let in_body = in_body
            .as_deref()
            .map(|body| body.strip_prefix("models/").filter(|model| first == Some(model)).unwrap_or(body));
        let mut named = in_path.iter().chain(in_query).map(String::as_str).chain(in_body);
        if named.clone().any(|model| !open.permits_model(model)) {
            return Err(Refusal::Model);
        }
        match named.next() {
            // An upstream's default model may be one that the plan leaves out.
            None if self.runs_one => Err(Refusal::ModelMissing),
            Some(first) if named.any(|model| model != first) => Err(Refusal::ModelConflict),
            _ => Ok(()),
        }
    }
}

/// Judges an event of a WebSocket, which may name the model that goes on: by its `model`, or below `session`,
/// `response` or `setup`.
pub(super) fn event(open: &Permitted, message: &[u8]) -> Result<(), Refusal> {
    if open.is_open() {
        return Ok(());
    }
    let found = scan::find(message, ["model"]).map_err(|error| match error {
        ScanError::Duplicate { .. } => AskError::Duplicate("model"),
        _ => AskError::NotJson,
    })?;
    let [value] = found.values;
    if found.misspelled == [true] {
        return Err(AskError::Misspelled("model").into());
    }
    if let Some(model) = value.filter(|value| *value != b"null") {
        let model = scan::text(model).ok_or(AskError::WrongType("model"))?;
        if !open.permits_model(&model) {
            return Err(Refusal::Model);
        }
    }
    deeper(open, message, true)
}

/// Judges what a body names beside its `model`: where it is an object, in its fallbacks, tools and sessions, and where
/// it is a form without files, in its fields.
pub(super) fn deeper(open: &Permitted, body: &[u8], is_object: bool) -> Result<(), Refusal> {
    let mut judge = |model: &str| judge(open, model);
    let judged = if is_object {
        models::in_body(body, &mut judge).map_err(|error| match error {
            ScanError::Duplicate { index } => AskError::Duplicate(models::member(index)),
            _ => AskError::NotJson,
        })?
    } else if is_list(body) {
        return Err(AskError::NotJson.into());
    } else {
        models::in_query(std::str::from_utf8(body).unwrap_or_default(), &mut judge)
    };
    match judged {
        ControlFlow::Break(refusal) => Err(refusal),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Judges the session that a form describes as JSON.
pub(super) fn session(open: &Permitted, session: &[u8]) -> Result<(), Refusal> {
    let object = [b"{\"session\":", session, b"}"].concat();
    match scan::scan(&object, ["session"]) {
        Ok(_) => deeper(open, &object, true),
        Err(_) => Err(AskError::WrongType("session").into()),
    }
}

fn judge(open: &Permitted, model: &str) -> ControlFlow<Refusal> {
    if open.permits_model(model) { ControlFlow::Continue(()) } else { ControlFlow::Break(Refusal::Model) }
}

/// Whether a body is JSON whose objects are not at its top, or a text that some app parses once more.
fn is_list(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), Some(b'[' | b'"'))
        && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}
