//! The store's promises, on whichever engine `TOLLGATE_TEST_DATABASE` names (`sqlite` without it).
//! For `postgres`, `TOLLGATE_TEST_POSTGRES` is the URL of a server where databases may be made.

use std::time::Duration;

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

use super::audit::{Actor, Entry};
use super::keys::NewKey;
use super::leases::{Ask, Granted, grant};
use super::runs::{self, Run};
use super::users::NewUser;
use super::{Db, users};
use crate::clock::Timestamp;
use crate::config::{Database, DatabaseLocation};
use crate::credential::key::KeyDigest;
use crate::ids::{ExchangeId, RunId, UserId};

mod accounts;
mod audit;
mod connections;
mod deleted;
mod exchanges;
mod integrity;
mod keys;
mod leases;
mod ledger;
mod quota;
mod schema;
mod sessions;
mod slow_reads;
mod usage;
mod webhooks;

/// An instant to begin with.
pub(crate) const NOW: Timestamp = Timestamp(1_790_000_000_123);

/// The run that holds what is granted where a test does not say.
pub(crate) const RUN: RunId = RunId(Uuid::from_u128(1));

/// An empty database of its own for one test. The SQLite file goes with it.
pub(crate) struct Fresh {
    pub(crate) db: Db,
    pub(crate) settings: Database,
    _folder: TempDir,
}

/// Makes one, migrated.
pub(crate) async fn fresh() -> Fresh {
    let (settings, folder) = unopened().await;
    let db = Db::connect(&settings).await.unwrap();
    Fresh { db, settings, _folder: folder }
}

/// What to open a database with that was never opened.
async fn unopened() -> (Database, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let engine = std::env::var("TOLLGATE_TEST_DATABASE").unwrap_or_else(|_| "sqlite".into());
    let location = match engine.as_str() {
        "sqlite" => DatabaseLocation::Sqlite(folder.path().join("made/tollgate.db")),
        "postgres" => DatabaseLocation::Postgres(fresh_postgres().await.into()),
        other => panic!("TOLLGATE_TEST_DATABASE={other}: sqlite or postgres"),
    };
    let patience = Duration::from_secs(20);
    let settings = Database {
        location,
        max_connections: 10,
        acquire_timeout: patience,
        statement_timeout: patience,
        max_slow_reads: 2,
        slow_read_timeout: patience,
    };
    (settings, folder)
}

/// A user with a key, by a name; the digest is made of the name too.
pub(crate) async fn user(db: &Db, name: &str) -> UserId {
    let registered = entry("user.register");
    users::insert(db, &new_user(name), &new_key(name), NOW, &registered).await.unwrap()
}

pub(crate) fn new_user(name: &str) -> NewUser {
    NewUser {
        username: name.into(),
        name: format!("{name} O'Brien"),
        email: format!("{name}@Example.com"),
        password_hash: "$2b$12$hash".into(),
        about_me: String::new(),
        hobbies: String::new(),
        kind: "Personal".into(),
        subscription_plan: "free".into(),
        credits: 5,
        access_rtype: vec!["basic".into()],
        level: "medium".into(),
        beginning: None,
    }
}

pub(crate) fn new_key(of: &str) -> NewKey {
    NewKey { digest: digest(of), sealed: format!("gAAAA-{of}"), prefix: "pe-abcd".into(), format: 2 }
}

pub(crate) fn digest(of: &str) -> KeyDigest {
    let mut bytes = [0_u8; 32];
    bytes[..of.len()].copy_from_slice(of.as_bytes());
    KeyDigest::try_from(bytes.as_slice()).unwrap()
}

pub(crate) fn entry(action: &'static str) -> Entry {
    Entry {
        actor: Actor::Nobody,
        actor_name: "somebody".into(),
        action,
        target: "target".into(),
        detail: json!({"fields": ["name"]}),
        request_id: "req_1".into(),
        client_ip: Some("::ffff:203.0.113.9".parse().unwrap()),
        at: NOW,
    }
}

/// The name of a row that began then.
pub(crate) fn id_at(time: i64) -> ExchangeId {
    ExchangeId(crate::clock::Clock::manual(Timestamp(time)).uuid())
}

/// A conversation of nobody, which cost nothing.
pub(crate) fn exchange(time: i64) -> super::exchanges::Exchange {
    super::exchanges::Exchange {
        id: id_at(time),
        user_id: None,
        key_id: None,
        username: "ada".into(),
        email: "ada@example.com".into(),
        request_id: "req_1".into(),
        route: "/v1".into(),
        call: "chat".into(),
        model: "gpt-4o".into(),
        messages: Some(r#"[{"role":"user","content":"hi"}]"#.into()),
        answer: Some(r#"{"role":"assistant","content":"ho"}"#.into()),
        research_model: false,
        time: Timestamp(time),
        status: Some(200),
        stream: true,
        outcome: "complete".into(),
        verdict: super::exchanges::Verdict::Free,
        reason: String::new(),
        quota_day: None,
        quota_epoch: None,
        first_byte_ms: Some(3),
        latency_ms: 9,
        bytes_in: 10,
        bytes_out: 20,
        prompt_tokens: Some(1),
        completion_tokens: None,
        total_tokens: None,
        cached_tokens: None,
        reasoning_tokens: None,
        usage_source: "upstream".into(),
        finish_reason: Some("stop".into()),
        truncated: false,
        client_ip: "203.0.113.9".into(),
    }
}

impl Db {
    /// From now on rows of the log with this model are against the schema.
    pub(crate) async fn refuse_model(&self, model: &str) {
        match self {
            Self::Sqlite { writer, .. } => {
                let rule = format!(
                    "CREATE TRIGGER refuse BEFORE INSERT ON exchanges WHEN NEW.model = '{model}' \
                     BEGIN SELECT RAISE(ABORT, 'refused'); END"
                );
                sqlx::query(AssertSqlSafe(rule)).execute(writer).await.unwrap();
            }
            Self::Postgres(pool) => {
                let rule = format!("ALTER TABLE exchanges ADD CONSTRAINT refuse CHECK (model <> '{model}')");
                sqlx::query(AssertSqlSafe(rule)).execute(pool).await.unwrap();
            }
        }
    }
}

/// Grants [`RUN`] as many of a user's day as it needs, and no more; `None` when there is none left.
pub(crate) async fn take(db: &Db, user: UserId, day: i64, plan_limit: i64, need: i64) -> Option<Granted> {
    let ask = Ask { user, day, plan_limit, need, most: 1 };
    granted(db, RUN, &[ask]).await.pop().filter(|granted| granted.units > 0)
}

/// Grants units to a run, which is entered first where it is not there.
pub(crate) async fn granted(db: &Db, id: RunId, asks: &[Ask]) -> Vec<Granted> {
    let run = Run { id, node: "node".into(), boot: "boot".into(), started_at: Timestamp(1), folder: None };
    // It may be there already.
    let _ = runs::begin(db, &run).await;
    grant(db, id, asks).await.unwrap()
}

/// Columns of `quota`, and what runs hold of the row.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Balance {
    pub(crate) user_id: UserId,
    pub(crate) day: i64,
    pub(crate) epoch: i64,
    pub(crate) allowance: i64,
    pub(crate) granted: i64,
    pub(crate) charged: i64,
    pub(crate) refunded: i64,
    pub(crate) forfeited: i64,
    pub(crate) held: i64,
}

/// Every row of `quota`, each held against the identity that every row keeps at every moment: what is
/// granted is charged, or held by a run, or forfeited; and no lease without its row.
pub(crate) async fn balances(db: &Db) -> Vec<Balance> {
    const ROWS: &str = "SELECT q.user_id, q.day, q.epoch, q.allowance, q.granted, q.charged, q.refunded,
            q.forfeited, CAST(COALESCE((SELECT SUM(l.units) FROM leases l WHERE l.user_id = q.user_id
                AND l.day = q.day AND l.epoch = q.epoch), 0) AS BIGINT) AS held
        FROM quota q ORDER BY q.user_id, q.day, q.epoch";
    const STRAY: &str =
        "SELECT COUNT(*) FROM leases l WHERE l.units > 0 AND NOT EXISTS (SELECT 1 FROM quota q
        WHERE l.user_id = q.user_id AND l.day = q.day AND l.epoch = q.epoch)";
    let rows: Vec<Balance> = on!(db, write pool => sqlx::query_as(ROWS).fetch_all(pool).await).unwrap();
    for row in &rows {
        assert_eq!(row.granted, row.charged + row.held + row.forfeited, "{row:?}");
        let least = [row.granted, row.charged, row.refunded, row.forfeited, row.held];
        assert!(least.iter().all(|number| *number >= 0), "{row:?}");
    }
    let stray: i64 = on!(db, write pool => sqlx::query_scalar(STRAY).fetch_one(pool).await).unwrap();
    assert_eq!(stray, 0, "leases of days that nobody knows");
    rows
}

async fn fresh_postgres() -> String {
    let server = std::env::var("TOLLGATE_TEST_POSTGRES")
        .expect("TOLLGATE_TEST_DATABASE=postgres needs TOLLGATE_TEST_POSTGRES=postgres://user@host:port/");
    let server = server.trim_end_matches('/');
    let name = format!("tollgate_{}", Uuid::now_v7().simple());
    let mut conn = PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    format!("{server}/{name}")
}
