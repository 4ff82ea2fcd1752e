//! `/api/v1/authz`: whether a key may do something, for apps that are not behind the gate. In the form
//! that nginx's `auth_request` and Traefik's ForwardAuth ask in: the status decides, headers tell more.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

mod asked;

use asked::Asked;

use super::Control;
use super::caller::{KeyHolder, Origin};
use super::openapi::{refused, words};
use super::pace::Day;
use super::paging::Params;
use super::problem::{DENIED_BY, Problem};
use super::verify;
use crate::identity::Subject;

/// It may.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"allowed": true, "charged": false}))]
struct Permission {
    /// Always true; otherwise the answer is a problem.
    allowed: bool,
    /// Whether a conversation was taken for it.
    charged: bool,
}

/// Query parameters: what to hold the key against, and whether to charge.
const PARAMS: [&str; 5] = ["charge", "scope", "model", "r_type", "limit_status"];

const USER: HeaderName = HeaderName::from_static("x-tollgate-user");
const PLAN: HeaderName = HeaderName::from_static("x-tollgate-plan");
const LEVEL: HeaderName = HeaderName::from_static("x-tollgate-level");
const REMAINING: HeaderName = HeaderName::from_static("x-tollgate-remaining");

/// Says whether a key may do something.
///
/// In the form that nginx's `auth_request` and Traefik's ForwardAuth ask in: the status decides, and
/// `X-Tollgate-Denied-By` names the reason. Where the asking proxy is trusted, the path it was asked for
/// decides what is charged.
#[utoipa::path(
    get,
    path = "/api/v1/authz",
    tag = "Apps",
    params(
        ("charge" = Option<words::Flag>, Query, description = "Take one conversation for it, whatever it is; `0` where nothing is said of a request."),
        ("scope" = Option<words::SearchWord>, Query, description = "A scope that the key must open."),
        ("model" = Option<words::SearchWord>, Query, description = "A model that the key must include."),
        ("r_type" = Option<words::SearchWord>, Query, description = "An `r_type` that the account must include."),
        ("limit_status" = Option<words::SearchWord>, Query, description = "`403` to be told a 429 as a 403, for nginx."),
    ),
    responses(
        (status = 200, description = "It may. `X-Tollgate-User`, `-Plan`, `-Level` and `-Remaining` tell more.", body = Permission),
        refused::NotIncluded, refused::DoubtfulRequest, refused::DayUsedUp, refused::LogFull,
    ),
)]
pub(super) async fn authz(
    State(control): State<Arc<Control>>,
    origin: Origin,
    asked: Asked,
    params: Params,
    holder: Result<KeyHolder, Problem>,
) -> Response {
    let judged = judge(&control, &origin, &asked, &params, holder).await;
    judged.unwrap_or_else(|problem| {
        let code = problem.code();
        let is_ambiguous = matches!(problem, Problem::AmbiguousKey);
        let mut response = problem.into_response();
        if is_ambiguous {
            // A proxy knows only three answers; the code says which refusal this is.
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        response.headers_mut().insert(DENIED_BY, HeaderValue::from_static(code));
        let as_forbidden = params.word("limit_status").is_ok_and(|word| word.as_deref() == Some("403"));
        if as_forbidden && response.status() == StatusCode::TOO_MANY_REQUESTS {
            *response.status_mut() = StatusCode::FORBIDDEN;
        }
        response
    })
}

/// Says whether a key may do something.
///
/// In the form that nginx's `auth_request` and Traefik's ForwardAuth ask in: the status decides, and
/// `X-Tollgate-Denied-By` names the reason. Where the asking proxy is trusted, the path it was asked for
/// decides what is charged. Any body is passed over.
#[utoipa::path(
    post,
    path = "/api/v1/authz",
    tag = "Apps",
    params(
        ("charge" = Option<words::Flag>, Query, description = "Take one conversation for it, whatever it is; `0` where nothing is said of a request."),
        ("scope" = Option<words::SearchWord>, Query, description = "A scope that the key must open."),
        ("model" = Option<words::SearchWord>, Query, description = "A model that the key must include."),
        ("r_type" = Option<words::SearchWord>, Query, description = "An `r_type` that the account must include."),
        ("limit_status" = Option<words::SearchWord>, Query, description = "`403` to be told a 429 as a 403, for nginx."),
    ),
    responses(
        (status = 200, description = "It may. `X-Tollgate-User`, `-Plan`, `-Level` and `-Remaining` tell more.", body = Permission),
        refused::NotIncluded, refused::DoubtfulRequest, refused::DayUsedUp, refused::LogFull,
    ),
)]
pub(super) async fn authz_post(
    control: State<Arc<Control>>,
    origin: Origin,
    asked: Asked,
    params: Params,
    holder: Result<KeyHolder, Problem>,
) -> Response {
    authz(control, origin, asked, params, holder).await
}

async fn judge(
    control: &Control,
    origin: &Origin,
    asked: &Asked,
    params: &Params,
    holder: Result<KeyHolder, Problem>,
) -> Result<Response, Problem> {
    params.only(&PARAMS)?;
    params.word("limit_status")?;
    let KeyHolder(subject) = holder?;
    entitled(&subject, params)?;
    let charges = asked.is_charged(&control.authz, params)?;
    let day = if charges {
        verify::charge(control, &subject, origin, "authz").await?
    } else {
        let left = control.quota.left(subject.user, &subject.allowance).await?;
        Day::of(left.allowance, left.left, left.resets_at, origin.at)
    };
    let mut response = Json(Permission { allowed: true, charged: charges }).into_response();
    tell(response.headers_mut(), &subject, &day);
    Ok(response)
}

fn entitled(subject: &Subject, params: &Params) -> Result<(), Problem> {
    let scope = params.word("scope")?;
    if scope.is_some_and(|scope| !subject.plan.scopes.permits(&scope)) {
        return Err(Problem::NotIncluded("endpoint"));
    }
    if params.word("model")?.is_some_and(|model| !subject.plan.models.permits(&model)) {
        return Err(Problem::NotIncluded("model"));
    }
    if params.word("r_type")?.is_some_and(|r_type| !subject.may_ask_rtype(&r_type)) {
        return Err(Problem::NotIncluded("r_type"));
    }
    Ok(())
}

fn tell(headers: &mut HeaderMap, subject: &Subject, day: &Day) {
    let told = [(USER, &subject.username), (PLAN, &subject.plan.name), (LEVEL, &subject.level)];
    for (name, text) in told {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
    headers.insert(REMAINING, day.left.into());
    day.tell(headers);
}
