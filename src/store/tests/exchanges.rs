//! The log, and the ledger in it.

use super::{RUN, balances, exchange, fresh, take, user};
use crate::clock::Timestamp;
use crate::ids::{ExchangeId, UserId};
use crate::store::SlowRead;
use crate::store::exchanges::{self, Exchange, Filter, Verdict};
use crate::store::{Db, StoreError};

const TODAY: i64 = 20_000;

fn charged(user: UserId) -> Exchange {
    Exchange {
        user_id: Some(user),
        verdict: Verdict::Charged,
        quota_day: Some(TODAY),
        quota_epoch: Some(0),
        ..exchange(1)
    }
}

async fn columns(db: &Db) -> (i64, i64, i64, i64) {
    let row = balances(db).await.remove(0);
    (row.granted, row.charged, row.refunded, row.held)
}

#[tokio::test]
async fn a_row_reads_as_it_was_written() {
    let world = fresh().await;
    let user = user(&world.db, "ada").await;
    let full = Exchange { messages: None, answer: None, status: None, truncated: true, ..charged(user) };
    let rows = [exchange(1), full];
    assert_eq!(exchanges::append(&world.db, RUN, &rows).await.unwrap(), 2);
    for row in &rows {
        assert_eq!(exchanges::by_id(&world.db, row.id).await.unwrap().as_ref(), Some(row));
    }
    assert_eq!(exchanges::by_id(&world.db, ExchangeId::generate()).await.unwrap(), None);
    assert_eq!(exchanges::append(&world.db, RUN, &[]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_replayed_batch_is_inserted_once_and_charged_once() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    take(&world.db, ada, TODAY, 9, 3).await.unwrap();
    let one = charged(ada);
    let free = Exchange { verdict: Verdict::Free, ..charged(ada) };
    let refunded = Exchange { verdict: Verdict::Refunded, ..charged(ada) };
    let batch = [one.clone(), free, refunded, one.clone(), charged(ada)];
    assert_eq!(exchanges::append(&world.db, RUN, &batch).await.unwrap(), 4);
    assert_eq!(columns(&world.db).await, (3, 2, 1, 1));
    assert_eq!(exchanges::append(&world.db, RUN, &batch).await.unwrap(), 0);
    assert_eq!(exchanges::append(&world.db, RUN, &[one, charged(ada)]).await.unwrap(), 1);
    assert_eq!(columns(&world.db).await, (3, 3, 1, 0));
}

#[tokio::test]
async fn a_batch_of_any_size_and_with_anything_in_it_is_written() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    take(&world.db, ada, TODAY, 9000, 1201).await.unwrap();
    let mut rows: Vec<Exchange> = (0..1200).map(|_| charged(ada)).collect();
    let odd = Exchange { model: "gpt\0".into(), answer: Some("x".repeat(5 << 20)), ..charged(ada) };
    rows.insert(7, odd.clone());
    assert_eq!(exchanges::append(&world.db, RUN, &rows).await.unwrap(), 1201);
    assert_eq!(columns(&world.db).await, (1201, 1201, 0, 0));
    let read = exchanges::by_id(&world.db, odd.id).await.unwrap().unwrap();
    assert_eq!((read.model.as_str(), read.answer), ("gpt\u{fffd}", odd.answer));
}

#[tokio::test]
async fn exchanges_are_listed_newest_first_and_by_what_is_asked() {
    let world = fresh().await;
    let bob = Exchange { username: "bob".into(), model: "claude".into(), ..exchange(30) };
    let rows = [exchange(10), bob, exchange(20), exchange(40)];
    exchanges::append(&world.db, RUN, &rows).await.unwrap();
    let ask = async |filter: Filter| {
        let page = exchanges::list(&SlowRead::alone(&world.db), &filter).await.unwrap();
        (page.rows.iter().map(|row| row.time.0).collect::<Vec<_>>(), page.total)
    };
    let all = Filter { limit: 9, ..Filter::default() };
    assert_eq!(ask(all.clone()).await, (vec![40, 30, 20, 10], 4));
    assert_eq!(ask(Filter { limit: 2, offset: 1, ..Filter::default() }).await, (vec![30, 20], 4));
    assert_eq!(ask(Filter { username: Some("bob".into()), ..all.clone() }).await, (vec![30], 1));
    assert_eq!(ask(Filter { model: Some("gpt-4o".into()), ..all.clone() }).await, (vec![40, 20, 10], 3));
    let between = Filter { since: Some(Timestamp(20)), until: Some(Timestamp(40)), ..all.clone() };
    assert_eq!(ask(between).await, (vec![30, 20], 2));
    assert_eq!(ask(Filter { username: Some("a\0' OR 1=1 --".into()), ..all }).await, (vec![], 0));
}

#[tokio::test]
async fn a_row_that_nobody_here_wrote_is_damage() {
    let world = fresh().await;
    let row = exchange(1);
    exchanges::append(&world.db, RUN, std::slice::from_ref(&row)).await.unwrap();
    on!(&world.db, write pool => sqlx::query("UPDATE exchanges SET verdict = 'maybe'").execute(pool).await.map(|_| ()))
        .unwrap();
    let read = exchanges::by_id(&world.db, row.id).await;
    assert!(matches!(read, Err(StoreError::Damaged { .. })), "{read:?}");
}
