//! One conversation on a socket: its row, from its beginning to its end.

use tokio::time::Instant;

use super::line::Line;
use crate::chatlog::{Ending, Synced};
use crate::proxy::capture::Capture;
use crate::proxy::ending::Meter;

/// One conversation.
pub(super) struct Turn {
    meter: Meter,
    capture: Capture,
    /// The server's name for it.
    pub(super) response: Option<String>,
    is_answered: bool,
    /// Bytes of the client that wait to go to the log.
    asked: Vec<u8>,
    asked_in_all: u64,
}

/// Bytes of a client that are kept in memory.
const MOST_ASKED: usize = 16 * 1024;

// === impl Turn ===

impl Turn {
    pub(super) fn new(meter: Meter, capture: Capture) -> Self {
        Self { meter, capture, response: None, is_answered: false, asked: Vec::new(), asked_in_all: 0 }
    }

    /// More of what the client asks.
    pub(super) fn ask(&mut self, bytes: &[u8], most: u64) {
        self.asked_in_all += bytes.len() as u64;
        if self.asked_in_all > most {
            return;
        }
        self.asked.extend_from_slice(bytes);
        self.asked.push(b'\n');
        if self.asked.len() >= MOST_ASKED {
            self.hand_over_asked();
        }
    }

    /// More of the answer.
    pub(super) fn keep(&mut self, line: &Line, pieces: &[&[u8]]) {
        if !self.is_answered {
            self.is_answered = true;
            self.hand_over_asked();
            self.meter.answered(line.answer(self.meter.elapsed()));
        }
        for piece in pieces {
            if let Some(paper) = self.meter.paper() {
                self.capture.copy(piece, paper);
            }
        }
    }

    pub(super) fn hand_over(&mut self, now: Instant) {
        self.hand_over_asked();
        if self.capture.due().is_some_and(|due| due <= now)
            && let Some(paper) = self.meter.paper()
        {
            self.capture.hand_over(paper);
        }
    }

    fn hand_over_asked(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let asked = std::mem::take(&mut self.asked);
        if let Some(paper) = self.meter.paper() {
            paper.place.ask(&asked);
        }
    }

    pub(super) fn end(mut self, ending: Ending) -> Option<Synced> {
        self.hand_over_asked();
        self.meter.end(ending, &std::mem::take(&mut self.capture).finish());
        self.meter.synced()
    }
}
