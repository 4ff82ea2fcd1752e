//! `/api/v1/admin/ledger`: whether the balances are right, and what somebody's day went to.
//!
//! Everything answered before a call is in its answer. A walk through the whole ledger ends after
//! [`PATIENCE`]; on a database that takes longer the answer says where to go on.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::json;

use super::Control;
use super::caller::{AdminSession, Origin};
use super::openapi::refused;
use super::openapi::words::{Date, Pages, RowNumber, SearchWord, Username};
use super::paging::Params;
use super::paths::Path;
use super::problem::Problem;
use super::slow_reads::SlowTurn;
use crate::ids::UserId;
use crate::quota::Window;
use crate::store::ledger::{self, Asked, Question};

mod report;
mod words;

pub use report::{DayReport, LedgerDifference, LedgerEpoch, LedgerLine, LedgerReport, Whose};

/// How long one walk may hold a connection.
const PATIENCE: Duration = Duration::from_secs(20);

/// Computes every balance again, and tells what does not add up.
///
/// Or those of one user. One walk at a time, for twenty seconds at most: where it did not come to its end, the
/// answer names where to go on.
#[utoipa::path(
    get,
    path = "/api/v1/admin/ledger/verify",
    tag = "Admin: operation",
    params(
        ("username" = Option<SearchWord>, Query, description = "Only this user's."),
        ("after" = Option<RowNumber>, Query, description = "Go on behind this user: the `next` of the answer before."),
    ),
    responses(
        (status = 200, description = "What was found.", body = LedgerReport),
        refused::NotFound, refused::Busy,
    ),
)]
pub(super) async fn verify_ledger(
    State(control): State<Arc<Control>>,
    _: AdminSession,
    SlowTurn(reads): SlowTurn,
    params: Params,
) -> Result<Json<LedgerReport>, Problem> {
    params.only(&["username", "after"])?;
    let only = match params.word("username")? {
        Some(username) => Some(control.user_named(&username).await?.id),
        None => None,
    };
    let after = params.word("after")?.map(|text| text.parse().map(UserId)).transpose();
    let after = after.map_err(|_| params.refuse("after", "Input should be the number of a user"))?;
    let _walking = control.verifying.try_acquire().map_err(|_| Problem::Busy("a walk is under way"))?;
    control.settle_log().await;
    let question = Question { only, after, patience: Some(PATIENCE), now: control.clock.now() };
    Ok(Json(LedgerReport::of(&ledger::verify(&reads, &question).await?)))
}

/// Tells what became of each conversation of a user's day.
///
/// And of the day itself. That it was read is recorded.
#[utoipa::path(
    get,
    path = "/api/v1/admin/ledger/{username}",
    tag = "Admin: operation",
    params(
        ("username" = inline(Username), Path, description = "Whose day."),
        ("day" = Option<Date>, Query, description = "Which day; today without it."),
        Pages,
    ),
    responses((status = 200, description = "The day.", body = DayReport), refused::NotFound),
)]
pub(super) async fn explain_ledger(
    State(control): State<Arc<Control>>,
    (AdminSession(admin), SlowTurn(reads)): (AdminSession, SlowTurn),
    origin: Origin,
    Path(username): Path<String>,
    params: Params,
) -> Result<Json<DayReport>, Problem> {
    params.only(&["day", "limit", "offset"])?;
    let page = params.page()?;
    let day = params.date("day")?;
    let user = control.user_named(&username).await?;
    let zone = control.allowance(&user).zone;
    let window = day.map_or_else(|| control.quota.today(zone), |day| Window::of(day, zone));
    let whose = Whose { user: user.id, username: user.username, zone, window };
    let detail = json!({ "ledger_of": whose.date(), "limit": page.limit, "offset": page.offset });
    control.note_log_read(&admin, &origin, &whose.username, detail).await?;
    control.settle_log().await;
    let asked = Asked {
        user: whose.user,
        day: window.day,
        between: (window.starts_at, window.resets_at),
        page: (page.limit, page.offset),
        patience: Some(PATIENCE),
        now: control.clock.now(),
    };
    let told = ledger::explain(&reads, &asked).await?;
    Ok(Json(DayReport::of(whose, told)))
}

// === impl Control ===

impl Control {
    /// Waits for what was answered before, so that it is in the database.
    async fn settle_log(&self) {
        self.chatlog.flush().await;
    }
}
