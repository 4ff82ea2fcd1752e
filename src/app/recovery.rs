//! What earlier runs left: the files of the log, and then what they held of the quota.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::run;
use crate::background::Background;
use crate::chatlog::Chatlog;
use crate::config::Config;
use crate::ids::RunId;
use crate::quota::Quota;
use crate::spool::{self, Spool};
use crate::store::{Db, runs};
use crate::telemetry::Metrics;

/// What it takes to take over from earlier runs of this node.
pub(super) struct Earlier {
    pub(super) db: Db,
    pub(super) data_dir: PathBuf,
    /// Called with whether one of them may be alive.
    pub(super) may_be_alive: Box<dyn Fn(bool) + Send + Sync>,
    /// Told which of them are alive, once that is certain.
    pub(super) decided: oneshot::Sender<Vec<RunId>>,
}

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

// === impl Earlier ===

impl Earlier {
    /// Takes over from the earlier runs of this node that are over: first it becomes certain that they are,
    /// then their spooled records get rows, and then it is known what they held. A run that is alive keeps
    /// everything; this folder is then a copy of its own, and its node gets another name. Returns once it is
    /// known whether a run has to be watched.
    pub(super) async fn take_over(self, background: &Background, chatlog: &Chatlog, quota: &Quota) {
        let Self { db, data_dir, may_be_alive, decided } = self;
        let watched = quota.look_at_earlier().await;
        if !watched.is_empty() {
            may_be_alive(true);
        }
        let (recovered, quota) = (chatlog.recovered(), quota.clone());
        background.spawn(async move {
            let alive = quota.watch_earlier(watched).await;
            if !alive.is_empty()
                && let Err(error) = rename_node(&db, &quota, &data_dir).await
            {
                tracing::error!(%error, "renaming the node failed");
            }
            may_be_alive(false);
            let _ = decided.send(alive);
            if recovered.await {
                quota.recover().await;
            }
        });
    }
}

async fn rename_node(db: &Db, quota: &Quota, data_dir: &Path) -> anyhow::Result<()> {
    let folder = data_dir.to_owned();
    let name = tokio::task::spawn_blocking(move || run::rename_node(&folder)).await??;
    runs::rename(db, quota.run(), &name).await?;
    quota.rename_node(&name);
    tracing::warn!(
        node = name, data_dir = %data_dir.display(),
        "this data folder is a copy of that of a running node; it has a node name of its own from now on"
    );
    Ok(())
}
