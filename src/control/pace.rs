//! How fast one address, or the user of a key, may call `/api/v1`, and what every answer there says about it.
//!
//! Two header families tell the same: the seed's `X-RateLimit-*`, and `RateLimit-Policy` and
//! `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Control;
use super::caller::Origin;
use super::problem::{Problem, whole_seconds};
use super::toll;
use crate::clock::Timestamp;
use crate::limits::LimitError;

/// How the day's conversations of one user stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Day {
    /// Conversations a day.
    pub(super) limit: i64,
    /// Conversations left.
    pub(super) left: i64,
    /// When the next day begins.
    pub(super) resets_at: Timestamp,
    /// How long until then.
    pub(super) resets_in: Duration,
}

/// How one bucket stands: the same numbers for both header families.
struct Told {
    policy: &'static str,
    limit: i64,
    window: u64,
    remaining: i64,
    resets_in: Duration,
    resets_at: Timestamp,
}

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");

const MINUTE: u64 = 60;
const DAY: u64 = 86_400;

/// Middleware: takes one request from the address's bucket on `/api/v1`, until a good key pays it back; other paths pass.
pub(super) async fn keep(State(control): State<Arc<Control>>, mut request: Request, next: Next) -> Response {
    if !is_limited(request.uri().path()) {
        return next.run(request).await;
    }
    let origin = match Origin::of(request.extensions(), &control.clock) {
        Ok(origin) => origin,
        Err(problem) => return problem.into_response(),
    };
    let asked = (request.method(), request.uri().path());
    let toll = match toll::begin(&control, asked, request.headers(), &origin).await {
        Ok(toll) => toll,
        Err(LimitError::Rate { per_minute, retry_after }) => {
            let mut response = Problem::TooFast { per_minute, retry_after }.into_response();
            let limit = i64::from(per_minute);
            Told::of_minute(limit, 0, retry_after, origin.at).tell(response.headers_mut());
            return response;
        }
        Err(other) => return Problem::Unavailable(other.to_string()).into_response(),
    };
    request.extensions_mut().insert(toll.clone());
    let mut response = next.run(request).await;
    if let Some(standing) = toll.standing() {
        let limit = i64::from(standing.per_minute);
        let remaining = i64::from(standing.remaining).min(limit);
        Told::of_minute(limit, remaining, standing.full_in, origin.at).tell(response.headers_mut());
    }
    response
}

fn is_limited(path: &str) -> bool {
    path.strip_prefix("/api/v1").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

// === impl Day ===

impl Day {
    /// The day as it stands at `now`.
    pub(super) fn of(limit: i64, left: i64, resets_at: Timestamp, now: Timestamp) -> Self {
        Self { limit, left, resets_at, resets_in: resets_at.since(now) }
    }

    /// Adds the day's headers. They stand before those of the address: whoever asks about
    /// conversations is told of conversations.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        Told {
            policy: "day",
            limit: self.limit,
            window: DAY,
            remaining: self.left,
            resets_in: self.resets_in,
            resets_at: self.resets_at,
        }
        .tell(headers);
    }
}

// === impl Told ===

impl Told {
    fn of_minute(limit: i64, remaining: i64, resets_in: Duration, now: Timestamp) -> Self {
        let resets_at = now.plus(Duration::from_secs(whole_seconds(resets_in)));
        Self { policy: "minute", limit, window: MINUTE, remaining, resets_in, resets_at }
    }

    fn tell(&self, headers: &mut HeaderMap) {
        let numbers =
            [(LIMIT, self.limit), (REMAINING, self.remaining), (RESET, self.resets_at.unix_seconds())];
        for (name, number) in numbers {
            headers.entry(name).or_insert_with(|| number.into());
        }
        let policy = format!("\"{}\";q={};w={}", self.policy, self.limit, self.window);
        let seconds = self.resets_in.as_secs() + u64::from(self.resets_in.subsec_nanos() > 0);
        let state = format!("\"{}\";r={};t={seconds}", self.policy, self.remaining);
        for (name, text) in [(POLICY, policy), (STATE, state)] {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.append(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;

    use super::{Day, Told, is_limited};
    use crate::clock::Timestamp;

    fn all<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h str> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn only_the_api_is_limited() {
        for limited in ["/api/v1", "/api/v1/", "/api/v1/auth/login", "/api/v1/nothing"] {
            assert!(is_limited(limited), "{limited}");
        }
        for free in ["/", "/health", "/livez", "/readyz", "/metrics", "/api/v10", "/api"] {
            assert!(!is_limited(free), "{free}");
        }
    }

    #[test]
    fn both_header_families_tell_of_the_day_before_the_minute() {
        let now = Timestamp(1_000_000);
        let mut headers = HeaderMap::new();
        let (resets_at, resets_in) = (Timestamp(86_400_000), Duration::from_millis(85_399_001));
        Day { limit: 10, left: 3, resets_at, resets_in }.tell(&mut headers);
        Told::of_minute(60, 59, Duration::from_millis(900), now).tell(&mut headers);
        assert_eq!(all(&headers, "x-ratelimit-limit"), ["10"]);
        assert_eq!(all(&headers, "x-ratelimit-remaining"), ["3"]);
        assert_eq!(all(&headers, "x-ratelimit-reset"), ["86400"]);
        assert_eq!(all(&headers, "ratelimit-policy"), ["\"day\";q=10;w=86400", "\"minute\";q=60;w=60"]);
        assert_eq!(all(&headers, "ratelimit"), ["\"day\";r=3;t=85400", "\"minute\";r=59;t=1"]);
    }
}
