//! The model's side of the wire: HTTP/1.1 by hand.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::answer::{Answer, Framing, Step};
use super::{Recorded, Shared};

/// How an answer ended, for the connection it was sent on.
enum Ended {
    KeepAlive,
    Close,
    Reset,
    PeerLeft,
}

/// Serves every connection until told to stop; then all are cut.
pub(super) async fn accept(listener: StdListener, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let mut number = 0;
                shared.counts.send_modify(|counts| {
                    number = counts.connections;
                    counts.connections += 1;
                });
                connections.spawn(serve(stream, Arc::clone(&shared), number));
            }
            Some(_) = connections.join_next() => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>, number: usize) {
    let _ = stream.set_nodelay(true);
    let mut pending = Vec::new();
    while let Ok(Some(request)) = read_request(&mut stream, &mut pending, number).await {
        let answer = shared.choose(&request);
        match play(&mut stream, &answer).await {
            Ok(Ended::KeepAlive) => {}
            Ok(Ended::Close) => {
                let _ = stream.shutdown().await;
                return;
            }
            Ok(Ended::Reset) => {
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                return;
            }
            Ok(Ended::PeerLeft) | Err(_) => {
                shared.counts.send_modify(|counts| counts.aborted += 1);
                return;
            }
        }
    }
}

async fn play(stream: &mut TcpStream, answer: &Answer) -> io::Result<Ended> {
    for step in &answer.before_head {
        if let Some(ended) = take(stream, step, answer.framing).await? {
            return Ok(ended);
        }
    }
    stream.write_all(&answer.head()).await?;
    for step in &answer.body {
        if let Some(ended) = take(stream, step, answer.framing).await? {
            return Ok(ended);
        }
    }
    match answer.framing {
        Framing::Length => Ok(Ended::KeepAlive),
        Framing::Chunked => stream.write_all(b"0\r\n\r\n").await.map(|()| Ended::KeepAlive),
        Framing::UntilClose | Framing::Raw => Ok(Ended::Close),
    }
}

/// One step; `Some` when nothing may follow.
async fn take(stream: &mut TcpStream, step: &Step, framing: Framing) -> io::Result<Option<Ended>> {
    match step {
        Step::Send(bytes) if bytes.is_empty() => {}
        Step::Send(bytes) if framing == Framing::Chunked => {
            let frame = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
            stream.write_all(&frame).await?;
        }
        Step::Send(bytes) => stream.write_all(bytes).await?,
        Step::WaitFor(gate) => tokio::select! {
            () = gate.passed() => {}
            () = left(stream) => return Ok(Some(Ended::PeerLeft)),
        },
        Step::Hang => {
            left(stream).await;
            return Ok(Some(Ended::PeerLeft));
        }
        Step::Close => return Ok(Some(Ended::Close)),
        Step::Reset => return Ok(Some(Ended::Reset)),
        Step::Echo => {
            let (mut reader, mut writer) = stream.split();
            tokio::io::copy(&mut reader, &mut writer).await?;
            return Ok(Some(Ended::Close));
        }
    }
    Ok(None)
}

/// Returns when the peer has closed or reset the connection. What it still sends is thrown away.
async fn left(stream: &mut TcpStream) {
    let mut scrap = [0; 4096];
    while matches!(stream.read(&mut scrap).await, Ok(n) if n > 0) {}
}

async fn read_request(
    stream: &mut TcpStream,
    pending: &mut Vec<u8>,
    connection: usize,
) -> io::Result<Option<Recorded>> {
    let head_end = loop {
        if let Some(at) = find(pending, b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(pending).await? == 0 {
            return Ok(None);
        }
    };
    let head: Vec<u8> = pending.drain(..head_end).collect();
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.trim_end().split("\r\n");
    let mut request_line = lines.next().unwrap_or_default().split(' ');
    let mut word = || request_line.next().unwrap_or_default().to_owned();
    let (method, target) = (word(), word());
    let pair = |line: &str| line.split_once(':').map(|(n, v)| (n.to_owned(), v.trim().to_owned()));
    let headers = lines.filter_map(pair).collect();
    let mut request = Recorded { method, target, headers, body: Bytes::new(), connection };
    if request.header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    request.body = if request.header("transfer-encoding").is_some() {
        read_chunks(stream, pending).await?
    } else {
        let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        fill(stream, pending, length).await?;
        pending.drain(..length).collect()
    };
    Ok(Some(request))
}

async fn read_chunks(stream: &mut TcpStream, pending: &mut Vec<u8>) -> io::Result<Bytes> {
    let mut body = Vec::new();
    loop {
        let line_end = loop {
            if let Some(at) = find(pending, b"\r\n") {
                break at;
            }
            fill(stream, pending, pending.len() + 1).await?;
        };
        let size = std::str::from_utf8(&pending[..line_end])
            .ok()
            .and_then(|hex| usize::from_str_radix(hex, 16).ok());
        let size = size.ok_or(io::ErrorKind::InvalidData)?;
        pending.drain(..line_end + 2);
        fill(stream, pending, size + 2).await?;
        body.extend(pending.drain(..size));
        pending.drain(..2);
        if size == 0 {
            return Ok(body.into());
        }
    }
}

async fn fill(stream: &mut TcpStream, pending: &mut Vec<u8>, length: usize) -> io::Result<()> {
    while pending.len() < length {
        if stream.read_buf(pending).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}
