//! A day, told line by line.

use super::{DAY, NOW, TODAY, fresh, keep, log, sql, user};
use crate::clock::Timestamp;
use crate::ids::UserId;
use crate::store::exchanges::Verdict;
use crate::store::ledger::{Asked, Day, explain};
use crate::store::{Db, SlowRead};

async fn day(db: &Db, user: UserId, day: i64, page: (i64, i64)) -> Day {
    let between = (Timestamp(day * DAY), Timestamp((day + 1) * DAY));
    let asked = Asked { user, day, between, page, patience: None, now: NOW };
    explain(&SlowRead::alone(db), &asked).await.unwrap()
}

#[tokio::test]
async fn a_day_is_told_in_order_with_a_running_count_for_each_epoch() {
    let world = fresh().await;
    let (ada, bob) = (user(&world.db, "ada").await, user(&world.db, "bob").await);
    sql(&world.db, "UPDATE users SET quota_epoch = 1").await;
    keep(&world.db, (ada, TODAY, 0, [10, 2, 2, 0, 0]), &[]).await;
    keep(&world.db, (ada, TODAY, 1, [4, 5, 2, 1, 1]), &[1, 1]).await;
    keep(&world.db, (ada, TODAY - 1, 0, [9, 9, 9, 0, 0]), &[]).await;
    keep(&world.db, (bob, TODAY, 1, [9, 9, 9, 0, 0]), &[]).await;
    // Five free calls, of which three began on this day.
    log(&world.db, (ada, TODAY, 0), "free", 5).await;
    sql(&world.db, "UPDATE exchanges SET quota_day = NULL, quota_epoch = NULL WHERE verdict = 'free'").await;
    sql(
        &world.db,
        &format!("UPDATE exchanges SET time = time - {DAY} WHERE verdict = 'free' AND time % 60000 > 3000"),
    )
    .await;
    let told = day(&world.db, ada, TODAY, (100, 0)).await;
    assert_eq!((told.lines.len(), told.total), (8, 8));
    assert!(told.lines.is_sorted_by_key(|line| line.time));
    let of = |epoch: Option<i64>, verdict: Verdict| -> Vec<i64> {
        let lines = told.lines.iter().filter(|line| line.epoch == epoch && line.verdict == verdict);
        lines.map(|line| line.charged).collect()
    };
    assert_eq!(of(Some(0), Verdict::Charged), [1, 2]);
    assert_eq!(of(Some(1), Verdict::Charged), [1, 2]);
    assert_eq!(of(Some(1), Verdict::Refunded).len(), 1);
    assert_eq!(of(None, Verdict::Free), [0, 0, 0]);
    let [first, second] = told.epochs.as_slice() else { panic!("{:?}", told.epochs) };
    assert_eq!((first.left(), first.held, first.live), (8, 0, false));
    assert_eq!((second.left(), second.held, second.forfeited, second.live), (-1, 2, 1, true));
    let [wrong] = told.differences.as_slice() else { panic!("{:?}", told.differences) };
    assert_eq!((wrong.what.as_str(), wrong.expected, wrong.found), ("above_allowance", 4, 5));

    let page = day(&world.db, ada, TODAY, (3, 6)).await;
    assert_eq!((page.lines.as_slice(), page.total), (&told.lines[6..], 8));
    let nothing = day(&world.db, bob, TODAY - 40, (9, 0)).await;
    assert_eq!((nothing.lines.len(), nothing.total, nothing.epochs.len()), (0, 0, 0));
}
