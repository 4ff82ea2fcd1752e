//! Reading ahead, by the megabyte.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The bytes of one file around the place that is read.
#[derive(Default)]
pub(super) struct Window {
    file: u64,
    start: u64,
    bytes: Vec<u8>,
}

/// Bytes read at once.
const AHEAD: usize = 1 << 20;
/// What a disk cannot read is skipped by this much.
const BLOCK: usize = 4096;

// === impl Window ===

impl Window {
    /// Up to `want` bytes of `file` (which has the number `number`) from `at`; fewer where `limit`
    /// comes first. The caller has checked that `want` is not more than a record may have.
    pub(super) fn at(&mut self, (number, file): (u64, &File), at: u64, want: usize, limit: u64) -> &[u8] {
        let want = usize::try_from(limit.saturating_sub(at)).unwrap_or(want).min(want);
        if self.place(number, at, want).is_none() {
            let ahead = usize::try_from(limit.saturating_sub(at)).unwrap_or(AHEAD).min(AHEAD.max(want));
            (self.file, self.start) = (number, at);
            self.bytes.clear();
            self.bytes.resize(ahead, 0);
            read_leniently(file, &mut self.bytes, at);
        }
        self.place(number, at, want).and_then(|place| self.bytes.get(place)).unwrap_or_default()
    }

    fn place(&self, number: u64, at: u64, want: usize) -> Option<std::ops::Range<usize>> {
        let from = usize::try_from(at.checked_sub(self.start)?).ok()?;
        let place = from..from.checked_add(want)?;
        (self.file == number && place.end <= self.bytes.len()).then_some(place)
    }
}

/// Fills `bytes` from `offset`. What cannot be read stays as it was, block by block: then no frame is
/// found there, and the next one is.
pub(super) fn read_leniently(file: &File, bytes: &mut [u8], offset: u64) {
    if file.read_exact_at(bytes, offset).is_ok() {
        return;
    }
    for (number, block) in (0_u64..).zip(bytes.chunks_mut(BLOCK)) {
        let mut at = offset + number * BLOCK as u64;
        let mut rest = block;
        while !rest.is_empty() {
            match file.read_at(rest, at) {
                Ok(0) => return,
                Ok(read) => {
                    at += read as u64;
                    rest = rest.get_mut(read..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!(%error, at, "a block of a spool file cannot be read");
                    rest.fill(0);
                    break;
                }
            }
        }
    }
}
