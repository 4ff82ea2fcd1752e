//! Lists, statistics, exports and verification wait behind each other, and behind them nobody.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tollgate::control::listed;
use tollgate::store::Db;

use crate::world::World;

/// Every operation that reads and takes no turn among the slow reads, with the reason.
const QUICK: &[(&str, &str)] = &[
    ("root", "reads nothing"),
    ("health", "one probe a second, whoever asks"),
    ("healthz", "one probe a second, whoever asks"),
    ("alive", "reads nothing"),
    ("ready", "one probe a second, whoever asks"),
    ("openapi_document", "reads nothing"),
    ("swagger_ui", "reads nothing"),
    ("swagger_ui_file", "reads nothing"),
    ("redoc", "reads nothing"),
    ("redoc_file", "reads nothing"),
    ("info", "reads nothing"),
    ("metrics", "in memory"),
    ("profile", "one user's rows by their key"),
    ("show_key", "one user's rows by their key"),
    ("user_sessions", "one account's sessions, of which there is a largest number"),
    ("staff_sessions", "one account's sessions, of which there is a largest number"),
    ("admin_sessions", "one account's sessions, of which there is a largest number"),
    ("list_user_sessions", "one account's sessions, of which there is a largest number"),
    ("list_staff_sessions", "one account's sessions, of which there is a largest number"),
    ("list_admin_sessions", "one account's sessions, of which there is a largest number"),
    ("user_second_factors", "one account's rows by their key"),
    ("staff_second_factors", "one account's rows by their key"),
    ("admin_second_factors", "one account's rows by their key"),
    ("list_user_second_factors", "one account's rows by their key"),
    ("list_staff_second_factors", "one account's rows by their key"),
    ("list_admin_second_factors", "one account's rows by their key"),
    ("list_keys", "one user's keys, of which there is a largest number"),
    ("get_key", "one row by its key"),
    ("key_standing", "one user's last days by their key"),
    ("authz", "one key, known in memory"),
    ("staff_profile", "one row by its key"),
    ("staff_get_user", "one user's rows by their key"),
    ("get_user", "one user's rows by their key"),
    ("list_user_keys", "one user's keys, of which there is a largest number"),
    ("get_deleted_user", "one row by its key"),
    ("get_admin", "one row by its key"),
    ("get_staff", "one row by its key"),
    ("list_jobs", "the latest run of each of a dozen jobs"),
    ("get_message_log", "one row by its key"),
    ("explain", "one user's rows by their key"),
];

#[test]
fn every_operation_that_reads_takes_a_turn_or_is_quick() {
    let quick: BTreeMap<_, _> = QUICK.iter().copied().collect();
    let mut left = quick.clone();
    for operation in listed() {
        let reads = operation.method == "GET" || operation.handler == "explain";
        let is_quick = left.remove(operation.handler).is_some();
        let classified = !reads || is_quick != operation.is_slow;
        assert!(classified, "take a SlowTurn in {}, or say here why it is quick", operation.handler);
    }
    assert!(left.is_empty(), "no such operations: {left:?}");
    let slow: Vec<_> = listed().into_iter().filter(|operation| operation.is_slow).collect();
    assert!(slow.iter().all(|operation| operation.method == "GET") && slow.len() >= 10, "{slow:?}");
}

/// Reads of the message log that come to no end while it lives.
enum Hold {
    Sqlite,
    Postgres(PgConnection),
}

impl Hold {
    async fn take(world: &World) -> Self {
        match world.db() {
            Db::Sqlite { .. } => {
                tamper(world, "ALTER TABLE exchanges RENAME TO held").await;
                let endless = "CREATE VIEW exchanges AS WITH RECURSIVE n(i) AS
                    (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT held.* FROM n CROSS JOIN held WHERE n.i < 0";
                tamper(world, endless).await;
                Self::Sqlite
            }
            Db::Postgres(_) => {
                let mut other = PgConnection::connect(&world.database_url()).await.unwrap();
                for text in ["BEGIN", "LOCK TABLE exchanges IN ACCESS EXCLUSIVE MODE"] {
                    sqlx::query(text).execute(&mut other).await.unwrap();
                }
                Self::Postgres(other)
            }
        }
    }

    async fn end(self, world: &World) {
        match self {
            Self::Sqlite => {
                tamper(world, "DROP VIEW exchanges").await;
                tamper(world, "ALTER TABLE held RENAME TO exchanges").await;
            }
            Self::Postgres(other) => other.close().await.unwrap(),
        }
    }
}

async fn tamper(world: &World, text: &'static str) {
    let Db::Sqlite { writer, .. } = world.db() else { return };
    world.ask(sqlx::query(AssertSqlSafe(text)).execute(writer)).await.unwrap();
}

#[tokio::test]
async fn chats_logins_and_readiness_go_on_while_admins_read_more_than_the_database_can() {
    let world = World::with(|setup| {
        setup.add("[database]\nslow_read_timeout = \"10s\"\nacquire_timeout = \"5s\"\n[message_log]\nbatch_interval = \"1h\"");
    })
    .await;
    let (first, mut people) = (world.user("first").await, Vec::new());
    assert_eq!(world.chat(&first).send().await.status, 200);
    for n in 0..8 {
        people.push(world.user(&format!("person{n}")).await);
    }
    let admin = world.admin().await;
    world.rows(&admin).await;
    let hold = Hold::take(&world).await;
    let lists = (0..16).map(|_| "/api/v1/admin/message-logs?model=nope");
    let reads = lists.chain((0..10).map(|_| "/api/v1/admin/statistics"));
    let reads = join_all(reads.map(|path| world.get(path).bearer(&admin).send()));
    let work = async {
        let mut refused = 0.0;
        while refused < 16.0 {
            tokio::task::yield_now().await;
            refused = world.metric("tollgate_slow_reads_refused_total");
        }
        for answer in join_all(people.iter().map(|person| world.chat(person).send())).await {
            assert_eq!(answer.status, 200, "a first chat: {}", answer.text());
        }
        let login = json!({"email": first.email, "password": first.password});
        for answer in join_all((0..4).map(|_| world.post("/api/v1/auth/login").json(&login).send())).await {
            assert_eq!(answer.status, 200, "a login: {}", answer.text());
        }
        assert_eq!(world.get("/readyz").send().await.status, 200);
        hold.end(&world).await;
    };
    let (answers, ()) = tokio::join!(reads, work);
    let busy: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert!(busy.len() >= 16, "{} were refused", busy.len());
    let told = busy.iter().filter(|answer| answer.json()["code"] == "slow_reads_busy");
    let told: Vec<_> = told.map(|answer| (answer.status, !answer.header("retry-after").is_empty())).collect();
    assert!(told.len() >= 16 && told.iter().all(|told| *told == (503, true)), "{told:?}");
}
