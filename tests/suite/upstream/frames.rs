//! A model that speaks HTTP/2 frame by frame (RFC 9113), so that it can refuse, reset and leave where no
//! server library would. It reads no header fields: every request gets the next answer of its script.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Gate;

/// What the model does with one request that it has read.
#[derive(Clone, Debug)]
pub(crate) enum Play {
    /// The whole answer.
    Answer,
    /// The whole answer, once the gate is open.
    AnswerAfter(Gate),
    /// GOAWAY with this code, its last stream being this request's plus the offset; then the rest.
    GoAway(i32, u32, Box<Play>),
    /// SETTINGS_MAX_CONCURRENT_STREAMS from now on; then the rest.
    Allow(u32, Box<Play>),
    /// RST_STREAM with this code.
    Reset(u32),
    /// The head of an answer and a piece of its body, then RST_STREAM with this code.
    BeginThenReset(u32),
    /// The head and a piece, then the connection ends.
    BeginThenLeave,
    /// The connection ends.
    Leave,
}

/// The model. It stops with the test's runtime.
pub(crate) struct FrameModel {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Mutex<VecDeque<Play>>,
    /// Streams of each new connection; `None` says nothing.
    allowed: Mutex<Option<u32>>,
    /// The connection of each request that was read to its end.
    seen: Mutex<Vec<usize>>,
    connections: Mutex<usize>,
    /// SETTINGS that were acknowledged.
    settled: Mutex<usize>,
}

struct Peer {
    stream: TlsStream<TcpStream>,
    number: usize,
    shared: Arc<Shared>,
    /// Answers that wait for a gate, each with its stream.
    held: JoinSet<u32>,
}

pub(crate) const ANSWER: &[u8] = b"{\"model\":\"m\"}";
const PREFACE: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// `:status: 200`, from HPACK's static table.
const OK: &[u8] = &[0x88];

// === impl FrameModel ===

impl FrameModel {
    /// Begins to listen behind this TLS.
    pub(crate) async fn start(acceptor: TlsAcceptor, allowed: Option<u32>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Mutex::default(),
            allowed: Mutex::new(allowed),
            seen: Mutex::default(),
            connections: Mutex::default(),
            settled: Mutex::default(),
        });
        let model = Self { addr, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(acceptor.clone(), stream, Arc::clone(&shared)));
            }
        });
        model
    }

    /// What it does with the next request.
    pub(crate) fn next(&self, play: Play) {
        self.shared.script.lock().unwrap().push_back(play);
    }

    /// Streams that each new connection is allowed.
    pub(crate) fn allow(&self, streams: u32) {
        *self.shared.allowed.lock().unwrap() = Some(streams);
    }

    /// The connection of each request that it has read.
    pub(crate) fn seen(&self) -> Vec<usize> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many of its SETTINGS were acknowledged.
    pub(crate) fn settled(&self) -> usize {
        *self.shared.settled.lock().unwrap()
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        *self.shared.connections.lock().unwrap()
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, shared: Arc<Shared>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let number = {
        let mut connections = shared.connections.lock().unwrap();
        *connections += 1;
        *connections
    };
    let peer = Peer { stream, number, shared, held: JoinSet::new() };
    let _ = peer.run().await;
}

// === impl Peer ===

impl Peer {
    async fn run(mut self) -> io::Result<()> {
        let mut preface = [0; PREFACE];
        self.stream.read_exact(&mut preface).await?;
        let allowed = *self.shared.allowed.lock().unwrap();
        self.settings(allowed).await?;
        let mut pending = Vec::new();
        loop {
            tokio::select! {
                Some(Ok(id)) = self.held.join_next() => self.answer(id).await?,
                read = self.stream.read_buf(&mut pending) => {
                    if read? == 0 {
                        return Ok(());
                    }
                }
            }
            while let Some((kind, flags, id, payload)) = take_frame(&mut pending) {
                if !self.hear(kind, flags, id, &payload).await? {
                    return self.stream.shutdown().await;
                }
            }
        }
    }

    /// `false` where the connection ends.
    async fn hear(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) -> io::Result<bool> {
        match kind {
            SETTINGS if flags & ACK != 0 => *self.shared.settled.lock().unwrap() += 1,
            SETTINGS => self.frame(SETTINGS, ACK, 0, &[]).await?,
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, payload).await?,
            DATA if !payload.is_empty() => {
                let more = u32::try_from(payload.len()).unwrap().to_be_bytes();
                self.frame(WINDOW_UPDATE, 0, 0, &more).await?;
            }
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            self.shared.seen.lock().unwrap().push(self.number);
            let play = self.shared.script.lock().unwrap().pop_front().unwrap_or(Play::Answer);
            return self.play(id, play).await;
        }
        Ok(true)
    }

    async fn play(&mut self, id: u32, mut play: Play) -> io::Result<bool> {
        loop {
            play = match play {
                Play::GoAway(offset, code, rest) => {
                    let last =
                        if offset == i32::MAX { i32::MAX as u32 } else { id.saturating_add_signed(offset) };
                    self.frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat()).await?;
                    *rest
                }
                Play::Allow(streams, rest) => {
                    self.settings(Some(streams)).await?;
                    *rest
                }
                Play::Answer => {
                    self.answer(id).await?;
                    return Ok(true);
                }
                Play::AnswerAfter(gate) => {
                    self.held.spawn(async move {
                        gate.passed().await;
                        id
                    });
                    return Ok(true);
                }
                Play::Reset(code) => {
                    self.frame(RST_STREAM, 0, id, &code.to_be_bytes()).await?;
                    return Ok(true);
                }
                Play::BeginThenReset(code) => {
                    self.begin(id).await?;
                    self.frame(RST_STREAM, 0, id, &code.to_be_bytes()).await?;
                    return Ok(true);
                }
                Play::BeginThenLeave => {
                    self.begin(id).await?;
                    return Ok(false);
                }
                Play::Leave => return Ok(false),
            }
        }
    }

    async fn begin(&mut self, id: u32) -> io::Result<()> {
        self.frame(HEADERS, END_HEADERS, id, OK).await?;
        self.frame(DATA, 0, id, &ANSWER[..4]).await
    }

    async fn answer(&mut self, id: u32) -> io::Result<()> {
        self.frame(HEADERS, END_HEADERS, id, OK).await?;
        self.frame(DATA, END_STREAM, id, ANSWER).await
    }

    async fn settings(&mut self, allowed: Option<u32>) -> io::Result<()> {
        let setting = allowed.map(|streams| [&[0, 3], streams.to_be_bytes().as_slice()].concat());
        self.frame(SETTINGS, 0, 0, &setting.unwrap_or_default()).await
    }

    async fn frame(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], id.to_be_bytes().as_slice()].concat();
        self.stream.write_all(&[head.as_slice(), payload].concat()).await?;
        self.stream.flush().await
    }
}

/// The first whole frame: kind, flags, stream, payload.
fn take_frame(pending: &mut Vec<u8>) -> Option<(u8, u8, u32, Vec<u8>)> {
    let head: [u8; 9] = pending.get(..9)?.try_into().unwrap();
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    if pending.len() < 9 + length {
        return None;
    }
    let frame: Vec<u8> = pending.drain(..9 + length).collect();
    let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
    Some((head[3], head[4], id, frame[9..].to_vec()))
}
