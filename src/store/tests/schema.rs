//! Opening, refusing, and that both engines are migrated to the same tables.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{NOW, fresh, unopened, user};
use crate::config::{Database, DatabaseLocation};
use crate::ids::UserId;
use crate::store::{Db, StoreError, users};

/// Table → its columns, each with whether it may be NULL.
type Tables = BTreeMap<String, Vec<(String, bool)>>;

/// What the steps come to, read from their text, so that each engine's run is held against both.
fn written(folder: &str) -> Tables {
    let mut tables = Tables::new();
    let mut steps: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    steps.sort();
    for step in steps {
        let text = std::fs::read_to_string(step).unwrap();
        for table in text.split("CREATE TABLE ").skip(1) {
            let (name, rest) = table.split_once(" (\n").unwrap();
            let body = rest.split_once("\n);").unwrap().0;
            let column = |line: &str| {
                let line = line.trim();
                let name = line.split_whitespace().next().unwrap_or_default();
                let names_a_column = name.starts_with(|c: char| c.is_ascii_lowercase());
                let required = line.contains("NOT NULL") || line.contains("PRIMARY KEY");
                names_a_column.then(|| (name.to_owned(), !required))
            };
            tables.insert(name.to_owned(), sorted(body.lines().filter_map(column).collect()));
        }
        for line in text.lines().filter_map(|line| line.strip_prefix("ALTER TABLE ")) {
            let (table, column) = line.split_once(" ADD COLUMN ").unwrap();
            let columns = tables.get_mut(table).unwrap();
            let name = column.split_whitespace().next().unwrap().to_owned();
            columns.push((name, !column.contains("NOT NULL")));
            columns.sort();
        }
    }
    tables
}

async fn found(db: &Db) -> Tables {
    const SQLITE: &str = "SELECT m.name, c.name, c.\"notnull\" = 0 AND c.pk = 0
        FROM sqlite_schema m JOIN pragma_table_info(m.name) c
        WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name <> '_sqlx_migrations'";
    const POSTGRES: &str = "SELECT table_name::text, column_name::text, is_nullable = 'YES'
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations'";
    let rows: Vec<(String, String, bool)> = match db {
        Db::Sqlite { readers, .. } => sqlx::query_as(SQLITE).fetch_all(readers).await.unwrap(),
        Db::Postgres(pool) => sqlx::query_as(POSTGRES).fetch_all(pool).await.unwrap(),
    };
    let mut tables = Tables::new();
    for (table, column, nullable) in rows {
        tables.entry(table).or_default().push((column, nullable));
    }
    tables.into_iter().map(|(name, columns)| (name, sorted(columns))).collect()
}

fn sorted(mut columns: Vec<(String, bool)>) -> Vec<(String, bool)> {
    columns.sort();
    columns
}

#[tokio::test]
async fn both_engines_are_migrated_to_the_same_tables_and_columns() {
    let world = fresh().await;
    let found = found(&world.db).await;
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "admins",
            "audit",
            "audit_head",
            "carried",
            "clock_mark",
            "deleted_users",
            "email_changes",
            "erasures",
            "errands",
            "exchanges",
            "job_runs",
            "keys",
            "leases",
            "log_removed",
            "mail_tokens",
            "quota",
            "recovery_codes",
            "refresh_tokens",
            "registrations",
            "runs",
            "second_factors",
            "secret_fingerprints",
            "sessions",
            "staff",
            "takeovers",
            "usage_daily",
            "usage_late",
            "users",
            "verified_emails",
            "webhook_events",
            "webhook_queue",
            "write_probe",
        ]
    );
    assert_eq!(found, written(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite")));
    assert_eq!(found, written(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres")));
}

#[tokio::test]
async fn a_database_is_opened_again_as_it_was() {
    let world = fresh().await;
    let id = user(&world.db, "ada").await;
    world.db.ping().await.unwrap();
    world.db.migrate().await.unwrap();
    world.db.close().await;
    assert!(matches!(world.db.ping().await, Err(StoreError::Unavailable(_))));
    let again = Db::connect(&world.settings).await.unwrap();
    assert_eq!(users::by_id(&again, id).await.unwrap().map(|ada| ada.time_created), Some(NOW));
}

#[tokio::test]
async fn of_several_that_start_at_once_on_nothing_all_start() {
    let (settings, _folder) = unopened().await;
    let started = futures_util::future::join_all((0..4).map(|_| Db::connect(&settings))).await;
    for db in started {
        db.unwrap().ping().await.unwrap();
    }
}

#[tokio::test]
async fn the_schema_of_a_newer_program_is_refused_by_name() {
    let world = fresh().await;
    on!(&world.db, write pool => sqlx::query("INSERT INTO _sqlx_migrations
        (version, description, success, checksum, execution_time) SELECT 9001, 'later', success, checksum, 0
        FROM _sqlx_migrations WHERE version = 1").execute(pool).await.map(|_| ()))
    .unwrap();
    let refused = Db::connect(&world.settings).await.unwrap_err();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused:?}");
    assert!(refused.to_string().contains("step 9001"), "{refused}");
    assert!(refused.to_string().contains("newer Tollgate"), "{refused}");
}

#[tokio::test]
async fn a_database_in_use_is_not_migrated_where_that_would_go_wrong() {
    let world = fresh().await;
    let earlier = match &world.db {
        Db::Sqlite { .. } => 14,
        Db::Postgres(_) => 5,
    };
    let forget = format!("DELETE FROM _sqlx_migrations WHERE version > {earlier}");
    on!(&world.db, write pool => sqlx::query(sqlx::AssertSqlSafe(forget)).execute(pool).await.map(|_| ()))
        .unwrap();
    let refused = Db::connect(&world.settings).await.unwrap_err().to_string();
    for words in ["another process uses it", "step", "stop them first"] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    world.db.ping().await.unwrap();
    world.db.close().await;
    // Alone it gets to the steps, which find here what they would make.
    let failed = Db::connect(&world.settings).await.unwrap_err().to_string();
    assert!(failed.contains("already exists") || failed.contains("duplicate column"), "{failed}");
}

#[tokio::test]
async fn a_caller_that_waits_too_long_for_a_connection_is_told_so() {
    let world = fresh().await;
    let acquire_timeout = Duration::from_secs(1);
    let narrow = Database { max_connections: 1, acquire_timeout, ..world.settings.clone() };
    let narrow = Db::connect(&narrow).await.unwrap();
    let held = narrow.begin().await.unwrap();
    let late = users::update_password_hash(&narrow, UserId(1), "a", "b", NOW).await;
    assert!(matches!(late, Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut))), "{late:?}");
    drop(held);
    narrow.ping().await.unwrap();
}

#[tokio::test]
async fn readers_cannot_write_and_the_file_is_its_owners() {
    let world = fresh().await;
    let (Db::Sqlite { readers, .. }, DatabaseLocation::Sqlite(path)) = (&world.db, &world.settings.location)
    else {
        return;
    };
    assert!(sqlx::query("DELETE FROM users").execute(readers).await.is_err());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(path), 0o600);
        assert_eq!(mode(&path.with_extension("db-wal")), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
    }
}

#[tokio::test]
async fn sqlite_is_durable_and_new_enough() {
    let world = fresh().await;
    let Db::Sqlite { writer, .. } = &world.db else { return };
    let ask = async |what: &'static str| -> String {
        sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(format!(
            "SELECT CAST({what} AS TEXT) FROM pragma_{what}"
        )))
        .fetch_one(writer)
        .await
        .unwrap()
    };
    assert_eq!((ask("journal_mode").await.as_str(), ask("synchronous").await.as_str()), ("wal", "2"));
    assert_eq!((ask("foreign_keys").await.as_str(), writer.options().get_max_connections()), ("1", 1));
}

#[tokio::test]
async fn a_corrupt_file_is_refused_at_start() {
    let world = fresh().await;
    let DatabaseLocation::Sqlite(path) = &world.settings.location else { return };
    user(&world.db, "ada").await;
    world.db.close().await;
    let whole = std::fs::read(path).unwrap();
    let mut torn = whole.clone();
    torn[4096..].fill(0xa5);
    std::fs::write(path, &torn).unwrap();
    let refused = Db::connect(&world.settings).await.unwrap_err();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused:?}");
    std::fs::write(path, "this is a text, and no database at all".repeat(200)).unwrap();
    let refused = Db::connect(&world.settings).await.unwrap_err();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_postgres_statement_ends_in_time_and_its_connection_goes_on() {
    let world = fresh().await;
    let short = Database { statement_timeout: Duration::from_millis(50), ..world.settings.clone() };
    let Db::Postgres(pool) = Db::connect(&short).await.unwrap() else { return };
    let slow = StoreError::from(sqlx::query("SELECT pg_sleep(60)").execute(&pool).await.unwrap_err());
    assert!(matches!(slow, StoreError::Unavailable(_)), "{slow:?}");
    sqlx::query("SELECT 1").execute(&pool).await.unwrap();
    let named: String = sqlx::query_scalar("SHOW application_name").fetch_one(&pool).await.unwrap();
    assert_eq!(named, "tollgate");
}

#[tokio::test]
async fn a_postgres_connection_that_takes_no_writes_is_given_up() {
    let world = fresh().await;
    let narrow = Database { max_connections: 1, ..world.settings.clone() };
    let Db::Postgres(pool) = Db::connect(&narrow).await.unwrap() else { return };
    sqlx::query("SET default_transaction_read_only = on").execute(&pool).await.unwrap();
    user(&Db::Postgres(pool), "ada").await;
}
