//! The copy of an answer: its beginning, and, where that is not all, its last bytes.
//!
//! Little of it is kept in memory: the beginning goes to the log in parts, when enough has come or some
//! time has passed. Keeping a copy never delays, alters or ends a stream: what does not fit is not
//! kept, and the row says so.

use std::time::Duration;

use tokio::time::Instant;

use crate::chatlog::{Answer, Level, Place};

/// What is being kept of an answer.
#[derive(Default)]
pub(super) struct Capture {
    /// Of the beginning, what is not yet with the log.
    rest: Vec<u8>,
    /// Bytes of the beginning, those with the log included.
    head: u64,
    tail: Vec<u8>,
    max: u64,
    cut: bool,
    bytes: u64,
    counted: u64,
    parts: u32,
    due: Option<Instant>,
}

/// What was kept of an answer, and is not yet with the log.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) rest: Vec<u8>,
    pub(super) tail: Vec<u8>,
    pub(super) head: u64,
    pub(super) cut: bool,
    pub(super) bytes: u64,
}

/// Where the copy goes.
pub(super) struct Paper<'a> {
    pub(super) place: &'a mut Place,
    pub(super) answer: Option<&'a Answer>,
}

/// Of a cut answer as many last bytes are kept: usage and the reason to stop stand at the end.
const TAIL: usize = 16 * 1024;
/// Bytes are counted into the budget in steps, not chunk by chunk.
const STEP: u64 = 16 * 1024;
/// Most bytes kept in memory of the beginning, and most of them while memory is short.
const MOST: usize = 64 * 1024;
const MOST_WHEN_TIGHT: usize = 4 * 1024;
/// A slow answer's first bytes are with the log after this long, later ones after longer and longer: a
/// killed gateway loses no more of it.
const FIRST_PART: Duration = Duration::from_secs(1);
const LONGEST_STEPS: u32 = 3;

// === impl Capture ===

impl Capture {
    /// Keeps at most `max` bytes; 0 keeps none and calls nothing missing.
    pub(super) fn new(max: u64) -> Self {
        Self { max, ..Self::default() }
    }

    /// Keeps a copy of the next bytes, if it may.
    pub(super) fn copy(&mut self, chunk: &[u8], mut paper: Paper<'_>) {
        self.bytes += chunk.len() as u64;
        if self.max == 0 {
            return;
        }
        let level = paper.place.share().level();
        if self.cut || self.head + chunk.len() as u64 > self.max || level >= Level::Bare {
            self.cut = true;
            return self.keep_last(chunk);
        }
        let most = match level {
            Level::Calm => MOST,
            Level::Tight => MOST_WHEN_TIGHT,
            _ => 0,
        };
        if self.rest.len() + chunk.len() <= most && self.fits(chunk.len(), &mut paper) {
            self.rest.extend_from_slice(chunk);
        } else if !self.spill(chunk, &mut paper) {
            self.cut = true;
            return self.keep_last(chunk);
        }
        self.head += chunk.len() as u64;
    }

    /// When what is kept should be with the log, should nothing more come until then.
    pub(super) fn due(&mut self) -> Option<Instant> {
        if self.rest.is_empty() {
            return None;
        }
        let wait = FIRST_PART * (1 << self.parts.min(LONGEST_STEPS));
        Some(*self.due.get_or_insert_with(|| Instant::now() + wait))
    }

    /// Hands what is kept to the log; where the log cannot take it, later.
    pub(super) fn hand_over(&mut self, mut paper: Paper<'_>) {
        if !self.spill(&[], &mut paper) {
            self.due = None;
        }
    }

    pub(super) fn finish(self) -> Kept {
        Kept { rest: self.rest, tail: self.tail, head: self.head, cut: self.cut, bytes: self.bytes }
    }

    /// Writes what is kept, and `chunk` after it; whether that was possible.
    fn spill(&mut self, chunk: &[u8], paper: &mut Paper<'_>) -> bool {
        let answer = paper.answer.filter(|_| self.parts == 0);
        if !paper.place.answer(answer, &[&self.rest, chunk]) {
            return false;
        }
        self.parts += 1;
        self.rest = Vec::new();
        self.due = None;
        self.counted = 0;
        paper.place.share().release();
        true
    }

    fn fits(&mut self, more: usize, paper: &mut Paper<'_>) -> bool {
        let size = (self.rest.len() + more) as u64;
        if size > self.counted {
            let step = (size - self.counted).max(STEP);
            if !paper.place.share().grow(step) {
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

#[cfg(test)]
mod tests {
    use super::{Capture, Kept, MOST, Paper, TAIL};
    use crate::chatlog::Place;
    use crate::chatlog::tests::{Bench, bench};
    use crate::spool::Kind;

    fn copied(bench: &Bench, chunks: &[&[u8]], max: u64) -> (Kept, Place) {
        let mut place = bench.scribe.place().unwrap();
        let mut capture = Capture::new(max);
        for chunk in chunks {
            capture.copy(chunk, Paper { place: &mut place, answer: None });
        }
        (capture.finish(), place)
    }

    /// Bytes of parts that stand in the spool, their facts included.
    fn parts(bench: &mut Bench) -> Vec<usize> {
        let mut sizes = Vec::new();
        while let Some(entry) = bench.reader.next() {
            assert_eq!(entry.kind, Kind::Part);
            sizes.push(bench.reader.payload(&entry.at).unwrap().len());
        }
        sizes
    }

    #[tokio::test]
    async fn what_fits_is_kept_whole() {
        let (kept, _) = copied(&bench(1 << 20), &[b"ab", b"cd"], 4);
        assert_eq!(
            (&kept.rest[..], &kept.tail[..], kept.cut, kept.bytes, kept.head),
            (&b"abcd"[..], &b""[..], false, 4, 4)
        );
    }

    #[tokio::test]
    async fn of_what_does_not_fit_the_end_is_kept() {
        let bench = bench(1 << 20);
        let (kept, _) = copied(&bench, &[b"ab", b"cde", b"fg"], 4);
        assert_eq!(
            (&kept.rest[..], &kept.tail[..], kept.cut, kept.bytes),
            (&b"ab"[..], &b"cdefg"[..], true, 7)
        );
        let long: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let chunks: Vec<&[u8]> = long.chunks(777).collect();
        let (kept, _) = copied(&bench, &chunks, 10);
        assert!(kept.cut && kept.bytes == 100_000 && (TAIL..=2 * TAIL).contains(&kept.tail.len()));
        assert!(long.ends_with(&kept.tail));
    }

    #[tokio::test]
    async fn a_long_answer_stands_in_the_spool_and_little_of_it_in_memory() {
        let mut bench = bench(1 << 20);
        let chunk = vec![7; 1 << 10];
        let chunks: Vec<&[u8]> = std::iter::repeat_n(&chunk[..], 8 << 10).collect();
        let (kept, place) = copied(&bench, &chunks, 8 << 20);
        assert!(!kept.cut && kept.head == 8 << 20 && kept.rest.len() <= MOST, "{}", kept.rest.len());
        assert!(bench.budget.used() <= 2 * MOST as u64, "{}", bench.budget.used());
        let spilled: usize = parts(&mut bench).iter().sum();
        assert!(spilled + kept.rest.len() >= 8 << 20);
        drop(place);
        assert_eq!(bench.budget.used(), 0);
    }

    #[tokio::test]
    async fn the_shorter_memory_is_the_smaller_are_the_parts() {
        for (used, expected) in [(0, vec![]), (720, vec![5000]), (880, vec![1000; 5])] {
            let mut bench = bench(1_000_000);
            let mut others = bench.budget.share();
            assert!(others.grow(used * 1000));
            let (kept, _place) = copied(&bench, &[&[7_u8; 1000][..]; 5], 1 << 20);
            let written: Vec<usize> = parts(&mut bench).iter().map(|size| size / 1000 * 1000).collect();
            assert_eq!((written, kept.cut), (expected, false), "{used}");
        }
    }

    #[tokio::test]
    async fn when_memory_is_nearly_full_nothing_is_kept_and_it_is_said() {
        let mut bench = bench(1000);
        let mut others = bench.budget.share();
        assert!(others.grow(960));
        let (kept, _place) = copied(&bench, &[b"abc"], 100);
        assert!(kept.rest.is_empty() && kept.cut && parts(&mut bench).is_empty());
    }

    #[tokio::test]
    async fn keeping_nothing_on_purpose_is_no_loss() {
        let (kept, _) = copied(&bench(10), &[b"abc"], 0);
        assert_eq!((kept.rest.len(), kept.cut, kept.bytes), (0, false, 3));
    }
}
