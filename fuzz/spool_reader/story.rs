//! Arbitrary bytes as a segment of the spool, and a real segment with arbitrary edits: the reader
//! comes to an end, without a panic, and hands out nothing that was not written.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use tollgate::background::Background;
use tollgate::ids::{ExchangeId, RunId};
use tollgate::spool::{Kind, Options, Reader, Spool};
use tollgate::telemetry::Metrics;

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(1).enable_all().build().expect("a runtime")
});

/// One folder, made of bytes; panics when a promise is broken.
pub(super) fn tell(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    match data.split_first() {
        Some((0, segment)) => {
            let name = "0190a0000000700080000000000000aa-0000000000000001.seg";
            fs::write(folder.path().join(name), segment).expect("a file");
            assert!(read(folder.path()).is_empty(), "nothing was written");
        }
        Some((records, edits)) => {
            let written = write(folder.path(), usize::from(*records));
            edit(&segment(folder.path()), edits);
            let read = read(folder.path());
            let distinct: HashSet<_> = read.iter().collect();
            assert!(distinct.len() == read.len() && distinct.iter().all(|record| written.contains(*record)));
        }
        None => {}
    }
}

type Record = (Kind, ExchangeId, Vec<u8>);

/// One process on the folder, from its start to its end.
fn run<T>(folder: &Path, work: impl FnOnce(&Spool, &mut Reader) -> T) -> Option<T> {
    let background = Background::new(RUNTIME.handle().clone());
    let options = Options { min_free: 0, ..Options::new(folder.to_owned(), RunId::generate()) };
    // A header may say that a newer version wrote it; then there is nothing to read.
    let (spool, mut reader) = Spool::open(options, &background, &Arc::new(Metrics::new())).ok()?;
    let done = work(&spool, &mut reader);
    drop(spool);
    RUNTIME.block_on(background.finish());
    Some(done)
}

fn write(folder: &Path, records: usize) -> HashSet<Record> {
    let kinds = [Kind::Begin, Kind::Part, Kind::End, Kind::Whole];
    let append = |spool: &Spool| {
        let writer = spool.writer();
        let record = |n: usize| {
            let (kind, id, payload) = (kinds[n % 4], ExchangeId::generate(), vec![n as u8; n * 7 % 300]);
            writer.append(kind, id, &[&payload]).expect("room");
            (kind, id, payload)
        };
        (0..records).map(record).collect()
    };
    run(folder, |spool, _| append(spool)).expect("an empty folder opens")
}

fn segment(folder: &Path) -> PathBuf {
    let mut files = fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
    files.find(|path| path.extension().is_some_and(|kind| kind == "seg")).expect("a segment")
}

/// Four bytes an edit: where (two), how, and with what.
fn edit(path: &Path, edits: &[u8]) {
    let mut bytes = fs::read(path).expect("a file");
    for edit in edits.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len().max(1);
        match edit[2] % 4 {
            0 => bytes.truncate(at),
            1 => bytes.splice(at..at, [edit[3]]).for_each(drop),
            2 => bytes.iter_mut().skip(at).take(usize::from(edit[3])).for_each(|byte| *byte = 0),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= edit[3]),
        }
    }
    fs::write(path, bytes).expect("a file");
}

fn read(folder: &Path) -> Vec<Record> {
    let all = |reader: &mut Reader| {
        let mut all = Vec::new();
        while let Some(entry) = reader.next() {
            let payload = reader.payload(&entry.at).expect("what was handed out is whole");
            reader.done(&entry.at);
            all.push((entry.kind, entry.id, payload));
        }
        assert!(reader.old_runs_read());
        all
    };
    run(folder, |_, reader| all(reader)).unwrap_or_default()
}
