//! Damaged folders, thousands of them: what is whole is read, once; what is not is counted; nothing
//! stops a start.
#![cfg(test)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::{tempdir, tempdir_in};
use uuid::Uuid;

use super::super::disk::Machine;
use super::super::folder;
use super::super::frame::{HEADER, Head, Header};
use super::super::shared::Shared;
use super::super::{Damage, Entry, FRAME, Kind, Options, Reader};
use super::segments;
use crate::ids::{ExchangeId, RunId};
use crate::telemetry::Metrics;

const KINDS: [Kind; 4] = [Kind::Begin, Kind::Part, Kind::End, Kind::Whole];

/// A file as it was written.
struct Written {
    header: Header,
    bytes: Vec<u8>,
    records: Vec<Record>,
}

struct Record {
    kind: Kind,
    id: ExchangeId,
    from: usize,
    to: usize,
    len: usize,
}

/// A file as it is found, and the one whose bytes it once had.
struct Found<'a> {
    origin: &'a Written,
    name: String,
    bytes: Vec<u8>,
}

/// What must be read, and what must be counted, computed from the bytes alone.
#[derive(Default)]
struct Verdict {
    records: BTreeMap<(u8, ExchangeId, RunId, Vec<u8>), u32>,
    lost_bytes: u64,
    least_lost: u64,
    most_lost: u64,
    files: u64,
}

fn write(header: Header, payloads: &[Vec<u8>], chance: &mut StdRng) -> Written {
    let (mut bytes, mut records, mut frame) = (header.encode(), Vec::new(), Vec::new());
    for (ordinal, payload) in (0..).zip(payloads) {
        let (kind, id) = (KINDS[chance.random_range(0..4)], ExchangeId(Uuid::from_u128(chance.random())));
        let head = Head { len: u32::try_from(payload.len()).unwrap(), kind, ordinal, id };
        let from = bytes.len();
        header.key().encode(&mut frame, from as u64, &head, &[payload]);
        bytes.extend_from_slice(&frame);
        records.push(Record { kind, id, from, to: bytes.len(), len: payload.len() });
    }
    Written { header, bytes, records }
}

/// A reader as the next start makes it, without the task that syncs.
fn reader(folder: &Path) -> (Reader, Arc<Shared>) {
    let options = Options { min_free: 0, ..Options::new(folder.to_owned(), RunId(Uuid::from_u128(9))) };
    let (lock, old) = folder::open(&options, &Machine).unwrap();
    let shared = Arc::new(Shared::new(options, Arc::new(Machine), Arc::new(Metrics::new()), lock));
    for file in &old {
        shared.room.add(file.bytes);
    }
    (Reader::new(Arc::clone(&shared), old), shared)
}

fn read_all(reader: &mut Reader) -> Vec<(Entry, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(entry) = reader.next() {
        let payload = reader.payload(&entry.at).unwrap();
        all.push((entry, payload));
    }
    all
}

#[test]
fn a_tail_torn_at_any_byte_costs_the_last_record_only() {
    let mut chance = StdRng::seed_from_u64(1);
    let payloads = [vec![1; 10], vec![2; 100], vec![3; 77]];
    let written = write(Header::new(RunId(Uuid::from_u128(1)), 1, 0), &payloads, &mut chance);
    let victim = &written.records[2];
    let (mut torn_off, mut zeroed) = (0, 0);
    for cut in victim.from..victim.to {
        for zeros in [false, true] {
            let dir = tempdir().unwrap();
            let mut bytes = written.bytes[..cut].to_vec();
            // As a file system leaves it that knows the length but has not the bytes.
            bytes.resize(if zeros { victim.to } else { cut }, 0);
            let whole = bytes == written.bytes;
            let lost_bytes = if whole { 0 } else { (bytes.len() - victim.from) as u64 };
            fs::write(dir.path().join(written.header.name()), bytes).unwrap();
            let (mut reader, _shared) = reader(dir.path());
            let read = read_all(&mut reader);
            assert_eq!(read.len(), 2 + usize::from(whole), "cut at {cut}");
            let lost = u64::from(lost_bytes > 0);
            let expected = Damage { records: lost, bytes: lost_bytes, torn: lost, files: 0 };
            assert_eq!(reader.damage(), expected, "cut at {cut}");
            for (entry, _) in &read {
                reader.done(&entry.at);
            }
            assert!(segments(dir.path()).is_empty());
            *(if zeros { &mut zeroed } else { &mut torn_off }) += lost;
        }
    }
    assert_eq!((torn_off, zeroed), ((victim.to - victim.from) as u64 - 1, (FRAME + victim.len) as u64));
}

#[test]
fn records_missing_in_the_middle_are_counted_and_kept_aside() {
    let mut chance = StdRng::seed_from_u64(2);
    let payloads = vec![vec![5; 200]; 10];
    let mut written = write(Header::new(RunId(Uuid::from_u128(1)), 1, 0), &payloads, &mut chance);
    let (from, to) = (written.records[3].from, written.records[6].from);
    written.bytes[from..to].fill(0xAA);
    let dir = tempdir().unwrap();
    fs::write(dir.path().join(written.header.name()), &written.bytes).unwrap();
    let (mut reader, shared) = reader(dir.path());
    assert_eq!(read_all(&mut reader).len(), 7);
    assert_eq!(reader.damage(), Damage { records: 3, bytes: (to - from) as u64, torn: 0, files: 0 });
    assert_eq!(shared.metrics.spool_lost_records.get(), 3);
    let kept = fs::read_dir(dir.path().join("damaged")).unwrap().next().unwrap().unwrap();
    assert_eq!(fs::read(kept.path()).unwrap(), written.bytes[from..to]);
}

#[test]
fn a_record_damaged_after_it_was_handed_out_is_not_believed() {
    let mut chance = StdRng::seed_from_u64(3);
    let written = write(Header::new(RunId(Uuid::from_u128(1)), 1, 0), &[vec![5; 50]], &mut chance);
    let dir = tempdir().unwrap();
    let path = dir.path().join(written.header.name());
    fs::write(&path, &written.bytes).unwrap();
    let (mut reader, _shared) = reader(dir.path());
    let entry = reader.next().unwrap();
    assert_eq!(reader.payload(&entry.at).unwrap(), [5; 50]);
    let mut bytes = written.bytes.clone();
    bytes[HEADER + FRAME + 3] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(reader.payload(&entry.at).unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    reader.done(&entry.at);
    assert_eq!((reader.next(), segments(dir.path()).len()), (None, 0));
}

#[test]
fn ten_thousand_damaged_folders() {
    // In memory where there is such a place: a disk's journal would be most of the work.
    let memory = Path::new("/dev/shm");
    let root = if memory.is_dir() { tempdir_in(memory) } else { tempdir() }.unwrap();
    for seed in 0..10_000 {
        let dir = root.path().join(seed.to_string());
        fs::create_dir(&dir).unwrap();
        let mut chance = StdRng::seed_from_u64(seed);
        let written = spool(&mut chance);
        let mut found: Vec<_> = written
            .iter()
            .map(|file| Found { origin: file, name: file.header.name(), bytes: file.bytes.clone() })
            .collect();
        for _ in 0..chance.random_range(1..4) {
            damage(&mut found, &mut chance);
        }
        for file in &found {
            fs::write(dir.join(&file.name), &file.bytes).unwrap();
        }
        judge(&dir, &found, seed);
        fs::remove_dir_all(&dir).unwrap();
    }
}

/// A few files of two runs.
fn spool(chance: &mut StdRng) -> Vec<Written> {
    let runs = [1, 2].map(|run| RunId(Uuid::from_u128(run)));
    let mut files = Vec::new();
    for seq in 0..chance.random_range(1..4) {
        let header = Header::new(runs[chance.random_range(0..2)], seq, 0);
        let records = chance.random_range(0..7);
        let payloads: Vec<_> = (0..records)
            .map(|_| {
                let mut payload = vec![0; chance.random_range(0..120)];
                chance.fill(&mut payload[..]);
                payload
            })
            .collect();
        files.push(write(header, &payloads, chance));
    }
    files
}

fn damage(found: &mut Vec<Found<'_>>, chance: &mut StdRng) {
    if found.is_empty() {
        return;
    }
    let (which, other) = (chance.random_range(0..found.len()), chance.random_range(0..found.len()));
    match chance.random_range(0..10) {
        0 => drop(found.remove(which)),
        1 => {
            let Found { origin, bytes, .. } = &found[which];
            let name = Header::new(origin.header.run, chance.random_range(100..1 << 40), 0).name();
            let double = Found { origin, name, bytes: bytes.clone() };
            found.push(double);
        }
        2 => {
            let name = found[which].name.clone();
            found[which].name = std::mem::replace(&mut found[other].name, name);
        }
        kind => damage_bytes(&mut found[which].bytes, kind, chance),
    }
}

fn damage_bytes(bytes: &mut Vec<u8>, kind: u32, chance: &mut StdRng) {
    let len = bytes.len();
    if len == 0 {
        return;
    }
    let (at, other) = (chance.random_range(0..len), chance.random_range(0..len));
    let to = (at + chance.random_range(1..200)).min(len);
    match kind {
        3 | 4 => bytes.truncate(at),
        5 => bytes[at] ^= 1 << chance.random_range(0..8),
        6 => (0..chance.random_range(1..20)).for_each(|_| {
            let at = chance.random_range(0..len);
            bytes[at] ^= 1 << chance.random_range(0..8);
        }),
        7 => bytes[at..to].fill(0),
        8 => {
            let stretch = bytes[at..to].to_vec();
            let end = (other + stretch.len()).min(len);
            bytes[other..end].copy_from_slice(&stretch[..end - other]);
        }
        _ => bytes.resize(len + to - at, chance.random()),
    }
}

fn judge(dir: &Path, found: &[Found<'_>], seed: u64) {
    let mut expected = Verdict::default();
    for file in found {
        expected.add(file);
    }
    let (mut reader, shared) = reader(dir);
    let read = read_all(&mut reader);
    let mut handed: BTreeMap<_, u32> = BTreeMap::new();
    for (entry, payload) in &read {
        *handed.entry((entry.kind as u8, entry.id, entry.run, payload.clone())).or_default() += 1;
    }
    assert!(handed == expected.records, "seed {seed}: other records than those that are whole");
    assert!(reader.old_runs_read(), "seed {seed}");
    let damage = reader.damage();
    assert_eq!((damage.bytes, damage.files), (expected.lost_bytes, expected.files), "seed {seed}");
    let possible = expected.least_lost..=expected.most_lost;
    assert!(possible.contains(&damage.records), "seed {seed}: {} not in {possible:?}", damage.records);
    for (entry, _) in &read {
        reader.done(&entry.at);
    }
    assert_eq!((segments(dir).len(), shared.room.bytes()), (0, 0), "seed {seed}");
}

// === impl Verdict ===

impl Verdict {
    fn add(&mut self, file: &Found<'_>) {
        let Found { origin, name, bytes } = file;
        if bytes.len() <= HEADER {
            return;
        }
        let header_is_whole = bytes[..HEADER] == origin.bytes[..HEADER];
        let readable = header_is_whole || *name == origin.header.name();
        let is_whole = |record: &&Record| {
            readable && bytes.get(record.from..record.to) == Some(&origin.bytes[record.from..record.to])
        };
        let read: Vec<_> = origin.records.iter().filter(is_whole).collect();
        if !header_is_whole && read.is_empty() {
            self.files += 1;
            self.lost_bytes += bytes.len() as u64;
            return;
        }
        for record in &read {
            let payload = bytes[record.from + FRAME..][..record.len].to_vec();
            *self.records.entry((record.kind as u8, record.id, origin.header.run, payload)).or_default() += 1;
        }
        let kept: usize = read.iter().map(|record| record.to - record.from).sum();
        self.lost_bytes += (bytes.len() - kept - if header_is_whole { HEADER } else { 0 }) as u64;
        let end = read.last().map_or(HEADER, |record| record.to);
        let before = origin.records.iter().filter(|record| record.to <= end).count() - read.len();
        let tail = bytes.len() - end;
        self.least_lost += before as u64 + u64::from(tail > 0);
        self.most_lost += (before + if tail > 0 { tail / FRAME + 1 } else { 0 }) as u64;
    }
}
