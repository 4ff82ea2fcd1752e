//! The copy of an answer: its beginning, and, where that is not all, its last bytes.
//!
//! Keeping a copy never delays, alters or ends a stream: what does not fit is not kept, and the row
//! says so.

use crate::chatlog::{Answer, Share};

/// What is being kept of an answer.
#[derive(Default)]
pub(super) struct Capture {
    head: Vec<u8>,
    tail: Vec<u8>,
    max: u64,
    cut: bool,
    bytes: u64,
    counted: u64,
}

/// What was kept of an answer.
#[derive(Default)]
pub(super) struct Kept {
    head: Vec<u8>,
    tail: Vec<u8>,
    cut: bool,
    bytes: u64,
}

/// Of a cut answer as many last bytes are kept: usage and the reason to stop stand at the end.
const TAIL: usize = 16 * 1024;
/// Bytes are counted into the budget in steps, not chunk by chunk.
const STEP: u64 = 16 * 1024;

// === impl Capture ===

impl Capture {
    /// Keeps at most `max` bytes; 0 keeps none and calls nothing missing.
    pub(super) fn new(max: u64) -> Self {
        Self { max, ..Self::default() }
    }

    /// Keeps a copy of the next bytes, if it may.
    pub(super) fn copy(&mut self, chunk: &[u8], share: &mut Share) {
        self.bytes += chunk.len() as u64;
        if self.max == 0 {
            return;
        }
        if !self.cut && self.fits(chunk.len() as u64, share) {
            self.head.extend_from_slice(chunk);
            return;
        }
        self.cut = true;
        self.keep_last(chunk);
    }

    pub(super) fn finish(self) -> Kept {
        Kept { head: self.head, tail: self.tail, cut: self.cut, bytes: self.bytes }
    }

    fn fits(&mut self, more: u64, share: &mut Share) -> bool {
        let size = self.head.len() as u64 + more;
        if size > self.max {
            return false;
        }
        if size > self.counted {
            let step = (size - self.counted).max(STEP);
            if !share.grow(step) {
                return false;
            }
            self.counted += step;
        }
        true
    }

    fn keep_last(&mut self, chunk: &[u8]) {
        let chunk = chunk.get(chunk.len().saturating_sub(TAIL)..).unwrap_or_default();
        if self.tail.len() + chunk.len() > 2 * TAIL {
            let surplus = self.tail.len().saturating_sub(TAIL - chunk.len().min(TAIL));
            self.tail.drain(..surplus.min(self.tail.len()));
        }
        self.tail.extend_from_slice(chunk);
    }
}

// === impl Kept ===

impl Kept {
    pub(super) fn put_into(self, answer: &mut Answer) {
        answer.head = self.head;
        answer.tail = self.tail;
        answer.cut = self.cut;
        answer.bytes = self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Capture, TAIL};
    use crate::chatlog::Budget;
    use crate::telemetry::Metrics;

    fn kept(chunks: &[&[u8]], max: u64, budget: u64) -> (Vec<u8>, Vec<u8>, bool, u64) {
        let budget = Budget::new(budget, Arc::new(Metrics::new()));
        let mut share = budget.share();
        let mut capture = Capture::new(max);
        for chunk in chunks {
            capture.copy(chunk, &mut share);
        }
        let kept = capture.finish();
        (kept.head, kept.tail, kept.cut, kept.bytes)
    }

    #[test]
    fn what_fits_is_kept_whole() {
        assert_eq!(kept(&[b"ab", b"cd"], 4, 1 << 20), (b"abcd".to_vec(), vec![], false, 4));
    }

    #[test]
    fn of_what_does_not_fit_the_end_is_kept() {
        assert_eq!(kept(&[b"ab", b"cde", b"fg"], 4, 1 << 20), (b"ab".to_vec(), b"cdefg".to_vec(), true, 7));
        let long: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let chunks: Vec<&[u8]> = long.chunks(777).collect();
        let (_, tail, cut, bytes) = kept(&chunks, 10, 1 << 20);
        assert!(cut && bytes == 100_000 && tail.len() >= TAIL && tail.len() <= 2 * TAIL);
        assert!(long.ends_with(&tail));
    }

    #[test]
    fn without_budget_nothing_is_kept_and_it_is_said() {
        let (head, _, cut, _) = kept(&[b"abc"], 100, 10);
        assert!(head.is_empty() && cut);
    }

    #[test]
    fn keeping_nothing_on_purpose_is_no_loss() {
        assert_eq!(kept(&[b"abc"], 0, 10), (vec![], vec![], false, 3));
    }
}
