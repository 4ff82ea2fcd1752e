//! The rest of a request that is answered already.
//!
//! On HTTP/1.1 the connection reads it ([`wire`](super::wire)). On HTTP/2 a body that is dropped resets its
//! stream, which RFC 9113 §8.1 allows after a whole answer, but curl and httpx then report the reset and
//! never the refusal; so it is read here. What is read is thrown away, so that only the connection is held.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::task::spawn_local;
use tokio::time::timeout;

/// Longest time that a client may go on sending.
pub(super) const LINGER: Duration = Duration::from_secs(30);
/// Longest silence in that time.
pub(super) const LINGER_SILENCE: Duration = Duration::from_secs(5);

/// A request body whose rest is read, on HTTP/2, when its reader drops it.
pub struct Lingering<B: Body, S: FnOnce(Rest<B>)> {
    body: Option<B>,
    /// Starts the task that reads the rest.
    spawn: Option<S>,
}

/// What is still to come of a body.
pub struct Rest<B>(B);

/// A client's body on a worker.
pub type RequestBody = Lingering<Incoming, fn(Rest<Incoming>)>;

/// Makes the rest of `body` be read on this worker.
pub fn on_worker(body: Incoming, version: Version) -> RequestBody {
    Lingering::new(body, version, |rest| drop(spawn_local(rest.discard())))
}

// === impl Lingering ===

impl<B: Body, S: FnOnce(Rest<B>)> Lingering<B, S> {
    /// `version` is the request's; anything but HTTP/2 is left to the connection.
    pub fn new(body: B, version: Version, spawn: S) -> Self {
        Self { body: Some(body), spawn: Some(spawn).filter(|_| version == Version::HTTP_2) }
    }
}

impl<B: Body<Data = Bytes> + Unpin, S: FnOnce(Rest<B>) + Unpin> Body for Lingering<B, S> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = polled {
            self.spawn = None;
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

impl<B: Body, S: FnOnce(Rest<B>)> Drop for Lingering<B, S> {
    fn drop(&mut self) {
        if let (Some(body), Some(spawn)) = (self.body.take(), self.spawn.take())
            && !body.is_end_stream()
        {
            spawn(Rest(body));
        }
    }
}

// === impl Rest ===

impl<B: Body<Data = Bytes> + Unpin> Rest<B> {
    /// Reads until the client ends, falls silent, or has had its time.
    pub async fn discard(self) {
        let mut body = self.0;
        let _ = timeout(LINGER, async move {
            while let Ok(Some(Ok(_))) = timeout(LINGER_SILENCE, body.frame()).await {}
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;
    use std::rc::Rc;
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::stream::unfold;
    use http::Version;
    use http_body::{Body, Frame};
    use http_body_util::{BodyExt, StreamBody};
    use tokio::time::{Instant, sleep};

    use super::{Lingering, Rest};

    /// A byte after each `pause`, for ever.
    fn endless(pause: Duration) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let frames = unfold((), move |()| async move {
            sleep(pause).await;
            Some((Ok(Frame::data(Bytes::from_static(b"x"))), ()))
        });
        Box::pin(StreamBody::new(frames))
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_is_read_for_a_while_and_no_longer() {
        for (pause, ended) in [(Duration::from_secs(1), 30), (Duration::from_secs(7), 5)] {
            let start = Instant::now();
            Rest(endless(pause)).discard().await;
            assert_eq!(start.elapsed().as_secs(), ended);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_http_2_and_only_what_was_not_read_is_read_on() {
        let read_on = Rc::new(Cell::new(0));
        let count = || {
            let read_on = Rc::clone(&read_on);
            move |_| read_on.set(read_on.get() + 1)
        };
        drop(Lingering::new(endless(Duration::ZERO), Version::HTTP_11, count()));
        assert_eq!(read_on.get(), 0);
        drop(Lingering::new(endless(Duration::ZERO), Version::HTTP_2, count()));
        assert_eq!(read_on.get(), 1);
        let whole = http_body_util::Full::new(Bytes::from_static(b"all"));
        assert_eq!(
            Lingering::new(whole, Version::HTTP_2, |_| panic!()).collect().await.unwrap().to_bytes(),
            "all"
        );
    }
}
