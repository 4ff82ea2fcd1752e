//! Whether another gateway uses the same SQLite file.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::config::{Database, DatabaseLocation};

/// A lock that every gateway on a SQLite file shares for as long as it runs. The kernel releases it when
/// the process ends, however it ends.
#[derive(Debug)]
pub struct Presence {
    _lock: Option<File>,
    is_alone: bool,
}

// === impl Presence ===

impl Presence {
    /// Takes the lock for a gateway whose database is open already. With PostgreSQL there is none.
    pub async fn announce(database: &Database) -> Self {
        let nothing = Self { _lock: None, is_alone: false };
        let DatabaseLocation::Sqlite(path) = &database.location else { return nothing };
        let path = path.clone();
        let taken = tokio::task::spawn_blocking(move || take(&path)).await;
        match taken {
            Ok(Ok((lock, is_alone))) => Self { _lock: Some(lock), is_alone },
            // A file system without locks: nothing is certain.
            _ => nothing,
        }
    }

    /// Whether no other gateway had the file when this one took the lock. Gateways of versions without this
    /// lock cannot have it, since they refuse a database that this version has migrated, and it is migrated
    /// only while no other process has it open.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.is_alone
    }
}

/// One process at a time, because an exclusive lock becomes a shared one in two steps.
fn take(path: &Path) -> std::io::Result<(File, bool)> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let turn = File::open(folder)?;
    turn.lock()?;
    let mut name = path.as_os_str().to_owned();
    name.push("-gateway");
    let mut how = OpenOptions::new();
    let lock = how.write(true).create(true).truncate(false).mode(0o600).open(PathBuf::from(name))?;
    let is_alone = lock.try_lock().is_ok();
    lock.lock_shared()?;
    Ok((lock, is_alone))
}

#[cfg(test)]
mod tests {
    use super::Presence;
    use crate::store::Db;
    use crate::store::tests::fresh;

    #[tokio::test]
    async fn the_first_gateway_on_a_file_is_alone_and_the_next_is_not() {
        let world = fresh().await;
        let is_file = matches!(world.db, Db::Sqlite { .. });
        let first = Presence::announce(&world.settings).await;
        let second = Presence::announce(&world.settings).await;
        assert_eq!((first.is_alone(), second.is_alone()), (is_file, false));
        drop(first);
        assert!(!Presence::announce(&world.settings).await.is_alone(), "the second is still there");
        drop(second);
        assert_eq!(Presence::announce(&world.settings).await.is_alone(), is_file);
    }
}
