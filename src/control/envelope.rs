//! What every answer of the control plane has in common: its name, headers that keep browsers and
//! caches from making more of it than it is, and problems written out.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::Control;
use super::problem::{self, Problem};
use crate::ids::RequestId;
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
    let mut response = next.run(request).await;
    if asks_for_options && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response = options_of(&response);
    }
    let mut response = problem::finish(response, &request_id, control.clock.now());
    let answer = ApiAnswer { method, route, status: response.status().as_u16() };
    control.metrics.api_requests.get_or_create(&answer).inc();
    let headers = response.headers_mut();
    for (name, value) in PROTECTION {
        headers.entry(name).or_insert(value);
    }
    if let Ok(value) = HeaderValue::try_from(request_id.as_str()) {
        for name in REQUEST_ID_HEADERS {
            headers.insert(name, value.clone());
        }
    }
    response
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
    use axum::response::IntoResponse;
    use http::StatusCode;

    use super::options_of;

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
