//! Events of OpenAI's sockets, Realtime and Responses, as far as a gate must know them.

use super::assembly::{owned, word};
use super::mend::mend;
use super::raw::Raw;
use super::scan::{self, ScanError};

/// What a client's event asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FromClient {
    /// Whether it asks for a response.
    pub asks: bool,
    /// The models that it names.
    pub models: Vec<String>,
    /// Whether one of them is the session's from now on.
    pub is_session: bool,
    /// What it adds to the conversation, as JSON.
    pub item: Option<String>,
    /// Whether it says itself what is asked, so that no item does.
    pub has_input: bool,
}

/// What a server's event tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromServer {
    /// What it tells.
    pub told: Told,
    /// The response that it belongs to, where it says so.
    pub response: Option<String>,
}

/// What a server tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A response begins, or goes on.
    Begins,
    /// A piece of a response.
    Piece,
    /// A piece of sound or of an image, which is not kept.
    Media,
    /// A response is at its end.
    Ends,
    /// Something went wrong, as if it had this status.
    Error(u16),
    /// The user was heard to say this; an item of the conversation, as JSON.
    Heard(String),
    /// Anything else.
    Other,
}

/// Reads a client's event.
///
/// # Errors
///
/// [`ScanError`]: it is not one JSON object, or names what decides twice.
pub fn from_client(event: &[u8]) -> Result<FromClient, ScanError> {
    let [kind, model, response, session, item, input] =
        scan::scan(event, ["type", "model", "response", "session", "item", "input"])?;
    let kind = kind.and_then(scan::text).unwrap_or_default().trim().to_ascii_lowercase();
    let mut models = Vec::new();
    let mut has_input = input.is_some();
    models.extend(model.and_then(scan::text).map(std::borrow::Cow::into_owned));
    for object in [response, session].into_iter().flatten() {
        let found = match scan::scan(object, ["model", "input"]) {
            Ok(found) => found,
            Err(ScanError::NotAnObject) => continue,
            Err(error) => return Err(error),
        };
        let [model, input] = found;
        models.extend(model.and_then(scan::text).map(std::borrow::Cow::into_owned));
        has_input |= input.is_some();
    }
    let item = item.filter(|_| kind == "conversation.item.create");
    Ok(FromClient {
        // "response.append" is of the first Codex versions.
        asks: matches!(kind.as_str(), "response.create" | "response.append"),
        models,
        is_session: kind.ends_with("session.update"),
        item: item.and_then(|item| Raw::parse(item).ok()).map(owned),
        has_input,
    })
}

/// Reads a server's event, also one whose end is missing.
#[must_use]
pub fn from_server(event: &[u8]) -> FromServer {
    match Raw::parse(event) {
        Ok(event) => told(event),
        Err(_) => mend(event)
            .as_deref()
            .and_then(|mended| Raw::parse(mended).ok())
            .map_or(FromServer { told: Told::Other, response: None }, told),
    }
}

fn told(event: Raw<'_>) -> FromServer {
    let [kind, response, id, error, status, transcript] =
        event.pick(["type", "response", "response_id", "error", "status", "transcript"]);
    let kind = word(kind).unwrap_or_default();
    let response = word(response.and_then(|response| response.get("id"))).or(word(id));
    let told = match kind.as_str() {
        "response.created" | "response.in_progress" | "response.queued" => Told::Begins,
        "response.done" | "response.completed" | "response.incomplete" | "response.failed"
        | "response.cancelled" => Told::Ends,
        "error" => Told::Error(status_of(error, status)),
        "conversation.item.input_audio_transcription.completed" => transcript.map_or(Told::Other, |said| {
            let said = owned(said);
            Told::Heard(format!(
                "{{\"type\":\"message\",\"role\":\"user\",\"content\":[{{\"type\":\"input_audio\",\"transcript\":{said}}}]}}"
            ))
        }),
        "response.audio.delta" | "response.output_audio.delta" => Told::Media,
        kind if kind.ends_with(".partial_image") => Told::Media,
        kind if kind.starts_with("response.") => Told::Piece,
        _ => Told::Other,
    };
    FromServer { told, response }
}

/// The status that an error event has, or would have as an answer.
fn status_of(error: Option<Raw<'_>>, status: Option<Raw<'_>>) -> u16 {
    let told = status.and_then(Raw::count).and_then(|status| u16::try_from(status).ok());
    if let Some(told) = told.filter(|status| (400..600).contains(status)) {
        return told;
    }
    match word(error.and_then(|error| error.get("type"))).as_deref() {
        Some("server_error" | "api_error") => 500,
        Some("rate_limit_error" | "rate_limit_exceeded" | "insufficient_quota" | "requests" | "tokens") => {
            429
        }
        _ => 400,
    }
}

#[cfg(test)]
mod tests {
    use super::{FromClient, Told, from_client, from_server};

    fn asks(event: &str) -> FromClient {
        from_client(event.as_bytes()).unwrap()
    }

    #[test]
    fn what_asks_for_a_response_is_known_however_it_is_written() {
        for event in [
            r#"{"type":"response.create"}"#,
            r#"{"response":{},"type":" Response.Create "}"#,
            r#"{"\u0074ype":"respo\u006ese.create","event_id":"1"}"#,
            r#"{"type":"response.append","input":[]}"#,
        ] {
            assert!(asks(event).asks, "{event}");
        }
        for event in [r#"{"type":"session.update"}"#, r#"{"a":{"type":"response.create"}}"#, "{}"] {
            assert!(!asks(event).asks, "{event}");
        }
        for event in
            ["[]", "x", "", r#"{"type":"a","type":"response.create"}"#, r#"[{"type":"response.create"}]"#]
        {
            assert!(from_client(event.as_bytes()).is_err(), "{event}");
        }
    }

    #[test]
    fn models_items_and_input_are_found() {
        let event = asks(
            r#"{"type":"response.create","model":"a","response":{"model":"b","input":[]},"session":{"model":"c"}}"#,
        );
        assert_eq!((event.models, event.has_input), (vec!["a".into(), "b".into(), "c".into()], true));
        let event = asks(r#"{"type":"conversation.item.create","item":{"type":"message"}}"#);
        assert_eq!((event.item.as_deref(), event.asks), (Some(r#"{"type":"message"}"#), false));
        assert!(asks(r#"{"type":"session.update","session":{"model":"c"}}"#).is_session);
    }

    #[test]
    fn what_a_server_tells_is_known() {
        let told = |event: &str| from_server(event.as_bytes());
        let cases = [
            (r#"{"type":"response.created","response":{"id":"r1"}}"#, Told::Begins, Some("r1")),
            (r#"{"type":"response.output_text.delta","delta":"x"}"#, Told::Piece, None),
            (r#"{"type":"response.audio.delta","response_id":"r1"}"#, Told::Media, Some("r1")),
            (r#"{"type":"response.done","response":{"id":"r1"}}"#, Told::Ends, Some("r1")),
            (
                r#"{"type":"response.completed","response":{"id":"r2","output":[{"a":"cut"#,
                Told::Ends,
                Some("r2"),
            ),
            (r#"{"type":"error","error":{"type":"invalid_request_error"}}"#, Told::Error(400), None),
            (r#"{"type":"error","error":{"type":"server_error"}}"#, Told::Error(500), None),
            (r#"{"type":"error","status":429,"error":{}}"#, Told::Error(429), None),
            (r#"{"type":"session.created"}"#, Told::Other, None),
            ("no JSON", Told::Other, None),
        ];
        for (event, what, response) in cases {
            let event = told(event);
            assert_eq!((event.told, event.response.as_deref()), (what, response));
        }
    }
}
