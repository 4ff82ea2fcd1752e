//! What the control plane answers when it cannot do what was asked: the only place with statuses.
//!
//! A [`Problem`] is told twice. The client reads RFC 9457 problem details that also carry the seed's
//! members; our own log reads the cause, which no client ever sees.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

use super::health::readiness::Reason;
use super::pace;
use super::violations::Violations;
use crate::clock::Timestamp;
use crate::ids::RequestId;
use crate::store::NoTurn;

mod causes;
mod details;

pub(super) use details::{Document, code_of, finish};

use details::Draft;

/// Why a call was refused or failed.
#[derive(Debug)]
pub(super) enum Problem {
    /// The body is not JSON at all; where it stops being so.
    MalformedJson { line: usize, column: usize },
    /// The body never came to its end.
    BrokenBody,
    /// Two different keys in one request.
    AmbiguousKey,
    /// What the caller gave as their present password is not.
    WrongPassword,
    /// No session, or none that is good here.
    NotAuthenticated,
    /// Name and password do not belong together, or nobody has that name.
    WrongCredentials,
    /// A refresh token that is nobody's, was used before, or belongs to a session that is over.
    InvalidRefreshToken,
    /// The password is right and not enough.
    TotpRequired,
    /// The password is right and the second factor is not.
    WrongSecondFactor,
    /// No key, or none that is known and alive.
    UnknownKey,
    /// The account is switched off.
    AccountDisabled,
    /// The account is marked as taken over, and its password is still the one from before.
    TakenOver,
    /// The key may not be used from the client's address.
    AddressNotAllowed,
    /// The plan, the key or the account leaves this out.
    NotIncluded(&'static str),
    /// What the asking proxy says of the request does not tell whether it is charged: why.
    DoubtfulRequest(&'static str),
    /// The caller is known, and their role may not do this.
    NotPermitted,
    /// The operator wants a second factor of this role, and this one has none yet.
    TotpEnrolmentRequired,
    /// The operator wants verified addresses, and this one is not.
    EmailNotVerified,
    /// This gateway sends no letters.
    MailOff,
    /// A token from a letter that is wrong, used or too old.
    WrongMailToken,
    /// A second factor is asked for already.
    TotpEnabled,
    /// No second factor has been begun.
    TotpNotEnrolled,
    /// Nobody may register here.
    RegistrationClosed,
    /// The metrics are shown to the machine itself, to listed networks and to the holder of a token.
    MetricsNotAllowed,
    /// The call needs a login younger than this.
    LoginTooOld { within: Duration },
    /// The call needs the account's password, with a code where there is a second factor, or a login younger
    /// than this.
    PasswordRequired { second_factor: bool, within: Duration },
    /// Nothing is at this path.
    NoSuchPath,
    /// The path is right, the thing it names is not there.
    NotFound(&'static str),
    /// The path does not know this method.
    MethodNotAllowed,
    /// The body came too slowly.
    BodyTimeout,
    /// A name that must be unique is somebody's already.
    Taken(&'static str),
    /// Of the active admins with the role `admin` this is the only one.
    LastAdmin,
    /// A job is being run already, here or on another node.
    AlreadyRunning,
    /// The body is larger than this many bytes.
    TooLarge(usize),
    /// The body does not say that it is JSON.
    NotJson,
    /// Fields are missing, unknown or not acceptable.
    Invalid(Violations),
    /// This address asks too fast.
    TooFast { per_minute: u32, retry_after: Duration },
    /// Too many failed logins of this account or from this address.
    TooManyLogins { retry_after: Duration },
    /// The day's conversations are used up.
    DayUsedUp { day: pace::Day, zone: String },
    /// A queue is full.
    Busy(&'static str),
    /// The queue of lists, statistics, exports and ledger verification is full, or too slow.
    SlowReadsBusy(NoTurn),
    /// This instance is not taking work.
    NotReady(Vec<Reason>),
    /// The log has no room for the conversation.
    LogFull,
    /// Something below cannot answer now.
    Unavailable(String),
    /// A mistake of ours.
    Internal(String),
}

/// Which rule refused: a code, the same on the data plane.
pub(super) const DENIED_BY: HeaderName = HeaderName::from_static("x-tollgate-denied-by");

const METRICS_NOT_ALLOWED: &str =
    "Metrics are shown to this machine, to metrics.allowed_ips, and with metrics.token as a bearer token.";
const TAKEN_OVER: &str = "This account is marked as taken over: choose another password by a password reset, or ask an admin for one.";
const SLOW_READS_BUSY: &str =
    "Too many lists, statistics or verifications are being read now. Try again shortly.";

fn not_ready(reasons: &[Reason]) -> String {
    let why: Vec<_> = reasons.iter().map(|reason| reason.sentence()).collect();
    format!("This instance takes no requests now: {}.", why.join("; "))
}

fn login_too_old(within: Duration) -> String {
    let minutes = within.as_secs() / 60;
    format!(
        "This needs a login of the last {minutes} minutes. Log in again; refreshing a session is no login."
    )
}

fn password_required(second_factor: bool, within: Duration) -> String {
    let (code, minutes) =
        (if second_factor { " and `totp_code` (or `recovery_code`)" } else { "" }, within.as_secs() / 60);
    format!(
        "Send the account's `password`{code} in this call, or log in again: for {minutes} minutes after a login \
         it is not asked for."
    )
}

/// Seconds after which a client may try again when nobody knows better.
const SOON: Duration = Duration::from_secs(2);

// === impl Problem ===

impl Problem {
    /// The word by which clients tell it from others.
    pub(super) fn code(&self) -> &'static str {
        self.kind().1
    }

    /// The status it is told with.
    pub(super) fn status(&self) -> StatusCode {
        self.kind().0
    }

    /// What a client reads of it, for the OpenAPI document.
    pub(super) fn specimen(self, at: Timestamp) -> Value {
        let request_id = RequestId::parse("req_0190f3a2c4d07e51").unwrap_or_else(RequestId::generate);
        self.into_draft().into_document(&request_id, at)
    }

    /// The table: what a client can act on.
    fn kind(&self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::MalformedJson { .. } => (S::BAD_REQUEST, "malformed_json"),
            Self::BrokenBody => (S::BAD_REQUEST, "broken_body"),
            Self::AmbiguousKey => (S::BAD_REQUEST, "two_api_keys"),
            Self::WrongPassword => (S::BAD_REQUEST, "wrong_password"),
            Self::NotAuthenticated => (S::UNAUTHORIZED, "not_authenticated"),
            Self::WrongCredentials => (S::UNAUTHORIZED, "wrong_credentials"),
            Self::InvalidRefreshToken => (S::UNAUTHORIZED, "invalid_refresh_token"),
            Self::TotpRequired => (S::UNAUTHORIZED, "totp_required"),
            Self::WrongSecondFactor => (S::UNAUTHORIZED, "wrong_second_factor"),
            Self::UnknownKey => (S::UNAUTHORIZED, "invalid_api_key"),
            Self::AccountDisabled => (S::FORBIDDEN, "account_disabled"),
            Self::TakenOver => (S::FORBIDDEN, "account_taken_over"),
            Self::AddressNotAllowed => (S::FORBIDDEN, "ip_not_allowed"),
            Self::NotIncluded("model") => (S::FORBIDDEN, "model_not_found"),
            Self::NotIncluded("r_type") => (S::FORBIDDEN, "r_type_not_allowed"),
            Self::DoubtfulRequest(_) => (S::FORBIDDEN, "doubtful_path"),
            Self::NotIncluded(_) => (S::FORBIDDEN, "route_not_allowed"),
            Self::NotPermitted => (S::FORBIDDEN, "not_permitted"),
            Self::TotpEnrolmentRequired => (S::FORBIDDEN, "totp_enrolment_required"),
            Self::EmailNotVerified => (S::FORBIDDEN, "email_not_verified"),
            Self::MailOff => (S::FORBIDDEN, "mail_off"),
            Self::WrongMailToken => (S::BAD_REQUEST, "wrong_mail_token"),
            Self::TotpEnabled => (S::CONFLICT, "totp_enabled"),
            Self::TotpNotEnrolled => (S::CONFLICT, "totp_not_enrolled"),
            Self::RegistrationClosed => (S::FORBIDDEN, "registration_closed"),
            Self::MetricsNotAllowed => (S::FORBIDDEN, "metrics_not_allowed"),
            Self::LoginTooOld { .. } => (S::FORBIDDEN, "login_too_old"),
            Self::PasswordRequired { .. } => (S::FORBIDDEN, "password_required"),
            Self::NoSuchPath => (S::NOT_FOUND, "unknown_path"),
            Self::NotFound(_) => (S::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::BodyTimeout => (S::REQUEST_TIMEOUT, "request_timeout"),
            Self::Taken(_) => (S::CONFLICT, "taken"),
            Self::LastAdmin => (S::CONFLICT, "last_admin"),
            Self::AlreadyRunning => (S::CONFLICT, "already_running"),
            Self::TooLarge(_) => (S::PAYLOAD_TOO_LARGE, "request_too_large"),
            Self::NotJson => (S::UNSUPPORTED_MEDIA_TYPE, "not_json"),
            Self::Invalid(_) => (S::UNPROCESSABLE_ENTITY, "invalid"),
            Self::TooFast { .. } => (S::TOO_MANY_REQUESTS, "rate_limit_exceeded"),
            Self::TooManyLogins { .. } => (S::TOO_MANY_REQUESTS, "too_many_logins"),
            Self::DayUsedUp { .. } => (S::TOO_MANY_REQUESTS, "insufficient_quota"),
            Self::Busy(_) => (S::SERVICE_UNAVAILABLE, "busy"),
            Self::SlowReadsBusy(_) => (S::SERVICE_UNAVAILABLE, "slow_reads_busy"),
            Self::NotReady(_) => (S::SERVICE_UNAVAILABLE, "not_ready"),
            Self::LogFull => (S::SERVICE_UNAVAILABLE, "message_log_full"),
            Self::Unavailable(_) => (S::SERVICE_UNAVAILABLE, "service_unavailable"),
            Self::Internal(_) => (S::INTERNAL_SERVER_ERROR, "internal"),
        }
    }

    /// One English sentence, with facts the client may know and nothing else.
    fn sentence(&self) -> Cow<'static, str> {
        match self {
            Self::MalformedJson { line, column } => {
                format!("The request body is not valid JSON (line {line}, column {column}).").into()
            }
            Self::BrokenBody => "The request body ended too early.".into(),
            Self::AmbiguousKey => "The request carries two different API keys.".into(),
            Self::WrongPassword => "The current password is not correct.".into(),
            Self::NotAuthenticated => "A valid access token is required. Log in to get one.".into(),
            Self::WrongCredentials => "The name or the password is not correct.".into(),
            Self::InvalidRefreshToken => "The refresh token is not valid (any more). Log in again.".into(),
            Self::TotpRequired => "A second factor is required: send totp_code or recovery_code too.".into(),
            Self::WrongSecondFactor => "The code is not correct, or was used before.".into(),
            Self::UnknownKey => "The API key is missing or not valid.".into(),
            Self::AccountDisabled => "This account is disabled.".into(),
            Self::TakenOver => TAKEN_OVER.into(),
            Self::AddressNotAllowed => "Requests from your address are not allowed.".into(),
            Self::NotIncluded(what) => format!("This API key does not include that {what}.").into(),
            Self::DoubtfulRequest(why) => (*why).into(),
            Self::NotPermitted => "Your role does not permit this.".into(),
            Self::TotpEnrolmentRequired => "A second factor is required here: enrol one first.".into(),
            Self::EmailNotVerified => "Verify your e-mail address first.".into(),
            Self::MailOff => "This gateway sends no mail.".into(),
            Self::WrongMailToken => "The token is not valid (any more). Ask for another one.".into(),
            Self::TotpEnabled => "A second factor is enabled already.".into(),
            Self::TotpNotEnrolled => "Enrol a second factor first.".into(),
            Self::RegistrationClosed => "Registration is closed on this gateway.".into(),
            Self::MetricsNotAllowed => METRICS_NOT_ALLOWED.into(),
            Self::LoginTooOld { within } => login_too_old(*within).into(),
            Self::PasswordRequired { second_factor, within } => {
                password_required(*second_factor, *within).into()
            }
            Self::NoSuchPath => "There is nothing at this path.".into(),
            Self::NotFound(what) => format!("There is no such {what}.").into(),
            Self::MethodNotAllowed => "This path does not know this method.".into(),
            Self::BodyTimeout => "The request body came too slowly.".into(),
            Self::LastAdmin => "This is the last active admin: make another one first.".into(),
            Self::Taken(what) => format!("This {what} is taken already.").into(),
            Self::AlreadyRunning => "This job is running already.".into(),
            Self::TooLarge(most) => format!("The request body is larger than {most} bytes.").into(),
            Self::NotJson => "The request body must be sent as Content-Type: application/json.".into(),
            Self::Invalid(_) => "The request is not valid.".into(),
            Self::TooFast { per_minute, .. } => {
                format!("Rate limit of {per_minute} requests a minute reached. Wait and try again.").into()
            }
            Self::TooManyLogins { .. } => "Too many failed logins. Wait and try again.".into(),
            Self::DayUsedUp { day, zone } => {
                let (limit, resets_at) = (day.limit, day.resets_at);
                format!("Daily limit of {limit} conversations reached; it resets at {resets_at} ({zone}).")
                    .into()
            }
            Self::Busy(_) | Self::LogFull => "The gateway is busy. Try again shortly.".into(),
            Self::SlowReadsBusy(_) => SLOW_READS_BUSY.into(),
            Self::NotReady(reasons) => not_ready(reasons).into(),
            Self::Unavailable(_) => "The gateway cannot answer now. Try again shortly.".into(),
            Self::Internal(_) => "The gateway made a mistake and has noted it.".into(),
        }
    }

    fn into_draft(self) -> Draft {
        let ((status, code), cause) = (self.kind(), self.cause());
        let reasons = match &self {
            Self::NotReady(reasons) => reasons.iter().map(|reason| reason.code()).collect(),
            _ => Vec::new(),
        };
        let detail = match self {
            Self::Invalid(violations) => violations.into_value(),
            other => Value::String(other.sentence().into_owned()),
        };
        Draft { status, code, detail, reasons, cause }
    }

    /// Whether it is one that a key meets on the data plane too: both tell it by the same code.
    fn is_denial(&self) -> bool {
        matches!(
            self,
            Self::AmbiguousKey
                | Self::UnknownKey
                | Self::AccountDisabled
                | Self::AddressNotAllowed
                | Self::NotIncluded(_)
                | Self::DoubtfulRequest(_)
                | Self::TooFast { .. }
                | Self::DayUsedUp { .. }
                | Self::LogFull
        )
    }

    /// What stands in our log and nowhere else.
    fn cause(&self) -> Option<String> {
        match self {
            Self::Busy(cause) => Some((*cause).to_owned()),
            Self::SlowReadsBusy(cause) => Some(cause.to_string()),
            Self::Unavailable(cause) | Self::Internal(cause) => Some(cause.clone()),
            _ => None,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooFast { retry_after, .. } | Self::TooManyLogins { retry_after } => Some(*retry_after),
            Self::DayUsedUp { day, .. } => Some(day.resets_in),
            Self::Busy(_)
            | Self::SlowReadsBusy(_)
            | Self::NotReady(_)
            | Self::LogFull
            | Self::Unavailable(_) => Some(SOON),
            _ => None,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.is_denial() {
            headers.insert(DENIED_BY, HeaderValue::from_static(self.code()));
        }
        if let Some(wait) = self.retry_after() {
            headers.insert(RETRY_AFTER, whole_seconds(wait).into());
        }
        match &self {
            Self::DayUsedUp { day, .. } => day.tell(headers),
            Self::TooLarge(_) | Self::BodyTimeout => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response.extensions_mut().insert(self.into_draft());
        response
    }
}

/// Whole seconds, rounded up, at least one: what `Retry-After` takes.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::response::{IntoResponse, Response};
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::{Problem, Reason, finish, whole_seconds};
    use crate::clock::Timestamp;
    use crate::control::pace::Day;
    use crate::ids::RequestId;

    fn told(problem: Problem) -> Response {
        finish(problem.into_response(), &RequestId::parse("req-1").unwrap(), Timestamp(0))
    }

    async fn body(response: Response) -> Value {
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    #[tokio::test]
    async fn a_problem_is_readable_for_rfc_9457_and_for_the_seeds_clients() {
        let response = told(Problem::NotFound("user"));
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let expected = json!({
            "type": "urn:tollgate:problem:not_found", "code": "not_found", "title": "Not Found", "status": 404,
            "detail": "There is no such user.", "error": true, "status_code": 404,
            "timestamp": "1970-01-01T00:00:00Z", "request_id": "req-1",
        });
        assert_eq!(body(response).await, expected);
    }

    #[tokio::test]
    async fn what_went_wrong_inside_stays_inside() {
        for problem in [Problem::Internal("pw=secret".into()), Problem::Unavailable("pw=secret".into())] {
            let response = told(problem);
            assert!(response.status().is_server_error());
            assert!(!body(response).await.to_string().contains("secret"));
        }
    }

    #[tokio::test]
    async fn headers_say_what_to_do_next() {
        assert_eq!(told(Problem::NotAuthenticated).headers()["www-authenticate"], "Bearer");
        assert_eq!(told(Problem::Busy("x")).headers()["retry-after"], "2");
        assert_eq!(told(Problem::TooLarge(1)).headers()["connection"], "close");
        let day = Day::of(10, 0, Timestamp(60_000), Timestamp(500));
        let response = told(Problem::DayUsedUp { day, zone: "UTC".into() });
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "60");
        assert_eq!(response.headers()["x-ratelimit-remaining"], "0");
        let sentence = "Daily limit of 10 conversations reached; it resets at 1970-01-01T00:01:00Z (UTC).";
        assert_eq!(body(response).await["detail"], sentence);
    }

    #[tokio::test]
    async fn an_instance_that_is_not_ready_names_every_reason() {
        let response = told(Problem::NotReady(vec![Reason::Stopping, Reason::MessageLogFull]));
        assert_eq!(
            (response.status().as_u16(), &response.headers()["retry-after"]),
            (503, &"2".parse().unwrap())
        );
        let body = body(response).await;
        assert_eq!(body["reasons"], json!(["stopping", "message_log_full"]));
        let sentence = "This instance takes no requests now: it is stopping; the message log has no room.";
        assert_eq!(body["detail"], sentence);
    }

    #[test]
    fn waits_are_whole_seconds_and_at_least_one() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_secs(3)), 3);
        assert_eq!(whole_seconds(Duration::from_millis(3001)), 4);
    }
}
