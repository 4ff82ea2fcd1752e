//! Whatever a transaction comes to, the next one works.

use std::future::poll_fn;
use std::task::Poll;

use sqlx::AssertSqlSafe;

use super::*;
use crate::store::write_probe;

/// SQLite: the file may not grow, which rolls the whole transaction back. PostgreSQL: 25P02 from then on.
const FAILING: [&str; 3] = [
    "CREATE TABLE big AS SELECT hex(randomblob(3000000)) AS x",
    "INSERT INTO write_probe (id, at) VALUES (2, 2)",
    "SELECT nothing FROM nowhere",
];

/// One connection that writes, whatever the database.
async fn narrow(world: &Fresh) -> Db {
    Db::connect(&Database { max_connections: 1, ..world.settings.clone() }).await.unwrap()
}

async fn probe_row(db: &Db) -> i64 {
    const AT: &str = "SELECT at FROM write_probe";
    on!(db, read pool => sqlx::query_scalar(AT).fetch_one(pool).await).unwrap()
}

/// A write without a transaction of its own: within one that was left open, others would not see it.
async fn write_alone(db: &Db, at: i64) -> Result<(), sqlx::Error> {
    const SET: &str = "UPDATE write_probe SET at = $1";
    on!(db, write pool => sqlx::query(SET).bind(at).execute(pool).await.map(|_| ()))
}

#[tokio::test]
async fn after_an_error_that_rolled_a_transaction_back_the_next_one_works() {
    let world = fresh().await;
    let db = narrow(&world).await;
    for (round, (text, commits)) in FAILING.iter().flat_map(|text| [(text, true), (text, false)]).enumerate()
    {
        if let (true, Db::Sqlite { writer, .. }) = (text.starts_with("CREATE"), &db) {
            sqlx::query("PRAGMA max_page_count = 1").execute(writer).await.unwrap();
        }
        let mut tx = db.begin().await.unwrap();
        on!(&mut tx, within conn => sqlx::query(AssertSqlSafe(*text)).execute(conn).await.map(|_| ()))
            .expect_err(text);
        if commits {
            let _ = tx.commit().await;
        } else {
            drop(tx);
        }
        user(&db, &format!("ann{round}")).await;
        write_probe::write(&db, Timestamp(7)).await.unwrap();
    }
}

#[tokio::test]
async fn a_write_that_is_dropped_at_any_moment_leaves_no_broken_connection() {
    let world = fresh().await;
    let db = narrow(&world).await;
    let mut completed = 0;
    for moment in 0..160_i64 {
        let mut work = Box::pin(async {
            let mut tx = db.begin().await?;
            on!(&mut tx, within conn => sqlx::query("UPDATE write_probe SET at = 0")
                .execute(conn).await.map(|_| ()))?;
            tx.commit().await
        });
        // Later and later: before it begins, in the middle of BEGIN, UPDATE and COMMIT, and after all.
        for _ in 0..=moment * moment / 4 {
            let polled = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
            if polled.is_ready() {
                completed += 1;
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(work);
        write_alone(&db, moment + 1).await.unwrap();
        assert_eq!(probe_row(&world.db).await, moment + 1, "dropped at {moment}");
    }
    assert!(completed < 160, "none was dropped");
}
