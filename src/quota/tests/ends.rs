//! How reservations end, and who waits for one in vain.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::poll;

use super::{Day, QuotaError, Verdict, balances, is_used_up};
use crate::store::StoreError;

#[tokio::test]
async fn what_is_refunded_is_there_for_whoever_asks_next() {
    let mut day = Day::of(1).await;
    for _ in 0..5 {
        assert_eq!(day.converse(Verdict::Refunded).await, Ok(Verdict::Refunded));
    }
    assert_eq!((day.left().await, day.used().await), (1, 0));
    assert_eq!(day.node.metrics.grants.get(), 1, "it never left the house");
    day.node.drain().await;
    let row = balances(&day.database.db).await.remove(0);
    assert_eq!((row.granted, row.refunded, row.charged), (1, 5, 0));
}

#[tokio::test]
async fn what_is_refunded_is_nobodys_until_its_row_is_recorded() {
    let day = Day::of(1).await;
    let mut failed = day.reserve().await.unwrap();
    failed.dispatched();
    assert_eq!(failed.settle(Verdict::Refunded), Verdict::Refunded);
    assert_eq!(failed.settle(Verdict::Charged), Verdict::Refunded, "it is settled once");
    assert!(is_used_up(&day.reserve().await));
    drop(failed);
    assert!(day.reserve().await.is_ok());
}

#[tokio::test]
async fn failures_cannot_be_farmed() {
    for (limit, most) in [(2, 5), (10, 5), (40, 20)] {
        let mut day = Day::of(limit).await;
        let (mut refunded, mut charged) = (0, 0);
        loop {
            match day.converse(Verdict::Refunded).await {
                Ok(Verdict::Refunded) => refunded += 1,
                Ok(Verdict::Charged) => charged += 1,
                Err(_) => break,
            }
            // Whether their rows are written, and the lease is let go, makes no difference.
            if refunded % 3 == 1 {
                day.node.drain().await;
            }
            if refunded % 4 == 1 {
                day.clock.advance(Duration::from_secs(6));
                day.node.tidy().await;
            }
        }
        assert_eq!((refunded, charged), (most, limit));
    }
}

#[tokio::test]
async fn of_many_failures_at_once_no_more_are_refunded_than_one_after_another() {
    let mut day = Day::of(20).await;
    let open = join_all((0..20).map(|_| day.reserve())).await;
    let verdicts = open.into_iter().map(|one| day.node.settle(day.user, one.unwrap(), Verdict::Refunded));
    assert_eq!(verdicts.filter(|verdict| *verdict == Verdict::Refunded).count(), 10);
    assert_eq!(day.left().await, 10);
}

#[tokio::test]
async fn what_nobody_settles_is_charged_only_if_it_was_dispatched() {
    let day = Day::of(10).await;
    drop(day.reserve().await.unwrap());
    assert_eq!(day.left().await, 10);
    let mut forwarded = day.reserve().await.unwrap();
    forwarded.dispatched();
    drop(forwarded);
    assert_eq!(day.left().await, 9);
}

#[tokio::test]
async fn a_client_that_leaves_while_the_database_answers_loses_nothing() {
    let day = Day::of(10).await;
    for _ in 0..20 {
        let mut waiting = Box::pin(day.reserve());
        assert!(poll!(waiting.as_mut()).is_pending());
        drop(waiting);
        tokio::task::yield_now().await;
    }
    let all = join_all((0..12).map(|_| day.reserve())).await;
    assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 10);
    drop(all);
    assert_eq!(day.left().await, 10);
}

#[tokio::test]
async fn a_unit_whose_waiter_has_left_is_the_next_ones() {
    let day = Day::of(2).await;
    let mut first = Box::pin(day.reserve());
    let mut second = Box::pin(day.reserve());
    let (mut third, mut fourth) = (Box::pin(day.reserve()), Box::pin(day.reserve()));
    for waiting in [&mut first, &mut second, &mut third, &mut fourth] {
        assert!(poll!(waiting.as_mut()).is_pending());
    }
    drop(first);
    let (second, third, fourth) = futures_util::join!(second, third, fourth);
    assert!(second.is_ok() && third.is_ok() && is_used_up(&fourth));
}

#[tokio::test]
async fn while_the_database_is_away_units_in_hand_are_spent_and_then_nobody_can_tell() {
    let day = Day::of(1000).await;
    for _ in 0..10 {
        day.reserve().await.unwrap().settle(Verdict::Charged);
    }
    let today = day.node.quota.today(day.allowance.zone).day;
    let in_hand = day.node.quota.holdings.unused(day.user, (today, None));
    assert!(in_hand > 3, "{in_hand}");
    day.database.db.close().await;
    for _ in 0..in_hand {
        // Also when it is time to ask again.
        day.clock.advance(Duration::from_secs(1));
        assert!(day.reserve().await.map(|mut one| one.settle(Verdict::Charged)).is_ok());
    }
    assert_eq!(day.reserve().await.err(), Some(QuotaError::StoreDown));
    day.clock.advance(Duration::from_secs(6));
    let unknown = day.node.quota.left(day.user, &day.allowance).await;
    assert_eq!(unknown.err(), Some(QuotaError::StoreDown));
}

#[tokio::test]
async fn at_the_end_everything_goes_back_and_nobody_is_served() -> Result<(), StoreError> {
    let mut day = Day::of(1000).await;
    for _ in 0..10 {
        day.converse(Verdict::Charged).await.unwrap();
    }
    day.node.drain().await;
    day.node.quota.close().await;
    let row = balances(&day.database.db).await.remove(0);
    assert_eq!((row.granted, row.charged, row.held), (10, 10, 0));
    assert_eq!(day.reserve().await.err(), Some(QuotaError::StoreDown));
    assert!(crate::store::runs::end(&day.database.db, day.node.run.id).await?);
    Ok(())
}

#[tokio::test]
async fn a_user_who_is_gone_has_no_conversations() {
    let day = Day::of(10).await;
    let nobody = crate::ids::UserId(404);
    let asked = day.node.quota.reserve(nobody, &day.allowance).await;
    assert_eq!(asked.err(), Some(QuotaError::NoSuchUser));
    assert_eq!(day.node.quota.left(nobody, &day.allowance).await.err(), Some(QuotaError::NoSuchUser));
}
