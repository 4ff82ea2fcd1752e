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
    /// Nothing was done, and never will be: another run has taken this one's leases over.
    #[error("this run was ended by another one")]
    Fenced,
    /// To try again might do it twice: the doubt must be cleared first.
    #[error("nobody knows whether it was done: {1}")]
    Unknown(Doubt, #[source] StoreError),
}

/// The beginning of an errand: `$1` is the run, `$2` the name. Without a row, it came too late, or the run is
/// not in `alive`, where the statement says so.
macro_rules! errand {
    () => {
        $crate::store::leases::errand::errand!("VALUES ($1, $2)")
    };
    ($values:literal) => {
        concat!(
            "INSERT INTO errands (run_id, name) ",
            $values,
            " ON CONFLICT (run_id) DO UPDATE
            SET name = excluded.name WHERE (errands.name IS NULL OR errands.name < excluded.name)
                AND (errands.fence IS NULL OR errands.fence < excluded.name)
            RETURNING run_id"
        )
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
        // A refusal undid it, but for that of a server about to stop (class 57P), which may come after the
        // commit; without a connection nothing was sent.
        let is_refusal = error.as_database_error().is_some_and(|cause| {
            let code = cause.code().unwrap_or_default();
            !code.starts_with("57P")
        });
        let is_unsent = matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed);
        if errands.len() == 1 && (is_refusal || is_unsent) {
            return LeaseError::NotDone(error.into());
        }
        LeaseError::Unknown(Doubt { errands }, error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::give_back::give_back_postgres;
    use super::super::grant::grant_once;
    use super::*;
    use crate::store::leases::Ask;
    use crate::store::tests::{RUN, balances, fresh, granted, user};

    const TODAY: i64 = 20_000;

    #[tokio::test]
    async fn what_was_done_without_an_answer_is_found_out_and_what_comes_too_late_is_never_done() {
        let world = fresh().await;
        let doubt = |errand| Doubt { errands: vec![errand] };
        let found = async |errand| clear(&world.db, RUN, &doubt(errand)).await.unwrap();
        let Db::Postgres(pool) = &world.db else {
            return assert_eq!(found(Errand::new()).await, Cleared::default());
        };
        let ann = user(&world.db, "ann").await;
        granted(&world.db, RUN, &[]).await;
        let ask = Ask { user: ann, day: TODAY, plan_limit: 10, need: 2, most: 1 };
        let units = Held { user: ann, day: TODAY, epoch: 0, units: 2 };

        let never = Errand::new();
        assert_eq!(found(never).await, Cleared::default());
        assert_eq!(grant_once(pool, (RUN, never), &[ask]).await.unwrap(), []);

        let done = Errand::new();
        assert_eq!(grant_once(pool, (RUN, done), &[ask]).await.unwrap().len(), 1);
        for _ in 0..2 {
            assert_eq!(found(done).await, Cleared { is_done: true, brought: vec![units] });
        }

        let given = Errand::new();
        assert_eq!(give_back_postgres(pool, (RUN, given), &[units]).await.unwrap(), [units]);
        for _ in 0..2 {
            assert_eq!(found(given).await, Cleared { is_done: true, brought: Vec::new() });
        }
        let not_given = Errand::new();
        assert_eq!(found(not_given).await, Cleared::default());
        assert_eq!(give_back_postgres(pool, (RUN, not_given), &[units]).await.unwrap(), []);
        assert_eq!(balances(&world.db).await[0].granted, 0);
    }

    #[tokio::test]
    async fn the_last_word_of_a_server_that_stops_leaves_a_doubt_and_a_refusal_does_not() {
        let world = fresh().await;
        let Db::Postgres(pool) = &world.db else { return };
        let said = async |code: &str| {
            let raise = format!("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$");
            sqlx::query(sqlx::AssertSqlSafe(raise)).execute(pool).await.unwrap_err()
        };
        let is_unknown =
            |error| matches!(Errand::failed(vec![Errand::new()], error), LeaseError::Unknown(..));
        assert!(is_unknown(said("57P01").await) && is_unknown(sqlx::Error::WorkerCrashed));
        assert!(!is_unknown(said("57014").await) && !is_unknown(sqlx::Error::PoolTimedOut));
    }
}
