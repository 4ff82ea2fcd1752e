//! How each dialect words a refusal, as a body of its own and inside a stream already begun.
//!
//! Shapes only: which status an error has is decided where it is sent.

use serde_json::{Value, json};

use super::{Call, Dialect, Framing};

/// What is to be said, in the words of every dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorText<'a> {
    /// One sentence for the person who reads it.
    pub message: &'a str,
    /// `error.type` of OpenAI and of the plain dialect.
    pub openai_type: &'a str,
    /// `error.code` of OpenAI and of the plain dialect; `null` where there is none.
    pub openai_code: Option<&'a str>,
    /// `error.param` of OpenAI: the field at fault.
    pub param: Option<&'a str>,
    /// `error.type` of Anthropic, one of the types its SDK knows.
    pub anthropic_type: &'a str,
    /// The request's id, for those dialects that carry it in the body.
    pub request_id: &'a str,
}

/// The JSON body of a refusal. `call` is there for dialects that word it by call; none does today.
#[must_use]
pub fn error_body(dialect: Dialect, call: Call, error: &ErrorText<'_>) -> Vec<u8> {
    let _ = call;
    let mut body = body_of(dialect, error).to_string().into_bytes();
    body.push(b'\n');
    body
}

/// The bytes that end a stream already begun with an error; empty where the framing has no place
/// for one. No end mark of the dialect may follow.
#[must_use]
pub fn error_event(dialect: Dialect, call: Call, framing: Framing, error: &ErrorText<'_>) -> Vec<u8> {
    match framing {
        Framing::Ndjson => error_body(dialect, call, error),
        Framing::Sse => sse_event(dialect, call, error).into_bytes(),
        Framing::Json | Framing::Other => Vec::new(),
    }
}

/// The event that ends a WebSocket: one that both of OpenAI's, Realtime and Responses, know.
#[must_use]
pub fn socket_event(dialect: Dialect, status: u16, error: &ErrorText<'_>) -> Vec<u8> {
    let mut event = body_of(dialect, error);
    if dialect == Dialect::OpenAi
        && let Value::Object(members) = &mut event
    {
        let Value::Object(more) = responses_event(error) else { return Vec::new() };
        members.extend(more);
        members.insert("event_id".to_owned(), json!(error.request_id));
        members.insert("status".to_owned(), json!(status));
    }
    event.to_string().into_bytes()
}

fn body_of(dialect: Dialect, error: &ErrorText<'_>) -> Value {
    let &ErrorText { message, openai_type, openai_code, param, anthropic_type, request_id } = error;
    match dialect {
        Dialect::OpenAi => {
            json!({"error": {"message": message, "type": openai_type, "param": param, "code": openai_code}})
        }
        Dialect::Anthropic => {
            let error = json!({"type": anthropic_type, "message": message});
            json!({"type": "error", "error": error, "request_id": request_id})
        }
        Dialect::Ollama => json!({"error": message}),
        Dialect::Plain => {
            let error = json!({"message": message, "type": openai_type, "code": openai_code});
            json!({"error": error, "request_id": request_id})
        }
    }
}

fn sse_event(dialect: Dialect, call: Call, error: &ErrorText<'_>) -> String {
    match (dialect, call) {
        (Dialect::OpenAi, Call::Responses) => format!("event: error\ndata: {}\n\n", responses_event(error)),
        (Dialect::Anthropic, _) => format!("event: error\ndata: {}\n\n", body_of(dialect, error)),
        _ => format!("data: {}\n\n", body_of(dialect, error)),
    }
}

/// `ResponseErrorEvent` of the OpenAI SDK: flat. Its sequence number must be a number; events of the
/// stream are not counted on their way, so it is 0.
fn responses_event(error: &ErrorText<'_>) -> Value {
    json!({
        "type": "error",
        "code": error.openai_code,
        "message": error.message,
        "param": error.param,
        "sequence_number": 0,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{ErrorText, error_body, error_event};
    use crate::dialect::{Call, Dialect, Framing};

    const ERROR: ErrorText<'_> = ErrorText {
        message: "Daily limit of 200 \"conversations\" reached.\nCome back.",
        openai_type: "insufficient_quota",
        openai_code: Some("insufficient_quota"),
        param: None,
        anthropic_type: "rate_limit_error",
        request_id: "req_1",
    };

    fn body(dialect: Dialect) -> Value {
        serde_json::from_slice(&error_body(dialect, Call::Other, &ERROR)).unwrap()
    }

    fn event(dialect: Dialect, call: Call, framing: Framing) -> (String, Value) {
        let event = String::from_utf8(error_event(dialect, call, framing, &ERROR)).unwrap();
        let (head, data) = event.split_once('{').unwrap();
        assert!(event.ends_with('\n'));
        (head.to_owned(), serde_json::from_str(&format!("{{{data}")).unwrap())
    }

    #[test]
    fn each_dialect_has_its_own_body() {
        let openai = json!({"error": {"message": ERROR.message, "type": "insufficient_quota", "param": null,
            "code": "insufficient_quota"}});
        let anthropic = json!({"type": "error", "request_id": "req_1",
            "error": {"type": "rate_limit_error", "message": ERROR.message}});
        let plain = json!({"request_id": "req_1", "error": {"message": ERROR.message,
            "type": "insufficient_quota", "code": "insufficient_quota"}});
        assert_eq!(body(Dialect::OpenAi), openai);
        assert_eq!(body(Dialect::Anthropic), anthropic);
        assert_eq!(body(Dialect::Ollama), json!({"error": ERROR.message}));
        assert_eq!(body(Dialect::Plain), plain);
    }

    #[test]
    fn a_stream_is_ended_in_its_own_framing() {
        let (head, data) = event(Dialect::OpenAi, Call::ChatCompletions, Framing::Sse);
        assert_eq!((head.as_str(), data), ("data: ", body(Dialect::OpenAi)));

        let (head, data) = event(Dialect::OpenAi, Call::Responses, Framing::Sse);
        assert_eq!(head, "event: error\ndata: ");
        assert_eq!(
            data,
            json!({"type": "error", "code": "insufficient_quota", "message": ERROR.message,
            "param": null, "sequence_number": 0})
        );

        let (head, data) = event(Dialect::Anthropic, Call::Messages, Framing::Sse);
        assert_eq!((head.as_str(), data), ("event: error\ndata: ", body(Dialect::Anthropic)));

        let (head, data) = event(Dialect::Ollama, Call::OllamaChat, Framing::Ndjson);
        assert_eq!((head.as_str(), data), ("", body(Dialect::Ollama)));

        let (head, data) = event(Dialect::Plain, Call::Other, Framing::Sse);
        assert_eq!((head.as_str(), data), ("data: ", body(Dialect::Plain)));
    }

    #[test]
    fn a_document_already_begun_takes_no_error() {
        assert!(error_event(Dialect::OpenAi, Call::ChatCompletions, Framing::Json, &ERROR).is_empty());
    }
}
