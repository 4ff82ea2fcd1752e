//! What every answer of the control plane has in common: its name, headers that keep browsers and
//! caches from making more of it than it is, and problems written out.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::Control;
use super::problem::{self, DENIED_BY, Problem};
use crate::ids::RequestId;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::ApiAnswer;

/// Both spellings in use; official SDKs read one or the other.
const REQUEST_ID_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("x-request-id"), HeaderName::from_static("request-id")];

/// Answers carry accounts, tokens and keys: nobody keeps them, and no browser runs them.
const PROTECTION: [(HeaderName, HeaderValue); 4] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// Middleware, the outermost: dresses every answer.
pub(super) async fn wrap(State(control): State<Arc<Control>>, mut request: Request, next: Next) -> Response {
    let request_id = request.extensions().get::<RequestId>().cloned().unwrap_or_else(RequestId::generate);
    request.extensions_mut().insert(request_id.clone());
    let asks_for_options = request.method() == Method::OPTIONS;
    let (method, route) = (word_of(request.method()), route_of(&request));
    let mut response = caught(next.run(request), &control.metrics).await;
    if asks_for_options && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response = options_of(&response);
    }
    if let Some(code) = problem::code_of(&response).filter(|_| response.headers().contains_key(DENIED_BY)) {
        control.metrics.deny(code);
    }
    let mut response = problem::finish(response, &request_id, control.clock.now());
    let answer = ApiAnswer { method, route, status: response.status().as_u16() };
    control.metrics.api_requests.get_or_create(&answer).inc();
    dress(response.headers_mut(), &request_id);
    response
}

/// What every answer carries.
pub(super) fn dress(headers: &mut HeaderMap, request_id: &RequestId) {
    for (name, value) in PROTECTION {
        headers.entry(name).or_insert(value);
    }
    if let Ok(value) = HeaderValue::try_from(request_id.as_str()) {
        for name in REQUEST_ID_HEADERS {
            headers.insert(name, value.clone());
        }
    }
}

/// The answer, or a problem in its stead where a handler panicked. What is shared is locked for moments in
/// which nothing panics, and transactions end with the handler, so what it left is whole.
async fn caught(answer: impl Future<Output = Response>, metrics: &Metrics) -> Response {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|panic| {
        metrics.api_panics.inc();
        Problem::Internal(format!("a handler panicked: {}", words_of(&*panic))).into_response()
    })
}

/// For the log alone.
fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

/// For paths that do not exist.
pub(super) async fn no_such_path() -> Problem {
    Problem::NoSuchPath
}

/// For paths that do, asked in a way they do not know.
pub(super) async fn method_not_allowed() -> Problem {
    Problem::MethodNotAllowed
}

/// The path as the router names it, not as it was asked for.
fn route_of(request: &Request) -> String {
    request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned()
}

fn word_of(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

/// `OPTIONS` is answered with what the path knows (RFC 9110, section 9.3.7). The router says it in `Allow`
/// after us, where nobody has before.
fn options_of(refusal: &Response) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(known) = refusal.headers().get(ALLOW) {
        response.headers_mut().insert(ALLOW, known.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::response::IntoResponse;
    use axum::routing::get;
    use futures_util::FutureExt;
    use http::{Request, StatusCode};
    use http_body_util::BodyExt;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::{caught, options_of, words_of};
    use crate::clock::Timestamp;
    use crate::control::problem;
    use crate::ids::RequestId;
    use crate::telemetry::Metrics;

    async fn panics() -> StatusCode {
        panic!("{}", "pw=secret");
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_a_problem_as_any_other_and_says_nothing_of_it() {
        let router = Router::new().route("/panics", get(panics)).route("/works", get(async || "well"));
        let metrics = Metrics::new();
        let ask = async |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let answer = router.clone().oneshot(request);
            let response = caught(answer.map(Result::unwrap), &metrics).await;
            problem::finish(response, &RequestId::parse("req-1").unwrap(), Timestamp(0))
        };
        let response = ask("/panics").await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
        let told: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&told["code"], &told["request_id"]), (&"internal".into(), &"req-1".into()));
        assert_eq!(ask("/works").await.status(), StatusCode::OK);
        assert_eq!(metrics.api_panics.get(), 1);
        assert_eq!(words_of(&String::from("a")), "a");
        assert_eq!((words_of(&"b"), words_of(&7)), ("b", "without a word"));
    }

    #[test]
    fn options_are_the_methods_of_the_path() {
        let refusal = (StatusCode::METHOD_NOT_ALLOWED, [("allow", "GET,HEAD,PUT")]).into_response();
        let response = options_of(&refusal);
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        assert_eq!(response.headers()["allow"], "GET,HEAD,PUT");
        let left_to_the_router = options_of(&StatusCode::METHOD_NOT_ALLOWED.into_response());
        assert!(!left_to_the_router.headers().contains_key("allow"));
    }
}
