//! Appending, on the thread that asks.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};

use super::disk::{is_full, write_all};
use super::frame::{self, HEADER, Head, MAX_ORDINAL};
use super::segment::Live;
use super::shared::{Owner, Shared};
use super::{AppendError, FRAME, Kind, MAX_RECORD, Mark, lock};
use crate::ids::ExchangeId;

/// Appends to a file of its own. Clones append to the same file, one after the other.
#[derive(Clone)]
pub struct Writer {
    // Dropped before the owner: the task must not end before the file does.
    seat: Arc<Seat>,
    owner: Arc<Owner>,
}

/// One writer's place.
pub(super) struct Seat {
    number: u64,
    pen: Mutex<Pen>,
}

#[derive(Default)]
struct Pen {
    page: Option<Page>,
    /// The record that is being written; kept for its room.
    buffer: Vec<u8>,
}

/// Where the next record goes.
struct Page {
    live: Arc<Live>,
    end: u64,
    ordinal: u32,
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(owner: Arc<Owner>) -> Self {
        let seat = Arc::new(Seat { number: owner.0.number(), pen: Mutex::default() });
        let mut seats = lock(&owner.0.seats);
        seats.retain(|seat| seat.strong_count() > 0);
        seats.push(Arc::downgrade(&seat));
        drop(seats);
        Self { seat, owner }
    }

    /// Writes one record: `payload` is its pieces, of at most [`MAX_RECORD`] bytes with the frame. When
    /// this returns the record survives the end of this process, and after [`synced`](Self::synced)
    /// that of the machine. One write; now and then a file is begun.
    ///
    /// # Errors
    ///
    /// [`AppendError::Full`]: for `Begin` and `Whole` where [`has_room`](super::Spool::has_room) is
    /// false; for `Part` and `End` only when the disk itself is full. [`AppendError::Failed`]: the
    /// disk refused, or the record is too long. Nothing of it stays, unless the disk refuses that too:
    /// then the next start may find it.
    pub fn append(&self, kind: Kind, id: ExchangeId, payload: &[&[u8]]) -> Result<Mark, AppendError> {
        let shared = &*self.owner.0;
        if matches!(kind, Kind::Begin | Kind::Whole) && !shared.room.is_there() {
            shared.metrics.spool_full.inc();
            return Err(AppendError::Full);
        }
        let len = payload.iter().fold(0_usize, |all, piece| all.saturating_add(piece.len()));
        let Some(len) = u32::try_from(len).ok().filter(|_| len <= MAX_RECORD - FRAME) else {
            return Err(AppendError::Failed(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a record too long",
            )));
        };
        let head = Head { len, kind, ordinal: 0, id };
        let mut pen = lock(&self.seat.pen);
        let written = pen.append(shared, self.seat.number, head, payload).or_else(|error| {
            if is_full(&error) {
                return Err(error);
            }
            tracing::error!(%error, "a spool file cannot be written; beginning another");
            pen.leave();
            pen.append(shared, self.seat.number, head, payload)
        });
        drop(pen);
        written.map_err(|error| {
            if !is_full(&error) {
                return AppendError::Failed(error);
            }
            shared.metrics.spool_full.inc();
            AppendError::Full
        })
    }

    /// Ends when everything up to `mark` is on the disk. Many who wait share one sync. While the disk
    /// refuses this waits, however long that takes.
    pub fn synced(&self, mark: Mark) -> impl Future<Output = ()> + Send + use<> {
        let owner = Arc::clone(&self.owner);
        async move { owner.0.settled(mark).await }
    }
}

// === impl Seat ===

impl Seat {
    /// The file ends here; the next record begins another.
    pub(super) fn seal(&self) {
        lock(&self.pen).leave();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seal();
    }
}

// === impl Pen ===

impl Pen {
    fn append(&mut self, shared: &Shared, writer: u64, head: Head, payload: &[&[u8]]) -> io::Result<Mark> {
        let full = |page: &Page| {
            let begun = page.end > HEADER as u64;
            begun && page.end + frame::size(head.len) > shared.options.segment_bytes
                || page.ordinal >= MAX_ORDINAL
        };
        if self.page.as_ref().is_some_and(full) {
            self.leave();
        }
        let page = match self.page.take() {
            Some(page) => page,
            None => Page { live: shared.begin(writer)?, end: HEADER as u64, ordinal: 0 },
        };
        let page = self.page.insert(page);
        let (live, start) = (&page.live, page.end);
        live.key.encode(&mut self.buffer, start, &Head { ordinal: page.ordinal, ..head }, payload);
        if let Err(error) = write_all(&*live.file, &self.buffer, start) {
            if let Err(error) = live.file.cut(start) {
                tracing::error!(%error, "half a record stays at a spool file's end; beginning another");
                self.leave();
            }
            return Err(error);
        }
        if !live.publish(start, &self.buffer) {
            self.leave();
            return Err(io::Error::other("the file could not be synced"));
        }
        let end = start + self.buffer.len() as u64;
        (page.end, page.ordinal) = (end, page.ordinal + 1);
        let mark = Mark { segment: live.track.number, end };
        shared.room.add(self.buffer.len() as u64);
        shared.metrics.spool_records.inc();
        if live.must_call(shared.options.sync_bytes) {
            shared.wake.notify_one();
        }
        Ok(mark)
    }

    fn leave(&mut self) {
        if let Some(page) = self.page.take() {
            page.live.track.seal();
        }
    }
}
