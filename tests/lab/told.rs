//! What the product says of itself: its tables, read by queries of the laboratory's own, and the
//! admin's list of users.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, SqliteConnection};

use super::canary::Canary;
use super::gate::{Database, Gate};

/// Rows of the log, balances, and what is left.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) rows: Vec<Row>,
    pub(crate) balances: HashMap<String, Balance>,
    /// From the admin's list, where it was asked.
    pub(crate) left: HashMap<String, i64>,
}

/// One row of the log.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) username: String,
    pub(crate) request_id: String,
    pub(crate) call: String,
    pub(crate) verdict: String,
    pub(crate) reason: String,
    pub(crate) canary: Option<Canary>,
}

/// All days and epochs of a user together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Balance {
    pub(crate) granted: i64,
    pub(crate) charged: i64,
    pub(crate) refunded: i64,
    pub(crate) forfeited: i64,
    pub(crate) leased: i64,
    /// Granted beyond the allowance of a day.
    pub(crate) beyond: i64,
}

/// How long what waited for a database may take to be written.
const PATIENCE: Duration = Duration::from_mins(2);

/// A connection that only reads.
enum Reader {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

macro_rules! rows {
    ($reader:expr, $sql:expr) => {
        match $reader {
            Reader::Sqlite(connection) => sqlx::query_as($sql).fetch_all(connection).await.unwrap(),
            Reader::Postgres(connection) => sqlx::query_as($sql).fetch_all(connection).await.unwrap(),
        }
    };
}

type RowColumns = (String, String, String, String, String, Option<String>);

const ROWS: &str = "SELECT username, request_id, call, verdict, reason, messages FROM exchanges";
const BALANCES: &str = "SELECT u.username, CAST(SUM(q.granted) AS BIGINT), CAST(SUM(q.charged) AS BIGINT), \
     CAST(SUM(q.refunded) AS BIGINT), CAST(SUM(q.forfeited) AS BIGINT), \
     CAST(SUM(CASE WHEN q.granted > q.allowance THEN q.granted - q.allowance ELSE 0 END) AS BIGINT) \
     FROM quota q JOIN users u ON u.id = q.user_id GROUP BY u.username";
const LEASES: &str = "SELECT u.username, CAST(SUM(l.units) AS BIGINT) \
     FROM leases l JOIN users u ON u.id = l.user_id GROUP BY u.username";

// === impl Told ===

impl Told {
    /// What the tables say now.
    pub(crate) async fn of_tables(database: &Database) -> Self {
        let mut reader = Reader::open(database).await;
        let rows: Vec<RowColumns> = rows!(&mut reader, ROWS);
        let balances: Vec<(String, i64, i64, i64, i64, i64)> = rows!(&mut reader, BALANCES);
        let leases: Vec<(String, i64)> = rows!(&mut reader, LEASES);
        let mut told = Self { rows: rows.into_iter().map(Row::from).collect(), ..Self::default() };
        for (name, granted, charged, refunded, forfeited, beyond) in balances {
            let balance = Balance { granted, charged, refunded, forfeited, leased: 0, beyond };
            told.balances.insert(name, balance);
        }
        for (name, leased) in leases {
            told.balances.entry(name).or_default().leased = leased;
        }
        reader.close().await;
        told
    }

    /// What the admin sees of a gate that runs and rests: its list of users after its log was read,
    /// and the tables.
    pub(crate) async fn at_rest(gate: &Gate) -> Self {
        let admin = gate.admin().await;
        written(gate, &admin).await;
        let mut left = HashMap::new();
        for page in 0.. {
            let path = format!("/api/v1/admin/users?limit=1000&offset={}", page * 1000);
            let (status, users) = gate.get(&path, &admin).await;
            assert_eq!(status, 200, "{users}");
            let users = users.as_array().unwrap();
            for user in users {
                let name = user["username"].as_str().unwrap().to_owned();
                left.insert(name, user["limits"]["conversation_limit"].as_i64().unwrap());
            }
            if users.len() < 1000 {
                break;
            }
        }
        Self { left, ..Self::of_tables(&gate.database).await }
    }
}

/// Waits until no row is on its way any more. Whoever reads the log is not made to wait for all of them.
async fn written(gate: &Gate, admin: &str) {
    let begun = Instant::now();
    loop {
        let (status, _) = gate.get("/api/v1/admin/message-logs?limit=1", admin).await;
        assert_eq!(status, 200, "the admin cannot read the log");
        let (_, health) = gate.get("/health", admin).await;
        let waiting = health["message_buffer_size"].as_u64().expect("the number of rows that wait");
        if waiting == 0 {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{waiting} rows still wait after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

// === impl Row ===

impl From<RowColumns> for Row {
    fn from((username, request_id, call, verdict, reason, messages): RowColumns) -> Self {
        let canary = messages.and_then(|text| Canary::find(text.as_bytes())).map(|(canary, _)| canary);
        Self { username, request_id, call, verdict, reason, canary }
    }
}

// === impl Reader ===

impl Reader {
    async fn open(database: &Database) -> Self {
        match database {
            Database::Sqlite(file) => {
                let options = SqliteConnectOptions::new().filename(file).read_only(true);
                Self::Sqlite(options.connect().await.unwrap())
            }
            Database::Postgres { url, .. } => Self::Postgres(PgConnection::connect(url).await.unwrap()),
        }
    }

    async fn close(self) {
        let _ = match self {
            Self::Sqlite(connection) => connection.close().await,
            Self::Postgres(connection) => connection.close().await,
        };
    }
}
