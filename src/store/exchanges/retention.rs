//! Retention: removes expired texts and expired rows, and keeps a mark below which no row is inserted again.
//!
//! A row that is removed is a charge that can no longer be seen. If its record came back (a spool that is
//! restored from a copy), inserting it would charge a second time. So the mark, the highest name that was
//! ever removed, moves in the transaction that removes, and [`append`](super::append) reads it in the
//! transaction that inserts.

use crate::clock::Timestamp;
use crate::ids::ExchangeId;
use crate::store::ledger::trail::{Removal, announce_removal};
use crate::store::{Db, StoreError, Tx};

const DAY: i64 = 24 * 60 * 60 * 1000;

const FORGET_CONTENT: &str = "UPDATE exchanges SET messages = NULL, answer = NULL \
     WHERE id IN (SELECT id FROM exchanges WHERE time < $1 AND (messages IS NOT NULL OR answer IS NOT NULL) LIMIT 1000)";
const FORGET_ROWS: &str = "DELETE FROM exchanges WHERE id IN (SELECT id FROM exchanges
    WHERE time < $1 AND id < $2 AND (quota_day IS NULL OR quota_day <= $3) LIMIT 1000) RETURNING id";

/// Removes texts from before `content`, and whole rows from before `rows`, a thousand in one transaction, so
/// that other writers never wait long. Rows of the present UTC day and of the one before stay, whatever
/// `rows` says. The removal of rows is recorded in the audit trail first, because the ledger has to know
/// of it. Answers how many rows were removed.
///
/// A row is expired by its time and by its name, which are of one instant unless a clock was wrong: then
/// the row stays until both are in the past, lest the mark be ahead of records that are still to come.
///
/// # Errors
/// [`StoreError`]: some may be gone, the rest is there for the next time.
pub async fn forget(db: &Db, content: Timestamp, rows: Timestamp, now: Timestamp) -> Result<u64, StoreError> {
    while forget_content(db, content).await? > 0 {}
    let before = rows.min(first_kept(now));
    let Some(removal) = announce_removal(db, before, now).await? else { return Ok(0) };
    let mut gone = 0;
    loop {
        match remove(db, &removal).await? {
            0 => return Ok(gone),
            some => gone += some,
        }
    }
}

/// The first instant of the UTC day before this one.
fn first_kept(now: Timestamp) -> Timestamp {
    Timestamp(now.0.div_euclid(DAY).saturating_sub(1).saturating_mul(DAY))
}

async fn forget_content(db: &Db, before: Timestamp) -> Result<u64, StoreError> {
    Ok(on!(db, write pool => sqlx::query(FORGET_CONTENT).bind(before)
        .execute(pool).await.map(|done| done.rows_affected()))?)
}

/// The mark is locked before any row is, as in [`append`](super::append): the other order could deadlock.
async fn remove(db: &Db, removal: &Removal) -> Result<u64, StoreError> {
    let mut tx = db.begin().await?;
    let mark = read_mark(&mut tx, Lock::ToMove).await?;
    let removed: Vec<ExchangeId> = on!(&mut tx, within conn => sqlx::query_scalar(FORGET_ROWS)
        .bind(removal.before).bind(ExchangeId::first_at(removal.before.0)).bind(removal.last_day)
        .fetch_all(conn).await)?;
    let Some(highest) = removed.iter().max().filter(|highest| **highest > mark) else {
        tx.commit().await?;
        return Ok(removed.len() as u64);
    };
    on!(&mut tx, within conn => sqlx::query(MOVE_MARK).bind(highest).execute(conn).await.map(|_| ()))?;
    tx.commit().await?;
    Ok(removed.len() as u64)
}

const MARK: &str = "SELECT highest FROM log_removed WHERE one = 1";
const MARK_TO_HOLD: &str = "SELECT highest FROM log_removed WHERE one = 1 FOR SHARE";
const MARK_TO_MOVE: &str = "SELECT highest FROM log_removed WHERE one = 1 FOR UPDATE";
const MOVE_MARK: &str = "UPDATE log_removed SET highest = $1 WHERE one = 1";

/// What a transaction is going to do after it read the mark.
#[derive(Clone, Copy)]
pub(in crate::store) enum Lock {
    /// Insert rows: the mark stays where it is until the transaction ends. Others may insert too.
    ToInsert,
    /// Remove rows and move the mark.
    ToMove,
}

/// The highest name of a row that was ever removed. SQLite has one writer at a time and needs no lock.
pub(in crate::store) async fn read_mark(tx: &mut Tx, lock: Lock) -> Result<ExchangeId, sqlx::Error> {
    let text = match (&*tx, lock) {
        (Tx::Sqlite(_), _) => MARK,
        (Tx::Postgres(_), Lock::ToInsert) => MARK_TO_HOLD,
        (Tx::Postgres(_), Lock::ToMove) => MARK_TO_MOVE,
    };
    on!(tx, within conn => sqlx::query_scalar(text).fetch_one(conn).await)
}
