//! The answer's body on its way to the client: passed on as it comes, copied aside, and watched.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::capture::Capture;
use super::ending::Meter;
use super::send::Reply;
use super::upstream::Lent;
use crate::chatlog::{Ending, Waited};
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
    last_words: LastWords,
    ended: bool,
}

/// What an answer that we end ourselves ends with, given why.
pub(super) type LastWords = Box<dyn Fn(Ending) -> Bytes>;

/// The answer broke off; the client must see that it did.
#[derive(Clone, Copy, Debug, Error)]
#[error("the answer broke off")]
pub struct BrokeOff;

/// How long an answer may be waited for.
#[derive(Clone)]
pub(super) struct Patience {
    pub(super) idle: Duration,
    pub(super) total: Duration,
    /// Cancelled when the gateway can wait no longer.
    pub(super) cut: CancellationToken,
}

struct Watch {
    last: Instant,
    deadline: Instant,
    timer: Pin<Box<Sleep>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
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
        last_words,
        ended: false,
    };
    if body.inner.is_end_stream() {
        body.complete();
    }
    Response::from_parts(parts, body)
}

// === impl Patience ===

impl Patience {
    pub(super) fn with(upstream: &config::Upstream, cut: CancellationToken) -> Self {
        Self { idle: upstream.idle_timeout, total: upstream.total_timeout, cut }
    }
}

// === impl TeeBody ===

impl TeeBody {
    fn pass(&mut self, data: &Bytes) {
        if let Some(share) = self.meter.share() {
            self.capture.copy(data, share);
        }
        if let Some(watch) = &mut self.watch {
            watch.last = Instant::now();
        }
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
        self.meter.end(ending, std::mem::take(&mut self.capture).finish());
    }

    /// Ends the answer in the upstream's stead: with an error in its framing where there is a place
    /// for one, else by breaking off.
    fn break_off(&mut self, ending: Ending) -> Result<Frame<Bytes>, BrokeOff> {
        self.end(ending);
        self.lent = None;
        let open_ended = self.inner.size_hint().exact().is_none();
        let streams = matches!(self.framing, Framing::Sse | Framing::Ndjson);
        let words = (self.last_words)(ending);
        if open_ended && streams && !words.is_empty() { Ok(Frame::data(words)) } else { Err(BrokeOff) }
    }

    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        let patience = &self.patience;
        let watch = self.watch.get_or_insert_with(|| Watch::start(patience));
        watch.poll(patience.idle, cx)
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
        while !this.ended {
            match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    this.pass(&data);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(None) => this.complete(),
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "an answer broke off");
                    this.end(Ending::UpstreamCut);
                    return Poll::Ready(Some(Err(BrokeOff)));
                }
                Poll::Pending => {
                    let Poll::Ready(ending) = this.poll_watch(cx) else { return Poll::Pending };
                    return Poll::Ready(Some(this.break_off(ending)));
                }
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for TeeBody {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Ending::ClientLeft);
        }
    }
}

// === impl Watch ===

impl Watch {
    fn start(patience: &Patience) -> Self {
        let now = Instant::now();
        let deadline = now + patience.total;
        let timer = Box::pin(sleep_until(deadline.min(now + patience.idle)));
        Self { last: now, deadline, timer, cut: Box::pin(patience.cut.clone().cancelled_owned()) }
    }

    /// The timer is not moved by each piece of an answer: when it fires, it is seen whether there
    /// was one, and how long there is still time.
    fn poll(&mut self, idle: Duration, cx: &mut Context<'_>) -> Poll<Ending> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ending::Cancelled);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now >= self.deadline {
                return Poll::Ready(Ending::TimedOut(Waited::Total));
            }
            if now >= self.last + idle {
                return Poll::Ready(Ending::TimedOut(Waited::Idle));
            }
            self.timer.as_mut().reset(self.deadline.min(self.last + idle));
        }
        Poll::Pending
    }
}
