//! Each column that anybody could change behind the gateway's back.

use super::repaired::repair_all;
use super::{TODAY, Told, balanced, fresh, keep, sql, told, user, uuid, verified};
use crate::store::Db;

/// Of ada today: 10 conversations, 8 given out: 3 charged, 4 held, 1 forfeited; 2 given back.
const ADA: i64 = 1;
const BOB: i64 = 2;

fn of_ada(what: &'static str, expected: i64, found: i64) -> Told {
    (ADA, Some(TODAY), Some(1), what, expected, found)
}

fn of_bob(what: &'static str, expected: i64, found: i64) -> Told {
    (BOB, Some(TODAY), Some(1), what, expected, found)
}

async fn found_after(db: &Db, cases: &[(String, Vec<Told>)]) {
    let (ada, bob) = (user(db, "ada").await, user(db, "bob").await);
    assert_eq!((ada.0, bob.0), (ADA, BOB));
    for (change, differences) in cases {
        balanced(db, ada, bob).await;
        assert_eq!(told(&verified(db).await), []);
        assert_eq!(sql(db, change).await, 1, "{change}");
        assert_eq!(told(&verified(db).await), *differences, "{change}");
        repair_all(db).await;
        let left = verified(db).await;
        assert!(left.differences.iter().all(|of| of.remedy.is_none()), "{change}: {left:?}");
        assert_eq!(repair_all(db).await, [], "{change}");
    }
}

/// Changes one column of ada's balance of today.
fn balance(set: &str) -> String {
    format!("UPDATE quota SET {set} WHERE user_id = {ADA} AND day = {TODAY}")
}

/// Changes one column of one of her charged conversations of today.
fn row(set: &str) -> String {
    format!("UPDATE exchanges SET {set} WHERE id = ({})", one_row())
}

fn one_row() -> String {
    format!(
        "SELECT id FROM exchanges WHERE user_id = {ADA} AND quota_day = {TODAY} AND verdict = 'charged' LIMIT 1"
    )
}

/// Changes the larger of her leases, of three units.
fn lease(set: &str) -> String {
    format!("UPDATE leases SET {set} WHERE user_id = {ADA} AND units = 3")
}

#[tokio::test]
async fn a_changed_balance_shows() {
    let world = fresh().await;
    let later = |day: i64| Some(TODAY + day);
    let cases = [
        (balance("charged = 4"), vec![of_ada("granted", 9, 8), of_ada("charged", 3, 4)]),
        (balance("charged = 2"), vec![of_ada("granted", 7, 8), of_ada("charged", 3, 2)]),
        (balance("granted = 7"), vec![of_ada("granted", 8, 7)]),
        (balance("granted = 11"), vec![of_ada("granted", 8, 11), of_ada("above_allowance", 10, 11)]),
        (balance("allowance = 7"), vec![of_ada("above_allowance", 7, 8)]),
        (balance("refunded = 1"), vec![of_ada("refunded", 2, 1)]),
        (balance("refunded = -1"), vec![of_ada("negative_refunded", 0, -1), of_ada("refunded", 2, -1)]),
        (balance("forfeited = 0"), vec![of_ada("granted", 7, 8)]),
        (balance("forfeited = -1"), vec![of_ada("negative_forfeited", 0, -1), of_ada("granted", 6, 8)]),
        (
            balance("epoch = 2"),
            vec![
                of_ada("lease_without_balance", 0, 4),
                of_ada("charged_without_balance", 3, 0),
                of_ada("refunded_without_balance", 2, 0),
                (ADA, later(0), Some(2), "later_epoch", 1, 2),
                (ADA, later(0), Some(2), "granted", 4, 8),
                (ADA, later(0), Some(2), "charged", 0, 3),
                (ADA, later(0), Some(2), "refunded", 0, 2),
            ],
        ),
        (
            format!("UPDATE quota SET user_id = {BOB} WHERE user_id = {ADA} AND day = {}", TODAY - 1),
            vec![
                (ADA, later(-1), Some(0), "charged_without_balance", 1, 0),
                (BOB, later(-1), Some(0), "charged", 0, 1),
            ],
        ),
        (format!("DELETE FROM quota WHERE user_id = {BOB}"), vec![of_bob("charged_without_balance", 5, 0)]),
        (format!("UPDATE users SET quota_epoch = 0 WHERE id = {BOB}"), vec![of_bob("later_epoch", 0, 1)]),
    ];
    found_after(&world.db, &cases).await;
}

#[tokio::test]
async fn a_changed_row_of_the_log_shows() {
    let world = fresh().await;
    let less = of_ada("charged", 2, 3);
    let without = |day: Option<i64>, epoch: Option<i64>| (ADA, day, epoch, "charged_without_balance", 1, 0);
    let cases = [
        (row("verdict = 'refunded'"), vec![less, of_ada("refunded", 3, 2)]),
        (row("verdict = 'free'"), vec![less]),
        (row("verdict = 'gratis'"), vec![less]),
        (row("user_id = NULL"), vec![less]),
        (row("user_id = 404"), vec![less]),
        (row(&format!("user_id = {BOB}")), vec![less, of_bob("charged", 6, 5)]),
        (row("quota_day = quota_day + 3"), vec![less, without(Some(TODAY + 3), Some(1))]),
        (row("quota_day = NULL"), vec![without(None, Some(1)), less]),
        (row("quota_epoch = 7"), vec![less, without(Some(TODAY), Some(7))]),
        (row("quota_epoch = NULL"), vec![without(Some(TODAY), None), less]),
        (format!("DELETE FROM exchanges WHERE id = ({})", one_row()), vec![less]),
    ];
    found_after(&world.db, &cases).await;
    super::log(&world.db, (crate::ids::UserId(ADA), TODAY, 1), "refunded", 1).await;
    assert_eq!(told(&verified(&world.db).await), [of_ada("refunded", 3, 2)], "a row too many");
}

#[tokio::test]
async fn a_changed_lease_shows() {
    let world = fresh().await;
    let day = |day: i64| (ADA, Some(TODAY + day), Some(1));
    let without = |(user, day, epoch): (i64, Option<i64>, Option<i64>)| {
        (user, day, epoch, "lease_without_balance", 0, 3)
    };
    let less = of_ada("granted", 5, 8);
    let run = uuid(&world.db, "01890000000070008000000000000009");
    let cases = [
        (lease("units = 4"), vec![of_ada("granted", 9, 8)]),
        (lease("units = 0"), vec![less]),
        (lease("day = day + 5"), vec![less, without(day(5))]),
        (lease("epoch = 0"), vec![without((ADA, Some(TODAY), Some(0))), less]),
        (lease(&format!("user_id = {BOB}, run_id = {run}")), vec![less, of_bob("granted", 8, 5)]),
        (format!("DELETE FROM leases WHERE user_id = {ADA} AND units = 3"), vec![less]),
    ];
    found_after(&world.db, &cases).await;
}

/// What the schema itself forbids, when somebody took that out of its way.
#[tokio::test]
async fn balances_of_nobody_and_leases_below_zero_show() {
    let world = fresh().await;
    let lifted: &[&str] = match &world.db {
        Db::Sqlite { .. } => &["PRAGMA foreign_keys = OFF", "PRAGMA ignore_check_constraints = ON"],
        Db::Postgres(_) => &[
            "ALTER TABLE quota DROP CONSTRAINT quota_user_id_fkey",
            "ALTER TABLE quota DROP CONSTRAINT quota_allowance_check",
            "ALTER TABLE keys DROP CONSTRAINT keys_user_id_fkey",
            "ALTER TABLE leases DROP CONSTRAINT leases_user_id_fkey",
            "ALTER TABLE leases DROP CONSTRAINT leases_units_check",
        ],
    };
    for text in lifted {
        sql(&world.db, text).await;
    }
    let cases = [
        (lease("units = -1"), vec![of_ada("negative_lease", 0, -1), of_ada("granted", 4, 8)]),
        (
            balance("allowance = -1"),
            vec![of_ada("negative_allowance", 0, -1), of_ada("above_allowance", -1, 8)],
        ),
        (balance("granted = -1"), vec![of_ada("negative_granted", 0, -1), of_ada("granted", 8, -1)]),
        (lease("user_id = 404"), vec![of_ada("granted", 5, 8), (404, Some(TODAY), Some(1), "no_user", 0, 1)]),
        (format!("DELETE FROM users WHERE id = {BOB}"), vec![of_bob("no_user", 0, 1)]),
    ];
    found_after(&world.db, &cases).await;
    keep(&world.db, (crate::ids::UserId(-7), TODAY, 0, [1, 1, 1, 0, 0]), &[]).await;
    let before = (-7, Some(TODAY), Some(0), "no_user", 0, 1);
    assert_eq!(told(&verified(&world.db).await), [before]);
}
