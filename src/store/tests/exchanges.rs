//! The log, and the ledger in it.

use super::{NOW, RUN, balances, exchange, fresh, id_at, take, user};
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
    assert_eq!(exchanges::append(&world.db, RUN, &rows).await.unwrap().inserted, 2);
    for row in &rows {
        assert_eq!(exchanges::by_id(&world.db, row.id).await.unwrap().as_ref(), Some(row));
    }
    assert_eq!(exchanges::by_id(&world.db, ExchangeId::generate()).await.unwrap(), None);
    assert_eq!(exchanges::append(&world.db, RUN, &[]).await.unwrap().inserted, 0);
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
    assert_eq!(exchanges::append(&world.db, RUN, &batch).await.unwrap().inserted, 4);
    assert_eq!(columns(&world.db).await, (3, 2, 1, 1));
    assert_eq!(exchanges::append(&world.db, RUN, &batch).await.unwrap().inserted, 0);
    assert_eq!(exchanges::append(&world.db, RUN, &[one, charged(ada)]).await.unwrap().inserted, 1);
    assert_eq!(columns(&world.db).await, (3, 3, 1, 0));
}

const DAY: i64 = 24 * 60 * 60 * 1000;

/// A charged row of [`TODAY`] that began so many days before [`NOW`].
fn charged_before(user: UserId, days: i64) -> Exchange {
    let time = NOW.0 - days * DAY;
    Exchange { time: Timestamp(time), id: id_at(time), ..charged(user) }
}

async fn times(db: &Db) -> Vec<i64> {
    let all = Filter { limit: 99, ..Filter::default() };
    exchanges::list(&SlowRead::alone(db), &all).await.unwrap().rows.iter().map(|row| row.time.0).collect()
}

#[tokio::test]
async fn what_retention_removed_is_late_and_never_charged_again() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    take(&world.db, ada, TODAY, 99, 9).await.unwrap();
    let rows: Vec<Exchange> = [5, 4, 3].map(|days| charged_before(ada, days)).into();
    exchanges::append(&world.db, RUN, &rows).await.unwrap();
    assert_eq!(columns(&world.db).await, (9, 3, 0, 6));
    let before = Timestamp(rows[1].time.0 + 1);
    assert_eq!(exchanges::forget(&world.db, before, before, NOW).await.unwrap(), 2);
    // Below the mark, and perhaps never seen: that can no longer be told.
    let unseen = Exchange { id: id_at(rows[0].time.0 + 7), ..charged_before(ada, 5) };
    let fresh = charged_before(ada, 0);
    let again = [rows.clone(), vec![unseen.clone(), fresh.clone()]].concat();
    let appended = exchanges::append(&world.db, RUN, &again).await.unwrap();
    assert_eq!((appended.inserted, appended.late), (1, vec![rows[0].id, rows[1].id, unseen.id]));
    assert_eq!(columns(&world.db).await, (9, 4, 0, 5));
    assert_eq!(times(&world.db).await, [fresh.time.0, rows[2].time.0]);
}

#[tokio::test]
async fn a_row_below_the_mark_that_is_still_there_is_not_late() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    take(&world.db, ada, TODAY, 99, 9).await.unwrap();
    let old = charged_before(ada, 9);
    // Its quota day is later than what may go, as after a clock that was wrong.
    let stays = Exchange { quota_day: Some(NOW.0 / DAY), ..charged_before(ada, 10) };
    take(&world.db, ada, NOW.0 / DAY, 99, 1).await.unwrap();
    exchanges::append(&world.db, RUN, &[old.clone(), stays.clone()]).await.unwrap();
    assert_eq!(exchanges::forget(&world.db, NOW, NOW, NOW).await.unwrap(), 1);
    let appended = exchanges::append(&world.db, RUN, &[stays, old.clone()]).await.unwrap();
    assert_eq!(appended, exchanges::Appended { inserted: 0, late: vec![old.id] });
}

#[tokio::test]
async fn rows_of_the_last_two_utc_days_stay_whatever_is_configured() {
    let world = fresh().await;
    let midnight = NOW.0.div_euclid(DAY) * DAY;
    let instants = [midnight - DAY - 1, midnight - DAY, midnight - 1, midnight, NOW.0];
    exchanges::append(&world.db, RUN, &instants.map(exchange)).await.unwrap();
    let later = Timestamp(NOW.0 + 900 * DAY);
    for retained in [NOW, later, Timestamp(i64::MAX)] {
        let _ = exchanges::forget(&world.db, NOW, retained, NOW).await.unwrap();
        assert_eq!(times(&world.db).await, [NOW.0, midnight, midnight - 1, midnight - DAY]);
    }
}

#[tokio::test]
async fn a_mark_is_never_ahead_of_what_was_removed() {
    let world = fresh().await;
    let row = |time: i64, named: i64| Exchange { id: id_at(named), ..exchange(time) };
    // The clock was a year ahead for a moment, and was set back.
    let ahead = NOW.0 + 365 * DAY;
    let rows = [row(NOW.0 - 9 * DAY, NOW.0 - 9 * DAY), row(NOW.0 - 8 * DAY, ahead), row(ahead, ahead + 1)];
    exchanges::append(&world.db, RUN, &rows).await.unwrap();
    assert_eq!(exchanges::forget(&world.db, NOW, NOW, NOW).await.unwrap(), 1);
    // And retention ran while it was: today's records are still taken.
    let today = exchange(NOW.0);
    assert_eq!(exchanges::append(&world.db, RUN, &[today]).await.unwrap().inserted, 1);
    let then = Timestamp(ahead - DAY);
    assert_eq!(exchanges::forget(&world.db, then, then, then).await.unwrap(), 1);
    let next = exchange(NOW.0 + 1);
    assert_eq!(exchanges::append(&world.db, RUN, &[next]).await.unwrap().inserted, 1);
}

#[tokio::test]
async fn removing_and_replaying_at_once_never_charges_twice() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    take(&world.db, ada, TODAY, 999, 400).await.unwrap();
    for round in 0..20 {
        let rows: Vec<Exchange> = (0..20).map(|_| charged_before(ada, 30 - round)).collect();
        exchanges::append(&world.db, RUN, &rows).await.unwrap();
        let replay = || exchanges::append(&world.db, RUN, &rows);
        let (one, gone, two) = tokio::join!(replay(), exchanges::forget(&world.db, NOW, NOW, NOW), replay());
        let inserted = one.unwrap().inserted + two.unwrap().inserted;
        assert_eq!((inserted, gone.unwrap()), (0, 20), "round {round}");
    }
    assert_eq!(columns(&world.db).await, (400, 400, 0, 0));
}

#[tokio::test]
async fn a_batch_of_any_size_and_with_anything_in_it_is_written() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    take(&world.db, ada, TODAY, 9000, 1201).await.unwrap();
    let mut rows: Vec<Exchange> = (0..1200).map(|_| charged(ada)).collect();
    let odd = Exchange { model: "gpt\0".into(), answer: Some("x".repeat(5 << 20)), ..charged(ada) };
    rows.insert(7, odd.clone());
    assert_eq!(exchanges::append(&world.db, RUN, &rows).await.unwrap().inserted, 1201);
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
