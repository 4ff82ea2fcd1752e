//! Who this run is: by which the next one finds what it held when it was killed.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::background::Background;
use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::ids::{RunId, SessionId};
use crate::quota::{self, Quota};
use crate::spool::Spool;
use crate::store::Db;
use crate::store::presence::Presence;
use crate::store::runs::{self, Run};
use crate::telemetry::Metrics;

/// Where Linux says which start of the machine this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Most characters of a node's name.
const MAX_NAME: usize = 64;

/// A run that is entered, and what it holds.
pub(super) struct Entered {
    pub(super) run: Run,
    pub(super) quota: Quota,
    pub(super) presence: Presence,
}

/// How often a run says that it is alive: another one may take over after four that did not come.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// Enters this run, under which units are held from now on.
///
/// # Errors
///
/// What is in the way; the text says how to get out.
pub(super) async fn enter(
    config: &Config,
    clock: &Clock,
    (db, background): (&Db, &Background),
    (spool, id): (&Spool, RunId),
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Entered> {
    let (database, data_dir) = (config.database.clone(), &config.server.data_dir);
    let presence = background.run(async move { Presence::announce(&database).await }).await?;
    let is_new = is_new(data_dir);
    let run = new(id, data_dir, spool.lock_file(), clock.now())?;
    let (earlier, others) = begin(db, background, &run).await?;
    if is_new {
        warn_of_new_folder(data_dir, others);
    }
    let quota = Quota::start(quota::Sources {
        db: db.clone(),
        background: background.clone(),
        clock: clock.clone(),
        metrics: Arc::clone(metrics),
        run: run.clone(),
        earlier,
        alone: presence.is_alone(),
        heartbeat: HEARTBEAT,
        renamed: Box::new(spool.begins_run()),
        max_lease: config.limits.max_lease.into(),
    });
    Ok(Entered { run, quota, presence })
}

/// A run of the node that keeps its data in `data_dir`, whose spool's lock file this process holds.
///
/// # Errors
///
/// When the node's name cannot be read, or made; the text says how to get out.
fn new(id: RunId, data_dir: &Path, lock_file: Option<(u64, u64)>, now: Timestamp) -> anyhow::Result<Run> {
    let path = data_dir.join("node");
    let node = name_of_node(&path).with_context(|| format!("{}, the name of this node", path.display()))?;
    // Where nobody says, every start may be one after a power failure.
    let boot = fs::read_to_string(BOOT_ID).map_or_else(|_| id.to_string(), |text| text.trim().to_owned());
    let folder = fs::metadata(data_dir).ok().zip(lock_file).map(|(folder, (lock_device, lock_inode))| {
        format!("{:x}:{:x} {lock_device:x}:{lock_inode:x}", folder.dev(), folder.ino())
    });
    Ok(Run { id, node, boot, started_at: now, folder })
}

/// Whether `data_dir` has no name for its node yet: it is new, or was emptied.
fn is_new(data_dir: &Path) -> bool {
    !data_dir.join("node").exists()
}

/// Says so where a new folder meets a database that knows of other runs: the folder of one of them may be
/// lost, and with it what is not yet in the database.
fn warn_of_new_folder(data_dir: &Path, others: usize) {
    if others > 0 {
        tracing::warn!(
            data_dir = %data_dir.display(), other_runs = others,
            "the data folder is new and the database knows other runs: right for an additional node; where this \
             replaces a node, its data_dir was not kept, and with it are lost the records that were not yet in \
             the database and the conversations that it held; data_dir must outlive the process"
        );
    }
}

/// Gives the node in `data_dir` another name, because a running node bears the one that is there.
///
/// # Errors
///
/// When it cannot be written.
pub(super) fn rename_node(data_dir: &Path) -> anyhow::Result<String> {
    let (name, new) = (SessionId::generate().to_string(), data_dir.join("node.new"));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(format!("{name}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, data_dir.join("node"))?;
    fs::File::open(data_dir)?.sync_all()?;
    Ok(name)
}

/// Enters the run; the earlier ones of its node, which were not ended, and the number of all others.
///
/// # Errors
///
/// When the database does not do it.
async fn begin(db: &Db, background: &Background, run: &Run) -> anyhow::Result<(Vec<Run>, usize)> {
    let (db, run) = (db.clone(), run.clone());
    let entered = background.run(async move {
        let earlier = runs::earlier(&db, &run).await?;
        let others = runs::pulses(&db).await?.len();
        runs::begin(&db, &run).await?;
        anyhow::Ok((earlier, others))
    });
    entered.await?
}

/// Ends the run; logs why not, where it cannot be.
pub(super) async fn end(db: &Db, background: &Background, run: RunId) {
    let db = db.clone();
    match background.run(async move { runs::end(&db, run).await }).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => tracing::warn!(%run, "something is still on its way; the next start will see to it"),
        Ok(Err(error)) => tracing::error!(%run, %error, "the run could not be ended"),
        Err(error) => tracing::error!(%run, %error, "the run could not be ended"),
    }
}

/// Read, or made at the first start.
fn name_of_node(path: &Path) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let name = text.trim();
            if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(|b| b.is_ascii_graphic()) {
                bail!("is not a name; remove it, if what this node held may be forfeited");
            }
            Ok(name.to_owned())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let name = SessionId::generate().to_string();
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(format!("{name}\n").as_bytes())?;
            file.sync_all()?;
            Ok(name)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::new;
    use crate::clock::Timestamp;
    use crate::ids::RunId;

    #[test]
    fn a_node_has_a_name_that_stays_and_a_run_has_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        let run = |at| new(RunId::generate(), &data_dir, None, Timestamp(at)).unwrap();
        let (one, two) = (run(1), run(2));
        assert_eq!((&one.node, &one.boot), (&two.node, &two.boot));
        assert_ne!(one.id, two.id);
        let mode = std::fs::metadata(data_dir.join("node")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = new(RunId::generate(), folder.path(), None, Timestamp(1)).unwrap();
        assert_ne!(one.node, other.node);
    }

    #[test]
    fn what_is_no_name_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node");
        for bad in ["", "two words\n", &"x".repeat(65)] {
            std::fs::write(&path, bad).unwrap();
            let told =
                format!("{:#}", new(RunId::generate(), folder.path(), None, Timestamp(1)).unwrap_err());
            assert!(told.contains("node") && told.contains("remove it"), "{told}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
        }
    }
}
