//! `/api/v1/admin/usage` and `statistics`: what was used, for charts and at a glance.
//!
//! Days that are over are kept as sums; today, and what the nightly job has not come to yet, is summed
//! from the log itself. Everything answered before a call is in its answer.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, NaiveDate, TimeDelta};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Control;
use super::caller::AdminSession;
use super::openapi::{refused, words};
use super::paging::Params;
use super::problem::Problem;
use super::slow_reads::SlowTurn;
use crate::quota::Window;
use crate::store::usage::{self, By, Day, Question, Usage};

/// Sums of some requests.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "requests": 12, "conversations": 9, "refunded": 1, "prompt_tokens": 800, "completion_tokens": 420,
    "total_tokens": 1220, "cached_tokens": 0, "reasoning_tokens": 0, "bytes_in": 9000, "bytes_out": 42000,
    "average_latency_ms": 850,
}))]
pub(super) struct Sums {
    requests: i64,
    conversations: i64,
    refunded: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    total_tokens: i64,
    cached_tokens: i64,
    reasoning_tokens: i64,
    bytes_in: i64,
    bytes_out: i64,
    average_latency_ms: i64,
}

/// Sums of one group, under its name: the member that was asked for by `by`.
#[derive(Serialize, ToSchema)]
#[schema(as = UsageOfGroup, example = json!({
    "day": "2026-10-01", "requests": 12, "conversations": 9, "refunded": 1, "prompt_tokens": 800,
    "completion_tokens": 420, "total_tokens": 1220, "cached_tokens": 0, "reasoning_tokens": 0,
    "bytes_in": 9000, "bytes_out": 42000, "average_latency_ms": 850,
}))]
pub(super) struct Group {
    #[serde(flatten)]
    #[schema(value_type = GroupName)]
    name: Map<String, Value>,
    #[serde(flatten)]
    sums: Sums,
}

/// One of these: the member that was asked for.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands in the document for a map of one entry")]
struct GroupName {
    /// A date.
    #[schema(required = false)]
    day: String,
    #[schema(required = false)]
    model: String,
    /// A username.
    #[schema(required = false)]
    user: String,
    #[schema(required = false)]
    route: String,
    #[schema(required = false)]
    outcome: String,
}

/// Use at a glance.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "time_zone": "UTC", "day": "2026-10-01",
    "accounts": {"users": 3, "active_users": 3, "staff": 1, "admins": 1, "keys": 4},
    "today": {"requests": 12, "conversations": 9, "refunded": 1, "prompt_tokens": 800, "completion_tokens": 420,
        "total_tokens": 1220, "cached_tokens": 0, "reasoning_tokens": 0, "bytes_in": 9000, "bytes_out": 42000,
        "average_latency_ms": 850},
    "last_7_days": {"requests": 12, "conversations": 9, "refunded": 1, "prompt_tokens": 800, "completion_tokens": 420,
        "total_tokens": 1220, "cached_tokens": 0, "reasoning_tokens": 0, "bytes_in": 9000, "bytes_out": 42000,
        "average_latency_ms": 850},
    "last_30_days": {"requests": 12, "conversations": 9, "refunded": 1, "prompt_tokens": 800, "completion_tokens": 420,
        "total_tokens": 1220, "cached_tokens": 0, "reasoning_tokens": 0, "bytes_in": 9000, "bytes_out": 42000,
        "average_latency_ms": 850},
    "top_models": [], "top_users": [], "outcomes": [],
}))]
pub(super) struct Statistics {
    /// In which days begin.
    time_zone: &'static str,
    /// Today.
    day: String,
    accounts: AccountCounts,
    today: Sums,
    last_7_days: Sums,
    last_30_days: Sums,
    /// The first ten, of the last 30 days.
    top_models: Vec<Group>,
    /// The first ten, of the last 30 days.
    top_users: Vec<Group>,
    /// How requests of the last 30 days ended.
    outcomes: Vec<Group>,
}

/// How many there are.
#[derive(Serialize, ToSchema)]
struct AccountCounts {
    users: i64,
    active_users: i64,
    staff: i64,
    admins: i64,
    /// That work.
    keys: i64,
}

const PARAMETERS: [&str; 5] = ["from", "to", "by", "username", "model"];
pub(super) const GROUPS: [(&str, By); 5] = [
    ("day", By::Day),
    ("model", By::Model),
    ("user", By::User),
    ("route", By::Route),
    ("outcome", By::Outcome),
];
/// Days of a chart that does not say.
const USUAL_DAYS: i64 = 30;
/// Most days of one chart.
const MOST_DAYS: i64 = 1000;
/// Most days that are summed from the log for one call.
const MOST_LIVE: i64 = 7;
/// Models and users named at a glance.
const FIRST_FEW: usize = 10;

/// Sums what was used, for charts.
///
/// From one day to another, by day, model, user, route or outcome. Days on which nothing was used are
/// left out. Everything answered before this call is in it.
#[utoipa::path(
    get,
    path = "/api/v1/admin/usage",
    tag = "Admin: operation",
    params(
        ("from" = Option<words::Date>, Query, description = "The first day; without it, 29 days before `to`. At most 1,000 days."),
        ("to" = Option<words::Date>, Query, description = "The last day, included; without it, today."),
        ("by" = Option<words::Grouping>, Query, description = "What the sums are of."),
        ("username" = Option<words::SearchWord>, Query, description = "Only what this user did."),
        ("model" = Option<words::SearchWord>, Query, description = "Only what this model did."),
    ),
    responses((status = 200, description = "The sums of each group.", body = Vec<Group>)),
)]
pub(super) async fn usage(
    State(control): State<Arc<Control>>,
    _: AdminSession,
    SlowTurn(reads): SlowTurn,
    params: Params,
) -> Result<Json<Vec<Group>>, Problem> {
    params.only(&PARAMETERS)?;
    let today = control.schedule_day();
    let to = params.date("to")?.unwrap_or(today);
    let from = params.date("from")?.unwrap_or(to - USUAL_DAYS + 1);
    if !(0..MOST_DAYS).contains(&(to - from)) {
        return Err(params.refuse("from", "Input should be at most 1000 days before `to`, and not after it"));
    }
    let (name, by) = params.one_of("by", &GROUPS)?.unwrap_or(("day", By::Day));
    let (username, model) = (params.word("username")?, params.word("model")?);
    let live = control.live_days(from, to).await?;
    let sums = usage::sums(&reads, &Question { by, from, to, username, model, live }).await?;
    Ok(Json(sums.iter().map(|sums| named(name, sums)).collect()))
}

/// Shows at a glance how much is used.
///
/// Accounts, today, the last days, and who and what is used most. Takes no parameters.
#[utoipa::path(
    get,
    path = "/api/v1/admin/statistics",
    tag = "Admin: operation",
    responses((status = 200, description = "At a glance.", body = Statistics), refused::Invalid),
)]
pub(super) async fn statistics(
    State(control): State<Arc<Control>>,
    _: AdminSession,
    SlowTurn(reads): SlowTurn,
    params: Params,
) -> Result<Json<Statistics>, Problem> {
    params.only(&[])?;
    let today = control.schedule_day();
    let first = today - USUAL_DAYS + 1;
    let live = control.live_days(first, today).await?;
    let reads = &reads;
    let ask = |by| {
        let question =
            Question { by, from: first, to: today, username: None, model: None, live: live.clone() };
        async move { usage::sums(reads, &question).await }
    };
    let accounts = usage::accounts(reads).await?;
    let days = ask(By::Day).await?;
    let since = |first: i64| {
        let within = days.iter().filter(|day| day.name.parse().is_ok_and(|day: i64| day >= first));
        Sums::of(&within.fold(Usage::default(), Usage::plus))
    };
    let few = |name: &'static str, sums: &[Usage]| -> Vec<Group> {
        sums.iter().take(FIRST_FEW).map(|sums| named(name, sums)).collect()
    };
    Ok(Json(Statistics {
        time_zone: control.schedule.zone().name(),
        day: date(today),
        accounts: AccountCounts {
            users: accounts.users,
            active_users: accounts.active_users,
            staff: accounts.staff,
            admins: accounts.admins,
            keys: accounts.keys,
        },
        today: since(today),
        last_7_days: since(today - 6),
        last_30_days: since(first),
        top_models: few("model", &ask(By::Model).await?),
        top_users: few("user", &ask(By::User).await?),
        outcomes: few("outcome", &ask(By::Outcome).await?),
    }))
}

/// One group's sums, under its name; a day's name is its date.
fn named(group: &str, usage: &Usage) -> Group {
    let name = match usage.name.parse() {
        Ok(day) if group == "day" => date(day),
        _ => usage.name.clone(),
    };
    Group { name: Map::from_iter([(group.to_owned(), Value::String(name))]), sums: Sums::of(usage) }
}

/// The date of a day's number.
pub fn date(day: i64) -> String {
    let date = NaiveDate::default().checked_add_signed(TimeDelta::try_days(day).unwrap_or_default());
    date.unwrap_or_default().format("%F").to_string()
}

// === impl Sums ===

impl Sums {
    fn of(usage: &Usage) -> Self {
        Self {
            average_latency_ms: usage.latency_ms / usage.requests.max(1),
            requests: usage.requests,
            conversations: usage.conversations,
            refunded: usage.refunded,
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.total_tokens,
            cached_tokens: usage.cached_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            bytes_in: usage.bytes_in,
            bytes_out: usage.bytes_out,
        }
    }
}

// === impl Control ===

impl Control {
    /// Today, in the zone of the statistics.
    fn schedule_day(&self) -> i64 {
        Window::at(self.clock.now(), self.schedule.zone()).day
    }

    /// Of these days, those that no sums are kept of yet; what waits of the log is written first.
    async fn live_days(&self, from: i64, to: i64) -> Result<Vec<Day>, Problem> {
        let (zone, today) = (self.schedule.zone(), self.schedule_day());
        let kept = usage::last_day(&self.db).await?.unwrap_or(i64::MIN);
        let first = kept.saturating_add(1).min(today).max(today - MOST_LIVE + 1).max(from);
        let days = (first..=to.min(today)).map(|day| {
            let Window { starts_at: since, resets_at: until, .. } = Window::of(day, zone);
            Day { day, since, until }
        });
        self.chatlog.flush().await;
        Ok(days.collect())
    }
}

/// The number of a date, such as `2026-10-01`.
pub(super) fn day_number(text: &str) -> Option<i64> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(date.signed_duration_since(DateTime::UNIX_EPOCH.date_naive()).num_days())
}

#[cfg(test)]
mod tests {
    use super::{date, day_number};

    #[test]
    fn a_day_is_a_date() {
        assert_eq!((date(0), date(20_727)), ("1970-01-01".to_owned(), "2026-10-01".to_owned()));
        assert_eq!(day_number("2026-10-01"), Some(20_727));
        for bad in ["", "2026-13-01", "2026-10-01T00:00:00Z", "yesterday"] {
            assert_eq!(day_number(bad), None, "{bad}");
        }
    }
}
