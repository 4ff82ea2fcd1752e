//! A file that this run writes.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::disk::DiskFile;
use super::frame::{HEADER, Header, Key};
use super::{lock, window};

/// What the reader must know of a file that grows.
pub(super) struct Track {
    /// Its sequence number, and its number for the reader.
    pub(super) number: u64,
    /// Whose it is: the records of one writer are read in order.
    pub(super) writer: u64,
    pub(super) path: PathBuf,
    pub(super) header: Header,
    /// Whole records end here.
    published: AtomicU64,
    /// Nothing will be appended any more.
    sealed: AtomicBool,
}

/// What its writer and the task that syncs share.
pub(super) struct Live {
    pub(super) track: Arc<Track>,
    pub(super) key: Key,
    pub(super) file: Arc<dyn DiskFile>,
    /// Durable up to here.
    synced: AtomicU64,
    /// Somebody waits for this much.
    wanted: AtomicU64,
    /// The task was called for the bytes that are there.
    called: AtomicBool,
    kept: Mutex<Kept>,
}

/// A copy of what is not yet durable: after a failed sync nobody knows what the disk has, and a second
/// sync would answer "done" for what it lost.
#[derive(Default)]
struct Kept {
    from: u64,
    bytes: Vec<u8>,
    given_up: bool,
}

/// The records of a given-up file that are nowhere durable.
pub(super) struct Rescue {
    pub(super) live: Arc<Live>,
    /// They begin here.
    pub(super) from: u64,
    /// The copy, and where it begins; around it there is only what the file itself still says.
    pub(super) copy: Vec<u8>,
    pub(super) copy_from: u64,
}

/// Longest copy. Beyond it, which takes a disk that does not keep up, the file is asked for the rest.
const MAX_KEPT: usize = 4 << 20;

// === impl Track ===

impl Track {
    pub(super) fn new(writer: u64, path: PathBuf, header: Header) -> Self {
        Self {
            number: header.seq,
            writer,
            path,
            header,
            published: AtomicU64::new(HEADER as u64),
            sealed: AtomicBool::new(false),
        }
    }

    pub(super) fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    /// Once true, [`published`](Self::published) stays as it is.
    pub(super) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// Only its writer, and whoever holds its writer off, may say so.
    pub(super) fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    /// Says where a file ends that was written at once.
    pub(super) fn publish(&self, end: u64) {
        self.published.store(end, Ordering::Release);
    }
}

// === impl Live ===

impl Live {
    pub(super) fn new(track: Track, file: Arc<dyn DiskFile>) -> Self {
        Self {
            key: track.header.key(),
            track: Arc::new(track),
            file,
            synced: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            called: AtomicBool::new(false),
            kept: Mutex::default(),
        }
    }

    /// Lets readers see a record that was written at `offset`. False: the file was given up meanwhile,
    /// and the record belongs into another.
    pub(super) fn publish(&self, offset: u64, record: &[u8]) -> bool {
        let mut kept = lock(&self.kept);
        if kept.given_up {
            return false;
        }
        kept.push(offset, record);
        self.track.publish(offset + record.len() as u64);
        true
    }

    /// Whether the task must be called: once for each `bytes` that are not durable.
    pub(super) fn must_call(&self, bytes: u64) -> bool {
        self.unsynced() >= bytes && !self.called.swap(true, Ordering::Relaxed)
    }

    /// Bytes that are not durable.
    pub(super) fn unsynced(&self) -> u64 {
        self.track.published().saturating_sub(self.synced.load(Ordering::Acquire))
    }

    pub(super) fn is_synced(&self, end: u64) -> bool {
        self.synced.load(Ordering::Acquire) >= end
    }

    /// Somebody waits for the bytes up to `end`.
    pub(super) fn want(&self, end: u64) {
        self.wanted.fetch_max(end, Ordering::AcqRel);
    }

    pub(super) fn is_wanted(&self) -> bool {
        !self.is_synced(self.wanted.load(Ordering::Acquire))
    }

    /// All that will ever be appended is durable.
    pub(super) fn is_settled(&self) -> bool {
        self.track.is_sealed() && self.unsynced() == 0
    }

    pub(super) fn is_given_up(&self) -> bool {
        lock(&self.kept).given_up
    }

    /// The disk has everything up to `end`.
    pub(super) fn settle(&self, end: u64) {
        lock(&self.kept).forget(end);
        self.called.store(false, Ordering::Relaxed);
        self.synced.store(end, Ordering::Release);
    }

    /// A sync failed: this file is neither written nor synced again.
    pub(super) fn give_up(self: &Arc<Self>) -> Rescue {
        let mut kept = lock(&self.kept);
        kept.given_up = true;
        self.track.seal();
        Rescue {
            live: Arc::clone(self),
            from: self.synced.load(Ordering::Acquire).max(HEADER as u64),
            copy: std::mem::take(&mut kept.bytes),
            copy_from: kept.from,
        }
    }
}

// === impl Kept ===

impl Kept {
    fn push(&mut self, offset: u64, record: &[u8]) {
        if self.bytes.is_empty() {
            self.from = offset;
        }
        let follows = offset == self.from + self.bytes.len() as u64;
        if follows && self.bytes.len() + record.len() <= MAX_KEPT {
            self.bytes.extend_from_slice(record);
        }
    }

    fn forget(&mut self, end: u64) {
        let durable = usize::try_from(end.saturating_sub(self.from)).unwrap_or(usize::MAX);
        let durable = durable.min(self.bytes.len());
        self.bytes.drain(..durable);
        self.from += durable as u64;
    }
}

// === impl Rescue ===

impl Rescue {
    /// The bytes from [`from`](Self::from) to the file's end: of the copy, and, where that has none, of
    /// the file as far as it can be read. Blocks on the disk.
    pub(super) fn bytes(&self) -> io::Result<Vec<u8>> {
        let (from, end) = (self.from, self.live.track.published());
        let copied = self.copy_from..self.copy_from + self.copy.len() as u64;
        if copied.start == from && copied.end == end {
            return Ok(self.copy.clone());
        }
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(from)).map_err(io::Error::other)?];
        // A file that is gone was removed because all of it is done.
        if let Ok(file) = File::open(&self.live.track.path) {
            window::read_leniently(&file, &mut bytes, from);
        }
        let at = usize::try_from(copied.start.saturating_sub(from)).map_err(io::Error::other)?;
        if let Some(place) = bytes.get_mut(at..at + self.copy.len()) {
            place.copy_from_slice(&self.copy);
        }
        Ok(bytes)
    }
}
