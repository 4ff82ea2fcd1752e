//! A response's body on its way to the client: tells when the exchange is over, and whether an
//! HTTP/2 client still takes what it asked for.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::watch::Running;
use super::window::Window;
use crate::config::Connections;

/// The service's body, or none where the request was refused before it reached the service.
pub(super) struct Reply<B> {
    body: Option<B>,
    handed: Option<Rc<Handed>>,
    /// What is left of a frame that was handed over in part.
    rest: Bytes,
    _running: Running,
}

/// How much of one HTTP/2 response was handed to hyper, which asks for the next frame only when the
/// client's window had room for the last.
#[derive(Debug, Default)]
pub(super) struct Handed {
    bytes: Cell<u64>,
    /// Whether hyper has a frame that it cannot send.
    waiting: Cell<bool>,
}

/// Largest piece of an HTTP/2 response that is handed over at once: progress is seen in steps of this size.
const PIECE: usize = 16 * 1024;

/// Runs one HTTP/2 stream; true when it was given up because the client left no room for the next piece
/// for `write_stall_timeout`, or room for fewer than `write_min_rate` bytes for each second of any 20 seconds
/// in which a piece waited. (An HTTP/1.1 client that does not read fills its socket, which
/// [`Wire`](super::wire::Wire) sees.)
pub(super) async fn unless_stalled(
    stream: impl Future<Output = ()>,
    handed: Rc<Handed>,
    limits: &Connections,
) -> bool {
    let mut stream = pin!(stream);
    let mut taken = Window::new(limits.write_min_rate);
    let mut seen = 0;
    let mut stall: Option<(Instant, Pin<Box<Sleep>>)> = None;
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(false);
        }
        let (waiting, bytes) = (handed.waiting.get(), handed.bytes.get());
        if !waiting || bytes != seen {
            if let Some((since, _)) = stall.take() {
                taken.waited(since.elapsed());
            }
            taken.moved(bytes - seen);
            seen = bytes;
        }
        if !waiting {
            return Poll::Pending;
        }
        let timeout = limits.write_stall_timeout.min(taken.patience());
        let (_, timer) = stall.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(timeout))));
        timer.as_mut().poll(cx).map(|()| true)
    })
    .await
}

// === impl Reply ===

impl<B> Reply<B> {
    /// `handed` is given for HTTP/2, where someone looks at it.
    pub(super) fn new(body: Option<B>, running: Running, handed: Option<Rc<Handed>>) -> Self {
        Self { body, handed, rest: Bytes::new(), _running: running }
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
        let Some(handed) = &this.handed else { return Pin::new(body).poll_frame(cx) };
        let polled = if this.rest.is_empty() {
            Pin::new(body).poll_frame(cx)
        } else {
            Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.rest)))))
        };
        let polled = polled.map_ok(|frame| match frame.into_data() {
            Ok(mut data) => {
                this.rest = data.split_off(data.len().min(PIECE));
                handed.bytes.set(handed.bytes.get() + data.len() as u64);
                Frame::data(data)
            }
            Err(other) => other,
        });
        handed.waiting.set(matches!(polled, Poll::Ready(Some(Ok(_)))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}
