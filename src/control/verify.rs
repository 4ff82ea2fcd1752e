//! `POST /api/v1/auth/verify-key`: an app that is not behind the gate asks whether a key is good,
//! and takes one conversation for it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Control;
use super::caller::{KeyHolder, Origin};
use super::messages::own_row;
use super::openapi::refused;
use super::pace::Day;
use super::problem::Problem;
use crate::clock::Timestamp;
use crate::identity::Subject;
use crate::quota::{QuotaError, Verdict};
use crate::store::exchanges::{self, Exchange};

/// Who the key belongs to, and what is left.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "valid": true, "username": "ann_lee", "email": "ann@example.com", "remaining_conversations": 49,
}))]
struct Verified<'s> {
    /// Always true; otherwise the answer is a problem.
    valid: bool,
    username: &'s str,
    email: &'s str,
    /// What is left of the day after this one.
    remaining_conversations: i64,
}

/// Checks a key, and takes one conversation for it.
///
/// For apps that are not behind the gateway. The conversation is recorded before the answer.
#[utoipa::path(
    post,
    path = "/api/v1/auth/verify-key",
    tag = "Apps",
    responses(
        (status = 200, description = "The key is good, and one conversation is taken.", body = Verified),
        refused::AmbiguousKey, refused::DayUsedUp, refused::LogFull,
    ),
)]
pub(super) async fn verify_key(
    State(control): State<Arc<Control>>,
    origin: Origin,
    KeyHolder(subject): KeyHolder,
) -> Result<Response, Problem> {
    let day = charge(&control, &subject, &origin, "verify-key").await?;
    let verified = Verified {
        valid: true,
        username: &subject.username,
        email: &subject.email,
        remaining_conversations: day.left,
    };
    let mut response = Json(verified).into_response();
    day.tell(response.headers_mut());
    Ok(response)
}

/// Takes one conversation and writes its row, as `call`; how the day stands then.
pub(super) async fn charge(
    control: &Control,
    subject: &Subject,
    origin: &Origin,
    call: &str,
) -> Result<Day, Problem> {
    let reserved = control.quota.reserve(subject.user, &subject.allowance).await;
    let mut reservation = reserved.map_err(|error| used_up_or(error, origin.at))?;
    let (day, epoch) = reservation.ledger();
    let row = Exchange {
        verdict: exchanges::Verdict::Charged,
        quota_day: Some(day),
        quota_epoch: Some(epoch),
        ..own_row(&control.clock, subject, origin, call)
    };
    // Not recorded, it goes back; recorded, it is charged, also when nobody waits for the disk any more.
    let synced = control.chatlog.record(&row)?;
    let day = Day::of(reservation.limit(), reservation.left(), reservation.resets_at(), origin.at);
    reservation.dispatched();
    reservation.settle(Verdict::Charged);
    control.limits.pay_ahead(subject.user);
    if let Some(synced) = synced {
        synced.await;
    }
    Ok(day)
}

fn used_up_or(error: QuotaError, now: Timestamp) -> Problem {
    match error {
        QuotaError::UsedUp { limit, resets_at, zone } => {
            Problem::DayUsedUp { day: Day::of(limit, 0, resets_at, now), zone: zone.to_string() }
        }
        other => other.into(),
    }
}
