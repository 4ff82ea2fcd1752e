//! A file that was not closed properly is checked: as a whole in time, or beside.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::{fresh, user};
use crate::config::{Database, DatabaseLocation};
use crate::store::{CheckWatch, Db, Opening, StoreError, Unchecked};

/// Opens a copy of a database that is not closed, as its process left it.
async fn left_open(damage: bool) -> Option<(tempfile::TempDir, Database)> {
    let world = fresh().await;
    let DatabaseLocation::Sqlite(path) = &world.settings.location else { return None };
    for n in 0..400 {
        user(&world.db, &format!("user{n}")).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("tollgate.db");
    let Db::Sqlite { writer, .. } = &world.db else { return None };
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(writer).await.unwrap();
    user(&world.db, "last").await;
    std::fs::copy(path, &copy).unwrap();
    if damage {
        ruin(&copy);
    }
    std::fs::copy(path.with_extension("db-wal"), copy.with_extension("db-wal")).unwrap();
    Some((folder, Database { location: DatabaseLocation::Sqlite(copy), ..world.settings.clone() }))
}

/// Damages a leaf of the table of users, which nothing of a start reads.
fn ruin(path: &Path) {
    let needle = b"user200 O'Brien";
    let file = std::fs::read(path).unwrap();
    let at = file.windows(needle.len()).position(|bytes| bytes == needle).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xa5; 64], (at / 4096 * 4096) as u64).unwrap();
}

async fn open(database: &Database, check_for: Duration) -> Result<(Db, Option<Unchecked>), StoreError> {
    Db::open(database, Opening { patience: None, waits: &|_| (), check_for }).await
}

const NO_TIME: Duration = Duration::from_nanos(1);

#[tokio::test]
async fn a_small_file_is_checked_before_anything_uses_it() {
    let Some((_folder, damaged)) = left_open(true).await else { return };
    let refused = open(&damaged, Duration::from_mins(1)).await.err().unwrap();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused:?}");
    let Some((_folder, sound)) = left_open(false).await else { return };
    let (_, unchecked) = open(&sound, Duration::from_mins(1)).await.unwrap();
    assert!(unchecked.is_none());
}

#[tokio::test]
async fn what_was_not_checked_in_time_is_checked_beside_table_by_table() {
    for damage in [false, true] {
        let Some((folder, database)) = left_open(false).await else { return };
        let (db, unchecked) = open(&database, NO_TIME).await.unwrap();
        if damage {
            // Only now, so that the short look before cannot find it.
            ruin(&folder.path().join("tollgate.db"));
        }
        let tables = std::sync::Mutex::new(Vec::new());
        let told = |progress: crate::store::CheckProgress<'_>| {
            tables.lock().unwrap().push(progress.table.to_owned());
        };
        let watch = CheckWatch { told: &told, stop: Arc::default() };
        let found = unchecked.unwrap().check(watch).await;
        assert_eq!(matches!(found, Err(StoreError::Damaged { .. })), damage, "{found:?}");
        assert_eq!(found.is_ok(), !damage, "{found:?}");
        if !damage {
            assert_eq!(tables.lock().unwrap().last().map(String::as_str), Some("exchanges"));
        }
        db.ping().await.unwrap();
    }
}

#[tokio::test]
async fn a_check_beside_ends_with_the_gateway() {
    let Some((_folder, database)) = left_open(false).await else { return };
    let (_, unchecked) = open(&database, NO_TIME).await.unwrap();
    let begun = AtomicUsize::new(0);
    let told = |_: crate::store::CheckProgress<'_>| {
        begun.fetch_add(1, Ordering::Relaxed);
    };
    let stop = Arc::new(AtomicBool::new(true));
    // Interrupted as soon as it looks for the tables, or before the first of them.
    let _ = unchecked.unwrap().check(CheckWatch { told: &told, stop }).await;
    assert_eq!(begun.load(Ordering::Relaxed), 0);
}
