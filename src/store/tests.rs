//! The store's promises, on whichever engine `TOLLGATE_TEST_DATABASE` names (`sqlite` without it).
//! For `postgres`, `TOLLGATE_TEST_POSTGRES` is the URL of a server where databases may be made.

use std::time::Duration;

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

use super::audit::{Actor, Entry};
use super::keys::NewKey;
use super::users::NewUser;
use super::{Db, users};
use crate::clock::Timestamp;
use crate::config::{Database, DatabaseLocation};
use crate::credential::key::KeyDigest;
use crate::ids::{ExchangeId, UserId};

mod accounts;
mod audit;
mod deleted;
mod exchanges;
mod keys;
mod quota;
mod schema;
mod sessions;
mod usage;
mod webhooks;

/// An instant to begin with.
pub(crate) const NOW: Timestamp = Timestamp(1_790_000_000_123);

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
    let settings =
        Database { location, max_connections: 8, acquire_timeout: patience, statement_timeout: patience };
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

/// A conversation of nobody, which cost nothing.
pub(crate) fn exchange(time: i64) -> super::exchanges::Exchange {
    super::exchanges::Exchange {
        id: ExchangeId::generate(),
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
