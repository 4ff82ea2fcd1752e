//! The database of a gateway: waited for, opened, and checked beside it where that takes long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::background::Background;
use crate::config::Config;
use crate::control::{Readiness, Reason};
use crate::store::{CheckProgress, CheckWatch, Db, Opening, SlowReads, StoreError, Unchecked};
use crate::telemetry::Metrics;

/// How long a start may spend on the check of a SQLite file that was not closed properly. A small one is
/// checked as a whole in this time, and refused if it is damaged; the rest of a large one is checked beside.
const CHECK_FOR: Duration = Duration::from_secs(2);
const MIB: u64 = 1 << 20;

/// Opens it. A PostgreSQL server is waited for as long as it takes, with readiness red and a line in the log.
///
/// # Errors
///
/// When the database cannot be used; waiting would not help.
pub(super) async fn open(
    config: &Config,
    background: &Background,
    (readiness, metrics): (&Readiness, &Arc<Metrics>),
    draining: &CancellationToken,
) -> anyhow::Result<(Db, SlowReads)> {
    let database = config.database.clone();
    let opened = background.run(async move {
        let waits = |reason: &StoreError| tracing::warn!(%reason, "waiting for the database");
        let opening = Opening { patience: None, waits: &waits, check_for: CHECK_FOR };
        let (db, unchecked) = Db::open(&database, opening).await?;
        let slow_reads = SlowReads::open(&db, &database)?;
        Ok::<_, StoreError>((db, slow_reads, unchecked))
    });
    let (db, slow_reads, unchecked) = opened.await??;
    if let Some(unchecked) = unchecked {
        let check = beside(unchecked, readiness.clone(), Arc::clone(metrics), draining.clone());
        background.spawn(check);
    }
    Ok((db, slow_reads))
}

/// Checks the rest of the file. What is damaged turns readiness red and stays so: a restart would find it again,
/// a backup is needed. What reaches this instance all the same is answered as well as it can be.
async fn beside(
    unchecked: Unchecked,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    draining: CancellationToken,
) {
    tracing::warn!(
        mib = unchecked.bytes() / MIB,
        "the database was not closed properly; it is checked while the gateway runs"
    );
    let stop = Arc::new(AtomicBool::new(false));
    let watch = CheckWatch { told: &log_progress, stop: Arc::clone(&stop) };
    let mut checking = std::pin::pin!(unchecked.check(watch));
    let found = tokio::select! {
        found = &mut checking => found,
        () = draining.cancelled() => {
            stop.store(true, Ordering::Relaxed);
            checking.await
        }
    };
    match found {
        Ok(()) if stop.load(Ordering::Relaxed) => tracing::info!("database check stopped"),
        Ok(()) => tracing::info!("database check finished: no damage"),
        Err(error @ StoreError::Damaged { .. }) => {
            metrics.database_damaged.set(1);
            tracing::error!(%error, "database check failed: restore a backup");
            readiness.set(Reason::DatabaseDamaged, true);
        }
        Err(error) => tracing::error!(%error, "the database cannot be checked"),
    }
}

fn log_progress(progress: CheckProgress<'_>) {
    let CheckProgress { table, number, of, elapsed, bytes } = progress;
    let (seconds, mib) = (elapsed.as_secs(), bytes / MIB);
    tracing::info!(table, number, of, seconds, mib, "checking the database");
}
