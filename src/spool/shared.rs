//! What the folder's handles, its task and its reader have in common.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::Notify;

use super::disk::{self, Disk, DiskFile};
use super::frame::Header;
use super::room::Room;
use super::segment::{Live, Track};
use super::writer::Seat;
use super::{Mark, Options, folder, lock};
use crate::ids::RunId;
use crate::telemetry::Metrics;

pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) room: Room,
    /// Files of this run that are not yet durable to their end, by number.
    pub(super) lives: Mutex<BTreeMap<u64, Arc<Live>>>,
    /// Files that the reader has not yet seen.
    pub(super) fresh: Mutex<Vec<Arc<Track>>>,
    pub(super) seats: Mutex<Vec<Weak<Seat>>>,
    /// A name was made or removed, and is not yet durable.
    pub(super) renamed: AtomicBool,
    /// Calls the task that syncs.
    pub(super) wake: Notify,
    /// Calls those who wait for it.
    pub(super) settled: Notify,
    /// Nobody can append any more.
    pub(super) closing: AtomicBool,
    /// The task is over: names that are removed from now on are nobody's to sync but their remover's.
    pub(super) closed: AtomicBool,
    numbers: AtomicU64,
    /// The run that new files carry.
    pub(super) run: Mutex<RunId>,
    boot: u64,
    /// Locked, as long as it is open.
    pub(super) lock_file: File,
}

/// Keeps the task running.
pub(super) struct Owner(pub(super) Arc<Shared>);

// === impl Shared ===

impl Shared {
    pub(super) fn new(options: Options, disk: Arc<dyn Disk>, metrics: Arc<Metrics>, lock: File) -> Self {
        let run = Mutex::new(options.run);
        Self {
            room: Room::new(options.max_bytes),
            options,
            disk,
            metrics,
            lives: Mutex::default(),
            fresh: Mutex::default(),
            seats: Mutex::default(),
            renamed: AtomicBool::new(true),
            wake: Notify::new(),
            settled: Notify::new(),
            closing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            numbers: AtomicU64::new(1),
            run,
            boot: folder::boot(),
            lock_file: lock,
        }
    }

    /// A number that no file of this run and no writer has yet.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// A file for `writer`, which readers and the task know from now on.
    pub(super) fn begin(&self, writer: u64) -> io::Result<Arc<Live>> {
        let (header, path, file) = self.create()?;
        let live = Arc::new(Live::new(Track::new(writer, path, header), file));
        lock(&self.lives).insert(header.seq, Arc::clone(&live));
        self.show(&live.track);
        Ok(live)
    }

    /// A new file with its header, of which nobody knows yet.
    pub(super) fn create(&self) -> io::Result<(Header, PathBuf, Arc<dyn DiskFile>)> {
        loop {
            let header = Header::new(*lock(&self.run), self.number(), self.boot);
            let path = self.options.folder.join(header.name());
            let file = match self.disk.create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file?,
            };
            self.renamed.store(true, Ordering::Release);
            if let Err(error) = disk::write_all(&*file, &header.encode(), 0) {
                folder::discard(&path);
                return Err(error);
            }
            return Ok((header, path, file));
        }
    }

    /// Gives a file to the reader, and counts what is in it.
    pub(super) fn show(&self, track: &Arc<Track>) {
        self.room.add(track.published());
        lock(&self.fresh).push(Arc::clone(track));
    }

    /// Ends when the record before `mark` is durable.
    pub(super) async fn settled(&self, mark: Mark) {
        let Some(live) = lock(&self.lives).get(&mark.segment).map(Arc::clone) else { return };
        if live.is_synced(mark.end) {
            return;
        }
        live.want(mark.end);
        self.wake.notify_one();
        loop {
            let mut settled = pin!(self.settled.notified());
            settled.as_mut().enable();
            if live.is_synced(mark.end) {
                return;
            }
            settled.await;
        }
    }
}

// === impl Owner ===

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.closing.store(true, Ordering::Release);
        self.0.wake.notify_one();
    }
}
