//! What the gate answers in the upstream's stead: the data plane's one table of statuses.
//!
//! Each refusal has a text for the client, a code that body, log and metric share, and the headers
//! by which an SDK knows whether to try again. Inner errors never reach a client.

use std::time::Duration;

use bytes::Bytes;
use chrono_tz::Tz;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, Response, StatusCode};
use rand::RngExt;

use super::ask::AskError;
use super::ending::Day;
use super::headers::{self, ERROR_SOURCE};
use super::presented::NoKey;
use super::route::NoRoute;
use crate::clock::Timestamp;
use crate::dialect::error::{ErrorText, error_body, error_event, socket_event};
use crate::dialect::form::FormError;
use crate::dialect::{Call, Dialect, Framing};
use crate::identity::{IdentifyError, NotPermitted};
use crate::ids::RequestId;
use crate::limits::{LimitError, Standing};
use crate::listen::UnreadableAddress;
use crate::quota::{QuotaError, Window};

/// Why a request was not forwarded, or its answer not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NoRoute(NoRoute),
    NoKey(NoKey),
    Identify(IdentifyError),
    UnreadableAddress,
    NotPermitted(NotPermitted),
    CallNotAllowed,
    RType,
    Model,
    ModelMissing,
    ModelConflict,
    Batch,
    Limit(LimitError),
    Ask(AskError),
    UsedUp { limit: i64, resets_at: Timestamp, zone: Tz },
    Unavailable(&'static str),
    LogFull,
    Overloaded,
    UpgradeNotAllowed,
    Unreachable,
    CredentialRefused,
    UpstreamTimeout,
    UpstreamBroke,
    ShuttingDown,
}

/// One row of the table.
struct Row {
    status: StatusCode,
    code: &'static str,
    openai_type: &'static str,
    anthropic_type: &'static str,
    message: &'static str,
}

const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const DENIED_BY: HeaderName = HeaderName::from_static("x-tollgate-denied-by");

/// What a client is asked to wait for a database or an overload to pass.
const SOON: HeaderValue = HeaderValue::from_static("2");

const INVALID: &str = "invalid_request_error";
/// OpenAI's own answers to a body that is no JSON carry `"code": null`.
const UNCODED: &str = "invalid_request";

// === impl Refusal ===

impl Refusal {
    /// The word for body, log and metric.
    pub(super) fn code(&self) -> &'static str {
        self.row().code
    }

    pub(super) fn status(&self) -> StatusCode {
        self.row().status
    }

    /// The answer, in the dialect of the client.
    pub(super) fn answer(
        &self,
        dialect: Dialect,
        call: Call,
        id: &RequestId,
        now: Timestamp,
    ) -> Response<Bytes> {
        let row = self.row();
        let message = self.message(&row);
        let text = self.text(&row, &message, id);
        let mut response = Response::new(Bytes::from(error_body(dialect, call, &text)));
        *response.status_mut() = row.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ERROR_SOURCE, HeaderValue::from_static("gateway"));
        headers.insert(DENIED_BY, HeaderValue::from_static(row.code));
        self.advise(headers, &row, now);
        self.tell_standing(headers, dialect, now);
        response
    }

    /// The error that ends a stream already begun.
    pub(super) fn event(&self, dialect: Dialect, call: Call, framing: Framing, id: &RequestId) -> Vec<u8> {
        let row = self.row();
        let message = self.message(&row);
        error_event(dialect, call, framing, &self.text(&row, &message, id))
    }

    /// The event that ends a WebSocket.
    pub(super) fn socket_event(&self, dialect: Dialect, id: &RequestId) -> Vec<u8> {
        let row = self.row();
        let message = self.message(&row);
        socket_event(dialect, row.status.as_u16(), &self.text(&row, &message, id))
    }

    fn text<'a>(&self, row: &Row, message: &'a str, id: &'a RequestId) -> ErrorText<'a> {
        ErrorText {
            message,
            openai_type: row.openai_type,
            openai_code: Some(row.code).filter(|code| *code != UNCODED),
            param: self.param(),
            anthropic_type: row.anthropic_type,
            request_id: id.as_str(),
        }
    }

    /// Every refusal: status, code, type for OpenAI and for Anthropic, and the client's text.
    #[rustfmt::skip]
    fn row(&self) -> Row {
        let row = |status, code, openai_type, anthropic_type, message| Row { status, code, openai_type, anthropic_type, message };
        match self {
            Self::NoRoute(NoRoute::DoubtfulPath) => row(StatusCode::BAD_REQUEST, "doubtful_path", INVALID, INVALID, "The request path is ambiguous; send it in its plain form, without empty or dot segments and without encoded slashes."),
            Self::NoRoute(NoRoute::DoubtfulHost) => row(StatusCode::BAD_REQUEST, "doubtful_host", INVALID, INVALID, "The request names no host, or more than one."),
            Self::NoRoute(NoRoute::Nothing) => row(StatusCode::NOT_FOUND, "unknown_path", INVALID, "not_found_error", "Nothing is served at this path."),
            Self::NoRoute(NoRoute::Method) => row(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", INVALID, INVALID, "This method is not served here."),
            Self::NoKey(NoKey::TwoKeys) => row(StatusCode::BAD_REQUEST, "two_api_keys", INVALID, INVALID, "The request carries two different API keys; send one."),
            Self::NoKey(NoKey::Missing | NoKey::Malformed) | Self::Identify(IdentifyError::Unknown | IdentifyError::Expired) => row(StatusCode::UNAUTHORIZED, "invalid_api_key", INVALID, "authentication_error", "Incorrect API key provided."),
            Self::Identify(IdentifyError::Disabled) => row(StatusCode::FORBIDDEN, "account_disabled", "permission_error", "permission_error", "This account is disabled."),
            Self::UnreadableAddress | Self::NotPermitted(NotPermitted::Address) => row(StatusCode::FORBIDDEN, "ip_not_allowed", "permission_error", "permission_error", "Requests from this address are not allowed."),
            Self::NotPermitted(NotPermitted::Scope) => row(StatusCode::FORBIDDEN, "route_not_allowed", "permission_error", "permission_error", "Your plan does not include this endpoint."),
            Self::CallNotAllowed => row(StatusCode::FORBIDDEN, "call_not_allowed", "permission_error", "permission_error", "This call is not open here; ask the operator of this gateway for it."),
            Self::RType => row(StatusCode::FORBIDDEN, "r_type_not_allowed", "permission_error", "permission_error", "Your account does not include this r_type."),
            Self::Model => row(StatusCode::NOT_FOUND, "model_not_found", INVALID, "not_found_error", "The model does not exist or your plan does not include it."),
            Self::ModelMissing => row(StatusCode::BAD_REQUEST, "model_missing", INVALID, INVALID, "Name the model: your plan includes only some."),
            Self::ModelConflict => row(StatusCode::BAD_REQUEST, "model_conflict", INVALID, INVALID, "The path, the query and the body name different models; name one."),
            Self::Batch => row(StatusCode::FORBIDDEN, "batch_not_allowed", "permission_error", "permission_error", "Your plan includes only some models, so it does not include batches; send the requests one by one."),
            Self::Limit(LimitError::Rate { .. }) => row(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", "requests", "rate_limit_error", "Rate limit reached; try again after the time in Retry-After."),
            Self::Limit(LimitError::Parallel(_)) => row(StatusCode::TOO_MANY_REQUESTS, "too_many_parallel_requests", "requests", "rate_limit_error", "Too many requests of this key are running; wait for one to end."),
            Self::Limit(LimitError::ParallelOfUser(_)) => row(StatusCode::TOO_MANY_REQUESTS, "too_many_parallel_requests", "requests", "rate_limit_error", "Too many requests of this account are running; wait for one to end."),
            Self::Limit(LimitError::BodiesOfOne(_)) => row(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", "requests", "rate_limit_error", "The request bodies of this account that are under way are too large together; wait for one to end."),
            Self::Limit(LimitError::BodiesInAll(_)) => row(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", "api_error", "overloaded_error", "The gateway has no room for another request body; try again in a moment."),
            Self::Overloaded | Self::Limit(LimitError::Overloaded(_)) => row(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "api_error", "overloaded_error", "The gateway is busy; try again in a moment."),
            Self::Ask(AskError::TooLarge { .. }) => row(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", INVALID, INVALID, "The request body is larger than this gateway accepts."),
            Self::Ask(AskError::NotJson) => row(StatusCode::BAD_REQUEST, UNCODED, INVALID, INVALID, "The request body is not a valid JSON object."),
            Self::Ask(AskError::TooDeep) => row(StatusCode::BAD_REQUEST, UNCODED, INVALID, INVALID, "The request body is nested deeper than 64 levels."),
            Self::Ask(AskError::Duplicate(_)) => row(StatusCode::BAD_REQUEST, "duplicate_field", INVALID, INVALID, "The request body names a field twice."),
            Self::Ask(AskError::Misspelled(_)) => row(StatusCode::BAD_REQUEST, "misspelled_field", INVALID, INVALID, "The request body spells a field in another way."),
            Self::Ask(AskError::Charset) => row(StatusCode::UNSUPPORTED_MEDIA_TYPE, "charset_not_utf8", INVALID, INVALID, "Send the request body in UTF-8, with one Content-Type, whose charset is utf-8 if it names one."),
            Self::Ask(AskError::AmbiguousForm) => row(StatusCode::BAD_REQUEST, "ambiguous_form", INVALID, INVALID, "The multipart form can be read in two ways; send it as RFC 7578 has it, with CRLF line ends and nothing before or after its parts."),
            Self::Ask(AskError::Late(_) | AskError::NamedTooLate { .. }) => row(StatusCode::BAD_REQUEST, "late_field", INVALID, INVALID, "The multipart form names a field too late; send it before the files."),
            Self::Ask(AskError::WrongType(_) | AskError::NotPlain(_)) => row(StatusCode::BAD_REQUEST, "wrong_type", INVALID, INVALID, "A field of the request body has the wrong type."),
            Self::Ask(AskError::Encoded) => row(StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoded_body", INVALID, INVALID, "Send the request body without Content-Encoding."),
            Self::Ask(AskError::TooSlow) => row(StatusCode::REQUEST_TIMEOUT, "request_timeout", INVALID, INVALID, "The request body came too slowly."),
            Self::Ask(AskError::Broken) => row(StatusCode::BAD_REQUEST, "broken_body", INVALID, INVALID, "The request body ended early."),
            Self::UsedUp { .. } => row(StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", "insufficient_quota", "rate_limit_error", "The daily limit of conversations is reached."),
            Self::Identify(IdentifyError::StoreDown) | Self::Unavailable(_) => row(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", "api_error", "overloaded_error", "The gateway cannot check this request now; try again in a moment."),
            Self::LogFull => row(StatusCode::SERVICE_UNAVAILABLE, "message_log_full", "api_error", "overloaded_error", "The gateway cannot record this conversation now; try again in a moment."),
            Self::UpgradeNotAllowed => row(StatusCode::BAD_REQUEST, "upgrade_not_allowed", INVALID, INVALID, "This endpoint does not accept protocol upgrades."),
            Self::Unreachable => row(StatusCode::BAD_GATEWAY, "upstream_error", "api_error", "api_error", "The upstream cannot be reached."),
            Self::UpstreamBroke => row(StatusCode::BAD_GATEWAY, "upstream_error", "api_error", "api_error", "The upstream ended without an answer."),
            Self::CredentialRefused => row(StatusCode::BAD_GATEWAY, "upstream_error", "api_error", "api_error", "The upstream refused the gateway's own credential; the operator has been told."),
            Self::ShuttingDown => row(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", "api_error", "overloaded_error", "The gateway is shutting down."),
            Self::UpstreamTimeout => row(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", "api_error", "timeout_error", "The upstream did not answer in time."),
        }
    }

    fn message(&self, row: &Row) -> String {
        match self {
            Self::UsedUp { limit, resets_at, zone } => {
                let reset = resets_at.to_utc().with_timezone(zone).to_rfc3339();
                format!("Daily limit of {limit} conversations reached; resets {reset} ({zone}).")
            }
            Self::Limit(LimitError::Rate { per_minute, retry_after }) => {
                let seconds = whole_seconds(*retry_after);
                format!("Rate limit of {per_minute} requests a minute reached; try again in {seconds} s.")
            }
            Self::Ask(AskError::TooLarge { max }) => {
                format!("The request body is larger than the {max} bytes this gateway accepts.")
            }
            Self::Ask(AskError::Duplicate(field)) => {
                format!("The request body names \"{field}\" twice; send it once.")
            }
            Self::Ask(AskError::WrongType(field)) => format!("\"{field}\" has the wrong type."),
            Self::Ask(AskError::Misspelled(field)) => {
                format!(
                    "Spell the field \"{field}\" exactly so; some servers read another spelling of it as the same."
                )
            }
            Self::Ask(AskError::NamedTooLate { max }) => {
                format!(
                    "Send \"model\" before the files, or at least within the first {max} bytes of the form."
                )
            }
            Self::Ask(AskError::Late(field)) => {
                format!("Send \"{field}\" before the files.")
            }
            Self::Ask(AskError::NotPlain(field)) => {
                format!(
                    "Send \"{field}\" as a plain field of text, without a file name or a transfer encoding."
                )
            }
            _ => row.message.to_owned(),
        }
    }

    /// The field at fault.
    fn param(&self) -> Option<&'static str> {
        match self {
            Self::Ask(
                AskError::Duplicate(field)
                | AskError::WrongType(field)
                | AskError::Misspelled(field)
                | AskError::Late(field)
                | AskError::NotPlain(field),
            ) => Some(field),
            Self::RType => Some("r_type"),
            Self::Model
            | Self::ModelMissing
            | Self::ModelConflict
            | Self::Ask(AskError::NamedTooLate { .. }) => Some("model"),
            _ => None,
        }
    }

    /// How the limit stands that was met, in the words of the answers that meet none.
    fn tell_standing(&self, headers: &mut HeaderMap, dialect: Dialect, now: Timestamp) {
        let (rate, day) = match self {
            Self::Limit(LimitError::Rate { per_minute, retry_after }) => {
                let next = Duration::from_secs(whole_seconds(*retry_after));
                (Some(Standing { per_minute: *per_minute, remaining: 0, full_in: next }), None)
            }
            Self::UsedUp { limit, resets_at, zone } => {
                let length = resets_at.since(Window::at(now, *zone).starts_at);
                (None, Some(Day { limit: *limit, left: 0, resets_at: *resets_at, length }))
            }
            _ => return,
        };
        headers::tell_standing(headers, dialect, rate, day, now);
    }

    /// Whoever is refused for want of room comes back at different times.
    fn soon(&self) -> HeaderValue {
        if *self == Self::LogFull { rand::rng().random_range(1..=3_u64).into() } else { SOON }
    }

    /// Whether and when to come again.
    fn advise(&self, headers: &mut HeaderMap, row: &Row, now: Timestamp) {
        match self {
            // Without this both official SDKs would try a used-up day twice more.
            Self::UsedUp { resets_at, .. } => {
                headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
                headers.insert(RETRY_AFTER, whole_seconds(resets_at.since(now)).into());
            }
            Self::Limit(LimitError::Rate { retry_after, .. }) => {
                headers.insert(RETRY_AFTER, whole_seconds(*retry_after).into());
                let millis = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX).max(1);
                headers.insert(RETRY_AFTER_MS, millis.into());
            }
            Self::Limit(
                LimitError::Parallel(_) | LimitError::ParallelOfUser(_) | LimitError::BodiesOfOne(_),
            ) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            // A body still on its way is not read to its end.
            Self::Ask(AskError::TooLarge { .. } | AskError::TooSlow | AskError::Broken) => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        match row.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, self.soon());
            }
            _ => {}
        }
    }
}

/// `Retry-After` counts whole seconds and never says "now".
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX).max(1)
}

impl From<NoRoute> for Refusal {
    fn from(error: NoRoute) -> Self {
        Self::NoRoute(error)
    }
}

impl From<NoKey> for Refusal {
    fn from(error: NoKey) -> Self {
        Self::NoKey(error)
    }
}

impl From<IdentifyError> for Refusal {
    fn from(error: IdentifyError) -> Self {
        Self::Identify(error)
    }
}

impl From<UnreadableAddress> for Refusal {
    fn from(_: UnreadableAddress) -> Self {
        Self::UnreadableAddress
    }
}

impl From<NotPermitted> for Refusal {
    fn from(error: NotPermitted) -> Self {
        Self::NotPermitted(error)
    }
}

impl From<LimitError> for Refusal {
    fn from(error: LimitError) -> Self {
        Self::Limit(error)
    }
}

impl From<AskError> for Refusal {
    fn from(error: AskError) -> Self {
        Self::Ask(error)
    }
}

impl From<FormError> for Refusal {
    fn from(error: FormError) -> Self {
        Self::Ask(error.into())
    }
}

impl From<QuotaError> for Refusal {
    fn from(error: QuotaError) -> Self {
        match error {
            QuotaError::UsedUp { limit, resets_at, zone } => Self::UsedUp { limit, resets_at, zone },
            QuotaError::NoSuchUser => Self::Identify(IdentifyError::Unknown),
            QuotaError::StoreDown => Self::Unavailable("quota"),
        }
    }
}

impl From<crate::chatlog::LogFull> for Refusal {
    fn from(_: crate::chatlog::LogFull) -> Self {
        Self::LogFull
    }
}
