//! The lowest acceptable rate of a transfer, over a sliding window.

use std::collections::VecDeque;
use std::time::Duration;

/// Length of the window. A peer that falls below the rate is noticed within this time, however much it
/// transferred before.
pub(super) const WINDOW: Duration = Duration::from_secs(20);
/// Bytes that come within this time of each other share an entry; the table has [`WINDOW`] / `STEP` entries
/// and one more at most.
const STEP: Duration = Duration::from_secs(1);

/// Bytes of one direction against the time that this side waited for the peer. Time in which nothing was
/// waited for does not pass here.
#[derive(Debug)]
pub(super) struct Window {
    /// Bytes that each full window must bring.
    needed: u64,
    /// Time waited so far.
    waited: Duration,
    /// When bytes came, in time waited, and how many. Only the newest that make up `needed`.
    entries: VecDeque<(Duration, u64)>,
    /// Bytes of all entries.
    sum: u64,
}

// === impl Window ===

impl Window {
    /// `min_rate` is in bytes a second; it holds from the end of the first window on.
    pub(super) fn new(min_rate: u64) -> Self {
        let needed = min_rate.saturating_mul(WINDOW.as_secs()).max(1);
        Self { needed, waited: Duration::ZERO, entries: VecDeque::new(), sum: 0 }
    }

    /// The peer was waited for this long.
    pub(super) fn waited(&mut self, span: Duration) {
        self.waited = self.waited.saturating_add(span);
    }

    /// Time waited so far.
    pub(super) fn total(&self) -> Duration {
        self.waited
    }

    /// Bytes came.
    pub(super) fn moved(&mut self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        match self.entries.back_mut() {
            Some((at, count)) if self.waited.saturating_sub(*at) < STEP => *count += bytes,
            _ => self.entries.push_back((self.waited, bytes)),
        }
        self.sum = self.sum.saturating_add(bytes);
        while let Some((_, oldest)) = self.entries.front()
            && self.sum.saturating_sub(*oldest) >= self.needed
        {
            self.sum = self.sum.saturating_sub(*oldest);
            self.entries.pop_front();
        }
    }

    /// How much longer the peer may be waited for if no more bytes come.
    pub(super) fn patience(&self) -> Duration {
        let since = self.entries.front().filter(|_| self.sum >= self.needed).map(|(at, _)| *at);
        (since.unwrap_or_default() + WINDOW).saturating_sub(self.waited)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use proptest::prelude::{ProptestConfig, proptest};

    use super::{STEP, WINDOW, Window};

    const RATE: u64 = 1024;

    #[test]
    fn a_burst_earns_one_window_and_no_more() {
        let mut window = Window::new(RATE);
        window.moved(9 << 20);
        assert_eq!(window.patience(), WINDOW);
        window.waited(Duration::from_secs(12));
        window.moved(1);
        assert_eq!(window.patience(), Duration::from_secs(8));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        /// Held against the rule in its plainest words: all transfers are kept, and each moment is looked at.
        #[test]
        fn the_window_ends_who_falls_below_the_rate_and_nobody_else(
            transfers in proptest::collection::vec((0u64..15_000, 0u64..60_000), 1..60),
        ) {
            let mut window = Window::new(RATE);
            let mut all: VecDeque<(Duration, u64)> = VecDeque::new();
            let mut now = Duration::ZERO;
            let brought = |all: &VecDeque<(Duration, u64)>, at: Duration, length: Duration| -> u64 {
                all.iter().filter(|(when, _)| *when + length > at).map(|(_, bytes)| *bytes).sum()
            };
            for (millis, bytes) in transfers {
                let wait = Duration::from_millis(millis);
                let ended = window.patience() < wait;
                // The last moment of the wait decides: nothing came meanwhile.
                let end = now + wait;
                let needed = RATE * WINDOW.as_secs();
                // At the very end of the window either is right; time passes in whole milliseconds here.
                let before_end = end.saturating_sub(Duration::from_millis(1));
                if end > WINDOW && brought(&all, before_end, WINDOW) < needed {
                    assert!(ended, "too slow, and not ended at {end:?}");
                }
                if ended {
                    // Entries share a step, so the window is at most that much shorter.
                    assert!(end >= WINDOW && brought(&all, end, WINDOW.saturating_sub(STEP)) < needed, "ended too early at {end:?}");
                    return Ok(());
                }
                now = end;
                window.waited(wait);
                window.moved(bytes);
                all.push_back((now, bytes));
                assert!(window.entries.len() <= 22, "{}", window.entries.len());
            }
        }
    }
}
