//! `[database]`: which engine, where, and how many connections.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

/// `[database]`
#[derive(Clone, Debug)]
pub struct Database {
    /// Which engine, and where.
    pub location: DatabaseLocation,
    /// Most connections (readers, with SQLite).
    pub max_connections: u32,
    /// Longest wait for a free connection.
    pub acquire_timeout: Duration,
    /// Longest run of one statement.
    pub statement_timeout: Duration,
    /// Of `max_connections`, those of lists, sums and walks.
    pub max_slow_reads: u32,
    /// Longest run of one of their statements.
    pub slow_read_timeout: Duration,
}

/// Which engine, and where.
#[derive(Clone, Debug)]
pub enum DatabaseLocation {
    /// A file, made when absent.
    Sqlite(PathBuf),
    /// A `postgres://` URL; secret because it may hold a password.
    Postgres(SecretString),
}

// === impl DatabaseLocation ===

/// For people, without a password.
impl fmt::Display for DatabaseLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                write!(f, "sqlite {}", path.display())
            }
            Self::Postgres(url) => {
                let url = url.expose_secret();
                let place = url.split_once("://").map_or("", |(_, rest)| rest);
                let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
                // Parameters may hold a password too.
                write!(f, "postgres {}", place.split('?').next().unwrap_or_default())
            }
        }
    }
}
