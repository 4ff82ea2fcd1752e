//! Handing out what was written.

use std::collections::HashMap;
use std::io;

use super::writer::Queue;
use super::{Entry, Location};
use crate::ids::RunId;

/// Hands out records. There is one, and its calls block on the disk.
pub struct Reader {
    run: RunId,
    queue: Queue,
    taken: HashMap<u64, Vec<u8>>,
    next: u64,
}

/// What could not be read, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Records that are lost. Exact between two records that are there; at a file's end at least one.
    pub records: u64,
    /// Bytes that belong to no valid record.
    pub bytes: u64,
    /// Files whose end was torn, as a loss of power leaves it.
    pub torn: u64,
    /// Files that could not be read at all and were set aside.
    pub files: u64,
}

// === impl Reader ===

impl Reader {
    pub(super) fn new(run: RunId, queue: Queue) -> Self {
        Self { run, queue, taken: HashMap::new(), next: 0 }
    }

    /// The next record; `None`: nothing new now. Records of earlier runs come first, in the order of
    /// their files. Those of one writer come in the order in which they were appended.
    ///
    /// A record may come twice, and a copy of one later than what follows it: when a sync failed, the
    /// records of that file that were not yet durable are written again, into another.
    #[expect(clippy::should_implement_trait, reason = "it has more to give later, which an iterator has not")]
    pub fn next(&mut self) -> Option<Entry> {
        let (kind, id, payload) = self.queue.lock().ok()?.pop_front()?;
        let at = Location { file: 0, offset: self.next, len: 0, ordinal: 0 };
        self.taken.insert(self.next, payload);
        self.next += 1;
        Some(Entry { kind, id, run: self.run, at })
    }

    /// Whether every record of earlier runs was handed out.
    pub fn old_runs_read(&self) -> bool {
        true
    }

    /// The bytes of a record, checked again.
    ///
    /// # Errors
    ///
    /// The disk's; `InvalidData` when the bytes are no longer what was appended; `NotFound` when the
    /// file is already removed.
    pub fn payload(&self, at: &Location) -> io::Result<Vec<u8>> {
        self.taken.get(&at.offset).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// This record is no longer needed. A file that is ended and fully read is removed when all of its
    /// records are done. Twice for one record is once.
    pub fn done(&mut self, at: &Location) {
        self.taken.remove(&at.offset);
    }

    /// What could not be read until now.
    pub fn damage(&self) -> Damage {
        Damage::default()
    }
}
