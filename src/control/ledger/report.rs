//! The ledger as it is told: by the API, and by the commands that ask the database themselves.

use chrono_tz::Tz;
use serde::Serialize;
use utoipa::ToSchema;

use super::words::why;
use crate::clock::Timestamp;
use crate::control::usage::date;
use crate::ids::{ExchangeId, UserId};
use crate::quota::Window;
use crate::store::ledger::{Day, Difference, Epoch, Line, Remedy, Verified};

/// What a walk through the ledger found.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "ok": true, "complete": true, "next": null, "users": 3, "balances": 40, "out_of_reach": 0,
    "conversations": 812, "first_day": null, "total": 0, "differences": [],
}))]
pub struct LedgerReport {
    /// Everything was looked at, and adds up.
    pub ok: bool,
    /// Whether the walk came to its end.
    pub complete: bool,
    /// Where it did not: what to ask for as `after` next.
    #[schema(required = true)]
    pub next: Option<String>,
    /// Users who were looked at.
    pub users: u64,
    /// Balances that were looked at: one for each user, day and epoch.
    pub balances: u64,
    /// Of them, those whose rows the log has forgotten, so that they could not be counted again.
    pub out_of_reach: u64,
    /// Rows of the log that were counted.
    pub conversations: u64,
    /// The first day of which the log has every row; `null`: it has forgotten nothing.
    #[schema(required = true)]
    pub first_day: Option<String>,
    /// How many differences there are.
    pub total: u64,
    /// The first thousand of them.
    pub differences: Vec<LedgerDifference>,
}

/// Something that does not add up.
#[derive(Debug, Serialize, ToSchema)]
pub struct LedgerDifference {
    /// Whose.
    pub user_id: String,
    /// Their name, if there is such a user.
    #[schema(required = true)]
    pub username: Option<String>,
    /// A date; `null` where a row of the log names none.
    #[schema(required = true)]
    pub day: Option<String>,
    /// Likewise.
    #[schema(required = true)]
    pub epoch: Option<i64>,
    /// What does not add up, in one word.
    pub what: &'static str,
    /// What it should be, by the rows.
    pub expected: i64,
    /// What it is.
    pub found: i64,
    /// What `tollgate ledger repair` does about it: `recount`, `regrant`, `restore` or `remove`; `null`: there
    /// is no remedy.
    #[schema(required = true)]
    pub remedy: Option<&'static str>,
}

/// Whose day is told.
#[derive(Clone, Debug)]
pub struct Whose {
    /// Their number.
    pub user: UserId,
    /// Their name.
    pub username: String,
    /// Where the day is counted.
    pub zone: Tz,
    /// The day.
    pub window: Window,
}

/// A user's day: what became of each conversation, and what the allowance went to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LedgerDay, example = json!({
    "ok": true, "user_id": "1", "username": "ann_lee", "day": "2026-10-01", "time_zone": "UTC",
    "begins_at": "2026-10-01T00:00:00Z", "ends_at": "2026-10-02T00:00:00Z", "total": 1,
    "conversations": [{
        "time": "2026-10-01T09:30:00Z", "id": "0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
        "request_id": "req_0190f3a2c4d07e51", "call": "chat", "model": "gpt-4o", "status": 200,
        "outcome": "complete", "verdict": "charged", "reason": "complete", "why": "answered to the end",
        "epoch": 1, "left": 49,
    }],
    "epochs": [{
        "epoch": 1, "live": true, "allowance": 50, "charged": 1, "held": 0, "forfeited": 0, "left": 49, "refunded": 0,
    }],
    "differences": [],
}))]
pub struct DayReport {
    /// Whether the day adds up.
    pub ok: bool,
    /// Whose.
    pub user_id: String,
    /// Their name.
    pub username: String,
    /// A date in `time_zone`.
    pub day: String,
    /// Where the day is counted.
    pub time_zone: &'static str,
    /// Its first instant.
    pub begins_at: Timestamp,
    /// The first of the next.
    pub ends_at: Timestamp,
    /// How many conversations there are, on all pages.
    pub total: i64,
    /// A page of them, in the order they began.
    pub conversations: Vec<LedgerLine>,
    /// The day's balances, one for each epoch.
    pub epochs: Vec<LedgerEpoch>,
    /// What of the day does not add up.
    pub differences: Vec<LedgerDifference>,
}

/// One conversation.
#[derive(Debug, Serialize, ToSchema)]
pub struct LedgerLine {
    /// When it began.
    pub time: Timestamp,
    /// Its row of the message log.
    #[schema(value_type = String, format = "uuid")]
    pub id: ExchangeId,
    /// The request it came by.
    pub request_id: String,
    /// What kind of call it was.
    pub call: String,
    /// The model that was asked for.
    pub model: String,
    /// The answer's HTTP status.
    #[schema(required = true)]
    pub status: Option<i64>,
    /// How it ended.
    pub outcome: String,
    /// `charged`, `refunded` or `free`.
    pub verdict: &'static str,
    /// Why, in one word.
    pub reason: String,
    /// Why, in words.
    pub why: String,
    /// The epoch it belongs to; `null` when it cost nothing.
    #[schema(required = true)]
    pub epoch: Option<i64>,
    /// The epoch's allowance less what was charged of it up to here; `null` likewise.
    #[schema(required = true)]
    pub left: Option<i64>,
}

/// One balance: `allowance = charged + held + forfeited + left`.
#[derive(Debug, Serialize, ToSchema)]
pub struct LedgerEpoch {
    /// Which; another begins when somebody sets what is left, or resets all limits.
    pub epoch: i64,
    /// Whether it is the present one.
    pub live: bool,
    /// Conversations of the day.
    pub allowance: i64,
    /// Used.
    pub charged: i64,
    /// Held by running gateways: kept ready, in use, or used and not yet written.
    pub held: i64,
    /// Lost with a gateway that never came back, or used that day by a deleted account of the same name.
    pub forfeited: i64,
    /// Not given out.
    pub left: i64,
    /// Conversations that were given back, and so are in none of the above.
    pub refunded: i64,
}

// === impl LedgerReport ===

impl LedgerReport {
    /// Of what was found.
    #[must_use]
    pub fn of(found: &Verified) -> Self {
        let complete = found.stopped_after.is_none();
        Self {
            ok: complete && found.holds(),
            complete,
            next: found.stopped_after.map(|user| user.to_string()),
            users: found.users,
            balances: found.balances,
            out_of_reach: found.out_of_reach,
            conversations: found.conversations,
            first_day: found.first_day.map(date),
            total: found.total,
            differences: found.differences.iter().map(LedgerDifference::of).collect(),
        }
    }
}

// === impl LedgerDifference ===

impl LedgerDifference {
    fn of(difference: &Difference) -> Self {
        Self {
            user_id: difference.user.to_string(),
            username: difference.username.clone(),
            day: difference.day.map(date),
            epoch: difference.epoch,
            what: difference.what.as_str(),
            expected: difference.expected,
            found: difference.found,
            remedy: difference.remedy.map(Remedy::as_str),
        }
    }
}

// === impl Whose ===

impl Whose {
    /// The day's date.
    #[must_use]
    pub fn date(&self) -> String {
        date(self.window.day)
    }
}

// === impl DayReport ===

impl DayReport {
    /// Of what is in the database of it.
    #[must_use]
    pub fn of(whose: Whose, told: Day) -> Self {
        let allowance = |epoch: i64| told.epochs.iter().find(|of| of.epoch == epoch).map(|of| of.allowance);
        let line = |line: Line| {
            let left = line.epoch.and_then(allowance).map(|allowance| allowance - line.charged);
            LedgerLine::of(line, left)
        };
        Self {
            ok: told.differences.is_empty(),
            user_id: whose.user.to_string(),
            day: whose.date(),
            time_zone: whose.zone.name(),
            begins_at: whose.window.starts_at,
            ends_at: whose.window.resets_at,
            username: whose.username,
            total: told.total,
            conversations: told.lines.into_iter().map(line).collect(),
            epochs: told.epochs.iter().map(LedgerEpoch::of).collect(),
            differences: told.differences.iter().map(LedgerDifference::of).collect(),
        }
    }
}

// === impl LedgerLine ===

impl LedgerLine {
    fn of(line: Line, left: Option<i64>) -> Self {
        Self {
            time: line.time,
            id: line.id,
            request_id: line.request_id,
            call: line.call,
            model: line.model,
            status: line.status,
            outcome: line.outcome,
            verdict: line.verdict.as_str(),
            why: why(line.verdict, &line.reason),
            reason: line.reason,
            epoch: line.epoch,
            left,
        }
    }
}

// === impl LedgerEpoch ===

impl LedgerEpoch {
    fn of(epoch: &Epoch) -> Self {
        Self {
            epoch: epoch.epoch,
            live: epoch.live,
            allowance: epoch.allowance,
            charged: epoch.charged,
            held: epoch.held,
            forfeited: epoch.forfeited,
            left: epoch.left(),
            refunded: epoch.refunded,
        }
    }
}
