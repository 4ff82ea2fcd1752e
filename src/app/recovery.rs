//! What earlier runs left: the files of the log, and then what they held of the quota.

use std::path::PathBuf;
use std::sync::Arc;

use crate::background::Background;
use crate::chatlog::Chatlog;
use crate::config::Config;
use crate::ids::RunId;
use crate::quota::Quota;
use crate::spool::{self, Spool};
use crate::telemetry::Metrics;

/// The log's folder, locked; before anything else is touched. With it, where what cannot become a row
/// is kept.
///
/// # Errors
///
/// When another gateway has it, or it cannot be used; the text says how to get out.
pub(super) async fn open_spool(
    config: &Config,
    run: RunId,
    background: &Background,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<(Spool, spool::Reader, PathBuf)> {
    let folder = config.server.data_dir.join("spool");
    let poison = folder.join("poison");
    let log = &config.message_log;
    let options = spool::Options {
        max_bytes: log.max_spool,
        min_free: log.min_free_space,
        sync_every: log.sync_interval,
        ..spool::Options::new(folder, run)
    };
    let (behind, metrics) = (background.clone(), Arc::clone(metrics));
    let opened = background.run(async move { Spool::open(options, &behind, &metrics) }).await??;
    Ok((opened.0, opened.1, poison))
}

/// Once the rows of runs that were killed are written, what these runs held is known.
pub(super) fn begin(background: &Background, chatlog: &Chatlog, quota: &Quota) {
    let (recovered, quota) = (chatlog.recovered(), quota.clone());
    background.spawn(async move {
        if recovered.await {
            quota.recover().await;
        }
    });
}
