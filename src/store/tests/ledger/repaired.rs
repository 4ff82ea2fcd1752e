//! Repairs: what follows from the rows is done, once, recorded, and beside runs that go on.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::under_way::round;
use super::{NOW, RUNS, TODAY, Told, balanced, fresh, keep, log, sql, told, user, verified};
use crate::ids::UserId;
use crate::store::Db;
use crate::store::SlowRead;
use crate::store::audit::{self, Entry};
use crate::store::ledger::{BalanceKey, Difference, Remedy, Repaired, repair};

const ADA: i64 = 1;

/// What is changed of a balance, what is done about it, what it is then, and what is left of differences.
type Case = (&'static str, &'static [Remedy], [i64; 5], &'static [&'static str]);

fn entry() -> Entry {
    Entry { detail: Value::Null, ..crate::store::tests::entry("ledger.repair") }
}

/// Carries out every remedy there is.
pub(super) async fn repair_all(db: &Db) -> Vec<Repaired> {
    let found = verified(db).await;
    let with_remedy = found.differences.iter().filter(|difference| difference.remedy.is_some());
    let keys: BTreeSet<BalanceKey> = with_remedy.filter_map(Difference::key).collect();
    let mut repaired = Vec::new();
    for key in keys {
        repaired.extend(repair(db, key, entry()).await.unwrap());
    }
    repaired
}

/// Ada's balance of today in her epoch: allowance, granted, charged, refunded, forfeited.
async fn columns(db: &Db, day: i64, epoch: i64) -> Option<[i64; 5]> {
    let text = "SELECT allowance, granted, charged, refunded, forfeited FROM quota
        WHERE user_id = $1 AND day = $2 AND epoch = $3";
    let found: Option<(i64, i64, i64, i64, i64)> = on!(db, read pool => sqlx::query_as(text)
        .bind(ADA).bind(day).bind(epoch).fetch_optional(pool).await.unwrap());
    found.map(|(allowance, granted, charged, refunded, forfeited)| {
        [allowance, granted, charged, refunded, forfeited]
    })
}

#[tokio::test]
async fn each_balance_becomes_what_its_rows_say() {
    use Remedy::{Recount, Regrant};
    let world = fresh().await;
    let db = &world.db;
    let (ada, bob) = (user(db, "ada").await, user(db, "bob").await);
    let sound = [10, 8, 3, 2, 1];
    let cases: [Case; 9] = [
        ("charged = 4", &[Recount, Regrant], sound, &[]),
        ("charged = 0", &[Recount, Regrant], sound, &[]),
        ("charged = -3", &[Recount, Regrant], sound, &[]),
        ("granted = 7", &[Regrant], sound, &[]),
        ("granted = 12", &[Regrant], sound, &[]),
        ("refunded = -1", &[Recount], sound, &[]),
        ("forfeited = 0", &[Regrant], [10, 7, 3, 2, 0], &[]),
        ("allowance = 7", &[], [7, 8, 3, 2, 1], &["above_allowance"]),
        ("allowance = 7, granted = 6", &[Regrant], [7, 8, 3, 2, 1], &["above_allowance"]),
    ];
    for (change, remedies, after, left) in cases {
        balanced(db, ada, bob).await;
        let set = format!("UPDATE quota SET {change} WHERE user_id = {ADA} AND day = {TODAY}");
        assert_eq!(sql(db, &set).await, 1, "{change}");
        let repaired = repair_all(db).await;
        let done: Vec<Remedy> = repaired.iter().flat_map(|one| one.remedies.clone()).collect();
        assert_eq!(done, remedies, "{change}");
        assert_eq!(columns(db, TODAY, 1).await, Some(after), "{change}");
        let found = verified(db).await;
        let words: Vec<&str> = found.differences.iter().map(|difference| difference.what.as_str()).collect();
        assert_eq!(words, left, "{change}");
        assert_eq!(repair_all(db).await, [], "{change}: twice");
    }
}

#[tokio::test]
async fn a_repair_is_recorded_with_what_was_before() {
    let world = fresh().await;
    let db = &world.db;
    let (ada, bob) = (user(db, "ada").await, user(db, "bob").await);
    balanced(db, ada, bob).await;
    sql(db, &format!("UPDATE quota SET charged = 9 WHERE user_id = {ADA} AND day = {TODAY}")).await;
    let key = BalanceKey { user: ada, day: TODAY, epoch: 1 };
    let repaired = repair(db, key, entry()).await.unwrap().unwrap();
    assert_eq!((repaired.username.as_deref(), repaired.before.unwrap().charged), (Some("ada"), 9));
    let rows = audit::list(&SlowRead::alone(db), 1, 0).await.unwrap().rows;
    let row = rows.first().unwrap();
    assert_eq!((row.action.as_str(), row.target.as_str()), ("ledger.repair", "ada"));
    assert_eq!((&row.detail["before"]["charged"], &row.detail["after"]["charged"]), (&9.into(), &3.into()));
    assert_eq!(row.detail["remedies"], serde_json::json!(["recount", "regrant"]));
    assert_eq!(repair(db, key, entry()).await.unwrap(), None);
    let nowhere = BalanceKey { user: UserId(404), ..key };
    assert_eq!(repair(db, nowhere, entry()).await.unwrap(), None);
}

#[tokio::test]
async fn the_balance_of_a_day_that_is_over_is_made_again_and_one_that_is_not_waits() {
    let world = fresh().await;
    let db = &world.db;
    let (ada, bob) = (user(db, "ada").await, user(db, "bob").await);
    balanced(db, ada, bob).await;
    let (over, open) = (TODAY - 5, TODAY);
    log(db, (ada, over, 1), "charged", 4).await;
    log(db, (ada, over, 1), "refunded", 1).await;
    // Of an earlier epoch, which is over though the day is not.
    log(db, (ada, open, 0), "charged", 2).await;
    sql(db, &format!("DELETE FROM quota WHERE user_id = {ADA} AND day = {open}")).await;
    let repaired = repair_all(db).await;
    let made: Vec<_> = repaired.iter().map(|one| (one.day, one.epoch, one.before)).collect();
    assert_eq!(made, [(over, 1, None), (open, 0, None)]);
    assert_eq!(columns(db, over, 1).await, Some([4, 4, 4, 1, 0]));
    assert_eq!(columns(db, open, 0).await, Some([2, 2, 2, 0, 0]));
    let of_open = |what, expected| -> Told { (ADA, Some(open), Some(1), what, expected, 0) };
    let waiting: Vec<Told> = told(&verified(db).await);
    let lease = (ADA, Some(open), Some(1), "lease_without_balance", 0, 4);
    assert_eq!(
        waiting,
        [lease, of_open("charged_without_balance", 3), of_open("refunded_without_balance", 2)]
    );
    // Her next conversation makes it.
    keep(db, (ada, open, 1, [10, 0, 0, 0, 0]), &[]).await;
    assert_eq!(repair_all(db).await.len(), 1);
    assert_eq!(columns(db, open, 1).await, Some([10, 7, 3, 2, 0]));
    assert!(verified(db).await.holds());
}

#[tokio::test]
async fn what_the_log_has_forgotten_is_not_counted() {
    let world = fresh().await;
    let db = &world.db;
    let ada = user(db, "ada").await;
    keep(db, (ada, TODAY - 3, 0, [10, 5, 5, 1, 0]), &[]).await;
    keep(db, (ada, TODAY, 0, [10, 2, 2, 0, 0]), &[]).await;
    let before = crate::clock::Timestamp((TODAY - 2) * super::DAY);
    crate::store::exchanges::forget(db, before, before, NOW).await.unwrap();
    assert!(verified(db).await.holds());
    let lowered = format!("UPDATE quota SET granted = 4 WHERE user_id = {ADA} AND day < {TODAY}");
    sql(db, &lowered).await;
    assert_eq!(repair_all(db).await.len(), 1);
    assert_eq!(columns(db, TODAY - 3, 0).await, Some([10, 5, 5, 1, 0]));
    log(db, (ada, TODAY - 3, 0), "charged", 7).await;
    let found = verified(db).await;
    let remedies: Vec<Option<Remedy>> = found.differences.iter().map(|of| of.remedy).collect();
    assert_eq!(remedies, [None], "{found:?}");
    assert_eq!(repair_all(db).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repairs_beside_running_gateways_lose_and_invent_nothing() {
    let world = fresh().await;
    let db = &world.db;
    let ada = user(db, "ada").await;
    keep(db, (ada, TODAY, 0, [100_000, 0, 0, 0, 0]), &[0, 0]).await;
    let over = AtomicBool::new(false);
    let busy = async {
        let runs = RUNS.map(async |run| {
            for _ in 0..40 {
                round(db, run, ada).await;
            }
        });
        futures_util::future::join_all(runs).await;
        over.store(true, Ordering::Release);
    };
    let repairing = async {
        let key = BalanceKey { user: ada, day: TODAY, epoch: 0 };
        let mut repairs = 0;
        while !over.load(Ordering::Acquire) {
            sql(db, "UPDATE quota SET charged = charged + 3, granted = granted - 1").await;
            repairs += usize::from(repair(db, key, entry()).await.unwrap().is_some());
        }
        repairs
    };
    let ((), repairs) = futures_util::join!(busy, repairing);
    assert!(repairs > 2, "{repairs}");
    assert_eq!(told(&verified(db).await), []);
    assert_eq!(columns(db, TODAY, 0).await, Some([100_000, 160, 80, 80, 80]));
}
