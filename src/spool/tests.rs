//! Stories of the whole spool, on a real folder.
#![cfg(test)]

mod damaged;
mod faults;
mod made_up;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use tempfile::TempDir;
use tokio::runtime::Handle;

use super::frame::{FORMAT, Header};
use super::{AppendError, Damage, FRAME, Kind, MAX_RECORD, OpenError, Options, Reader, Spool, Writer};
use crate::background::Background;
use crate::ids::{ExchangeId, RunId};
use crate::telemetry::Metrics;

/// A folder, and one process after the other on it.
struct Bed {
    dir: TempDir,
    background: Background,
    metrics: Arc<Metrics>,
}

impl Bed {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            background: Background::new(Handle::current()),
            metrics: Arc::new(Metrics::new()),
        }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    /// Without a floor: how full the disk of the machine is must not matter.
    fn options(&self) -> Options {
        Options { min_free: 0, ..Options::new(self.folder(), RunId::generate()) }
    }

    fn open(&self) -> (Spool, Reader) {
        self.open_with(self.options())
    }

    fn open_with(&self, options: Options) -> (Spool, Reader) {
        Spool::open(options, &self.background, &self.metrics).unwrap()
    }

    /// The process ends in order.
    async fn end(&self, spool: Spool, reader: Reader) {
        drop(spool);
        self.background.finish().await;
        drop(reader);
    }

    fn segments(&self) -> Vec<PathBuf> {
        segments(&self.folder())
    }
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|kind| kind == "seg")).collect();
    files.sort();
    files
}

fn whole(writer: &Writer, payload: &[u8]) -> ExchangeId {
    let id = ExchangeId::generate();
    writer.append(Kind::Whole, id, &[payload]).unwrap();
    id
}

/// Everything there is to read, done.
fn drain(reader: &mut Reader) -> Vec<(Kind, ExchangeId, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(entry) = reader.next() {
        all.push((entry.kind, entry.id, reader.payload(&entry.at).unwrap()));
        reader.done(&entry.at);
    }
    all
}

fn ids(records: &[(Kind, ExchangeId, Vec<u8>)]) -> Vec<ExchangeId> {
    records.iter().map(|(_, id, _)| *id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_is_read_and_what_is_done_is_removed() {
    let bed = Bed::new();
    let (spool, mut reader) = bed.open();
    assert!(reader.old_runs_read());
    let writer = spool.writer();
    let id = ExchangeId::generate();
    writer.append(Kind::Begin, id, &[b"who", b" ", b"asked"]).unwrap();
    writer.append(Kind::Part, id, &[]).unwrap();
    let big = vec![7; 3 << 20];
    writer.append(Kind::End, id, &[&big]).unwrap();

    let entry = reader.next().unwrap();
    assert_eq!((entry.kind, entry.id), (Kind::Begin, id));
    assert_eq!(reader.payload(&entry.at).unwrap(), b"who asked");
    let rest: Vec<_> = [reader.next().unwrap(), reader.next().unwrap()].into();
    assert_eq!(reader.payload(&rest[0].at).unwrap(), b"");
    assert_eq!((rest[1].kind, reader.payload(&rest[1].at).unwrap() == big), (Kind::End, true));
    assert_eq!(reader.next(), None);
    assert_eq!(spool.bytes(), fs::metadata(&bed.segments()[0]).unwrap().len());

    spool.seal();
    reader.done(&rest[0].at);
    reader.done(&rest[0].at);
    reader.done(&rest[1].at);
    assert_eq!((reader.next(), bed.segments().len()), (None, 1));
    reader.done(&entry.at);
    assert_eq!((spool.bytes(), bed.segments().len()), (0, 0));
    assert_eq!(reader.payload(&entry.at).unwrap_err().kind(), std::io::ErrorKind::NotFound);

    let last = whole(&writer, b"after");
    assert_eq!(ids(&drain(&mut reader)), [last]);
    drop(writer);
    assert_eq!(reader.next(), None);
    assert!(bed.segments().is_empty(), "a writer that is gone has ended its file");
    bed.end(spool, reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_may_look() {
    let bed = Bed::new();
    let (spool, reader) = bed.open();
    whole(&spool.writer(), b"secret");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&bed.folder()), 0o700);
    assert_eq!(mode(&bed.folder().join("lock")), 0o600);
    assert_eq!(mode(&bed.segments()[0]), 0o600);
    bed.end(spool, reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_run_reads_the_last_ones_records_before_its_own() {
    let bed = Bed::new();
    let options = Options { segment_bytes: 300, ..bed.options() };
    let (run, (spool, reader)) = (options.run, bed.open_with(options));
    let (one, two) = (spool.writer(), spool.writer());
    let first: BTreeSet<_> = (0..20).map(|n| whole(if n % 2 == 0 { &one } else { &two }, &[n; 50])).collect();
    drop((one, two));
    bed.end(spool, reader).await;
    assert_eq!(bed.segments().len(), 10);
    fs::write(bed.folder().join(format!("{}-00000000000000ff.seg", run.0.simple())), b"").unwrap();
    fs::write(bed.folder().join("not-ours.txt"), b"?").unwrap();

    let (spool, mut reader) = bed.open();
    assert!(!reader.old_runs_read());
    let own = whole(&spool.writer(), b"own");
    let mut seen = Vec::new();
    while let Some(entry) = reader.next() {
        assert_eq!(entry.run == run, seen.len() < 20);
        assert_eq!(reader.old_runs_read(), seen.len() >= 20);
        seen.push(entry.id);
        reader.done(&entry.at);
    }
    assert_eq!((seen.pop(), seen.into_iter().collect()), (Some(own), first));
    assert_eq!((reader.damage(), spool.bytes()), (Damage::default(), 0));
    assert!(bed.segments().is_empty());
    bed.end(spool, reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_write_while_one_reads_and_each_record_comes_once() {
    fn may_move<T: Send>(_: &T) {}
    const WRITERS: usize = 6;
    const RECORDS: usize = 1_500;
    let bed = Bed::new();
    let (spool, mut reader) = bed.open_with(Options { segment_bytes: 40_000, ..bed.options() });
    may_move(&reader);
    let threads: Vec<_> = (0..WRITERS)
        .map(|number| {
            // Two of them share one file.
            let writer = if number < 5 { spool.writer() } else { spool.writer().clone() };
            thread::spawn(move || {
                let id = ExchangeId::generate();
                for n in 0..RECORDS {
                    let text = format!("{n}");
                    writer.append(Kind::Part, id, &[text.as_bytes(), &vec![b'.'; n % 90]]).unwrap();
                }
                id
            })
        })
        .collect();
    let mut seen: BTreeMap<ExchangeId, usize> = BTreeMap::new();
    let mut records = 0;
    while records < WRITERS * RECORDS {
        for (_, id, payload) in drain(&mut reader) {
            let next = seen.entry(id).or_default();
            assert_eq!(payload, format!("{next}{}", ".".repeat(*next % 90)).as_bytes());
            (*next, records) = (*next + 1, records + 1);
        }
        thread::yield_now();
    }
    for thread in threads {
        assert_eq!(seen[&thread.join().unwrap()], RECORDS);
    }
    assert_eq!((reader.next(), bed.segments().len(), spool.bytes()), (None, 0, 0));
    bed.end(spool, reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_gateway_is_refused() {
    let bed = Bed::new();
    let (spool, reader) = bed.open();
    let refused = Spool::open(bed.options(), &bed.background, &bed.metrics).err().unwrap();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    assert!(refused.to_string().starts_with("another gateway runs on this data folder"), "{refused}");
    bed.end(spool, reader).await;
    bed.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_version_wrote_is_refused_and_stays_as_it_is() {
    let bed = Bed::new();
    fs::create_dir(bed.folder()).unwrap();
    let header = Header { format: FORMAT + 1, ..Header::new(RunId::generate(), 3, 0) };
    let newer = bed.folder().join(header.name());
    fs::write(&newer, [header.encode(), vec![1; 100]].concat()).unwrap();
    fs::write(bed.folder().join("empty.seg"), b"").unwrap();
    let all = || -> BTreeMap<_, _> {
        let files = fs::read_dir(bed.folder()).unwrap().map(|file| file.unwrap());
        files
            .map(|file| (file.file_name(), fs::read(file.path()).unwrap(), file.metadata().unwrap()))
            .map(|(name, bytes, found)| (name, (bytes, found.modified().unwrap())))
            .collect()
    };
    let before = all();
    let refused = Spool::open(bed.options(), &bed.background, &bed.metrics).err().unwrap();
    assert!(matches!(refused, OpenError::Newer { found: 2, known: 1, .. }), "{refused}");
    assert!(refused.to_string().contains(newer.to_str().unwrap()), "{refused}");
    assert_eq!(all(), before);

    // Where the header itself is damaged, nothing says so: that file does not keep us from starting.
    let mut bytes = fs::read(&newer).unwrap();
    bytes[20] ^= 1;
    fs::write(&newer, bytes).unwrap();
    let (spool, mut reader) = bed.open();
    assert_eq!((reader.next(), reader.damage().files), (None, 1));
    assert!(bed.segments().is_empty());
    assert_eq!(fs::read_dir(bed.folder().join("damaged")).unwrap().count(), 1);
    bed.end(spool, reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_its_bytes_nothing_begins_but_what_began_may_end() {
    let bed = Bed::new();
    let (spool, mut reader) = bed.open_with(Options { max_bytes: 4_000, ..bed.options() });
    let writer = spool.writer();
    let id = ExchangeId::generate();
    while spool.has_room() {
        writer.append(Kind::Begin, id, &[&[1; 500]]).unwrap();
    }
    assert!((4_000..4_600).contains(&spool.bytes()), "{}", spool.bytes());
    for kind in [Kind::Begin, Kind::Whole] {
        assert!(matches!(writer.append(kind, id, &[]), Err(AppendError::Full)));
    }
    for kind in [Kind::Part, Kind::End] {
        writer.append(kind, id, &[b"more"]).unwrap();
    }
    assert_eq!(bed.metrics.spool_full.get(), 2);
    drain(&mut reader);
    spool.seal();
    assert_eq!(reader.next(), None);
    assert!(spool.has_room());
    drop(writer);
    bed.end(spool, reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_has_a_longest_length() {
    let bed = Bed::new();
    let (spool, mut reader) = bed.open();
    let writer = spool.writer();
    let longest = vec![1; MAX_RECORD - FRAME];
    let id = ExchangeId::generate();
    writer.append(Kind::End, id, &[&longest]).unwrap();
    let refused = writer.append(Kind::End, id, &[&longest, b"x"]);
    assert!(matches!(refused, Err(AppendError::Failed(_))));
    let read = drain(&mut reader);
    assert!(read.len() == 1 && read[0].2 == longest);
    drop(writer);
    bed.end(spool, reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_wait_share_a_sync_and_the_end_syncs_the_rest() {
    let bed = Bed::new();
    let (spool, reader) =
        bed.open_with(Options { sync_every: std::time::Duration::from_hours(1), ..bed.options() });
    let writer = spool.writer();
    let waits: Vec<_> = (0..100)
        .map(|_| writer.synced(writer.append(Kind::End, ExchangeId::generate(), &[b"x"]).unwrap()))
        .collect();
    futures_util::future::join_all(waits).await;
    let shared = Arc::clone(&spool.owner.0);
    let last = writer.append(Kind::End, ExchangeId::generate(), &[b"last"]).unwrap();
    assert!(super::lock(&shared.lives).values().any(|live| live.unsynced() > 0));
    drop(writer);
    bed.end(spool, reader).await;
    assert!(super::lock(&shared.lives).is_empty() && shared.closed.load(Ordering::Acquire));
    shared.settled(last).await;
}
