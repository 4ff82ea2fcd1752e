//! The byte stream under hyper, with what hyper does not do: a client that will not read is cut,
//! and a last answer is not lost to bytes that nobody read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::caps::Admission;
use super::leftover::{LINGER, LINGER_SILENCE};
use super::watch::Pulse;
use super::window::Window;

/// A client's byte stream. Holds the connection's place, so an upgraded connection keeps it too.
///
/// - A write that stays pending for the stall timeout fails with `TimedOut`, and so does one of a client that
///   takes fewer than `write_min_rate` bytes for each second of any 20 seconds in which writes were pending.
/// - Shutting down, while this is HTTP, waits for the client's end and throws away what still comes.
///   Closing a socket with unread bytes makes the kernel reset it, and the client may never see the
///   413 or 431 that explains why (RFC 9112 §9.6).
pub(super) struct Wire<T> {
    io: T,
    /// Bytes already taken from `io`, to be read first.
    replay: Bytes,
    pulse: Arc<Pulse>,
    stall_timeout: Duration,
    /// What the client took, against the time in which writes were pending.
    taken: Window,
    /// Set while a write is pending.
    stall: Option<Stall>,
    read_ended: bool,
    shut: bool,
    linger: Option<Linger>,
    admission: Admission,
}

struct Stall {
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

struct Linger {
    until: Instant,
    timer: Pin<Box<Sleep>>,
}

// === impl Wire ===

impl<T> Wire<T> {
    /// `replay` is read before anything of `io`.
    pub(super) fn new(io: T, replay: Bytes, pulse: Arc<Pulse>, admission: Admission) -> Self {
        let limits = &admission.acceptor().limits;
        let (stall_timeout, taken) = (limits.write_stall_timeout, Window::new(limits.write_min_rate));
        Self {
            io,
            replay,
            pulse,
            stall_timeout,
            taken,
            stall: None,
            read_ended: false,
            shut: false,
            linger: None,
            admission,
        }
    }

    /// Passes on what a write came to, keeping the time of one that is pending.
    fn timed<R>(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if write.is_ready() {
            if let Some(stall) = self.stall.take() {
                self.taken.waited(stall.since.elapsed());
                self.pulse.write_went_on();
            }
            return write;
        }
        let timeout = self.stall_timeout.min(self.taken.patience());
        let start = || Stall { since: Instant::now(), timer: Box::pin(sleep(timeout)) };
        let stall = self.stall.get_or_insert_with(start);
        self.pulse.write_is_stuck();
        ready!(stall.timer.as_mut().poll(cx));
        self.admission.acceptor().connected.stalled.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<T: AsyncRead + Unpin> Wire<T> {
    /// [`Self::timed`] for a write that says how much was taken.
    fn counted(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let write = ready!(self.timed(cx, write));
        if let Ok(bytes) = &write {
            self.taken.moved(*bytes as u64);
        }
        Poll::Ready(write)
    }

    /// Reads and forgets until the client ends or the time is up.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let linger = self.linger.get_or_insert_with(|| Linger {
            until: now + LINGER,
            timer: Box::pin(sleep_until(now + LINGER_SILENCE)),
        });
        let mut heard = false;
        loop {
            let mut scratch = [0; 8 * 1024];
            let mut scratch = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut scratch) {
                Poll::Ready(Ok(())) if !scratch.filled().is_empty() && now < linger.until => heard = true,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        if heard {
            linger.timer.as_mut().reset(linger.until.min(now + LINGER_SILENCE));
        }
        linger.timer.as_mut().poll(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.replay.has_remaining() {
            let piece = this.replay.split_to(this.replay.len().min(buf.remaining()));
            buf.put_slice(&piece);
            this.pulse.heard();
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut this.io).poll_read(cx, buf));
        if read.is_ok() && buf.filled().len() > before {
            this.pulse.heard();
        } else if read.is_err() || buf.remaining() > 0 {
            this.read_ended = true;
        }
        Poll::Ready(read)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.io).poll_write(cx, buf);
        self.counted(cx, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.counted(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flush = Pin::new(&mut self.io).poll_flush(cx);
        self.timed(cx, flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.shut {
            let shutdown = Pin::new(&mut this.io).poll_shutdown(cx);
            ready!(this.timed(cx, shutdown))?;
            this.shut = true;
        }
        // What comes after an upgrade is not ours to throw away.
        if !this.read_ended && this.pulse.is_http() {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
