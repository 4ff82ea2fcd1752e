//! Watching over one connection while hyper drives it: heads that take too long, connections
//! nobody uses, and the end of the server.
//!
//! [`Wire`](super::wire::Wire) and [`Reply`](super::reply::Reply) note on the [`Pulse`] what happens;
//! [`drive`] judges after each step of the connection, with one timer that is rarely touched.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Stop;
use super::caps::Seat;
use crate::config::Connections;

/// What is known of a connection at the moment. Atomics only because hyper wants an upgradeable
/// byte stream to be `Send`; one thread uses them.
#[derive(Debug)]
pub(super) struct Pulse {
    born: Instant,
    /// Exchanges between the request's head and the response's end.
    running: AtomicUsize,
    /// When the first byte of the head now awaited came, or when the connection did, for its first
    /// head. In milliseconds since `born`, plus one; 0 when no head has begun.
    head_since: AtomicU64,
    /// When the last exchange ended, in milliseconds since `born`.
    idle_since: AtomicU64,
    write_stuck: AtomicBool,
    http: AtomicBool,
    seat: Arc<Seat>,
}

/// One exchange; over when dropped.
#[derive(Debug)]
pub(super) struct Running(Arc<Pulse>);

/// Which waits a connection may make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From a head's first byte to its end; `None` where the protocol itself bounds it.
    head: Option<Duration>,
    /// Without an exchange.
    idle: Duration,
    /// For the client, once it was told that we close.
    goodbye: Duration,
}

/// How a watched connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By itself: closed, failed or upgraded.
    Over,
    /// A head took too long.
    SlowHead,
    /// Told to close, the client did not take its leave.
    Unheeded,
    /// The server stopped.
    Stopped,
    /// Unused, it made room for another.
    Evicted,
}

/// What to do when the time is up.
#[derive(Clone, Copy)]
enum Verdict {
    CloseGently,
    Cut(End),
}

/// Runs `conn` to its end, or drops it when it outstays its time. `close` asks it to finish what
/// runs and take nothing new.
pub(super) async fn drive<C: Future>(
    conn: C,
    close: impl Fn(Pin<&mut C>),
    pulse: &Pulse,
    patience: Patience,
    stop: &Stop,
) -> End {
    let mut conn = pin!(conn);
    let mut drain = pin!(stop.drain.cancelled());
    let mut hard = pin!(stop.hard.cancelled());
    let mut evicted = pin!(pulse.seat.evicted.cancelled());
    let mut timer = pin!(sleep(patience.head.unwrap_or(patience.idle)));
    let mut closing = None;
    poll_fn(|cx| {
        loop {
            if conn.as_mut().poll(cx).is_ready() {
                pulse.http.store(false, Ordering::Relaxed);
                // What it became, if it was upgraded, is in use.
                pulse.seat.use_it(true);
                return Poll::Ready(End::Over);
            }
            if evicted.as_mut().poll(cx).is_ready() && pulse.running.load(Ordering::Relaxed) == 0 {
                return Poll::Ready(End::Evicted);
            }
            if closing.is_none() && drain.as_mut().poll(cx).is_ready() {
                closing = Some(Instant::now());
                close(conn.as_mut());
                continue;
            }
            if closing.is_some() && hard.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Stopped);
            }
            let Some((deadline, verdict)) = patience.judge(pulse, closing) else { return Poll::Pending };
            if deadline < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() < deadline {
                continue;
            }
            match verdict {
                Verdict::Cut(end) => return Poll::Ready(end),
                Verdict::CloseGently => {
                    closing = Some(Instant::now());
                    close(conn.as_mut());
                }
            }
        }
    })
    .await
}

// === impl Pulse ===

impl Pulse {
    /// A connection accepted at `born`.
    pub(super) fn new(born: Instant, seat: Arc<Seat>) -> Arc<Self> {
        Arc::new(Self {
            born,
            running: AtomicUsize::new(0),
            head_since: AtomicU64::new(1),
            idle_since: AtomicU64::new(0),
            write_stuck: AtomicBool::new(false),
            http: AtomicBool::new(true),
            seat,
        })
    }

    /// A head is complete: an exchange runs until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Running {
        self.head_since.store(0, Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        self.seat.use_it(true);
        Running(Arc::clone(self))
    }

    /// Bytes came from the client.
    pub(super) fn heard(&self) {
        if self.running.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.now() + 1, Ordering::Relaxed);
        }
    }

    /// A write is pending: the stall timeout counts, not idleness.
    pub(super) fn write_is_stuck(&self) {
        self.write_stuck.store(true, Ordering::Relaxed);
    }

    /// The pending write went through.
    pub(super) fn write_went_on(&self) {
        self.write_stuck.store(false, Ordering::Relaxed);
        self.idle_since.store(self.now(), Ordering::Relaxed);
    }

    /// False once the connection was upgraded, or is over.
    pub(super) fn is_http(&self) -> bool {
        self.http.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn at(&self, millis: u64) -> Instant {
        self.born + Duration::from_millis(millis)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle_since.store(self.0.now(), Ordering::Relaxed);
            self.0.seat.use_it(false);
        }
    }
}

// === impl Patience ===

impl Patience {
    pub(super) fn http1(limits: &Connections) -> Self {
        Self { head: Some(limits.head_timeout), ..Self::http2(limits) }
    }

    /// Without a limit for heads: while one is on its way no other frame may pass (RFC 9113 §6.10),
    /// so our ping goes unanswered and the connection ends.
    pub(super) fn http2(limits: &Connections) -> Self {
        Self { head: None, idle: limits.keep_alive_timeout, goodbye: limits.write_stall_timeout }
    }

    /// When the next thing is due, and what; `None` while an exchange runs.
    fn judge(self, pulse: &Pulse, closing: Option<Instant>) -> Option<(Instant, Verdict)> {
        if pulse.running.load(Ordering::Relaxed) > 0 || pulse.write_stuck.load(Ordering::Relaxed) {
            return None;
        }
        let head_since = pulse.head_since.load(Ordering::Relaxed);
        if let (Some(head), 1..) = (self.head, head_since) {
            return Some((pulse.at(head_since - 1) + head, Verdict::Cut(End::SlowHead)));
        }
        let idle_since = pulse.at(pulse.idle_since.load(Ordering::Relaxed));
        Some(match closing {
            Some(told) => (idle_since.max(told) + self.goodbye, Verdict::Cut(End::Unheeded)),
            None => (idle_since + self.idle, Verdict::CloseGently),
        })
    }
}
