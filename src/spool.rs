//! Records that are on the disk before anybody is told so: append-only files, drained into SQL.
//!
//! A [`Writer`] appends to a file of its own, on the thread that asks: one write, no hand-over. A
//! task behind makes what was written durable, by time and by size, or at once for whoever waits.
//! The one [`Reader`] hands out what is there, that of killed runs first, and removes a file when
//! all of it is done. What a record means is its writer's business; here it is a kind, a name and
//! bytes.
//!
//! The files are the only truth: there is no index beside them that could disagree.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use thiserror::Error;

use crate::background::Background;
use crate::ids::{ExchangeId, RunId};
use crate::telemetry::Metrics;

mod aside;
mod cursor;
mod disk;
mod folder;
mod frame;
mod reader;
mod room;
mod segment;
mod shared;
mod sync;
#[cfg(test)]
mod tests;
mod window;
mod writer;

pub use aside::{Aside, Room};
use disk::{Disk, Machine};
pub use reader::{Damage, Reader};
use shared::{Owner, Shared};
use sync::Task;
pub use writer::Writer;

/// The folder. Clones are the same one; the last clone, of it and of its writers, to be dropped ends
/// the task that syncs, after a last sync.
#[derive(Clone)]
pub struct Spool {
    owner: Arc<Owner>,
}

/// Where the spool is, and its bounds.
#[derive(Clone, Debug)]
pub struct Options {
    /// The spool's own folder; made, with mode 0700, when it is not there.
    pub folder: PathBuf,
    /// This run; its files carry it, until [`Spool::begins_run`].
    pub run: RunId,
    /// Most bytes of all files together, those of earlier runs too.
    pub max_bytes: u64,
    /// Bytes of the file system that stay free, unless [`min_free_percent`](Self::min_free_percent)
    /// is less.
    pub min_free: u64,
    /// Hundredths of the file system that stay free, unless [`min_free`](Self::min_free) is less.
    pub min_free_percent: u64,
    /// Longest time that an appended record is not yet durable.
    pub sync_every: Duration,
    /// Most bytes of a file that are not yet durable before the task is called early.
    pub sync_bytes: u64,
    /// Bytes at which a file ends and the next begins.
    pub segment_bytes: u64,
}

/// What a record is to its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Its first record: it is about to be forwarded.
    Begin,
    /// A piece of a long answer.
    Part,
    /// Its last record.
    End,
    /// All of it: a conversation that was never forwarded.
    Whole,
}

/// A valid record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is to its conversation.
    pub kind: Kind,
    /// Its conversation.
    pub id: ExchangeId,
    /// The run that wrote it.
    pub run: RunId,
    /// Where its payload is.
    pub at: Location,
}

/// Where a record is; it has a meaning only for the [`Reader`] that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    file: u64,
    offset: u64,
    len: u32,
    ordinal: u32,
}

impl Location {
    /// Bytes of its payload.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.len)
    }
}

/// Where an appended record ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    segment: u64,
    end: u64,
}

/// Why the folder was not opened. Nothing in it was created, changed or removed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A file was written by a version of this program that knows more than this one.
    #[error(
        "{} has format {found}, and this version reads up to {known}: start the newer version once and stop \
         it in order, which empties the spool, or move the file out of the folder and lose its conversations",
        file.display()
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this version reads.
        known: u32,
    },
    /// Another process holds the lock.
    #[error(
        "another gateway runs on this data folder (it holds {}): stop it first, or give this one a \
         data_dir of its own",
        lock.display()
    )]
    InUse {
        /// The lock.
        lock: PathBuf,
    },
    /// The disk is full.
    #[error(
        "no space for the spool in {}: {free} bytes are free and {needed} are needed; make room on that \
         disk, or move data_dir",
        folder.display()
    )]
    NoSpace {
        /// The spool's folder.
        folder: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes without which nothing is begun.
        needed: u64,
    },
    /// The folder, or something in it, cannot be used.
    #[error("the spool in {} cannot be opened: {error}", path.display())]
    Io {
        /// What could not be used.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// Why a record was not appended. Nothing of it stays.
#[derive(Debug, Error)]
pub enum AppendError {
    /// The spool has all the bytes it may have, the disk has too few left, or what was written cannot
    /// be made durable.
    #[error("the spool is full")]
    Full,
    /// The disk refused, in a second file too.
    #[error("the spool cannot be written: {0}")]
    Failed(#[source] io::Error),
}

/// Most bytes of a record, its frame included.
pub const MAX_RECORD: usize = 16 << 20;
/// Bytes of a record's frame.
pub const FRAME: usize = 32;

// === impl Spool ===

impl Spool {
    /// Takes the folder's lock and starts the task that syncs on `background`. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open(
        options: Options,
        background: &Background,
        metrics: &Arc<Metrics>,
    ) -> Result<(Self, Reader), OpenError> {
        Self::open_on(Arc::new(Machine), options, background, metrics)
    }

    fn open_on(
        disk: Arc<dyn Disk>,
        options: Options,
        background: &Background,
        metrics: &Arc<Metrics>,
    ) -> Result<(Self, Reader), OpenError> {
        let (lock, old) = folder::open(&options, &*disk)?;
        let shared = Arc::new(Shared::new(options, disk, Arc::clone(metrics), lock));
        for file in &old {
            shared.room.add(file.bytes);
        }
        let reader = Reader::new(Arc::clone(&shared), old);
        let mut task = Task::new(Arc::clone(&shared));
        task.look();
        background.keep("spool", task.run());
        Ok((Self { owner: Arc::new(Owner(shared)) }, reader))
    }

    /// A writer with a file of its own, which begins with its first record.
    #[must_use]
    pub fn writer(&self) -> Writer {
        Writer::new(Arc::clone(&self.owner))
    }

    /// Device and inode of the lock file, which is held as long as the folder is open.
    #[must_use]
    pub fn lock_file(&self) -> Option<(u64, u64)> {
        let found = self.owner.0.lock_file.metadata().ok()?;
        Some((found.dev(), found.ino()))
    }

    /// Whether a conversation may begin: within the disk quota, the disk above its floor, and what
    /// was written durable. One atomic read.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.owner.0.room.is_there()
    }

    /// Bytes of all files now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.owner.0.room.bytes()
    }

    /// By calling what this returns, everything that is begun from then on is of another run. What is under way
    /// stays its own run's. It does not keep the spool open.
    pub fn begins_run(&self) -> impl Fn(RunId) + Send + Sync + use<> {
        let owner = Arc::downgrade(&self.owner);
        move |run| {
            let Some(owner) = owner.upgrade() else { return };
            *lock(&owner.0.run) = run;
            Self { owner }.seal();
        }
    }

    /// Every file of this run ends here; the next record begins a new one. Then the reader can
    /// finish, and remove, all that was appended before.
    pub fn seal(&self) {
        let seats: Vec<_> = lock(&self.owner.0.seats).iter().filter_map(Weak::upgrade).collect();
        for seat in seats {
            seat.seal();
        }
    }
}

// === impl Options ===

impl Options {
    /// The defaults: 2 GiB, 1 GiB or 5 % free, durable after 50 ms or 1 MiB, files of 64 MiB.
    #[must_use]
    pub fn new(folder: PathBuf, run: RunId) -> Self {
        Self {
            folder,
            run,
            max_bytes: 2 << 30,
            min_free: 1 << 30,
            min_free_percent: 5,
            sync_every: Duration::from_millis(50),
            sync_bytes: 1 << 20,
            segment_bytes: 64 << 20,
        }
    }
}

// === impl Location ===

impl Location {
    /// Whether it is in a file that was there at the start.
    #[must_use]
    pub fn is_old(&self) -> bool {
        self.file >= reader::OLD
    }
}

/// What a thread that panicked left is whole: everything here is changed in one step, or not at all.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
