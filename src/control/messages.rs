//! `POST /api/v1/auth/log-message`: an app that is not behind the gate tells us what was said.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Control;
use super::caller::{KeyHolder, Origin};
use super::forms::{Body, Form};
use super::openapi::refused;
use super::problem::Problem;
use super::violations::Violations;
use crate::clock::Clock;
use crate::identity::Subject;
use crate::ids::ExchangeId;
use crate::store::exchanges::{Exchange, Verdict};

/// A conversation somebody else carried.
#[derive(Deserialize, ToSchema)]
#[schema(as = Conversation, example = json!({
    "model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}],
}))]
#[serde(deny_unknown_fields)]
pub(super) struct Told {
    /// Who answered; at most 256 characters.
    #[schema(value_type = String, min_length = 1, max_length = 256, pattern = "^[^\\u0000]*[^\\s\\u0000][^\\u0000]*$")]
    model: Option<String>,
    /// In their order.
    #[schema(value_type = Vec<Message>, min_items = 1)]
    messages: Option<Vec<Value>>,
    /// False where it is left out.
    research_model: Option<bool>,
}

/// One message. Members beyond these are kept as they are.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands in the document for a `Value`")]
struct Message {
    /// Who said it, such as `user` or `assistant`.
    role: String,
    /// What was said.
    #[schema(required = false)]
    content: Value,
}

/// The same, held to its rules; the messages as the log keeps them.
pub(super) struct Conversation {
    model: String,
    messages: String,
    research_model: bool,
}

/// Where it is in the log.
#[derive(Serialize, ToSchema)]
#[schema(as = LoggedConversation, example = json!({
    "message": "Message logged successfully", "log_id": "0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
}))]
pub(super) struct Logged {
    /// For people.
    message: &'static str,
    /// The `id` of its entry.
    log_id: String,
}

/// Most characters of a model's name.
const MAX_MODEL: usize = 256;

/// Logs a conversation that went another way.
///
/// For apps that are not behind the gateway. Answers when what was told survives the end of this process;
/// costs nothing. A body has at most 1 MiB.
#[utoipa::path(
    post,
    path = "/api/v1/auth/log-message",
    tag = "Apps",
    request_body = Told,
    responses((status = 200, description = "It is logged.", body = Logged), refused::AmbiguousKey, refused::LogFull),
)]
pub(super) async fn log_message(
    State(control): State<Arc<Control>>,
    origin: Origin,
    KeyHolder(subject): KeyHolder,
    Body(conversation): Body<Told>,
) -> Result<Json<Logged>, Problem> {
    let row = Exchange {
        model: conversation.model,
        bytes_in: i64::try_from(conversation.messages.len()).unwrap_or(i64::MAX),
        messages: Some(conversation.messages),
        research_model: conversation.research_model,
        ..own_row(&control.clock, &subject, &origin, "log-message")
    };
    let log_id = row.id.to_string();
    control.chatlog.log(&row).await?;
    Ok(Json(Logged { message: "Message logged successfully", log_id }))
}

/// The row of a call that ends here: nothing was forwarded, nothing charged, nothing said yet.
pub(super) fn own_row(clock: &Clock, subject: &Subject, origin: &Origin, call: &str) -> Exchange {
    Exchange {
        id: ExchangeId(clock.uuid()),
        user_id: Some(subject.user),
        key_id: Some(subject.key),
        username: subject.username.clone(),
        email: subject.email.clone(),
        request_id: origin.request_id.to_string(),
        route: "/api/v1".to_owned(),
        call: call.to_owned(),
        model: String::new(),
        messages: None,
        answer: None,
        research_model: false,
        time: origin.at,
        status: Some(200),
        stream: false,
        outcome: "complete".to_owned(),
        verdict: Verdict::Free,
        reason: call.to_owned(),
        quota_day: None,
        quota_epoch: None,
        first_byte_ms: None,
        latency_ms: 0,
        bytes_in: 0,
        bytes_out: 0,
        prompt_tokens: None,
        completion_tokens: None,
        total_tokens: None,
        cached_tokens: None,
        reasoning_tokens: None,
        usage_source: "none".to_owned(),
        finish_reason: None,
        truncated: false,
        client_ip: origin.ip.to_string(),
    }
}

// === impl Told ===

impl Form for Told {
    type Checked = Conversation;
    const MAX_SIZE: usize = 1024 * 1024;

    fn check(self, _: &Control, found: &mut Violations) -> Option<Conversation> {
        let model = found.required("model", self.model);
        let model = found.filled("model", model);
        if model.as_deref().is_some_and(|model| model.chars().nth(MAX_MODEL).is_some()) {
            found.refuse("model", "String should have at most 256 characters");
        }
        let messages = found.required("messages", self.messages)?;
        if messages.is_empty() {
            found.refuse("messages", "List should have at least 1 item");
        }
        let has_role = |message: &Value| message.get("role").is_some_and(Value::is_string);
        if let Some(at) = messages.iter().position(|message| !has_role(message)) {
            found.refuse_at("messages", at, "Input should be an object with a role and a content");
        }
        let research_model = self.research_model.unwrap_or_default();
        Some(Conversation { model: model?, messages: Value::Array(messages).to_string(), research_model })
    }
}
