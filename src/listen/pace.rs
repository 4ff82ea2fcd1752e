//! Request bodies that come too slowly: a silence has its limit, and so has a trickle.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::Connections;

/// How long a body may come at any rate.
const GRACE: Duration = Duration::from_secs(10);

/// A request body that fails when the client makes us wait too long: in one silence longer than
/// `body_idle_timeout`, or, when we waited for more than 10 seconds in all, at fewer than
/// `body_min_rate` bytes for each second of waiting. Time in which nobody reads is not waiting.
#[derive(Debug)]
pub struct Paced<B> {
    body: B,
    silence: Duration,
    min_rate: u64,
    received: u64,
    /// Waiting that is over.
    waited: Duration,
    wait: Option<Wait>,
}

/// Why a [`Paced`] body ended early.
#[derive(Debug, thiserror::Error)]
pub enum PacedError<E> {
    /// The client is too slow: a 408.
    #[error("the request body comes too slowly")]
    TooSlow,
    /// The body itself failed.
    #[error(transparent)]
    Body(E),
}

#[derive(Debug)]
struct Wait {
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

// === impl Paced ===

impl<B> Paced<B> {
    /// Holds `body` to the pace that `limits` ask for.
    pub fn new(body: B, limits: &Connections) -> Self {
        Self {
            body,
            silence: limits.body_idle_timeout,
            min_rate: limits.body_min_rate.max(1),
            received: 0,
            waited: Duration::ZERO,
            wait: None,
        }
    }

    /// When the wait that begins now would be too long.
    fn deadline(&self, now: Instant) -> Instant {
        let earned = Duration::from_secs(self.received / self.min_rate).max(GRACE);
        now + self.silence.min(earned.saturating_sub(self.waited))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = PacedError<B::Error>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some(wait) = this.wait.take() {
                this.waited += wait.since.elapsed();
            }
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            this.received += data.map_or(0, |data| data.len() as u64);
            return Poll::Ready(frame.map(|frame| frame.map_err(PacedError::Body)));
        }
        let now = Instant::now();
        let deadline = this.deadline(now);
        let wait =
            this.wait.get_or_insert_with(|| Wait { since: now, timer: Box::pin(sleep_until(deadline)) });
        ready!(wait.timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(PacedError::TooSlow)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::stream::unfold;
    use http_body::{Body, Frame};
    use http_body_util::{BodyExt, StreamBody};
    use tokio::time::{Instant, sleep};

    use super::{Paced, PacedError};
    use crate::listen::protocol::testing::limits;

    /// `count` frames of `size` bytes, each after `pause`.
    fn body(count: u32, size: usize, pause: Duration) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let frames = unfold(0, move |sent| async move {
            sleep(pause).await;
            (sent < count).then(|| (Ok(Frame::data(Bytes::from(vec![b'x'; size]))), sent + 1))
        });
        Box::pin(StreamBody::new(frames))
    }

    /// Reads it all: bytes, or the second at which it was given up.
    async fn read(body: impl Body<Data = Bytes, Error = Infallible> + Unpin) -> Result<usize, u64> {
        let start = Instant::now();
        match Paced::new(body, &limits()).collect().await {
            Ok(all) => Ok(all.to_bytes().len()),
            Err(PacedError::TooSlow) => Err(start.elapsed().as_secs()),
            Err(PacedError::Body(never)) => match never {},
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_body_passes_and_a_trickle_or_a_silence_does_not() {
        assert_eq!(read(body(60, 2048, Duration::from_secs(1))).await, Ok(60 * 2048));
        assert_eq!(read(body(9, 1, Duration::from_millis(900))).await, Ok(9), "short ones may trickle");
        assert_eq!(read(body(60, 100, Duration::from_secs(1))).await, Err(10));
        // 64 KiB earn 64 seconds, but no silence of more than 15.
        let fast_then_silent = unfold(false, |sent| async move {
            sleep(Duration::from_secs(if sent { 100 } else { 1 })).await;
            Some((Ok(Frame::data(Bytes::from(vec![b'x'; 65_536]))), true))
        });
        assert_eq!(read(Box::pin(StreamBody::new(fast_then_silent))).await, Err(1 + 15));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_reads_is_not_the_clients() {
        let mut paced = Paced::new(body(5, 10, Duration::from_secs(1)), &limits());
        while let Some(frame) = paced.frame().await {
            assert!(frame.is_ok());
            sleep(Duration::from_mins(1)).await;
        }
    }
}
