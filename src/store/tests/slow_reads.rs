//! Slow reads wait behind each other, and behind nothing that a client needs.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{fresh, user};
use crate::config::{Database, DatabaseLocation};
use crate::store::{Db, NoTurn, Opening, SlowReads, StoreError, users};

/// Functions that count, sum or skip rows on the usual connections, and why that is cheap or nobody waits.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("admins.rs count", "a handful of admins"),
    ("job_runs.rs ended_since", "runs of one job since it was due"),
    ("ledger/trail.rs announce_removal", "counts one row at most"),
    ("users.rs are_free", "two unique keys"),
    ("quota.rs used_since", "a user's own days, from the primary key"),
    ("mail_tokens.rs is_verified", "one user's row"),
    ("deleted.rs lives", "one user's row"),
    ("usage.rs sum_up", "a nightly job, one statement at a time"),
    ("secrets.rs stakes", "a start that accepts lost secrets"),
    ("webhooks.rs due", "a queue of 10,000 at most"),
];

#[tokio::test]
async fn the_queue_has_a_bound_and_its_places_come_back() {
    let world = fresh().await;
    let reads = SlowReads::open(&world.db, &world.settings).unwrap();
    let running = [reads.turn().await.unwrap(), reads.turn().await.unwrap()];
    let mut waiting: Vec<_> = (0..8).map(|_| Box::pin(reads.turn())).collect();
    for turn in &mut waiting {
        assert!(futures_util::poll!(turn).is_pending());
    }
    assert_eq!(reads.turn().await.unwrap_err(), NoTurn::QueueFull);
    drop(running);
    let next = waiting.remove(0).await.unwrap();
    assert!(users::list(&next, 1, 0).await.unwrap().rows.is_empty());
    drop((next, waiting));
    assert!(reads.turn().await.is_ok());
    reads.close().await;
}

#[tokio::test]
async fn a_turn_that_takes_too_long_to_come_is_refused() {
    let world = fresh().await;
    let reads = SlowReads::open(&world.db, &world.settings).unwrap();
    let _running = [reads.turn().await.unwrap(), reads.turn().await.unwrap()];
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    assert_eq!(reads.turn().await.unwrap_err(), NoTurn::TooLate);
    assert_eq!(begun.elapsed().as_secs(), 5);
}

#[tokio::test]
async fn a_slow_read_ends_in_time_and_its_connection_goes_on() {
    let world = fresh().await;
    user(&world.db, "ada").await;
    let short = Database { slow_read_timeout: Duration::from_millis(200), ..world.settings.clone() };
    let reads = SlowReads::open(&world.db, &short).unwrap();
    let turn = reads.turn().await.unwrap();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n";
    let begun = Instant::now();
    let ended = on!(turn.db(), read pool => sqlx::query(endless).execute(pool).await.map(|_| ()));
    assert!(matches!(ended.map_err(StoreError::from), Err(StoreError::Unavailable(_))));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(users::list(&turn, 9, 0).await.unwrap().total, 1);
}

#[test]
fn what_counts_or_sums_takes_a_turn() {
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let mut files = vec![store.clone()];
    let mut found = Vec::new();
    while let Some(path) = files.pop() {
        let name = path.strip_prefix(&store).unwrap().display().to_string();
        if path.is_dir() && name != "tests" {
            files.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.is_file() && name != "tests.rs" {
            found.extend(counting(&fs::read_to_string(&path).unwrap()).map(|f| format!("{name} {f}")));
        }
    }
    let excepted = |function: &String| EXCEPTIONS.iter().any(|(name, _)| name == function);
    let unclassified: Vec<_> = found.iter().filter(|function| !excepted(function)).collect();
    assert!(unclassified.is_empty(), "take a SlowRead, or an exception with its reason: {unclassified:?}");
}

/// Functions of a file that take a [`Db`], read on its usual connections, and whose SQL grows with a table.
fn counting(text: &str) -> impl Iterator<Item = String> {
    let consts: Vec<(&str, &str)> = text
        .split("\nconst ")
        .chain(text.split("\npub(in crate::store) const "))
        .skip(1)
        .filter_map(|rest| Some((rest.split_once(':')?.0, rest.split_once(";\n")?.0)))
        .collect();
    let grows =
        |sql: &str| ["COUNT(", "SUM(", "GROUP BY", "OFFSET", "OVER ("].iter().any(|w| sql.contains(w));
    let functions = text.split("async fn ").skip(1).filter_map(|rest| rest.split_once("\n}\n"));
    functions
        .filter(|(function, _)| {
            let uses = |name: &str| {
                function.contains(&format!("({name})")) || function.contains(&format!("({name} "))
            };
            let reads = function.contains("on!(db, read") || function.contains("db.snapshot(");
            reads && (grows(function) || consts.iter().any(|(name, sql)| uses(name) && grows(sql)))
        })
        .map(|(function, _)| function.split('(').next().unwrap().to_owned())
        .collect::<Vec<_>>()
        .into_iter()
}

/// What keeps the server's connections taken is let go when the store says that it waits.
#[tokio::test]
async fn postgres_says_itself_why_it_takes_no_connection_and_is_tried_again() {
    let world = fresh().await;
    let DatabaseLocation::Postgres(url) = &world.settings.location else { return };
    let url = url.expose_secret();
    let name = url.rsplit('/').next().unwrap();
    let role = format!("narrow_{name}");
    let mut server = PgConnection::connect(url).await.unwrap();
    for text in [
        format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 0"),
        format!("GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"),
        format!("GRANT ALL ON SCHEMA public TO {role}"),
    ] {
        sqlx::query(AssertSqlSafe(text)).execute(&mut server).await.unwrap();
    }
    let narrow = url.replacen("postgres@", &format!("{role}@"), 1);
    let narrow = Database { location: DatabaseLocation::Postgres(narrow.into()), ..world.settings.clone() };
    let at_once = Opening { patience: Some(Duration::ZERO), waits: &|_| (), check_for: Duration::ZERO };
    let refused = Db::open(&narrow, at_once).await.unwrap_err().to_string();
    assert!(refused.contains("too many connections"), "{refused}");
    assert!(refused.contains("database.max_connections"), "{refused}");
    let (told, mut is_told) = tokio::sync::mpsc::unbounded_channel();
    let waits = move |_: &StoreError| {
        let _ = told.send(());
    };
    let patient =
        Opening { patience: Some(Duration::from_mins(1)), waits: &waits, check_for: Duration::ZERO };
    let widen = async {
        is_told.recv().await.unwrap();
        let text = format!("ALTER ROLE {role} CONNECTION LIMIT 20");
        sqlx::query(AssertSqlSafe(text)).execute(&mut server).await.unwrap();
    };
    let (opened, ()) = tokio::join!(Db::open(&narrow, patient), widen);
    opened.unwrap().0.close().await;
    for text in [format!("DROP OWNED BY {role}"), format!("DROP ROLE {role}")] {
        sqlx::query(AssertSqlSafe(text)).execute(&mut server).await.unwrap();
    }
}

#[tokio::test]
async fn what_can_never_be_reached_is_refused_at_once() {
    let world = fresh().await;
    let DatabaseLocation::Postgres(url) = &world.settings.location else { return };
    let elsewhere = format!("{}_that_is_not_there", url.expose_secret());
    let wrong = Database { location: DatabaseLocation::Postgres(elsewhere.into()), ..world.settings.clone() };
    let waits = |reason: &StoreError| panic!("waits: {reason}");
    let refused = Db::open(&wrong, Opening { patience: None, waits: &waits, check_for: Duration::ZERO })
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("does not exist"), "{refused}");
}

#[tokio::test]
async fn unused_postgres_connections_are_closed_within_seconds() {
    let world = fresh().await;
    let Db::Postgres(pool) = &world.db else { return };
    let busy = (0..4).map(|_| sqlx::query("SELECT pg_sleep(0.1)").execute(pool));
    for done in futures_util::future::join_all(busy).await {
        done.unwrap();
    }
    assert!(pool.size() >= 2, "{}", pool.size());
    let begun = Instant::now();
    while pool.size() > 0 {
        assert!(begun.elapsed() < Duration::from_mins(1), "{} are still open", pool.size());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
