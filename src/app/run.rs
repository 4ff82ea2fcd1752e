//! Who this run is: by which the next one finds what it held when it was killed.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};

use crate::background::Background;
use crate::clock::Timestamp;
use crate::ids::{RunId, SessionId};
use crate::store::Db;
use crate::store::runs::{self, Run};

/// Where Linux says which start of the machine this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Most characters of a node's name.
const MAX_NAME: usize = 64;

/// This run of the node that keeps its data in `data_dir`.
///
/// # Errors
///
/// When the node's name cannot be read, or made; the text says how to get out.
pub(super) fn new(id: RunId, data_dir: &Path, now: Timestamp) -> anyhow::Result<Run> {
    let path = data_dir.join("node");
    let node = name_of_node(&path).with_context(|| format!("{}, the name of this node", path.display()))?;
    // Where nobody says, every start may be one after a power failure.
    let boot = fs::read_to_string(BOOT_ID).map_or_else(|_| id.to_string(), |text| text.trim().to_owned());
    Ok(Run { id, node, boot, started_at: now })
}

/// Enters the run; the earlier ones of its node, which were not ended.
///
/// # Errors
///
/// When the database does not do it.
pub(super) async fn begin(db: &Db, background: &Background, run: &Run) -> anyhow::Result<Vec<Run>> {
    let (db, run) = (db.clone(), run.clone());
    let entered = background.run(async move {
        let earlier = runs::earlier(&db, &run).await?;
        runs::begin(&db, &run).await?;
        anyhow::Ok(earlier)
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
        let run = |at| new(RunId::generate(), &data_dir, Timestamp(at)).unwrap();
        let (one, two) = (run(1), run(2));
        assert_eq!((&one.node, &one.boot), (&two.node, &two.boot));
        assert_ne!(one.id, two.id);
        let mode = std::fs::metadata(data_dir.join("node")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = new(RunId::generate(), folder.path(), Timestamp(1)).unwrap();
        assert_ne!(one.node, other.node);
    }

    #[test]
    fn what_is_no_name_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node");
        for bad in ["", "two words\n", &"x".repeat(65)] {
            std::fs::write(&path, bad).unwrap();
            let told = format!("{:#}", new(RunId::generate(), folder.path(), Timestamp(1)).unwrap_err());
            assert!(told.contains("node") && told.contains("remove it"), "{told}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
        }
    }
}
