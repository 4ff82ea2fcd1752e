//! The books of some users at a time: what is in memory of the ledger.

use std::collections::BTreeMap;

use super::Difference;
use super::book::{Balance, Book, Counted, Held, Key, Owner};
use super::trail::Reach;
use crate::ids::UserId;
use crate::store::Tx;

/// Some users, in the order of their numbers, and everything of them.
pub(super) struct Page {
    /// The last number this page answers for.
    pub(super) reached: i64,
    owners: BTreeMap<UserId, Owner>,
    books: BTreeMap<Key, Book>,
}

#[derive(sqlx::FromRow)]
struct Kept<T> {
    user_id: UserId,
    day: Option<i64>,
    epoch: Option<i64>,
    #[sqlx(flatten)]
    rest: T,
}

const OWNERS: &str = "SELECT id, username, quota_epoch FROM users WHERE id > $1 AND id <= $2
    ORDER BY id LIMIT $3";
const BALANCES: &str = "SELECT user_id, day, epoch, allowance, granted, charged, refunded, forfeited
    FROM quota WHERE user_id > $1 AND user_id <= $2";
pub(in crate::store) const COUNTS: &str = "SELECT user_id, quota_day AS day, quota_epoch AS epoch,
        COUNT(CASE WHEN verdict = 'charged' THEN 1 END) AS charged,
        COUNT(CASE WHEN verdict = 'refunded' THEN 1 END) AS refunded
    FROM exchanges WHERE user_id > $1 AND user_id <= $2 AND verdict <> 'free'
    GROUP BY user_id, quota_day, quota_epoch";
const HELD: &str = "SELECT user_id, day, epoch, CAST(SUM(units) AS BIGINT) AS units,
        CAST(MIN(units) AS BIGINT) AS least
    FROM leases WHERE user_id > $1 AND user_id <= $2 GROUP BY user_id, day, epoch";

/// What is read for each range of users.
macro_rules! read {
    ($tx:expr, $sql:expr, $range:expr) => {{
        let (after, reached): (i64, i64) = $range;
        on!(&mut *$tx, within conn => sqlx::query_as($sql).bind(after).bind(reached).fetch_all(conn).await)?
    }};
}

// === impl Page ===

impl Page {
    /// The next `most` users after the first number and up to the second; when there are fewer, everything
    /// up to the second, so that rows of users who are not there are in some page too.
    pub(super) async fn read(tx: &mut Tx, (after, last): (i64, i64), most: i64) -> Result<Self, sqlx::Error> {
        let owners: Vec<Owner> = on!(&mut *tx, within conn => sqlx::query_as(OWNERS)
            .bind(after).bind(last).bind(most).fetch_all(conn).await)?;
        let full = i64::try_from(owners.len()).is_ok_and(|count| count >= most);
        let reached = owners.last().filter(|_| full).map_or(last, |owner| owner.id.0);
        let owners = owners.into_iter().map(|owner| (owner.id, owner)).collect();
        let mut page = Self { reached, owners, books: BTreeMap::new() };
        let balances: Vec<Kept<Balance>> = read!(tx, BALANCES, (after, reached));
        for kept in balances {
            page.book(kept.key()).balance = Some(kept.rest);
        }
        let counts: Vec<Kept<Counted>> = read!(tx, COUNTS, (after, reached));
        for kept in counts {
            page.book(kept.key()).counted = kept.rest;
        }
        let held: Vec<Kept<Held>> = read!(tx, HELD, (after, reached));
        for kept in held {
            page.book(kept.key()).held = kept.rest;
        }
        Ok(page)
    }

    /// What does not add up, by user, day and epoch.
    pub(super) fn differences(&self, reach: &Reach) -> Vec<Difference> {
        let of = |(key, book): (&Key, &Book)| book.differences(*key, self.owners.get(&key.0), reach);
        self.books.iter().flat_map(of).collect()
    }

    /// Who it is, if they are there.
    pub(super) fn owner(&self, user: UserId) -> Option<&Owner> {
        self.owners.get(&user)
    }

    /// One balance and its rows, where there is any of it.
    pub(super) fn book_of(&self, key: Key) -> Option<&Book> {
        self.books.get(&key)
    }

    /// How many users there are.
    pub(super) fn users(&self) -> usize {
        self.owners.len()
    }

    /// How much is in memory, about.
    pub(super) fn len(&self) -> usize {
        self.books.len()
    }

    /// The day of each balance, and the conversations counted for it.
    pub(super) fn balances(&self) -> impl Iterator<Item = (i64, u64)> {
        let kept = self.books.iter().filter(|(_, book)| book.balance.is_some());
        kept.filter_map(|((_, day, _), book)| Some(((*day)?, book.conversations())))
    }

    fn book(&mut self, key: Key) -> &mut Book {
        self.books.entry(key).or_default()
    }
}

// === impl Kept ===

impl<T> Kept<T> {
    fn key(&self) -> Key {
        (self.user_id, self.day, self.epoch)
    }
}
