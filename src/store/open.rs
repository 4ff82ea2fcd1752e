//! Opening a database: making what is absent, refusing what is not ours, migrating the rest.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, SqliteConnection, SqlitePool};

use super::{Db, StoreError, connections};
use crate::config::{Database, DatabaseLocation};

/// What SQLite waits for a lock that another process holds, such as a command beside the server.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Versions 3.7.0 to 3.51.2 can corrupt a database when two connections write and checkpoint at once.
const OLDEST_SQLITE: (u32, u32, u32) = (3, 51, 3);

/// Steps of both engines have the same numbers and names; `migrations/README.md` has the rules.
static SQLITE_STEPS: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES_STEPS: Migrator = sqlx::migrate!("migrations/postgres");

// === impl Db ===

impl Db {
    /// Opens the database, makes the SQLite file (readable by its owner only) and its folder when
    /// they are absent, and brings the schema up to date. A SQLite file that was not closed
    /// properly is checked first.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the file is corrupt, when a newer program has migrated the
    /// database, or when this program was built with a SQLite older than 3.51.3;
    /// [`StoreError::Unavailable`] when it cannot be reached or made.
    pub async fn connect(database: &Database) -> Result<Self, StoreError> {
        Self::open(database, true).await
    }

    /// [`Db::connect`] for a command beside a gateway that may be running: a SQLite file that is open
    /// looks like one that was not closed properly, and to check a large one would take minutes.
    ///
    /// # Errors
    /// As [`Db::connect`], without the check.
    pub async fn connect_or_make(database: &Database) -> Result<Self, StoreError> {
        Self::open(database, false).await
    }

    /// [`Db::connect_or_make`] for a command that makes and migrates nothing. `None`: there is no database,
    /// or it has no tables of ours; then nothing was changed.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the schema is not of this program's version;
    /// [`StoreError::Unavailable`] when it cannot be reached.
    pub async fn connect_beside(database: &Database) -> Result<Option<Self>, StoreError> {
        let db = match &database.location {
            DatabaseLocation::Sqlite(path) => {
                if !has_our_tables(path).await? {
                    return Ok(None);
                }
                open_sqlite(path, database, false).await?
            }
            DatabaseLocation::Postgres(url) => open_postgres(url, database).await?,
        };
        let steps = match &db {
            Self::Sqlite { .. } => &SQLITE_STEPS,
            Self::Postgres(_) => &POSTGRES_STEPS,
        };
        let last = steps.iter().map(|step| step.version).max().unwrap_or(0);
        match db.latest_step().await? {
            None => Ok(None),
            Some(step) if step == last => Ok(Some(db)),
            Some(step) if step > last => Err(refusal(MigrateError::VersionMissing(step))),
            Some(step) => Err(StoreError::Damaged {
                what: "the database's schema is older than this program's",
                detail: format!("it has step {step} of {last}: run `tollgate migrate`, or start the gateway"),
            }),
        }
    }

    /// The last step that was run here; `None` where none was.
    async fn latest_step(&self) -> Result<Option<i64>, StoreError> {
        if let Self::Postgres(pool) = self
            && sqlx::query_scalar::<_, Option<String>>(OUR_TABLE).fetch_one(pool).await?.is_none()
        {
            return Ok(None);
        }
        Ok(on!(self, read pool => sqlx::query_scalar(LATEST_STEP).fetch_one(pool).await)?)
    }

    async fn open(database: &Database, check: bool) -> Result<Self, StoreError> {
        match &database.location {
            DatabaseLocation::Sqlite(path) => {
                make_file(path).map_err(|e| {
                    let text = format!("cannot make {}: {e}", path.display());
                    StoreError::Unavailable(sqlx::Error::Io(io::Error::new(e.kind(), text)))
                })?;
                let turn = take_turn(path).await;
                let db = open_sqlite(path, database, check).await?;
                db.migrate().await?;
                drop(turn);
                Ok(db)
            }
            DatabaseLocation::Postgres(url) => {
                let db = open_postgres(url, database).await?;
                db.migrate().await?;
                Ok(db)
            }
        }
    }

    /// Runs the steps this database has not seen. Two nodes that start together take turns.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the database has steps this program does not know, or knows
    /// otherwise; [`StoreError::Unavailable`] when a step could not be run: nothing of it was done.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite { writer, .. } => {
                let mut conn = writer.acquire().await?;
                SQLITE_STEPS.run_direct(None, &mut *conn, false).await.map_err(refusal)
            }
            Self::Postgres(pool) => {
                // A step may take longer than a statement is given, and so may the wait for another
                // node's: this connection has no limit, and is not used again.
                let mut conn = pool.acquire().await?.detach();
                sqlx::query("SELECT set_config('statement_timeout', '0', false)").execute(&mut conn).await?;
                let done = POSTGRES_STEPS.run_direct(None, &mut conn, false).await.map_err(refusal);
                conn.close().await?;
                done
            }
        }
    }
}

const OUR_TABLE: &str = "SELECT CAST(to_regclass('_sqlx_migrations') AS TEXT)";
const LATEST_STEP: &str = "SELECT MAX(version) FROM _sqlx_migrations";
const OUR_SQLITE_TABLE: &str =
    "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name = '_sqlx_migrations'";

/// Looks into a file without changing a byte of it.
async fn has_our_tables(path: &Path) -> Result<bool, StoreError> {
    if !path.is_file() {
        return Ok(false);
    }
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIMEOUT);
    let mut conn = SqliteConnection::connect_with(&options).await?;
    let found: i64 = sqlx::query_scalar(OUR_SQLITE_TABLE).fetch_one(&mut conn).await?;
    conn.close().await?;
    Ok(found > 0)
}

async fn open_sqlite(path: &Path, database: &Database, check: bool) -> Result<Db, StoreError> {
    let left_open = std::fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0);
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    // Connections to a file do not go stale: none is retired, and none is replaced but after an error.
    let pool = || {
        SqlitePoolOptions::new()
            .acquire_timeout(database.acquire_timeout)
            .test_before_acquire(false)
            .after_release(|conn, _| Box::pin(connections::is_idle(conn)))
            .idle_timeout(None)
            .max_lifetime(None)
    };
    let writer = pool().after_connect(|conn, _| Box::pin(connections::require_writable(conn)));
    let writer = writer.max_connections(1).connect_with(options.clone()).await?;
    require_fixed_sqlite(&writer).await?;
    if left_open && check {
        check_integrity(&writer).await?;
    }
    let readers = pool().max_connections(database.max_connections.max(1));
    Ok(Db::Sqlite { writer, readers: readers.connect_with(options.read_only(true)).await? })
}

async fn open_postgres(url: &SecretString, database: &Database) -> Result<Db, StoreError> {
    let options = PgConnectOptions::from_str(url.expose_secret())?.application_name("tollgate");
    let limit = database.statement_timeout.as_millis().to_string();
    // Each connection is asked before use, which costs the same round trip as a ping.
    let pool = PgPoolOptions::new()
        .max_connections(database.max_connections.max(1))
        .acquire_timeout(database.acquire_timeout)
        .test_before_acquire(false)
        .before_acquire(|conn, _| Box::pin(connections::is_fresh(conn)))
        .after_release(|conn, _| Box::pin(connections::has_ended(conn)))
        .after_connect(move |conn, _| {
            let limit = limit.clone();
            Box::pin(async move {
                let set = "SELECT set_config('statement_timeout', $1, false)";
                sqlx::query(set).bind(limit).execute(&mut *conn).await?;
                if connections::is_fresh(conn).await? {
                    return Ok(());
                }
                Err(sqlx::Error::Configuration("this PostgreSQL server is read-only, a standby".into()))
            })
        });
    Ok(Db::Postgres(pool.connect_with(options).await?))
}

/// Asserts the bundled SQLite, lest a changed lock file bring back an old one.
async fn require_fixed_sqlite(writer: &SqlitePool) -> Result<(), StoreError> {
    let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(writer).await?;
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    if (next(), next(), next()) >= OLDEST_SQLITE {
        return Ok(());
    }
    let detail = format!("{version} can corrupt a database; at least 3.51.3 is needed");
    Err(StoreError::Damaged { what: "this program's SQLite", detail })
}

async fn check_integrity(writer: &SqlitePool) -> Result<(), StoreError> {
    let found: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(writer).await?;
    if found == "ok" {
        return Ok(());
    }
    Err(StoreError::Damaged { what: "the database is corrupt, restore a backup", detail: found })
}

/// SQLite gives the files it makes beside this one the same permissions.
fn make_file(path: &Path) -> io::Result<()> {
    let mut folder = std::fs::DirBuilder::new();
    let mut file = std::fs::OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        folder.mode(0o700);
        file.mode(0o600);
    }
    if let Some(parent) = folder_of(path) {
        folder.recursive(true).create(parent)?;
    }
    // A file that is there is not opened: closing it again would end every lock SQLite holds on it
    // for this process (POSIX advisory locks).
    match file.create_new(true).write(true).open(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// Waits until no other process is opening a database in this folder, for as long as the answer
/// lives: SQLite has no lock for a whole migration, nor for turning a file to WAL. On a file system
/// without locks there is no waiting.
async fn take_turn(path: &Path) -> Option<File> {
    let folder = File::open(folder_of(path).unwrap_or(Path::new("."))).ok()?;
    let locked = tokio::task::spawn_blocking(move || folder.lock().map(|()| folder)).await;
    locked.ok()?.ok()
}

fn folder_of(path: &Path) -> Option<&Path> {
    path.parent().filter(|parent| !parent.as_os_str().is_empty())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn refusal(error: MigrateError) -> StoreError {
    let detail = match error {
        MigrateError::VersionMissing(step) => format!(
            "it has step {step}, which this program does not know: a newer Tollgate migrated it; \
             start that one, or restore a backup from before"
        ),
        MigrateError::VersionMismatch(step) => {
            format!("step {step} is not the one this program knows: the database was made by another build")
        }
        MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => return cause.into(),
        other => other.to_string(),
    };
    StoreError::Damaged { what: "the database's schema is not this program's", detail }
}
