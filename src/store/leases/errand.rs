//! Whether a transaction was done whose answer did not arrive.
//!
//! With PostgreSQL the connection may break between a commit and the word of it. So each transaction that
//! moves units between a run and the days is an *errand*: it leaves its name in `errands`, and on the
//! leases it added to. Names are UUIDv7, so that a later one is greater. Whoever asks what became of one
//! raises a fence first: an errand that was still on its way then is never done.

use sqlx::PgPool;
use uuid::Uuid;

use super::Held;
use crate::ids::RunId;
use crate::store::{Db, StoreError};

/// The name of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub(super) struct Errand(Uuid);

/// Nobody knows whether units were moved; [`clear`] finds out.
#[derive(Debug)]
pub struct Doubt {
    /// One after the other, of which none but the last can have failed.
    errands: Vec<Errand>,
}

/// What was found out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Whether it was done.
    pub is_done: bool,
    /// Units it was granted and that nobody knows of.
    pub brought: Vec<Held>,
}

/// Why units were not granted, or not given back.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Nothing was done; it may be tried again.
    #[error(transparent)]
    NotDone(#[from] StoreError),
    /// To try again might do it twice: the doubt must be cleared first.
    #[error("nobody knows whether it was done: {1}")]
    Unknown(Doubt, #[source] StoreError),
}

/// The beginning of an errand: `$1` is the run, `$2` the name. Without a row, it came too late.
macro_rules! errand {
    () => {
        "INSERT INTO errands (run_id, name) VALUES ($1, $2) ON CONFLICT (run_id) DO UPDATE
            SET name = excluded.name WHERE (errands.name IS NULL OR errands.name < excluded.name)
                AND (errands.fence IS NULL OR errands.fence < excluded.name)
            RETURNING run_id"
    };
}

pub(super) use errand;

const FENCE: &str = "INSERT INTO errands (run_id, fence) VALUES ($1, $2)
    ON CONFLICT (run_id) DO UPDATE SET fence = GREATEST(errands.fence, excluded.fence) RETURNING name";
const BROUGHT: &str = "SELECT user_id, day, epoch, brought AS units FROM leases
    WHERE run_id = $1 AND errand = ANY($2) AND brought > 0";

/// Finds out what became of an errand, and sees to it that this stays so. It may be asked again.
///
/// # Errors
/// [`StoreError`], when the database does not answer.
pub async fn clear(db: &Db, run: RunId, doubt: &Doubt) -> Result<Cleared, StoreError> {
    match db {
        // SQLite always answers, so that there is no doubt.
        Db::Sqlite { .. } => Ok(Cleared::default()),
        Db::Postgres(pool) => Ok(clear_postgres(pool, run, doubt).await?),
    }
}

async fn clear_postgres(pool: &PgPool, run: RunId, doubt: &Doubt) -> Result<Cleared, sqlx::Error> {
    let fence = Errand::new();
    let last: Option<Errand> = sqlx::query_scalar(FENCE).bind(run).bind(fence).fetch_one(pool).await?;
    let names: Vec<Uuid> = doubt.errands.iter().map(|errand| errand.0).collect();
    let brought = sqlx::query_as(BROUGHT).bind(run).bind(names).fetch_all(pool).await?;
    Ok(Cleared { is_done: last.is_some_and(|last| doubt.errands.contains(&last)), brought })
}

// === impl Errand ===

impl Errand {
    pub(super) fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// What an error says of the errands so far.
    pub(super) fn failed(errands: Vec<Self>, error: sqlx::Error) -> LeaseError {
        // A refusal undid it; before one was sent, nothing was done.
        let never = error.as_database_error().is_some()
            || matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed);
        if errands.len() == 1 && never {
            return LeaseError::NotDone(error.into());
        }
        LeaseError::Unknown(Doubt { errands }, error.into())
    }
}
