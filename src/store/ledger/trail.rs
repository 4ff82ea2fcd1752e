//! What the audit trail explains of the ledger: rows that were removed on purpose, and when.

use serde_json::{Value, json};

use super::page::Page;
use super::{Difference, What};
use crate::clock::Timestamp;
use crate::ids::{ExchangeId, UserId};
use crate::store::{Db, StoreError, Tx, audit, quota};

/// What is left to hold balances against.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Reach {
    /// The first day of which the log has every row; `None`: it has forgotten nothing.
    pub(super) first_day: Option<i64>,
    /// The first day of which every balance is kept.
    first_balance: i64,
    /// The last day that is over in every zone.
    last_over: i64,
}

/// The trail, asked only about what does not add up.
#[derive(Default)]
pub(super) struct Trail {
    /// The last user asked for, and the epoch they came back with.
    came_back: Option<(UserId, Option<i64>)>,
}

const DAY: i64 = 24 * 60 * 60 * 1000;
const HOUR: i64 = 60 * 60 * 1000;
/// How far zones are from UTC: to the east, where a day begins first, and to the west, where it ends last.
const EASTERNMOST: i64 = 14 * HOUR;
const WESTERNMOST: i64 = 12 * HOUR;
/// The job that prunes counts days in its own zone, by its own clock.
const PRUNED_EARLY: i64 = 2;

/// Under what the trail keeps that rows of the log were removed.
const REMOVAL: (&str, &str) = ("message_log.forget", "message log");

const EXPIRED: &str = "SELECT COUNT(*) FROM (SELECT id FROM exchanges
    WHERE time < $1 AND id < $2 AND (quota_day IS NULL OR quota_day <= $3) LIMIT 1) AS expired";

/// Which rows of the log are about to be removed: those that began before an instant, by their time and by
/// their name, and are of no later quota day than this.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Removal {
    pub(in crate::store) before: Timestamp,
    pub(in crate::store) last_day: i64,
}

/// Records that rows of the log from before this instant are about to be removed, if there are any, and
/// answers which: those of a later day have to stay, though they began before, as they do when a body comes
/// in over midnight or a clock was wrong. What is removed without this record shows as a difference.
///
/// # Errors
/// [`StoreError`], when it was not recorded; then nothing may be removed.
pub(in crate::store) async fn announce_removal(
    db: &Db,
    before: Timestamp,
    now: Timestamp,
) -> Result<Option<Removal>, StoreError> {
    let last_day = before.0.saturating_add(EASTERNMOST).div_euclid(DAY);
    let expired: i64 = on!(db, read pool => sqlx::query_scalar(EXPIRED)
        .bind(before).bind(ExchangeId::first_at(before.0)).bind(last_day).fetch_one(pool).await)?;
    if expired == 0 {
        return Ok(None);
    }
    let (action, target) = REMOVAL;
    let entry = audit::Entry {
        actor: audit::Actor::System,
        actor_name: "tollgate".to_owned(),
        action,
        target: target.to_owned(),
        detail: json!({ "before": before, "last_day": last_day }),
        request_id: String::new(),
        client_ip: None,
        at: now,
    };
    audit::record(db, &entry).await?;
    Ok(Some(Removal { before, last_day }))
}

const DETAILS: &str = "SELECT detail FROM audit WHERE target = $1 AND action = $2";

// === impl Reach ===

impl Reach {
    /// As it is in this snapshot.
    pub(super) async fn read(tx: &mut Tx, now: Timestamp) -> Result<Self, sqlx::Error> {
        let (action, target) = REMOVAL;
        let removed = details(tx, target, action).await?;
        let last_day = removed.iter().filter_map(|detail| detail.get("last_day")?.as_i64()).max();
        let today = now.0.div_euclid(DAY);
        let first_balance = today - quota::KEPT_DAYS + PRUNED_EARLY;
        let last_over = now.0.saturating_sub(WESTERNMOST).div_euclid(DAY) - 1;
        Ok(Self { first_day: last_day.map(|day| day.saturating_add(1)), first_balance, last_over })
    }

    /// Whether the log has forgotten nothing of a day.
    pub(super) fn has_every_row_of(&self, day: i64) -> bool {
        self.first_day.is_none_or(|first| day >= first)
    }

    /// Whether a day is over, whatever the zone it is counted in.
    pub(super) fn is_over(&self, day: i64) -> bool {
        day <= self.last_over
    }

    /// Whether no balance of a day was pruned.
    pub(super) fn has_every_balance_of(&self, day: i64) -> bool {
        day >= self.first_balance
    }
}

// === impl Trail ===

const MOVED: &str = "SELECT COUNT(*) FROM audit WHERE target = $1 AND action = 'user.update'
    AND at >= $2 AND at < $3 AND detail LIKE '%\"subscription_plan\"%'";

impl Trail {
    /// Whether this is as it should be after all: an allowance was lowered with the user's plan, or a
    /// balance went when its user was deleted, who then came back.
    pub(super) async fn explains(
        &mut self,
        tx: &mut Tx,
        page: &Page,
        difference: &Difference,
    ) -> Result<bool, sqlx::Error> {
        let Some(owner) = page.owner(difference.user) else { return Ok(false) };
        match (difference.what, difference.day, difference.epoch) {
            (What::AboveAllowance, Some(day), _) => {
                let begins = day.saturating_mul(DAY);
                let (since, until) = (begins - EASTERNMOST, begins + DAY + WESTERNMOST);
                let moved: i64 = on!(tx, within conn => sqlx::query_scalar(MOVED)
                    .bind(&owner.username).bind(since).bind(until).fetch_one(conn).await)?;
                Ok(moved > 0)
            }
            (What::ChargedWithoutBalance | What::RefundedWithoutBalance, Some(_), Some(epoch)) => {
                let back = self.came_back(tx, owner.id, &owner.username).await?;
                Ok(back.is_some_and(|first| epoch < first))
            }
            _ => Ok(false),
        }
    }

    /// The first epoch of a user who was deleted and restored, the last time they were.
    async fn came_back(
        &mut self,
        tx: &mut Tx,
        user: UserId,
        username: &str,
    ) -> Result<Option<i64>, sqlx::Error> {
        if let Some((_, known)) = self.came_back.filter(|(of, _)| *of == user) {
            return Ok(known);
        }
        let restored = details(tx, username, "user.restore").await?;
        let theirs = restored.iter().filter(|detail| detail["user_id"].as_i64() == Some(user.0));
        let epoch = theirs.filter_map(|detail| detail["quota_epoch"].as_i64()).max();
        self.came_back = Some((user, epoch));
        Ok(epoch)
    }
}

async fn details(tx: &mut Tx, target: &str, action: &str) -> Result<Vec<Value>, sqlx::Error> {
    let texts: Vec<String> = on!(tx, within conn => sqlx::query_scalar(DETAILS)
        .bind(target).bind(action).fetch_all(conn).await)?;
    Ok(texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect())
}
