//! Disks that refuse.
#![cfg(test)]

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::disk::{Disk, DiskFile, Machine, Space};
use super::super::{AppendError, Damage, Kind, Mark, OpenError, Options, Reader, Spool, Writer, lock};
use super::{Bed, drain, ids, whole};
use crate::ids::ExchangeId;

/// What the disk does next.
#[derive(Default)]
struct Script {
    /// So many more writes fail, with this error, after half of their bytes.
    writes: AtomicU64,
    write_error: Mutex<Option<io::ErrorKind>>,
    cuts_fail: AtomicBool,
    /// So many more syncs fail: of files, and of the folder.
    syncs: AtomicU64,
    folder_syncs: AtomicU64,
    free: Mutex<Option<u64>>,
    /// Bytes of each file that a loss of power would leave.
    durable: Mutex<HashMap<PathBuf, u64>>,
    /// Syncs of each file that failed.
    failed: Mutex<HashMap<PathBuf, u64>>,
    synced: AtomicU64,
}

#[derive(Clone)]
struct Scripted(Arc<Script>);

struct ScriptedFile {
    script: Arc<Script>,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    end: AtomicU64,
}

fn takes_one(count: &AtomicU64) -> bool {
    count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
}

impl Disk for Scripted {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = Machine.create(path)?;
        let (script, path) = (Arc::clone(&self.0), path.to_owned());
        Ok(Arc::new(ScriptedFile { script, path, file, end: AtomicU64::new(0) }))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if takes_one(&self.0.folder_syncs) {
            return Err(io::Error::other("scripted"));
        }
        Machine.sync_folder(folder)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let space = Machine.space(path)?;
        Ok(lock(&self.0.free).map_or(space, |free| Space { total: 1 << 40, free }))
    }
}

impl DiskFile for ScriptedFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if let Some(kind) = *lock(&self.script.write_error)
            && takes_one(&self.script.writes)
        {
            self.file.write_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(kind.into());
        }
        let written = self.file.write_at(bytes, offset)?;
        self.end.fetch_max(offset + written as u64, Ordering::AcqRel);
        Ok(written)
    }

    fn cut(&self, len: u64) -> io::Result<()> {
        if self.script.cuts_fail.load(Ordering::Acquire) {
            return Err(io::Error::other("scripted"));
        }
        self.file.cut(len)
    }

    fn sync(&self) -> io::Result<()> {
        let end = self.end.load(Ordering::Acquire);
        if takes_one(&self.script.syncs) {
            *lock(&self.script.failed).entry(self.path.clone()).or_default() += 1;
            return Err(io::Error::other("scripted"));
        }
        let again = lock(&self.script.failed).contains_key(&self.path);
        assert!(!again, "a file whose sync failed was synced again");
        self.file.sync()?;
        lock(&self.script.durable).insert(self.path.clone(), end);
        self.script.synced.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

fn open(bed: &Bed, script: &Arc<Script>, options: Options) -> (Spool, Reader) {
    let disk = Arc::new(Scripted(Arc::clone(script)));
    Spool::open_on(disk, options, &bed.background, &bed.metrics).unwrap()
}

/// Syncs happen only when somebody waits.
fn when_asked(bed: &Bed) -> Options {
    Options { sync_every: Duration::from_hours(1), ..bed.options() }
}

fn all_the_time(bed: &Bed) -> Options {
    Options { sync_every: Duration::from_millis(1), ..bed.options() }
}

/// Waits for what the task behind does.
async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}

fn append(writer: &Writer, payload: &[u8]) -> (ExchangeId, Mark) {
    let id = ExchangeId::generate();
    (id, writer.append(Kind::End, id, &[payload]).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waited_finds_the_record_on_the_disk() {
    let (bed, script) = (Bed::new(), Arc::new(Script::default()));
    let (spool, reader) = open(&bed, &script, Options { segment_bytes: 2_000, ..when_asked(&bed) });
    let writer = spool.writer();
    for n in 0..50 {
        let (_, mark) = append(&writer, &[n; 100]);
        let newest = bed.segments().pop().unwrap();
        let durable = lock(&script.durable).get(&newest).copied().unwrap_or(0);
        assert!(durable < mark.end, "not before somebody asks");
        writer.synced(mark).await;
        assert!(lock(&script.durable)[&newest] >= mark.end);
        let before = script.synced.load(Ordering::Acquire);
        writer.synced(mark).await;
        assert_eq!(script.synced.load(Ordering::Acquire), before, "nothing new, nothing to sync");
    }
    drop(writer);
    bed.end(spool, reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timer_and_the_size_make_it_durable_too() {
    for (sync_every, sync_bytes) in [(Duration::from_millis(1), 1 << 30), (Duration::from_hours(1), 5_000)] {
        let (bed, script) = (Bed::new(), Arc::new(Script::default()));
        let (spool, reader) = open(&bed, &script, Options { sync_every, sync_bytes, ..bed.options() });
        let writer = spool.writer();
        for _ in 0..10 {
            append(&writer, &[1; 600]);
        }
        let file = bed.segments().pop().unwrap();
        until(|| lock(&script.durable).get(&file).is_some_and(|end| *end >= 5_000)).await;
        drop(writer);
        bed.end(spool, reader).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_ends_the_file_and_what_it_had_is_durable_elsewhere() {
    let (bed, script) = (Bed::new(), Arc::new(Script::default()));
    let (spool, mut reader) = open(&bed, &script, when_asked(&bed));
    let writer = spool.writer();
    let (first, mark) = append(&writer, b"durable before");
    writer.synced(mark).await;
    let mut doubtful: Vec<_> = (0..30).map(|n| append(&writer, &[n; 40]).0).collect();
    let bad = bed.segments().pop().unwrap();
    script.syncs.store(1, Ordering::Release);
    let (last, mark) = append(&writer, b"in doubt");
    doubtful.push(last);
    writer.synced(mark).await;
    assert_eq!((lock(&script.failed)[&bad], bed.metrics.spool_sync_errors.get()), (1, 1));
    let rescue = bed.segments().pop().unwrap();
    assert!(lock(&script.durable)[&rescue] == fs::metadata(rescue).unwrap().len());

    let (after, mark) = append(&writer, b"after");
    writer.synced(mark).await;
    assert!(spool.has_room());
    assert_eq!(bed.segments().len(), 3, "the bad one, the rescue, and the one that goes on");
    let seen = ids(&drain(&mut reader));
    let times = |id: &ExchangeId| seen.iter().filter(|seen| *seen == id).count();
    assert_eq!((times(&first), times(&after)), (1, 1));
    assert!(doubtful.iter().all(|id| times(id) == 2));
    drop(writer);
    bed.end(spool, reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rescue_alone_has_every_record_that_was_in_doubt() {
    for (records, bytes) in [(40, 50), (120, 50_000)] {
        // The second is more than memory keeps: the rest comes from the file.
        let (bed, script) = (Bed::new(), Arc::new(Script::default()));
        let options = Options { sync_bytes: u64::MAX, ..when_asked(&bed) };
        let (spool, reader) = open(&bed, &script, options);
        let writer = spool.writer();
        let mut doubtful: Vec<_> = (0..records).map(|n| append(&writer, &vec![n; bytes]).0).collect();
        script.syncs.store(1, Ordering::Release);
        let bad = bed.segments().pop().unwrap();
        let (last, mark) = append(&writer, b"last");
        doubtful.push(last);
        writer.synced(mark).await;
        drop(writer);
        bed.end(spool, reader).await;
        fs::remove_file(&bad).unwrap();
        let (spool, mut reader) = bed.open();
        assert_eq!(ids(&drain(&mut reader)), doubtful);
        assert_eq!(reader.damage(), Damage::default());
        bed.end(spool, reader).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_refuses_nothing_begins_and_who_waits_waits() {
    let (bed, script) = (Bed::new(), Arc::new(Script::default()));
    let (spool, mut reader) = open(&bed, &script, all_the_time(&bed));
    let writer = spool.writer();
    script.syncs.store(u64::MAX, Ordering::Release);
    let (id, mark) = append(&writer, b"x");
    until(|| !spool.has_room()).await;
    assert!(matches!(writer.append(Kind::Begin, id, &[]), Err(AppendError::Full)));
    let waits = bed.background.spawn(writer.synced(mark));
    until(|| lock(&script.failed).len() >= 3).await;
    assert!(!waits.is_finished());
    script.syncs.store(0, Ordering::Release);
    waits.await.unwrap();
    until(|| spool.has_room()).await;
    assert!(lock(&script.failed).values().all(|syncs| *syncs == 1), "no file was synced again");
    let seen = ids(&drain(&mut reader));
    assert_eq!(seen, [id, id], "the file that was given up, and the rescue that succeeded");
    drop(writer);
    bed.end(spool, reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_durable_makes_nobody_believe_it() {
    let (bed, script) = (Bed::new(), Arc::new(Script::default()));
    let (spool, reader) = open(&bed, &script, all_the_time(&bed));
    let writer = spool.writer();
    script.folder_syncs.store(u64::MAX, Ordering::Release);
    let (_, mark) = append(&writer, b"x");
    let waits = bed.background.spawn(writer.synced(mark));
    until(|| !spool.has_room()).await;
    assert!(!waits.is_finished());
    script.folder_syncs.store(0, Ordering::Release);
    waits.await.unwrap();
    drop(writer);
    bed.end(spool, reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_record_is_cut_away_or_left_behind() {
    for cuts_fail in [false, true] {
        let (bed, script) = (Bed::new(), Arc::new(Script::default()));
        let (spool, mut reader) = open(&bed, &script, bed.options());
        let writer = spool.writer();
        let before = append(&writer, b"before").0;
        script.cuts_fail.store(cuts_fail, Ordering::Release);
        *lock(&script.write_error) = Some(io::ErrorKind::Other);
        script.writes.store(1, Ordering::Release);
        let tried_again = append(&writer, &[1; 300]).0;
        let after = append(&writer, b"after").0;
        assert_eq!(bed.segments().len(), 2);
        assert_eq!(ids(&drain(&mut reader)), [before, tried_again, after]);

        script.writes.store(3, Ordering::Release);
        let refused = writer.append(Kind::End, before, &[b"x"]);
        assert!(matches!(refused, Err(AppendError::Failed(_))), "{refused:?}");
        script.writes.store(0, Ordering::Release);
        let again = append(&writer, b"again").0;
        assert_eq!(ids(&drain(&mut reader)), [again]);
        assert_eq!(reader.damage(), Damage::default());
        drop(writer);
        bed.end(spool, reader).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_the_file_goes_on_when_there_is_space() {
    let (bed, script) = (Bed::new(), Arc::new(Script::default()));
    let (spool, mut reader) = open(&bed, &script, bed.options());
    let writer = spool.writer();
    let before = append(&writer, b"before").0;
    *lock(&script.write_error) = Some(io::ErrorKind::StorageFull);
    script.writes.store(2, Ordering::Release);
    for kind in [Kind::Whole, Kind::End] {
        assert!(matches!(writer.append(kind, before, &[&[3; 100]]), Err(AppendError::Full)));
    }
    let after = append(&writer, b"after").0;
    assert_eq!((ids(&drain(&mut reader)), bed.segments().len()), (vec![before, after], 1));
    drop(writer);
    bed.end(spool, reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_floor_nothing_begins_until_there_is_space() {
    let (bed, script) = (Bed::new(), Arc::new(Script::default()));
    *lock(&script.free) = Some(500 << 20);
    let (spool, reader) = open(&bed, &script, Options { min_free: 1 << 30, ..all_the_time(&bed) });
    assert!(!spool.has_room(), "known before the first request");
    let writer = spool.writer();
    let id = ExchangeId::generate();
    assert!(matches!(writer.append(Kind::Begin, id, &[]), Err(AppendError::Full)));
    writer.append(Kind::End, id, &[]).unwrap();
    *lock(&script.free) = Some(2 << 30);
    until(|| spool.has_room()).await;
    whole(&writer, b"");
    drop(writer);
    bed.end(spool, reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_nothing_is_opened_or_made() {
    let (bed, script) = (Bed::new(), Arc::new(Script::default()));
    *lock(&script.free) = Some(1 << 20);
    let options = Options { min_free: 1 << 30, ..bed.options() };
    let disk = Arc::new(Scripted(script));
    let refused = Spool::open_on(disk, options, &bed.background, &bed.metrics).err().unwrap();
    assert!(matches!(refused, OpenError::NoSpace { .. }), "{refused}");
    assert!(refused.to_string().contains("1048576 bytes are free and 16777216 are needed"), "{refused}");
    assert!(!bed.folder().exists());
}
