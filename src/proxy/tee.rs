//! The answer's body on its way to the client: passed on as it comes, copied aside, and watched.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep_until};

use super::capture::Capture;
use super::ending::Meter;
use super::running::Cut;
use super::send::Reply;
use super::upstream::Lent;
use crate::chatlog::{Ending, Synced, Waited};
use crate::config;
use crate::dialect::Framing;

/// An upstream's answer, and what is to be done when it ends.
pub struct TeeBody {
    inner: Incoming,
    meter: Meter,
    capture: Capture,
    lent: Option<Lent>,
    reusable: bool,
    patience: Patience,
    /// Made when the upstream is first waited for; most short answers never are.
    watch: Option<Watch>,
    framing: Framing,
    /// The last bytes that were passed on, which say whether an event is under way.
    tail: [u8; 4],
    last_words: LastWords,
    ended: bool,
    /// What may reach the client only when its conversation is on the disk.
    last: Option<Last>,
}

/// What a body gives when it is asked.
type Piece = Option<Result<Frame<Bytes>, BrokeOff>>;

/// Why an answer that gives nothing now is looked at.
enum Woken {
    /// It is to be ended.
    Over(Over),
    /// What was copied of it should go to the log.
    Due,
}

/// The end of an answer, held back.
struct Last {
    piece: Piece,
    synced: Synced,
}

/// Why an answer is ended in the upstream's stead.
#[derive(Clone, Copy, Debug)]
pub(super) enum Over {
    TimedOut(Waited),
    Cut(Cut),
}

/// What an answer that we end ourselves ends with, given why.
pub(super) type LastWords = Box<dyn Fn(Over) -> Bytes>;

/// The answer broke off; the client must see that it did.
#[derive(Clone, Copy, Debug, Error)]
#[error("the answer broke off")]
pub struct BrokeOff;

/// How long an answer may be waited for.
#[derive(Clone)]
pub(super) struct Patience {
    pub(super) idle: Duration,
    pub(super) total: Duration,
}

struct Watch {
    last: Instant,
    deadline: Instant,
    timer: Pin<Box<Sleep>>,
}

/// Puts the meter into the answer.
pub(super) fn wrap(
    reply: Reply,
    meter: Meter,
    capture: Capture,
    patience: Patience,
    last_words: LastWords,
) -> Response<TeeBody> {
    let Reply { response, lent, framing, reusable } = reply;
    let (parts, inner) = response.into_parts();
    let mut body = TeeBody {
        inner,
        meter,
        capture,
        lent: Some(lent),
        reusable,
        patience,
        watch: None,
        framing,
        tail: *b"\n\n\n\n",
        last_words,
        ended: false,
        last: None,
    };
    if body.inner.is_end_stream() {
        body.complete();
        let _ = body.hold(None);
    }
    Response::from_parts(parts, body)
}

// === impl Patience ===

impl Patience {
    pub(super) fn with(upstream: &config::Upstream) -> Self {
        Self { idle: upstream.idle_timeout, total: upstream.total_timeout }
    }
}

// === impl TeeBody ===

impl TeeBody {
    /// Waits, in strict mode, for the disk, where the answer has no body that could wait.
    pub(super) async fn settled(&mut self) {
        if let Some(last) = &mut self.last {
            last.synced.as_mut().await;
            self.last = None;
        }
    }

    fn pass(&mut self, data: &Bytes) {
        if let Some(paper) = self.meter.paper() {
            self.capture.copy(data, paper);
        }
        if let Some(watch) = &mut self.watch {
            watch.last = Instant::now();
        }
        let new = data.get(data.len().saturating_sub(self.tail.len())..).unwrap_or_default();
        self.tail.rotate_left(new.len());
        let kept = self.tail.len() - new.len();
        self.tail.iter_mut().skip(kept).zip(new).for_each(|(last, byte)| *last = *byte);
        // Settled and recorded before the client can have its last byte.
        if self.inner.is_end_stream() {
            self.complete();
        }
    }

    fn complete(&mut self) {
        self.end(Ending::Complete);
        if let Some(lent) = self.lent.take().filter(|_| self.reusable) {
            lent.give_back();
        }
    }

    fn end(&mut self, ending: Ending) {
        self.ended = true;
        self.meter.end(ending, &std::mem::take(&mut self.capture).finish());
    }

    /// Ends the answer in the upstream's stead: with an error in its framing where there is a place
    /// for one, else by breaking off.
    fn break_off(&mut self, over: Over) -> Result<Frame<Bytes>, BrokeOff> {
        self.end(over.ending());
        self.lent = None;
        let open_ended = self.inner.size_hint().exact().is_none();
        let words = (self.last_words)(over);
        // An event that is under way ends first, so that the error is one of its own.
        let border: &[u8] = match self.framing {
            Framing::Sse if !(self.tail.ends_with(b"\n\n") || self.tail.ends_with(b"\n\r\n")) => b"\n\n",
            Framing::Ndjson if !self.tail.ends_with(b"\n") => b"\n",
            Framing::Sse | Framing::Ndjson => b"",
            Framing::Json | Framing::Other => return Err(BrokeOff),
        };
        if open_ended && !words.is_empty() {
            Ok(Frame::data(Bytes::from([border, &words].concat())))
        } else {
            Err(BrokeOff)
        }
    }

    /// In strict mode, keeps the end of an answer back until it is on the disk; otherwise it is given back.
    fn hold(&mut self, piece: Piece) -> Poll<Piece> {
        match self.meter.synced() {
            None => Poll::Ready(piece),
            Some(synced) => {
                self.last = Some(Last { piece, synced });
                Poll::Pending
            }
        }
    }

    /// The next piece of the answer, whether or not it may be passed on yet.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Piece> {
        while !self.ended {
            // Also where the upstream always has something to say.
            if let Some(cut) = self.meter.cut_now() {
                return Poll::Ready(Some(self.break_off(Over::Cut(cut))));
            }
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.pass(&data);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(None) => self.complete(),
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "an answer broke off");
                    self.end(Ending::UpstreamCut);
                    return Poll::Ready(Some(Err(BrokeOff)));
                }
                Poll::Pending => match ready!(self.poll_watch(cx)) {
                    Woken::Over(over) => return Poll::Ready(Some(self.break_off(over))),
                    Woken::Due => self.hand_over(),
                },
            }
        }
        Poll::Ready(None)
    }

    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Woken> {
        if let Poll::Ready(cut) = self.meter.poll_cut(cx) {
            return Poll::Ready(Woken::Over(Over::Cut(cut)));
        }
        let patience = &self.patience;
        let watch = self.watch.get_or_insert_with(|| Watch::start(patience));
        watch.poll(patience.idle, self.capture.due(), cx)
    }

    fn hand_over(&mut self) {
        if let Some(paper) = self.meter.paper() {
            self.capture.hand_over(paper);
        }
    }
}

impl Body for TeeBody {
    type Data = Bytes;
    type Error = BrokeOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        let this = self.get_mut();
        if this.last.is_none() {
            if this.ended {
                return Poll::Ready(None);
            }
            let piece = ready!(this.poll_piece(cx));
            if !this.ended {
                return Poll::Ready(piece);
            }
            if let Poll::Ready(piece) = this.hold(piece) {
                return Poll::Ready(piece);
            }
        }
        if let Some(last) = &mut this.last {
            ready!(last.synced.as_mut().poll(cx));
        }
        Poll::Ready(this.last.take().and_then(|last| last.piece))
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.last.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.last.as_ref().and_then(|last| last.piece.as_ref()?.as_ref().ok()?.data_ref()) {
            Some(held) => SizeHint::with_exact(held.len() as u64),
            None => self.inner.size_hint(),
        }
    }
}

impl Drop for TeeBody {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Ending::ClientLeft);
        }
    }
}

// === impl Over ===

impl Over {
    /// What the row says.
    fn ending(self) -> Ending {
        match self {
            Self::TimedOut(waited) => Ending::TimedOut(waited),
            Self::Cut(cut) => cut.ending(),
        }
    }
}

// === impl Watch ===

impl Watch {
    fn start(patience: &Patience) -> Self {
        let now = Instant::now();
        let deadline = now + patience.total;
        let timer = Box::pin(sleep_until(deadline.min(now + patience.idle)));
        Self { last: now, deadline, timer }
    }

    /// The timer is not moved by each piece of an answer: when it fires, it is seen whether there
    /// was one, and how long there is still time. Only a copy that is `due` earlier moves it.
    fn poll(&mut self, idle: Duration, due: Option<Instant>, cx: &mut Context<'_>) -> Poll<Woken> {
        if let Some(due) = due
            && due < self.timer.deadline()
        {
            self.timer.as_mut().reset(due);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now >= self.deadline {
                return Poll::Ready(Woken::Over(Over::TimedOut(Waited::Total)));
            }
            if now >= self.last + idle {
                return Poll::Ready(Woken::Over(Over::TimedOut(Waited::Idle)));
            }
            if due.is_some_and(|due| now >= due) {
                return Poll::Ready(Woken::Due);
            }
            let next = self.deadline.min(self.last + idle);
            self.timer.as_mut().reset(due.map_or(next, |due| due.min(next)));
        }
        Poll::Pending
    }
}
