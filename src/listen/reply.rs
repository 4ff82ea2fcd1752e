//! A response's body on its way to the client: tells when the exchange is over, and whether an
//! HTTP/2 client still takes what it asked for.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::watch::Running;

/// The service's body, or none where the request was refused before it reached the service.
pub(super) struct Reply<B> {
    body: Option<B>,
    handed: Option<Rc<Handed>>,
    _running: Running,
}

/// How much of one HTTP/2 response was handed to hyper, which asks for the next frame only when the
/// client's window had room for the last.
#[derive(Debug, Default)]
pub(super) struct Handed {
    frames: Cell<u64>,
    /// Whether hyper has a frame that it cannot send.
    waiting: Cell<bool>,
}

/// Runs one HTTP/2 stream; true when it was given up because for `timeout` the client left no room
/// for the next frame. (An HTTP/1.1 client that does not read fills its socket, which
/// [`Wire`](super::wire::Wire) sees.)
pub(super) async fn unless_stalled(
    stream: impl Future<Output = ()>,
    handed: Rc<Handed>,
    timeout: Duration,
) -> bool {
    let mut stream = pin!(stream);
    let mut stall: Option<(u64, Pin<Box<Sleep>>)> = None;
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(false);
        }
        if !handed.waiting.get() {
            stall = None;
            return Poll::Pending;
        }
        let frames = handed.frames.get();
        if stall.as_ref().is_none_or(|(seen, _)| *seen != frames) {
            stall = Some((frames, Box::pin(sleep(timeout))));
        }
        match &mut stall {
            Some((_, timer)) => timer.as_mut().poll(cx).map(|()| true),
            None => Poll::Pending,
        }
    })
    .await
}

// === impl Reply ===

impl<B> Reply<B> {
    /// `handed` is given for HTTP/2, where someone looks at it.
    pub(super) fn new(body: Option<B>, running: Running, handed: Option<Rc<Handed>>) -> Self {
        Self { body, handed, _running: running }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Reply<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if let Some(handed) = &this.handed {
            let got_one = matches!(polled, Poll::Ready(Some(Ok(_))));
            handed.waiting.set(got_one);
            handed.frames.set(handed.frames.get() + u64::from(got_one));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
