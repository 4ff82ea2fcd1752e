//! Where a file is read, frame after frame, and over what is damaged.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use super::FRAME;
use super::folder::Old;
use super::frame::{HEADER, Head, Header, Key, size};
use super::segment::Track;
use super::window::{Window, read_leniently};

pub(super) struct Cursor {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// What the file says it is, or its name where the file does not.
    pub(super) header: Header,
    /// Only the name says so.
    pub(super) header_lost: bool,
    /// A file of this run; it may grow.
    pub(super) track: Option<Arc<Track>>,
    key: Key,
    at: u64,
    limit: u64,
    /// The next frame's, if none is missing.
    ordinal: u32,
}

/// What is next in a file.
pub(super) enum Step {
    /// A frame that is whole.
    Record { at: u64, head: Head },
    /// Bytes that are none.
    Damage(Stretch),
    /// Nothing now.
    End,
}

/// A stretch of bytes in which no frame begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) from: u64,
    pub(super) to: u64,
    /// Records that were in it.
    pub(super) records: u64,
    /// Nothing follows it.
    pub(super) tail: bool,
}

// === impl Cursor ===

impl Cursor {
    /// A file of an earlier run. It comes back where neither it nor its name says what it is.
    pub(super) fn old(number: u64, old: &Old, file: File) -> Result<Self, File> {
        let mut start = [0; HEADER];
        read_leniently(&file, &mut start, 0);
        let told = Header::decode(&start);
        let named = || Header::from_name(old.path.file_name()?.to_str()?);
        let Some(header) = told.or_else(named) else { return Err(file) };
        Ok(Self {
            number,
            path: old.path.clone(),
            file,
            header,
            header_lost: told.is_none(),
            track: None,
            key: header.key(),
            at: HEADER as u64,
            limit: old.bytes,
            ordinal: 0,
        })
    }

    /// A file of this run.
    pub(super) fn live(track: Arc<Track>, file: File) -> Self {
        Self {
            number: track.number,
            path: track.path.clone(),
            file,
            header: track.header,
            header_lost: false,
            key: track.header.key(),
            track: Some(track),
            at: HEADER as u64,
            limit: HEADER as u64,
            ordinal: 0,
        }
    }

    pub(super) fn key(&self) -> Key {
        self.key
    }

    /// Bytes of the file, as far as it may be read.
    pub(super) fn bytes(&self) -> u64 {
        self.limit
    }

    /// Looks how far the file may be read now. True: nothing more will come, and all was handed out.
    pub(super) fn is_finished(&mut self) -> bool {
        let ended = self.track.as_ref().is_none_or(|track| track.is_sealed());
        if let Some(track) = &self.track {
            self.limit = track.published();
        }
        ended && self.at >= self.limit
    }

    /// The next frame, or what is there instead. Always moves on.
    pub(super) fn step(&mut self, window: &mut Window) -> Step {
        if self.at >= self.limit {
            return Step::End;
        }
        let at = self.at;
        if let Some(head) = self.frame(window, at) {
            self.at = at + size(head.len);
            self.ordinal = head.ordinal + 1;
            return Step::Record { at, head };
        }
        let stretch = self.damaged(window);
        self.at = stretch.to;
        Step::Damage(stretch)
    }

    /// The frame that is whole at `at`.
    fn frame(&self, window: &mut Window, at: u64) -> Option<Head> {
        let file = (self.number, &self.file);
        let head = self.key.head(window.at(file, at, FRAME, self.limit))?;
        let whole = usize::try_from(size(head.len)).ok()?;
        let bytes = window.at(file, at, whole, self.limit);
        (bytes.len() == whole && self.key.holds(at, bytes)).then_some(head)
    }

    /// From here to the next frame that is whole, or to the end. The ordinals of frames tell how many
    /// are missing in between; at the end, those of heads that can still be read.
    fn damaged(&self, window: &mut Window) -> Stretch {
        let (from, mut at, mut last) = (self.at, self.at, self.ordinal);
        while at < self.limit {
            let head = self.key.head(window.at((self.number, &self.file), at, FRAME, self.limit));
            if let Some(head) = head.filter(|head| self.is_possible(head.ordinal, at)) {
                if at > from && self.frame(window, at).is_some() {
                    let records = u64::from(head.ordinal - self.ordinal).max(1);
                    return Stretch { from, to: at, records, tail: false };
                }
                last = last.max(head.ordinal);
            }
            at += 8;
        }
        let records = u64::from(last - self.ordinal) + 1;
        Stretch { from, to: self.limit, records, tail: true }
    }

    /// Whether a frame at `at` may have this ordinal, after what was already read.
    fn is_possible(&self, ordinal: u32, at: u64) -> bool {
        let missing = (at - self.at) / FRAME as u64;
        ordinal.checked_sub(self.ordinal).is_some_and(|ahead| u64::from(ahead) <= missing)
    }
}
