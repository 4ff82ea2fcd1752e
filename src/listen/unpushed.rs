//! An HTTP/2 client's bytes, without PUSH_PROMISE: a client must not send one (RFC 9113 §8.4), and h2 passes it over.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A frame's header: length (24 bits), type, flags, stream.
const HEADER: usize = 9;
const PUSH_PROMISE: u8 = 5;

/// A connection whose frames' types are looked at as they are read.
pub(super) struct Unpushed<T> {
    io: T,
    /// Bytes that are no header: of the preface, or of a frame's payload.
    skip: usize,
    header: [u8; HEADER],
    held: usize,
}

// === impl Unpushed ===

impl<T> Unpushed<T> {
    /// `preface` bytes come before the first frame.
    pub(super) fn new(io: T, preface: usize) -> Self {
        Self { io, skip: preface, header: [0; HEADER], held: 0 }
    }

    fn look(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = bytes.get(passed..).unwrap_or_default();
            let Some((byte, rest)) = bytes.split_first() else { break };
            if let Some(slot) = self.header.get_mut(self.held) {
                *slot = *byte;
            }
            self.held += 1;
            bytes = rest;
            if self.held == HEADER {
                let [high, middle, low, kind, ..] = self.header;
                if kind == PUSH_PROMISE {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "PUSH_PROMISE from a client"));
                }
                self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
                self.held = 0;
            }
        }
        Ok(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Unpushed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let looked = self.look(buf.filled().get(before..).unwrap_or_default());
        if looked.is_err() {
            buf.set_filled(before);
        }
        Poll::Ready(looked)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Unpushed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::Unpushed;

    #[tokio::test]
    async fn a_push_promise_is_found_however_the_bytes_are_split() {
        let data = [0, 0, 5, 0, 0, 0, 0, 0, 1, 5, 5, 5, 5, 5];
        let push = [0, 0, 0, 5, 0, 0, 0, 0, 1];
        for split in [1, 2, 3, 9, 64] {
            for (bytes, is_read) in
                [([&data[..], &data].concat(), true), ([&data[..], &push].concat(), false)]
            {
                let (mut client, server) = duplex(split);
                let bytes = [b"PRI".to_vec(), bytes].concat();
                let write = async move { client.write_all(&bytes).await };
                let mut read = Vec::new();
                let read = async { Unpushed::new(server, 3).read_to_end(&mut read).await };
                let (_, ended) = tokio::join!(write, read);
                assert_eq!(ended.is_ok(), is_read, "{split}");
            }
        }
    }
}
