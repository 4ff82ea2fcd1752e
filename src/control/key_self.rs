//! `GET /api/v1/key`: what the holder of a key may know of it, without a login.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::{Datelike, Days, NaiveDate};
use serde::Serialize;
use utoipa::ToSchema;

use super::Control;
use super::caller::{KeyHolder, Origin};
use super::openapi::refused;
use super::pace::Day;
use super::problem::Problem;
use crate::clock::Timestamp;

/// A key, and how its user's conversations stand. Usage is the user's over all keys, as the limit is.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "label": "default", "limit": 50, "limit_reset": "daily", "limit_remaining": 41, "resets_at": "2026-10-02T00:00:00Z",
    "usage_daily": 9, "usage_weekly": 30, "usage_monthly": 9, "expires_at": null, "plan": "free", "level": "basic",
}))]
struct KeyStanding<'s> {
    /// The name of the key.
    label: &'s str,
    /// Conversations of this day altogether.
    limit: i64,
    /// How often the limit begins anew.
    limit_reset: &'static str,
    /// How many are left of it.
    limit_remaining: i64,
    /// When the next day begins.
    resets_at: Timestamp,
    /// Since the day began.
    usage_daily: i64,
    /// Since Monday.
    usage_weekly: i64,
    /// Since the first.
    usage_monthly: i64,
    /// `null` where the key does not end.
    #[schema(required = true)]
    expires_at: Option<Timestamp>,
    plan: &'s str,
    level: &'s str,
}

/// Says how a key stands.
///
/// Limits and usage are those of its user, over all keys; usage may be a second old. Costs nothing.
#[utoipa::path(
    get,
    path = "/api/v1/key",
    tag = "Apps",
    responses(
        (status = 200, description = "How it stands.", body = KeyStanding),
        refused::AmbiguousKey,
    ),
)]
pub(super) async fn key_standing(
    State(control): State<Arc<Control>>,
    origin: Origin,
    KeyHolder(subject): KeyHolder,
) -> Result<Response, Problem> {
    control.chatlog.freshen().await;
    let left = control.quota.left(subject.user, &subject.allowance).await?;
    let today = left.day;
    let (monday, first) = (week_begins(today), month_begins(today));
    let days = control.quota.used_since(subject.user, monday.min(first)).await?;
    let since = |begin: i64| days.iter().filter(|used| used.day >= begin).map(|used| used.units).sum();
    let standing = KeyStanding {
        label: &subject.label,
        limit: left.allowance,
        limit_reset: "daily",
        limit_remaining: left.left,
        resets_at: left.resets_at,
        usage_daily: since(today),
        usage_weekly: since(monday),
        usage_monthly: since(first),
        expires_at: subject.expires_at,
        plan: &subject.plan.name,
        level: &subject.level,
    };
    let mut response = Json(standing).into_response();
    Day::of(left.allowance, left.left, left.resets_at, origin.at).tell(response.headers_mut());
    Ok(response)
}

/// The Monday on or before `day`; day 0 was a Thursday.
fn week_begins(day: i64) -> i64 {
    day - (day + 3).rem_euclid(7)
}

fn month_begins(day: i64) -> i64 {
    let since_epoch = Days::new(u64::try_from(day).unwrap_or(0));
    let date = NaiveDate::default().checked_add_days(since_epoch).unwrap_or_default();
    day - i64::from(date.day0())
}

#[cfg(test)]
mod tests {
    use super::{month_begins, week_begins};

    #[test]
    fn weeks_begin_on_monday_and_months_with_the_first() {
        // 2026-10-01 is day 20 727, a Thursday.
        assert_eq!((week_begins(20_727), month_begins(20_727)), (20_724, 20_727));
        assert_eq!((week_begins(20_724), month_begins(20_724)), (20_724, 20_697));
        assert_eq!((week_begins(20_723), month_begins(20_757)), (20_717, 20_727));
        assert_eq!((week_begins(0), month_begins(0)), (-3, 0));
    }
}
