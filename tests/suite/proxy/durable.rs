//! The log while something is in its way: the database locked, a row refused, memory short, the disk slow.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection, SqliteConnection};

use crate::upstream::{Answer, Gate, PATIENCE, chat_events};
use crate::world::{Person, World};

/// Keeps everybody from writing the log until it is dropped.
enum Locked {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Locked {
    async fn log_of(world: &World) -> Self {
        let url = world.database_url();
        if url.starts_with("sqlite") {
            let mut other = SqliteConnection::connect(&url).await.unwrap();
            other.execute("BEGIN IMMEDIATE").await.unwrap();
            return Self::Sqlite(other);
        }
        let mut other = PgConnection::connect(&url).await.unwrap();
        other.execute("BEGIN").await.unwrap();
        other.execute("LOCK TABLE exchanges IN SHARE MODE").await.unwrap();
        Self::Postgres(other)
    }

    async fn release(self) {
        match self {
            Self::Sqlite(mut other) => drop(other.execute("ROLLBACK").await.unwrap()),
            Self::Postgres(mut other) => drop(other.execute("ROLLBACK").await.unwrap()),
        }
    }
}

async fn tell(world: &World, person: &Person, model: &str) -> u16 {
    let message = json!({"model": model, "messages": [{"role": "user", "content": "Hello"}]});
    world.post("/api/v1/auth/log-message").bearer(&person.key).json(&message).send().await.status
}

async fn waiting(world: &World) -> i64 {
    world.get("/health").send().await.json()["message_buffer_size"].as_i64().unwrap()
}

async fn drained(world: &World) {
    let asked = Instant::now();
    while waiting(world).await > 0 {
        assert!(asked.elapsed() < PATIENCE, "rows still wait");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn while_the_database_is_away_everything_is_taken_and_nothing_is_lost() {
    let world = World::with(|setup| setup.add("[message_log]\nbatch_size = 10")).await;
    let ann = world.user_with("ann", json!({"subscription_plan": "premium"})).await;
    // Who asks often holds several conversations: there are some to spend while nobody can be asked.
    for _ in 0..8 {
        assert_eq!(world.chat(&ann).send().await.status, 200);
    }
    world.rows_when(8).await;
    let locked = Locked::log_of(&world).await;
    for _ in 0..40 {
        assert_eq!(tell(&world, &ann, "meanwhile").await, 200);
    }
    for _ in 0..5 {
        assert_eq!(world.chat_streamed(&ann).send().await.status, 200);
    }
    assert_eq!(waiting(&world).await, 45, "the count is true");
    locked.release().await;
    drained(&world).await;
    let admin = world.admin().await;
    let listed = world.get("/api/v1/admin/message-logs?limit=100").bearer(&admin).send().await.json();
    let rows = listed.as_array().unwrap();
    let charged = rows.iter().filter(|row| row["verdict"] == "charged").count();
    assert_eq!((rows.len(), charged, world.left(&ann).await), (53, 13, 987));
}

#[tokio::test]
async fn what_waits_when_the_gateway_stops_is_written_by_the_next_start() {
    let mut world = World::start().await;
    let ann = world.user("ann").await;
    let locked = Locked::log_of(&world).await;
    for _ in 0..3 {
        assert_eq!(tell(&world, &ann, "before").await, 200);
    }
    assert_eq!(waiting(&world).await, 3);
    let stopping = world.take_app();
    let stopped = tokio::spawn(stopping.shutdown());
    stopped.await.unwrap();
    locked.release().await;
    world.start_again().await;
    assert_eq!(world.rows_when(3).await.len(), 3);
}

#[tokio::test]
async fn while_nobody_can_be_looked_up_nobody_is_called_a_stranger() {
    // Only the database knows whether such a key was ever made.
    let mut world = World::with(|setup| setup.add("[security]\naccept_v1_keys = true")).await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    assert_eq!(world.chat(&ann).send().await.status, 200);
    let nobody = Person { key: format!("pe-{}", "x".repeat(32)), ..bob.clone() };
    let db = world.db().clone();
    world.ask(async move { db.close().await }).await;
    for person in [&bob, &nobody] {
        let refused = world.chat(person).send().await;
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(!refused.header("retry-after").is_empty(), "{:?}", refused.text());
        for (method, path) in
            [("POST", "/api/v1/auth/verify-key"), ("GET", "/api/v1/key"), ("GET", "/api/v1/authz")]
        {
            let refused = world.call(method, path).bearer(&person.key).send().await;
            assert_eq!(refused.status, 503, "{path}: {}", refused.text());
        }
    }
    let known = world.chat(&ann).send().await;
    assert!([200, 503].contains(&known.status), "{}", known.text());

    world.take_app().shutdown().await;
    world.start_again().await;
    assert_eq!(world.chat(&bob).send().await.status, 200);
    assert_eq!(world.chat(&nobody).send().await.status, 401, "now it is known");
    let passed = 2 + usize::from(known.status == 200);
    assert_eq!(world.rows_when(passed).await.len(), passed);
}

#[tokio::test]
async fn a_row_the_database_refuses_is_set_aside_and_counted() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    refuse_model(&world.database_url(), "poison").await;
    for model in ["one", "poison", "two"] {
        assert_eq!(tell(&world, &ann, model).await, 200);
    }
    let rows = world.rows_when(2).await;
    assert!(rows.iter().all(|row| row["model"] != "poison"));
    assert!((world.metric("tollgate_message_log_set_aside_total") - 1.0).abs() < 0.5);
    let ready = world.get("/readyz").send().await.json();
    assert_eq!((&ready["message_log"]["set_aside"], waiting(&world).await), (&json!(1), 0), "{ready}");

    // It goes with the person it is of, and with nobody else.
    let (bob, admin) = (world.user("bob").await, world.admin().await);
    for (person, id, files) in [(&bob, 2, 0), (&ann, 1, 1)] {
        let left = world.delete("/api/v1/auth/account").bearer(&person.jwt).send().await;
        assert_eq!(left.status, 200);
        let path = format!("/api/v1/admin/deleted-users/{id}");
        let erased = world.delete(&path).bearer(&admin).send().await;
        assert_eq!((erased.status, &erased.json()["files"]), (200, &json!(files)), "{}", erased.text());
    }
}

async fn refuse_model(url: &str, model: &str) {
    if url.starts_with("sqlite") {
        let rule = format!(
            "CREATE TRIGGER refuse BEFORE INSERT ON exchanges WHEN NEW.model = '{model}' \
             BEGIN SELECT RAISE(ABORT, 'refused'); END"
        );
        let mut other = SqliteConnection::connect(url).await.unwrap();
        other.execute(sqlx::AssertSqlSafe(rule)).await.unwrap();
    } else {
        let rule = format!("ALTER TABLE exchanges ADD CONSTRAINT refuse CHECK (model <> '{model}')");
        let mut other = PgConnection::connect(url).await.unwrap();
        other.execute(sqlx::AssertSqlSafe(rule)).await.unwrap();
    }
}

#[tokio::test]
async fn in_strict_mode_every_kind_of_answer_comes_whole_and_is_recorded() {
    let world = World::with(|setup| setup.add("[message_log]\nsync = \"strict\"")).await;
    let ann = world.user("ann").await;
    let events = chat_events(&["Hel", "lo"]);
    world.upstream.next(Answer::sse(events.clone()));
    assert_eq!(world.chat_streamed(&ann).send().await.text(), events.concat());
    assert_eq!(world.chat(&ann).send().await.status, 200);
    world.upstream.next(Answer::bytes("text/plain", ""));
    assert_eq!(world.chat(&ann).send().await.text(), "");
    world.upstream.next(Answer::cut());
    assert_eq!(world.chat(&ann).send().await.status, 502);
    assert_eq!(tell(&world, &ann, "told").await, 200);
    let verified = world.post("/api/v1/auth/verify-key").bearer(&ann.key).send().await;
    assert_eq!(verified.status, 200, "{}", verified.text());
    assert_eq!(world.rows_when(6).await.len(), 6);
    assert_eq!(world.left(&ann).await, 6);
}

#[tokio::test]
async fn a_long_answer_is_kept_whole_with_little_memory() {
    let world = World::with(|setup| {
        setup.add(
            "[message_log]\nmemory_threshold = \"1MiB\"\nmax_memory = \"9MiB\"\nmax_answer_size = \"9MiB\"",
        );
    })
    .await;
    let ann = world.user("ann").await;
    let piece = "x".repeat(16 << 10);
    let events = chat_events(&vec![piece.as_str(); 512]);
    let gate = Gate::closed();
    world.upstream.next(Answer::sse(events.clone()).hold(&gate));
    let mut running = world.chat_streamed(&ann).begin().await;
    let (mut heard, mut most, all) = (0, 0.0_f64, events.concat().len());
    while heard < all {
        heard += running.chunk().await.unwrap().unwrap().len();
        most = most.max(world.metric("tollgate_message_log_bytes"));
    }
    assert!((1.0..=f64::from(256 << 10)).contains(&most), "{most} bytes in memory of {all}");
    gate.open();
    assert_eq!(running.chunk().await.unwrap(), None);
    let row: Value = world.row().await;
    let said = row["answer"][0]["content"].as_str().unwrap().len();
    assert_eq!((said, &row["truncated"]), (512 * (16 << 10), &json!(false)));
}
