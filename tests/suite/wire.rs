//! A client that writes and reads bytes: for requests that no library would send, and answers that
//! must be held against each other to the last byte.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::upstream::PATIENCE;

/// One connection to the gate.
pub(crate) struct Wire {
    stream: TcpStream,
    pending: Vec<u8>,
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// In the order and spelling in which they came.
    pub(crate) headers: Vec<(String, String)>,
}

/// A whole answer, its body without transfer coding.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

/// Sends one request and reads its answer.
pub(crate) async fn exchange(addr: SocketAddr, request: impl AsRef<[u8]>) -> Heard {
    let mut wire = Wire::connect(addr).await;
    wire.send(request).await;
    wire.answer().await
}

// === impl Wire ===

impl Wire {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, pending: Vec::new() }
    }

    /// Whether anybody still accepts connections at `addr`.
    pub(crate) async fn refused(addr: SocketAddr) -> bool {
        TcpStream::connect(addr).await.is_err()
    }

    /// Writes the bytes; a gate that closes while we write is not a failure of the test.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// The next head, interim (1xx) answers skipped.
    pub(crate) async fn head(&mut self) -> Head {
        loop {
            let end = loop {
                if let Some(at) = memchr::memmem::find(&self.pending, b"\r\n\r\n") {
                    break at + 4;
                }
                assert!(
                    self.more().await > 0,
                    "closed before a head: {:?}",
                    String::from_utf8_lossy(&self.pending)
                );
            };
            let head: Vec<u8> = self.pending.drain(..end).collect();
            let head = Head::parse(std::str::from_utf8(&head).unwrap());
            if head.status == 101 || head.status >= 200 {
                return head;
            }
        }
    }

    /// The next head; nothing where the connection ends without one.
    pub(crate) async fn head_if_any(&mut self) -> Option<Head> {
        while memchr::memmem::find(&self.pending, b"\r\n\r\n").is_none() {
            if self.more().await == 0 {
                return None;
            }
        }
        Some(self.head().await)
    }

    /// The next answer with its body.
    pub(crate) async fn answer(&mut self) -> Heard {
        let head = self.head().await;
        let body = if head.header("transfer-encoding").is_some() {
            let mut body = Vec::new();
            while let Some(chunk) = self.chunk().await {
                body.extend(chunk);
            }
            body
        } else if let Some(length) = head.header("content-length") {
            self.exactly(length.parse().unwrap()).await
        } else if matches!(head.status, 101 | 204 | 304) {
            Vec::new()
        } else {
            self.rest().await
        };
        Heard { head, body }
    }

    /// The next chunk of a chunked body; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line_end = loop {
            if let Some(at) = memchr::memmem::find(&self.pending, b"\r\n") {
                break at;
            }
            assert!(self.more().await > 0, "closed inside a chunked body");
        };
        let line: Vec<u8> = self.pending.drain(..line_end + 2).collect();
        let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        let mut chunk = self.exactly(size + 2).await;
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    /// Exactly this many bytes.
    pub(crate) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.pending.len() < length {
            assert!(self.more().await > 0, "closed {} bytes early", length - self.pending.len());
        }
        self.pending.drain(..length).collect()
    }

    /// Everything up to the end of the connection, a reset included.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await > 0 {}
        std::mem::take(&mut self.pending)
    }

    /// The raw bytes of a chunked body, up to its last chunk or the end of the connection.
    pub(crate) async fn until_the_end(&mut self) -> Vec<u8> {
        while !self.pending.ends_with(b"\r\n0\r\n\r\n") && self.more().await > 0 {}
        std::mem::take(&mut self.pending)
    }

    /// Waits until the gate has closed the connection; what it still sent is returned.
    pub(crate) async fn closed(&mut self) -> Vec<u8> {
        self.rest().await
    }

    /// Leaves like a killed process: the connection is reset.
    pub(crate) fn kill(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    async fn more(&mut self) -> usize {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.pending)).await;
        read.expect("the gate said nothing more and did not close").unwrap_or(0)
    }
}

// === impl Head ===

impl Head {
    fn parse(text: &str) -> Self {
        let mut lines = text.trim_end().split("\r\n");
        let status =
            lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let pair = |line: &str| line.split_once(':').map(|(n, v)| (n.to_owned(), v.trim().to_owned()));
        Self {
            status: status.unwrap_or_else(|| panic!("no status line: {text:?}")),
            headers: lines.filter_map(pair).collect(),
        }
    }

    /// The first value of a header; names match in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

// === impl Heard ===

impl Heard {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {:?}", String::from_utf8_lossy(&self.body)))
    }
}
