//! A snapshot is one moment: whoever is granting, charging and giving back meanwhile is no difference.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{RUNS, TODAY, fresh, id_at, keep, sql, told, user, uuid, verified};
use crate::ids::UserId;
use crate::store::{Db, Tx};

async fn step(tx: &mut Tx, text: &str) -> u64 {
    on!(tx, within conn => sqlx::query(sqlx::AssertSqlSafe(text.to_owned()))
        .execute(conn).await.unwrap().rows_affected())
}

/// One round of a run: four units taken, one charged, one given back, the rest returned. Each step is a
/// transaction, as the gateway has it.
pub(super) async fn round(db: &Db, run: &str, user: UserId) {
    let (run, id) = (uuid(db, run), id_at(db, "0"));
    let lease = |by: i64| {
        format!("UPDATE leases SET units = units + ({by}) WHERE run_id = {run} AND user_id = {user}")
    };
    let quota = |set: &str| format!("UPDATE quota SET {set} WHERE user_id = {user} AND day = {TODAY}");
    let row = |verdict: &str| {
        format!(
            "INSERT INTO exchanges (id, user_id, username, email, request_id, route, call, model, research_model,
                time, stream, outcome, verdict, reason, quota_day, quota_epoch, latency_ms, bytes_in, bytes_out,
                usage_source, truncated, client_ip)
             VALUES ({id}, {user}, '', '', '', '', '', '', FALSE, 0, FALSE, '', '{verdict}', '', {TODAY}, 0, 0, 0, 0,
                '', FALSE, '')"
        )
    };
    let steps = [
        vec![quota("granted = granted + 4"), lease(4)],
        vec![row("charged"), quota("charged = charged + 1"), lease(-1)],
        vec![row("refunded"), quota("refunded = refunded + 1")],
        vec![quota("granted = granted - 2"), lease(-2)],
        vec![quota("forfeited = forfeited + 1"), lease(-1)],
    ];
    for texts in steps {
        let mut tx = db.begin().await.unwrap();
        for text in texts {
            assert_eq!(step(&mut tx, &text).await, 1, "{text}");
        }
        tx.commit().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_accused_while_conversations_come_and_go() {
    let world = fresh().await;
    let (ada, bob) = (user(&world.db, "ada").await, user(&world.db, "bob").await);
    for of in [ada, bob] {
        keep(&world.db, (of, TODAY, 0, [100_000, 0, 0, 0, 0]), &[0, 0]).await;
    }
    let over = AtomicBool::new(false);
    let busy = async {
        let all =
            [(RUNS[0], ada), (RUNS[1], ada), (RUNS[0], bob), (RUNS[1], bob)].map(async |(run, user)| {
                for _ in 0..25 {
                    round(&world.db, run, user).await;
                }
            });
        futures_util::future::join_all(all).await;
        over.store(true, Ordering::Release);
    };
    let watching = async {
        let mut looks = 0;
        while !over.load(Ordering::Acquire) {
            let found = verified(&world.db).await;
            assert_eq!(told(&found), []);
            looks += 1;
        }
        looks
    };
    let ((), looks) = futures_util::join!(busy, watching);
    assert!(looks > 2, "{looks}");
    let found = verified(&world.db).await;
    assert_eq!((told(&found), found.conversations), (vec![], 200));
    assert_eq!(sql(&world.db, "UPDATE leases SET units = units + 1").await, 4);
    assert_eq!(verified(&world.db).await.total, 2);
}
