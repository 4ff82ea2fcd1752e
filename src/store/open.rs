//! Opening a database: making what is absent, refusing what is not ours, migrating the rest.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, SqlitePool};

use super::integrity::{self, Unchecked};
use super::migration_guard::{self, LATEST_STEP};
use super::{Db, StoreError, connections, postgres};
use crate::config::{Database, DatabaseLocation};

/// What SQLite waits for a lock that another process holds, such as a command beside the server.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Versions 3.7.0 to 3.51.2 can corrupt a database when two connections write and checkpoint at once.
const OLDEST_SQLITE: (u32, u32, u32) = (3, 51, 3);

/// Steps of both engines have the same numbers and names; `migrations/README.md` has the rules.
static SQLITE_STEPS: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES_STEPS: Migrator = sqlx::migrate!("migrations/postgres");

/// What a caller of [`Db::open`] wants of it.
#[derive(Clone, Copy)]
pub struct Opening<'a> {
    /// How long a PostgreSQL server is waited for that cannot be reached or takes no more connections; `None`:
    /// as long as it takes.
    pub patience: Option<Duration>,
    /// Called with each reason to wait.
    pub waits: &'a (dyn Fn(&StoreError) + Send + Sync),
    /// How long a SQLite file that was not closed properly may be checked for; zero: not at all.
    pub check_for: Duration,
}

const OUR_TABLE: &str = "SELECT CAST(to_regclass('_sqlx_migrations') AS TEXT)";
/// How often the log is told of what takes long.
const EVERY: Duration = Duration::from_secs(5);
/// For the check of a file.
const AS_LONG_AS_IT_TAKES: Duration = Duration::MAX;
/// How long commands wait for a PostgreSQL server.
pub const A_WHILE: Duration = Duration::from_secs(30);

// === impl Db ===

impl Db {
    /// Opens the database, makes the SQLite file (readable by its owner only) and its folder when
    /// they are absent, and brings the schema up to date. A SQLite file that was not closed
    /// properly is checked first.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the file is corrupt, when a newer program has migrated the
    /// database, or when this program was built with a SQLite older than 3.51.3;
    /// [`StoreError::NoConnection`] when PostgreSQL cannot be reached for half a minute;
    /// [`StoreError::Unavailable`] when it cannot be reached or made.
    pub async fn connect(database: &Database) -> Result<Self, StoreError> {
        let opening = Opening { patience: Some(A_WHILE), waits: &log_wait, check_for: AS_LONG_AS_IT_TAKES };
        Self::open(database, opening).await.map(|(db, _)| db)
    }

    /// [`Db::connect`] for a command beside a gateway that may be running: a SQLite file that is open
    /// looks like one that was not closed properly, and to check a large one would take minutes.
    ///
    /// # Errors
    /// As [`Db::connect`], without the check.
    pub async fn connect_or_make(
        database: &Database,
        waits: &(dyn Fn(&StoreError) + Send + Sync),
    ) -> Result<Self, StoreError> {
        // Other nodes may have all connections but for moments.
        let acquire_timeout = database.acquire_timeout.max(A_WHILE);
        let database = Database { acquire_timeout, ..database.clone() };
        let opening = Opening { patience: Some(A_WHILE), waits, check_for: Duration::ZERO };
        Self::open(&database, opening).await.map(|(db, _)| db)
    }

    /// [`Db::connect_or_make`] for a command that makes and migrates nothing. `None`: there is no database,
    /// or it has no tables of ours; then nothing was changed.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the schema is not of this program's version;
    /// [`StoreError::Unavailable`] when it cannot be reached.
    pub async fn connect_beside(
        database: &Database,
        waits: &(dyn Fn(&StoreError) + Send + Sync),
    ) -> Result<Option<Self>, StoreError> {
        let acquire_timeout = database.acquire_timeout.max(A_WHILE);
        let database = &Database { acquire_timeout, ..database.clone() };
        let opening = Opening { patience: Some(A_WHILE), waits, check_for: Duration::ZERO };
        let db = match &database.location {
            DatabaseLocation::Sqlite(path) => {
                if migration_guard::latest_step(path).await?.is_none() {
                    return Ok(None);
                }
                open_sqlite(path, database, Duration::ZERO).await?.0
            }
            DatabaseLocation::Postgres(url) => postgres::open(url, database, opening).await?,
        };
        let steps = match &db {
            Self::Sqlite { .. } => &SQLITE_STEPS,
            Self::Postgres(_) => &POSTGRES_STEPS,
        };
        let last = last_step(steps);
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

    /// [`Db::connect`] on other terms. With it, what was not checked in time of a SQLite file that was not closed
    /// properly.
    ///
    /// # Errors
    /// As [`Db::connect`].
    pub async fn open(
        database: &Database,
        opening: Opening<'_>,
    ) -> Result<(Self, Option<Unchecked>), StoreError> {
        match &database.location {
            DatabaseLocation::Sqlite(path) => {
                make_file(path).map_err(|e| {
                    let text = format!("cannot make {}: {e}", path.display());
                    StoreError::Unavailable(sqlx::Error::Io(io::Error::new(e.kind(), text)))
                })?;
                let turn = take_turn(path).await;
                let left_open = is_left_open(path);
                migration_guard::require_file(path, last_step(&SQLITE_STEPS)).await?;
                let check_for = if left_open { opening.check_for } else { Duration::ZERO };
                let (db, unchecked) = open_sqlite(path, database, check_for).await?;
                db.migrate().await?;
                drop(turn);
                Ok((db, unchecked))
            }
            DatabaseLocation::Postgres(url) => {
                let db = postgres::open(url, database, opening).await?;
                db.migrate().await?;
                Ok((db, None))
            }
        }
    }

    /// Opens what is there, to be read: nothing is made, migrated or checked. `None`: there is no database yet.
    ///
    /// # Errors
    /// As [`Db::connect`]; a server is not waited for.
    pub async fn peek(database: &Database) -> Result<Option<Self>, StoreError> {
        match &database.location {
            DatabaseLocation::Sqlite(path) if !path.exists() => Ok(None),
            DatabaseLocation::Sqlite(path) => {
                // Nobody has it open, so that nothing has to be made beside it.
                let at_rest = !beside(path, "-wal").exists();
                let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(at_rest);
                let readers = sqlite_pool(database).max_connections(1).connect_with(options).await?;
                Ok(Some(Self::Sqlite { writer: readers.clone(), readers }))
            }
            DatabaseLocation::Postgres(url) => postgres::peek(url, database).await.map(Some),
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
                let from: Option<i64> =
                    sqlx::query_scalar(REACHED).fetch_optional(&mut *conn).await.ok().flatten();
                told(&SQLITE_STEPS, from, SQLITE_STEPS.run_direct(None, &mut *conn, false)).await
            }
            Self::Postgres(pool) => {
                // A step may take longer than a statement is given, and so may the wait for another
                // node's: this connection has no limit, and is not used again.
                let mut conn = pool.acquire().await?.detach();
                sqlx::query("SELECT set_config('statement_timeout', '0', false)").execute(&mut conn).await?;
                migration_guard::take_turn(&mut conn).await?;
                let from: Option<i64> =
                    sqlx::query_scalar(REACHED).fetch_optional(&mut conn).await.ok().flatten();
                migration_guard::require_server(&mut conn, (from, last_step(&POSTGRES_STEPS))).await?;
                let done =
                    told(&POSTGRES_STEPS, from, POSTGRES_STEPS.run_direct(None, &mut conn, false)).await;
                conn.close().await?;
                done
            }
        }
    }
}

/// Where an earlier migration ended; an error where there was none.
const REACHED: &str = "SELECT version FROM _sqlx_migrations ORDER BY version DESC LIMIT 1";

fn last_step(steps: &Migrator) -> i64 {
    steps.iter().map(|step| step.version).max().unwrap_or(0)
}

/// Says in the log that an existing database is migrated, which may take minutes on a large one.
async fn told(
    steps: &Migrator,
    from: Option<i64>,
    migrating: impl Future<Output = Result<(), MigrateError>>,
) -> Result<(), StoreError> {
    let to = last_step(steps);
    let is_behind = from.is_some_and(|from| from < to);
    if is_behind {
        tracing::info!(from, to, "migrating the database");
    }
    let begun = Instant::now();
    let mut migrating = pin!(migrating);
    let done = loop {
        tokio::select! {
            done = &mut migrating => break done,
            () = tokio::time::sleep(EVERY) => {
                tracing::info!(from, to, seconds = begun.elapsed().as_secs(), "still migrating the database");
            }
        }
    };
    if is_behind && done.is_ok() {
        tracing::info!(from, to, seconds = begun.elapsed().as_secs(), "database migrated");
    }
    done.map_err(refusal)
}

/// Whether the last process that had the file did not close it properly.
fn is_left_open(path: &Path) -> bool {
    std::fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

async fn open_sqlite(
    path: &Path,
    database: &Database,
    check_for: Duration,
) -> Result<(Db, Option<Unchecked>), StoreError> {
    let options = sqlite_options(path);
    let writer = sqlite_pool(database).after_connect(|conn, _| Box::pin(connections::require_writable(conn)));
    let writer = writer.max_connections(1).connect_with(options.clone()).await?;
    require_fixed_sqlite(&writer).await?;
    let unchecked = if check_for.is_zero() {
        None
    } else {
        integrity::within(check_for, &writer, path, options.clone()).await?
    };
    let readers = sqlite_pool(database).max_connections(for_quick_reads(database));
    let readers = readers.connect_with(options.read_only(true)).await?;
    Ok((Db::Sqlite { writer, readers }, unchecked))
}

pub(super) fn sqlite_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
}

/// Connections to a file do not go stale: none is retired, and none is replaced but after an error.
pub(super) fn sqlite_pool(database: &Database) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .acquire_timeout(database.acquire_timeout)
        .test_before_acquire(false)
        .after_release(|conn, _| Box::pin(connections::is_idle(conn)))
        .idle_timeout(None)
        .max_lifetime(None)
}

fn log_wait(reason: &StoreError) {
    tracing::warn!(%reason, "waiting for the database");
}

/// What `max_connections` leaves beside the slow reads.
pub(super) fn for_quick_reads(database: &Database) -> u32 {
    database.max_connections.saturating_sub(database.max_slow_reads).max(1)
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
    let mut locked = tokio::task::spawn_blocking(move || folder.lock().map(|()| folder));
    loop {
        tokio::select! {
            locked = &mut locked => return locked.ok()?.ok(),
            () = tokio::time::sleep(EVERY) => {
                tracing::warn!(file = %path.display(), "waiting for another process that opens the database");
            }
        }
    }
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
