//! How the engines find what the ledger asks for.

use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;

use super::{TODAY, fresh, keep, sql, user};
use crate::store::ledger::{COUNT, COUNTS, LINES};
use crate::store::{Db, StoreError};

/// What the engine means to do. PostgreSQL would read a small table whole, and is not let.
async fn plan(db: &Db, statement: &str) -> String {
    match db {
        Db::Sqlite { readers, .. } => {
            let text = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let steps: Vec<(i64, i64, i64, String)> = sqlx::query_as(text).fetch_all(readers).await.unwrap();
            steps.into_iter().map(|(_, _, _, step)| step + "\n").collect()
        }
        Db::Postgres(pool) => {
            let mut conn = pool.acquire().await.unwrap();
            sqlx::query("SET enable_seqscan = off").execute(&mut *conn).await.unwrap();
            let text = AssertSqlSafe(format!("EXPLAIN {statement}"));
            let steps: Vec<String> = sqlx::query_scalar(text).fetch_all(&mut *conn).await.unwrap();
            conn.close().await.unwrap();
            steps.join("\n")
        }
    }
}

#[tokio::test]
async fn rows_are_counted_from_the_index_alone_and_a_day_is_found_by_it() {
    let world = fresh().await;
    let ada = user(&world.db, "ada").await;
    for day in 0..40 {
        keep(&world.db, (ada, TODAY - day, 0, [50, 50, 40, 10, 0]), &[]).await;
    }
    if matches!(world.db, Db::Postgres(_)) {
        // So that it knows which pages everybody sees.
        sql(&world.db, "VACUUM ANALYZE exchanges").await;
    }
    let bound =
        |text: &str| text.replace("$1", "0").replace("$2", "1000").replace("$3", "0").replace("$4", "1");
    let paged = |text: &str| bound(text).replace("$5", "100").replace("$6", "0");
    let counted = plan(&world.db, &bound(COUNTS)).await;
    let alone = match world.db {
        Db::Sqlite { .. } => "USING COVERING INDEX exchanges_by_day",
        Db::Postgres(_) => "Index Only Scan using exchanges_by_day",
    };
    assert!(counted.contains(alone) && !counted.contains("TEMP B-TREE"), "{counted}");
    for text in [paged(LINES), paged(COUNT)] {
        let found = plan(&world.db, &text).await;
        let by_day = match world.db {
            Db::Sqlite { .. } => "exchanges_by_day (user_id=? AND quota_day=?)",
            Db::Postgres(_) => "(quota_day = ",
        };
        assert!(found.contains("exchanges_by_day") && found.contains(by_day), "{found}");
    }
}

#[tokio::test]
async fn a_snapshot_ends_with_its_patience_and_leaves_the_connection_as_it_was() {
    const LONG: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000)
        SELECT COUNT(*) FROM n";
    let world = fresh().await;
    let begun = Instant::now();
    let mut snapshot = world.db.snapshot(Some(Duration::from_millis(50))).await.unwrap();
    let long: Result<i64, _> =
        on!(&mut snapshot.tx, within conn => sqlx::query_scalar(LONG).fetch_one(conn).await);
    let refused = StoreError::from(long.unwrap_err());
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    drop(snapshot);
    for _ in 0..8 {
        let more = LONG.replace("100000000", "1000000");
        let counted: i64 = on!(&world.db, read pool => sqlx::query_scalar(AssertSqlSafe(more)).fetch_one(pool).await.unwrap());
        assert_eq!(counted, 1_000_000);
    }
}
