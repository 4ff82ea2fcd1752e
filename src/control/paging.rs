//! Query parameters, and lists that come in pages.
//!
//! A list is a plain JSON array; how many there are and where the next page begins travel in
//! `X-Total-Count` and `Link` (RFC 8288).

use std::convert::Infallible;
use std::ops::RangeInclusive;

use axum::Json;
use axum::extract::{FromRequestParts, Query};
use axum::response::{IntoResponse, Response};
use chrono::DateTime;
use http::header::LINK;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Uri};
use serde::Serialize;

use super::problem::Problem;
use super::usage::day_number;
use super::violations::Violations;
use crate::clock::Timestamp;

/// The parameters behind a path's `?`, decoded.
pub(super) struct Params {
    pairs: Vec<(String, String)>,
    uri: Uri,
}

/// Which part of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) limit: i64,
    pub(super) offset: i64,
}

const TOTAL_COUNT: HeaderName = HeaderName::from_static("x-total-count");
const LIMITS: RangeInclusive<i64> = 1..=1000;
const DEFAULT_LIMIT: i64 = 100;
/// 9999-12-31
const MOST_DAY: i64 = 2_932_896;

// === impl Params ===

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let uri = parts.uri.clone();
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&uri).map(|query| query.0);
        Ok(Self { pairs: pairs.unwrap_or_default(), uri })
    }
}

impl Params {
    /// Refuses parameters that are not `known`: a misspelt filter would show everything.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Problem> {
        match self.pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => {
                let name: String = name.chars().take(64).collect();
                Err(refusal(&name, &format!("Unknown parameter. Known are: {}", known.join(", "))))
            }
        }
    }

    /// The part of a list named by `limit` (1 to 1,000, default 100) and `offset` (default 0).
    pub(super) fn page(&self) -> Result<Page, Problem> {
        let limit = self.number("limit", LIMITS, DEFAULT_LIMIT)?;
        let offset = self.number("offset", 0..=i64::MAX, 0)?;
        Ok(Page { limit, offset })
    }

    /// A word to look for: 1 to 256 characters, none of them NUL.
    pub(super) fn word(&self, name: &'static str) -> Result<Option<String>, Problem> {
        let Some(word) = self.get(name) else { return Ok(None) };
        if word.is_empty() || word.chars().nth(256).is_some() || word.contains('\0') {
            return Err(refusal(name, "String should have 1 to 256 characters"));
        }
        Ok(Some(word.to_owned()))
    }

    /// An instant in RFC 3339, such as `2026-10-01T00:00:00Z`.
    pub(super) fn instant(&self, name: &'static str) -> Result<Option<Timestamp>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match DateTime::parse_from_rfc3339(text) {
            Ok(instant) => Ok(Some(Timestamp(instant.timestamp_millis()))),
            Err(_) => Err(refusal(name, "Input should be a time such as 2026-10-01T00:00:00Z")),
        }
    }

    /// A date, such as `2026-10-01`, as days since 1970-01-01.
    pub(super) fn date(&self, name: &'static str) -> Result<Option<i64>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let day = day_number(text).filter(|day| (0..=MOST_DAY).contains(day));
        day.map(Some).ok_or_else(|| self.refuse(name, "Input should be a date such as 2026-10-01"))
    }

    /// One of a few words, with what it means.
    pub(super) fn one_of<T: Copy>(
        &self,
        name: &'static str,
        words: &[(&'static str, T)],
    ) -> Result<Option<(&'static str, T)>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == text).copied();
        let known = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        found.map(Some).ok_or_else(|| self.refuse(name, &format!("Input should be one of: {}", known())))
    }

    /// Refuses a parameter for a reason of the caller's own.
    #[expect(clippy::unused_self, reason = "it reads as what it is about")]
    pub(super) fn refuse(&self, name: &'static str, message: &str) -> Problem {
        refusal(name, message)
    }

    /// `true` or `false`; false when it is not there.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(_) => Err(refusal(name, "Input should be true or false")),
        }
    }

    /// Answers with one page of a list that has `total` entries.
    pub(super) fn answer<T: Serialize>(&self, page: Page, rows: &[T], total: i64) -> Response {
        self.answer_up_to(page.offset.saturating_add(page.limit), page, rows, total)
    }

    /// The same with a page that may have ended before its limit: the next one begins where it did.
    pub(super) fn answer_part<T: Serialize>(&self, page: Page, rows: &[T], total: i64) -> Response {
        let told = i64::try_from(rows.len()).unwrap_or(page.limit);
        let end = if rows.is_empty() { total } else { page.offset.saturating_add(told) };
        self.answer_up_to(end, page, rows, total)
    }

    fn answer_up_to<T: Serialize>(&self, next: i64, page: Page, rows: &[T], total: i64) -> Response {
        let mut response = Json(rows).into_response();
        let headers = response.headers_mut();
        headers.insert(TOTAL_COUNT, total.into());
        if next < total
            && let Ok(link) = HeaderValue::try_from(next_link(&self.uri, page.limit, next))
        {
            headers.insert(LINK, link);
        }
        response
    }

    fn number(&self, name: &'static str, range: RangeInclusive<i64>, default: i64) -> Result<i64, Problem> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            refusal(name, &format!("Input should be a whole number from {least} to {most}"))
        })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

fn refusal(name: &str, message: &str) -> Problem {
    Problem::Invalid(Violations::of_query(name, message))
}

/// The same path and filters, further on.
fn next_link(uri: &Uri, limit: i64, offset: i64) -> String {
    let paging =
        |pair: &&str| !pair.starts_with("offset=") && !pair.starts_with("limit=") && !pair.is_empty();
    let filters = uri.query().unwrap_or_default().split('&').filter(paging);
    let pairs: Vec<String> =
        filters.map(str::to_owned).chain([format!("limit={limit}"), format!("offset={offset}")]).collect();
    format!("<{}?{}>; rel=\"next\"", uri.path(), pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::{Page, Params, Timestamp};

    async fn params(uri: &str) -> Params {
        use axum::extract::FromRequestParts;
        let (mut parts, ()) = http::Request::get(uri).body(()).unwrap().into_parts();
        Params::from_request_parts(&mut parts, &()).await.unwrap()
    }

    #[tokio::test]
    async fn a_page_is_a_hundred_from_the_start_unless_asked_otherwise() {
        assert_eq!(params("/users").await.page().unwrap(), Page { limit: 100, offset: 0 });
        assert_eq!(params("/users?limit=1&offset=7").await.page().unwrap(), Page { limit: 1, offset: 7 });
        for bad in ["limit=0", "limit=1001", "limit=-1", "limit=x", "offset=-1", "offset=9223372036854775808"]
        {
            assert!(params(&format!("/users?{bad}")).await.page().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn filters_are_read_or_refused() {
        let some = params("/log?username=ann&since=2026-10-01T02:00:00%2B02:00&reveal=true").await;
        assert_eq!(some.word("username").unwrap().as_deref(), Some("ann"));
        assert_eq!(some.instant("since").unwrap(), Some(Timestamp(1_790_812_800_000)));
        assert!(some.flag("reveal").unwrap());
        assert!(some.only(&["username", "since"]).is_err());
        let none = params("/log").await;
        assert_eq!((none.word("username").unwrap(), none.instant("since").unwrap()), (None, None));
        assert!(!none.flag("reveal").unwrap());
        for bad in ["username=", "username=%00"] {
            assert!(params(&format!("/log?{bad}")).await.word("username").is_err(), "{bad}");
        }
        assert!(params("/log?since=yesterday").await.instant("since").is_err());
        assert!(params("/log?reveal=yes").await.flag("reveal").is_err());
    }

    #[tokio::test]
    async fn the_next_page_keeps_the_filters() {
        let asked = params("/log?username=a%20b&limit=2&offset=0").await;
        let response = asked.answer(Page { limit: 2, offset: 0 }, &[1, 2], 3);
        assert_eq!(response.headers()["x-total-count"], "3");
        assert_eq!(response.headers()["link"], "</log?username=a%20b&limit=2&offset=2>; rel=\"next\"");
        let last = params("/log").await.answer(Page { limit: 2, offset: 2 }, &[3], 3);
        assert!(last.headers().get("link").is_none());
        let bare = super::next_link(&Uri::from_static("/users"), 100, 100);
        assert_eq!(bare, "</users?limit=100&offset=100>; rel=\"next\"");
    }
}
