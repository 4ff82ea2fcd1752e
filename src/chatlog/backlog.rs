//! What stands in the spool and not yet in SQL: how much it is, and how to hurry it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Budget;
use super::erase::Erasure;
use super::unwritten::Unwritten;
use crate::telemetry::Metrics;

/// What is on its way to the database. Unlike a [`Chatlog`](super::Chatlog) it does not keep the
/// drain running: who looks after the log may outlive those who write to it.
#[derive(Clone)]
pub struct Backlog(pub(super) Arc<State>);

pub(super) struct State {
    /// Conversations that ended and have no row yet.
    waiting: AtomicU64,
    /// Of them, those that ended since the last pass of the drain began.
    fresh: AtomicU64,
    /// Bytes appended since then.
    bytes: AtomicU64,
    /// Passes asked for; each asks for one that begins later.
    asked: AtomicU64,
    /// When the first one ended that waits: for the pass that is under way, and for the one after it.
    first: Mutex<(Option<Instant>, Option<Instant>)>,
    /// The last one that was asked for before a pass that is over began, and when that one began.
    done: watch::Sender<Pass>,
    pub(super) hurry: Notify,
    batch_size: u64,
    memory_threshold: u64,
    pub(super) budget: Budget,
    pub(super) unwritten: Mutex<Unwritten>,
    pub(super) erasures: Mutex<Vec<Erasure>>,
    pub(super) metrics: Arc<Metrics>,
}

/// A pass of the drain that is over.
#[derive(Clone, Copy)]
struct Pass {
    answers: u64,
    began: Option<Instant>,
}

/// A pass of the drain under way.
pub(super) struct Passing {
    answers: u64,
    began: Instant,
}

/// Longest wait of a reader for the rows on their way.
const PATIENCE: Duration = Duration::from_secs(5);
/// How old what users read about themselves may be.
const FRESH_FOR: Duration = Duration::from_secs(1);

// === impl Backlog ===

impl Backlog {
    pub(super) fn new(
        batch_size: usize,
        memory_threshold: u64,
        budget: Budget,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self(Arc::new(State {
            waiting: AtomicU64::new(0),
            fresh: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            first: Mutex::new((None, None)),
            asked: AtomicU64::new(0),
            done: watch::Sender::new(Pass { answers: 0, began: None }),
            hurry: Notify::new(),
            batch_size: batch_size as u64,
            memory_threshold,
            unwritten: Mutex::new(Unwritten::new(&budget)),
            erasures: Mutex::default(),
            budget,
            metrics,
        }))
    }

    /// Conversations that ended and have no row yet, those of a run that was killed as well.
    pub fn rows(&self) -> u64 {
        self.0.waiting.load(Ordering::Acquire)
    }

    /// Bytes of conversations: kept in memory, and appended to the spool since rows were last written.
    pub fn bytes(&self) -> u64 {
        self.0.budget.used() + self.0.bytes.load(Ordering::Relaxed)
    }

    /// Writes what waits, and returns when everything that ended until now is in the database, or after
    /// five seconds: a reader then sees what there is. Whoever asks while a pass runs shares the next.
    pub async fn flush(&self) {
        if tokio::time::timeout(PATIENCE, self.passed()).await.is_err() {
            tracing::warn!("rows of the message log are still on their way");
        }
    }

    /// As [`Self::flush`], but what was read less than a second ago is new enough: who asks about
    /// themselves, again and again, does not cause a write each time.
    pub async fn freshen(&self) {
        let began = self.0.done.borrow().began;
        if began.is_none_or(|began| began.elapsed() >= FRESH_FOR) {
            self.flush().await;
        }
    }

    /// Waits until a pass is over that began after this call.
    pub(super) async fn passed(&self) {
        let ticket = self.0.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut done = self.0.done.subscribe();
        self.0.hurry.notify_one();
        let _ = done.wait_for(|pass| pass.answers >= ticket).await;
    }

    /// Bytes were appended. Whoever fills the measure wakes the drain; nobody else does.
    pub(super) fn appended(&self, bytes: usize) {
        let before = self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let threshold = self.0.memory_threshold;
        if before < threshold && before + bytes as u64 >= threshold {
            self.0.hurry.notify_one();
        }
    }

    /// A conversation ended in this run.
    pub(super) fn ended(&self) {
        self.0.waiting.fetch_add(1, Ordering::AcqRel);
        let fresh = self.0.fresh.fetch_add(1, Ordering::Relaxed) + 1;
        if fresh == 1
            && let Ok(mut first) = self.0.first.lock()
        {
            first.1 = Some(Instant::now());
        }
        if fresh == self.0.batch_size {
            self.0.hurry.notify_one();
        }
    }

    /// How long the oldest conversation without a row has waited; at least, if it is of an earlier run.
    pub fn oldest(&self) -> Duration {
        let Ok(first) = self.0.first.lock() else { return Duration::ZERO };
        let oldest = first.0.or(first.1).filter(|_| self.rows() > 0);
        oldest.map_or(Duration::ZERO, |ended| ended.elapsed())
    }

    /// Conversations of an earlier run were found.
    pub(super) fn found(&self, conversations: u64) {
        self.0.waiting.fetch_add(conversations, Ordering::AcqRel);
        if let Ok(mut first) = self.0.first.lock() {
            first.0.get_or_insert_with(Instant::now);
        }
    }

    /// Conversations have their rows now, or will never have one.
    pub(super) fn settled(&self, conversations: u64) {
        let less = |waiting: u64| Some(waiting.saturating_sub(conversations));
        let _ = self.0.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    /// Whether a batch's worth waits, by number or by bytes, here or in memory.
    pub(super) fn is_due(&self) -> bool {
        self.0.fresh.load(Ordering::Relaxed) >= self.0.batch_size
            || self.0.bytes.load(Ordering::Relaxed) >= self.0.memory_threshold
    }

    pub(super) fn begin_pass(&self) -> Passing {
        if let Ok(mut first) = self.0.first.lock() {
            *first = (first.0.or(first.1), None);
        }
        self.0.fresh.store(0, Ordering::Relaxed);
        self.0.bytes.store(0, Ordering::Relaxed);
        Passing { answers: self.0.asked.load(Ordering::Acquire), began: Instant::now() }
    }

    pub(super) fn end_pass(&self, pass: &Passing) {
        if let Ok(mut first) = self.0.first.lock() {
            first.0 = None;
        }
        self.0.done.send_replace(Pass { answers: pass.answers, began: Some(pass.began) });
    }
}
