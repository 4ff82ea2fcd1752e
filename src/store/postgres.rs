//! Connections to a PostgreSQL server: making them, waiting for them, and why there are none.

use std::io;
use std::str::FromStr;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{Connection, PgPool};

use super::{Db, Opening, StoreError};
use crate::config::Database;

/// A connection that is not used for so long is closed: the server has few of them, for every node and every
/// command.
const IDLE: Duration = Duration::from_secs(5);
/// Longest wait for one connection of a start.
const ONE_CONNECTION: Duration = Duration::from_secs(5);
/// Pauses between attempts to reach the server.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Opens a pool on a server, waiting for it as long as `opening` says.
pub(super) async fn open(
    url: &SecretString,
    database: &Database,
    opening: Opening<'_>,
) -> Result<Db, StoreError> {
    let options = options_of(url)?;
    let until = opening.patience.and_then(|patience| Instant::now().checked_add(patience));
    let mut pause = PAUSES.0;
    loop {
        // A pool would only say that time ran out, so the first connection is made without one.
        let reason = match reach(&options).await {
            Ok(()) => {
                let pool =
                    pool_of(database, super::open::for_quick_reads(database), database.statement_timeout);
                match pool.connect_with(options.clone()).await {
                    Ok(pool) => return Ok(Db::Postgres(pool)),
                    Err(sqlx::Error::PoolTimedOut) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) if will_pass(&error) => no_connection(&error),
            Err(error) => return Err(error.into()),
        };
        if until.is_some_and(|until| Instant::now() >= until) {
            return Err(reason);
        }
        (opening.waits)(&reason);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// One connection to a server, if it is there now.
pub(super) async fn peek(url: &SecretString, database: &Database) -> Result<Db, StoreError> {
    let options = options_of(url)?;
    reach(&options)
        .await
        .map_err(|error| if will_pass(&error) { no_connection(&error) } else { error.into() })?;
    Ok(Db::Postgres(pool_of(database, 1, database.statement_timeout).connect_with(options).await?))
}

/// Makes one connection and closes it again.
async fn reach(options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let connected = tokio::time::timeout(ONE_CONNECTION, PgConnection::connect_with(options)).await;
    let mut conn = connected.unwrap_or_else(|_| {
        let text = format!("no answer within {} s", ONE_CONNECTION.as_secs());
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, text)))
    })?;
    let writable = takes_writes(&mut conn).await?;
    conn.close().await?;
    if writable { Ok(()) } else { Err(read_only()) }
}

/// Whether another attempt may succeed without a change by the operator: a server that is away, starts, stops
/// or has no connection left, a standby that is about to be promoted.
fn will_pass(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Configuration(_) | sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Database(cause) => {
            let code = cause.code().unwrap_or_default();
            code.starts_with("53") || code.starts_with("57P") || code.starts_with("08")
        }
        _ => false,
    }
}

/// PostgreSQL's own reason, and what the operator can do about it.
fn no_connection(error: &sqlx::Error) -> StoreError {
    let reason = match error {
        sqlx::Error::Database(cause) => cause.message().to_owned(),
        other => other.to_string(),
    };
    let is_full = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == "53300");
    let way_out = if is_full {
        "; every node takes up to database.max_connections, and a command one or two: lower it on the nodes, or \
         raise the server's limit"
    } else {
        ""
    };
    StoreError::NoConnection(format!("PostgreSQL takes no connection: {reason}{way_out}"))
}

/// Why a pool's time ran out: all of its connections are in use, or the server refuses another.
pub(super) async fn why_no_connection(pool: &PgPool) -> StoreError {
    if pool.size() >= pool.options().get_max_connections() {
        return StoreError::Unavailable(sqlx::Error::PoolTimedOut);
    }
    match reach(&pool.connect_options()).await {
        Ok(()) => StoreError::Unavailable(sqlx::Error::PoolTimedOut),
        Err(error) => no_connection(&error),
    }
}

fn read_only() -> sqlx::Error {
    sqlx::Error::Configuration("this PostgreSQL server is read-only, a standby".into())
}

pub(super) fn options_of(url: &SecretString) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(PgConnectOptions::from_str(url.expose_secret())?.application_name("tollgate"))
}

/// Each connection is asked before use, which costs the same round trip as a ping: a server that was demoted
/// to a standby still answers pings, and would be kept by the pool for good.
pub(super) fn pool_of(database: &Database, connections: u32, statement_timeout: Duration) -> PgPoolOptions {
    let limit = statement_timeout.as_millis().to_string();
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(database.acquire_timeout)
        .idle_timeout(IDLE)
        .test_before_acquire(false)
        .before_acquire(|conn, _| Box::pin(takes_writes(conn)))
        .after_connect(move |conn, _| {
            let limit = limit.clone();
            Box::pin(async move {
                let set = "SELECT set_config('statement_timeout', $1, false)";
                sqlx::query(set).bind(limit).execute(&mut *conn).await?;
                if takes_writes(conn).await? {
                    return Ok(());
                }
                Err(read_only())
            })
        })
}

async fn takes_writes(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let read_only: String =
        sqlx::query_scalar("SELECT current_setting('transaction_read_only')").fetch_one(conn).await?;
    Ok(read_only == "off")
}
