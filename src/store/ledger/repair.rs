//! Bringing a balance back into agreement with the rows it is made of.

use serde_json::json;

use super::book::{Balance, Book, Remedy};
use super::page::Page;
use super::trail::{Reach, Trail};
use super::{Difference, StoreError};
use crate::ids::UserId;
use crate::store::exchanges::{Lock, read_mark};
use crate::store::{Db, Tx, audit};

/// A balance that was repaired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// Whose.
    pub user: UserId,
    /// Their name, if there is such a user.
    pub username: Option<String>,
    /// Of which day.
    pub day: i64,
    /// In which epoch.
    pub epoch: i64,
    /// What was done.
    pub remedies: Vec<Remedy>,
    /// What its row was; `None`: there was none.
    pub before: Option<Balance>,
    /// What its row is; `None`: there is none.
    pub after: Option<Balance>,
}

/// Which balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BalanceKey {
    /// Whose.
    pub user: UserId,
    /// Of which day.
    pub day: i64,
    /// In which epoch.
    pub epoch: i64,
}

/// Carries out the remedies of one balance and records that, all in one transaction. What does not add up
/// is computed anew there, while other writers of the balance wait, so that it may be done beside running
/// gateways and twice. `None`: there is nothing to repair any more.
///
/// # Errors
/// [`StoreError`], when the database does not do it; then nothing was changed.
pub async fn repair(
    db: &Db,
    key: BalanceKey,
    mut entry: audit::Entry,
) -> Result<Option<Repaired>, StoreError> {
    let BalanceKey { user, day, epoch } = key;
    let mut tx = db.begin().await?;
    // In the order in which rows are appended: the mark, the balance, its leases, the audit trail.
    read_mark(&mut tx, Lock::ToInsert).await?;
    hold(&mut tx, key).await?;
    let reach = Reach::read(&mut tx, entry.at).await?;
    let page = Page::read(&mut tx, (user.0.saturating_sub(1), user.0), 1).await?;
    let Some(book) = page.book_of((user, Some(day), Some(epoch))) else { return Ok(None) };
    let remedies = remedies(&mut tx, &page, key, &reach).await?;
    if remedies.is_empty() {
        return Ok(None);
    }
    let after = book.repaired(&remedies, day, &reach);
    write(&mut tx, key, (book, after)).await?;
    let username = page.owner(user).map(|owner| owner.username.clone());
    let before = book.balance;
    entry.target = username.clone().unwrap_or_else(|| user.to_string());
    let done: Vec<&str> = remedies.iter().map(|remedy| remedy.as_str()).collect();
    entry.detail = json!({ "day": day, "epoch": epoch, "remedies": done, "before": before, "after": after });
    audit::append(&mut tx, &entry).await?;
    tx.commit().await?;
    Ok(Some(Repaired { user, username, day, epoch, remedies, before, after }))
}

const HOLD: &str = "SELECT granted FROM quota WHERE user_id = $1 AND day = $2 AND epoch = $3 FOR UPDATE";

/// Keeps other writers from the balance. With SQLite the transaction does.
async fn hold(tx: &mut Tx, key: BalanceKey) -> Result<(), sqlx::Error> {
    if let Tx::Postgres(conn) = tx {
        let BalanceKey { user, day, epoch } = key;
        sqlx::query(HOLD).bind(user).bind(day).bind(epoch).fetch_optional(&mut **conn).await?;
    }
    Ok(())
}

/// What is to be done about the balance, each once, in one order.
async fn remedies(
    tx: &mut Tx,
    page: &Page,
    key: BalanceKey,
    reach: &Reach,
) -> Result<Vec<Remedy>, sqlx::Error> {
    let (mut trail, mut remedies) = (Trail::default(), Vec::new());
    for difference in page.differences(reach) {
        let Some(remedy) = difference.remedy.filter(|_| difference.key() == Some(key)) else { continue };
        if !remedies.contains(&remedy) && !trail.explains(tx, page, &difference).await? {
            remedies.push(remedy);
        }
    }
    remedies.sort_unstable();
    Ok(remedies)
}

const UPDATE: &str = "UPDATE quota SET granted = $4, charged = $5, refunded = $6
    WHERE user_id = $1 AND day = $2 AND epoch = $3";
const INSERT: &str =
    "INSERT INTO quota (user_id, day, epoch, granted, charged, refunded, forfeited, allowance)
    VALUES ($1, $2, $3, $4, $5, $6, 0, $4)";
const DELETE: &str = "DELETE FROM quota WHERE user_id = $1 AND day = $2 AND epoch = $3";
const LET_GO: &str = "DELETE FROM leases WHERE user_id = $1 AND day = $2 AND epoch = $3";

async fn write(
    tx: &mut Tx,
    BalanceKey { user, day, epoch }: BalanceKey,
    (book, after): (&Book, Option<Balance>),
) -> Result<(), sqlx::Error> {
    let Some(Balance { granted, charged, refunded, .. }) = after else {
        for text in [LET_GO, DELETE] {
            on!(&mut *tx, within conn => sqlx::query(text).bind(user).bind(day).bind(epoch)
                .execute(conn).await.map(|_| ()))?;
        }
        return Ok(());
    };
    let text = if book.balance.is_some() { UPDATE } else { INSERT };
    on!(tx, within conn => sqlx::query(text).bind(user).bind(day).bind(epoch)
        .bind(granted).bind(charged).bind(refunded).execute(conn).await.map(|_| ()))
}

// === impl Book ===

impl Book {
    /// The balance after these remedies; `None`: none is left.
    fn repaired(&self, remedies: &[Remedy], day: i64, reach: &Reach) -> Option<Balance> {
        if remedies.contains(&Remedy::Remove) && !remedies.contains(&Remedy::Restore) {
            return None;
        }
        let mut after = self.balance.unwrap_or_default();
        let is_counted = remedies.iter().any(|remedy| matches!(remedy, Remedy::Recount | Remedy::Restore));
        if is_counted && reach.has_every_row_of(day) {
            (after.charged, after.refunded) = (self.counted.charged, self.counted.refunded);
        }
        after.granted = after.charged.saturating_add(self.held.units).saturating_add(after.forfeited);
        if self.balance.is_none() {
            after.allowance = after.granted;
        }
        Some(after)
    }
}

// === impl Difference ===

impl Difference {
    /// Which balance it is of; `None` where a row of the log names none.
    #[must_use]
    pub fn key(&self) -> Option<BalanceKey> {
        Some(BalanceKey { user: self.user, day: self.day?, epoch: self.epoch? })
    }
}
