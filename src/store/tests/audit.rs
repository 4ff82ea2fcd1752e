//! The chain of the audit trail: whole while nobody touches it, broken where somebody did.

use futures_util::future::join_all;
use sqlx::AssertSqlSafe;

use super::{entry, fresh, user};
use crate::store::Db;
use crate::store::SlowRead;
use crate::store::audit::chain::{self, Link, Walked};
use crate::store::audit::{self, Entry};

async fn recorded(db: &Db, count: usize) {
    for n in 0..count {
        audit::record(db, &Entry { target: format!("target {n}"), ..entry("thing.done") }).await.unwrap();
    }
}

async fn tamper(db: &Db, sql: &str) {
    let sql = sql.to_owned();
    on!(db, write pool => sqlx::query(AssertSqlSafe(sql)).execute(pool).await.map(|_| ())).unwrap();
}

async fn walked(db: &Db) -> Walked {
    chain::walk(&SlowRead::alone(db), None).await.unwrap()
}

#[tokio::test]
async fn a_trail_nobody_touched_holds() {
    let world = fresh().await;
    assert_eq!(walked(&world.db).await.head.seq, 0);
    recorded(&world.db, 5).await;
    user(&world.db, "ada").await;
    let found = walked(&world.db).await;
    assert_eq!((found.sound, found.unchained, found.head.seq, found.broken), (6, 0, 6, None));
    assert_eq!(chain::head(&world.db).await.unwrap(), found.head);
}

#[tokio::test]
async fn what_many_write_at_once_is_one_chain() {
    let world = fresh().await;
    let one = async |n: usize| {
        let entry = Entry { target: format!("target {n}"), ..entry("thing.done") };
        audit::record(&world.db, &entry).await.unwrap();
    };
    join_all((0..40).map(one)).await;
    let found = walked(&world.db).await;
    assert_eq!((found.sound, found.broken), (40, None));
}

#[tokio::test]
async fn what_was_given_up_leaves_no_link() {
    let world = fresh().await;
    let mut tx = world.db.begin().await.unwrap();
    audit::append(&mut tx, &entry("thing.done")).await.unwrap();
    drop(tx);
    recorded(&world.db, 2).await;
    let found = walked(&world.db).await;
    assert_eq!((found.sound, found.head.seq, found.broken), (2, 2, None));
}

#[tokio::test]
async fn an_altered_row_shows_and_so_does_one_that_is_gone_or_was_put_between() {
    let cases = [
        ("UPDATE audit SET target = 'target 9' WHERE seq = 3", 2, 3),
        ("UPDATE audit SET actor_id = 7 WHERE seq = 1", 0, 1),
        ("UPDATE audit SET client_ip = NULL WHERE seq = 5", 4, 5),
        ("UPDATE audit SET hash = NULL WHERE seq = 4", 3, 4),
        ("DELETE FROM audit WHERE seq = 2", 1, 2),
        ("DELETE FROM audit WHERE seq = 5", 4, 5),
        ("UPDATE audit SET seq = seq + 100 WHERE seq = 5", 4, 5),
        ("UPDATE audit_head SET seq = 4", 4, 5),
        ("UPDATE audit SET seq = NULL, hash = NULL WHERE seq = 5", 4, 5),
    ];
    for (sql, sound, at) in cases {
        let world = fresh().await;
        recorded(&world.db, 5).await;
        tamper(&world.db, sql).await;
        let found = walked(&world.db).await;
        assert_eq!((found.sound, found.broken.map(|at| at.seq)), (sound, Some(at)), "{sql}");
    }
}

#[tokio::test]
async fn rows_from_before_the_chain_are_counted_and_none_may_come_after_it() {
    const OLD: &str = "INSERT INTO audit (at, actor_kind, actor_name, action, target, detail, request_id)
        VALUES (1, 'nobody', 'x', 'y', 'z', '{}', '')";
    let world = fresh().await;
    tamper(&world.db, OLD).await;
    recorded(&world.db, 2).await;
    let found = walked(&world.db).await;
    assert_eq!((found.sound, found.unchained, found.broken), (2, 1, None));
    tamper(&world.db, OLD).await;
    let broken = walked(&world.db).await.broken.unwrap();
    assert_eq!(broken.why, "a row without a link stands among those that have one");
}

#[tokio::test]
async fn a_trail_that_was_cut_and_written_anew_is_found_out_by_a_link_noted_before() {
    let world = fresh().await;
    recorded(&world.db, 3).await;
    let noted = chain::head(&world.db).await.unwrap();
    recorded(&world.db, 2).await;
    assert_eq!(chain::walk(&SlowRead::alone(&world.db), Some(&noted)).await.unwrap().broken, None);
    let second: Vec<u8> =
        on!(&world.db, read pool => sqlx::query_scalar("SELECT hash FROM audit WHERE seq = 2")
        .fetch_one(pool).await)
        .unwrap();
    tamper(&world.db, "DELETE FROM audit WHERE seq > 2").await;
    let back = on!(&world.db, write pool => sqlx::query("UPDATE audit_head SET seq = 2, hash = $1").bind(second)
        .execute(pool).await.map(|_| ()));
    back.unwrap();
    assert_eq!(walked(&world.db).await.broken, None, "the cut itself does not show");
    let cut = chain::walk(&SlowRead::alone(&world.db), Some(&noted)).await.unwrap().broken.unwrap();
    assert_eq!(cut.why, "the noted link is not there any more");
    audit::record(&world.db, &entry("another.thing")).await.unwrap();
    let anew = chain::walk(&SlowRead::alone(&world.db), Some(&noted)).await.unwrap().broken.unwrap();
    assert_eq!((anew.seq, anew.why), (3, "the noted link is another one"));
}

#[tokio::test]
async fn a_long_trail_is_walked_to_its_end() {
    let world = fresh().await;
    let mut tx = world.db.begin().await.unwrap();
    for _ in 0..2100 {
        audit::append(&mut tx, &entry("thing.done")).await.unwrap();
    }
    tx.commit().await.unwrap();
    let Walked { sound, head: Link { seq, .. }, broken, .. } = walked(&world.db).await;
    assert_eq!((sound, seq, broken), (2100, 2100, None));
}
