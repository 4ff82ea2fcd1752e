//! Request bodies that come too slowly: a silence has its limit, so has a trickle, and so has the whole.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::window::Window;
use crate::config::Connections;

/// A request body that fails when the client makes us wait too long: in one silence longer than
/// `body_idle_timeout`, at fewer than `body_min_rate` bytes for each second of any 20 seconds of waiting, or
/// for longer than the given time in all. Time in which this side does not read is not waiting.
#[derive(Debug)]
pub struct Paced<B> {
    body: B,
    silence: Duration,
    total: Duration,
    window: Window,
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
    /// Holds `body` to the pace that `limits` ask for, for at most `total`.
    pub fn new(body: B, limits: &Connections, total: Duration) -> Self {
        let window = Window::new(limits.body_min_rate);
        Self { body, silence: limits.body_idle_timeout, total, window, wait: None }
    }

    /// When the wait that begins now would be too long.
    fn deadline(&self, now: Instant) -> Instant {
        let rest = self.total.saturating_sub(self.window.total());
        now + self.silence.min(self.window.patience()).min(rest)
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
                this.window.waited(wait.since.elapsed());
            }
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            this.window.moved(data.map_or(0, |data| data.len() as u64));
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

    const TOTAL: Duration = Duration::from_mins(5);

    /// `count` frames of `size` bytes, each after `pause`.
    fn body(count: u32, size: usize, pause: Duration) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let frames = unfold(0, move |sent| async move {
            sleep(pause).await;
            (sent < count).then(|| (Ok(Frame::data(Bytes::from(vec![b'x'; size]))), sent + 1))
        });
        Box::pin(StreamBody::new(frames))
    }

    /// A first frame of `size` bytes at once, then a byte after each `pause`.
    fn burst_then_drip(size: usize, pause: Duration) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let frames = unfold(size, move |size| async move {
            if size == 1 {
                sleep(pause).await;
            }
            Some((Ok(Frame::data(Bytes::from(vec![b'x'; size]))), 1))
        });
        Box::pin(StreamBody::new(frames))
    }

    /// Reads it all: bytes, or the second at which it was given up.
    async fn read(body: impl Body<Data = Bytes, Error = Infallible> + Unpin) -> Result<usize, u64> {
        let start = Instant::now();
        match Paced::new(body, &limits(), TOTAL).collect().await {
            Ok(all) => Ok(all.to_bytes().len()),
            Err(PacedError::TooSlow) => Err(start.elapsed().as_secs()),
            Err(PacedError::Body(never)) => match never {},
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_body_passes_and_a_trickle_or_a_silence_does_not() {
        assert_eq!(read(body(60, 2048, Duration::from_secs(1))).await, Ok(60 * 2048));
        assert_eq!(read(body(9, 1, Duration::from_millis(900))).await, Ok(9), "short ones may trickle");
        assert_eq!(read(body(60, 100, Duration::from_secs(1))).await, Err(20));
        assert_eq!(read(burst_then_drip(65_536, Duration::from_secs(100))).await, Err(15));
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_before_does_not_buy_time() {
        for size in [2, 64 << 10, 9 << 20] {
            for pause in [1, 7, 12, 14] {
                let ended = read(burst_then_drip(size, Duration::from_secs(pause))).await;
                assert_eq!(ended, Err(20), "{size} bytes, then one every {pause} s");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_its_time_in_all() {
        assert_eq!(read(body(2_000, 2048, Duration::from_secs(1))).await, Err(TOTAL.as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_reads_is_not_the_clients() {
        let mut paced = Paced::new(body(5, 10, Duration::from_secs(1)), &limits(), TOTAL);
        while let Some(frame) = paced.frame().await {
            assert!(frame.is_ok());
            sleep(Duration::from_mins(1)).await;
        }
    }
}
