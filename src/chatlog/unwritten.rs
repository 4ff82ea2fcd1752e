//! Ends that the disk would not take, kept until it does.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::{Backlog, Budget, Share};
use crate::ids::ExchangeId;
use crate::spool::{Kind, Mark, Writer};

/// The last records of conversations, in memory because the disk is full or failing. What does not fit
/// into the budget is lost, and counted.
pub(super) struct Unwritten {
    waiting: VecDeque<Last>,
    share: Share,
}

/// The last record of a conversation.
pub(super) struct Last {
    pub(super) kind: Kind,
    pub(super) id: ExchangeId,
    pub(super) payload: Vec<u8>,
    pub(super) writer: Writer,
    /// Told where it ends, once it is written.
    pub(super) written: Option<oneshot::Sender<Mark>>,
}

// === impl Unwritten ===

impl Unwritten {
    pub(super) fn new(budget: &Budget) -> Self {
        Self { waiting: VecDeque::new(), share: budget.share() }
    }
}

// === impl Backlog ===

impl Backlog {
    /// Keeps a record for later.
    pub(super) fn keep(&self, last: Last) {
        let metrics = &self.0.metrics;
        let Ok(mut unwritten) = self.0.unwritten.lock() else { return metrics.drop_from_log("unwritten") };
        if !unwritten.share.grow(last.payload.len() as u64) {
            tracing::error!(id = %last.id, "the end of a conversation is lost: disk and memory are full");
            self.settled(1);
            return metrics.drop_from_log("unwritten");
        }
        unwritten.waiting.push_back(last);
    }

    /// Tries to write what is kept, in order; how many records still wait.
    pub(super) fn write_kept(&self) -> usize {
        let Ok(mut unwritten) = self.0.unwritten.lock() else { return 0 };
        while let Some(last) = unwritten.waiting.pop_front() {
            match last.writer.append(last.kind, last.id, &[&last.payload]) {
                Ok(mark) => {
                    if let Some(written) = last.written {
                        let _ = written.send(mark);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the spool still cannot be written");
                    unwritten.waiting.push_front(last);
                    break;
                }
            }
        }
        if unwritten.waiting.is_empty() {
            unwritten.share.release();
        }
        unwritten.waiting.len()
    }

    /// Lets go of what could not be written to the end.
    pub(super) fn give_up_kept(&self) -> usize {
        let Ok(mut unwritten) = self.0.unwritten.lock() else { return 0 };
        let lost = std::mem::take(&mut unwritten.waiting).len();
        unwritten.share.release();
        lost
    }
}
