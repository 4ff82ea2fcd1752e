//! The scripted upstream: a chat model that answers exactly what a test tells it to, byte for byte,
//! and remembers everything it was asked.
//!
//! It speaks HTTP/1.1 by hand on a socket of its own, in a thread of its own, so that a test can put
//! every border between two writes, hold an answer at any byte until it says so ([`Gate`]), cut the
//! connection, or send what no server library would send. Nothing here sleeps: whoever waits, waits
//! for something to happen.
//!
//! What is answered: the next of [`Upstream::next`], else what [`Upstream::on`] said for the path,
//! else what a small friendly model would say ([`Answer::default_for`]).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A model behind the gate. Stops, and cuts every connection, when dropped.
pub(crate) struct Upstream {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// One request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) method: String,
    /// Path and query as they stood in the request line.
    pub(crate) target: String,
    /// In the order and spelling in which they came.
    pub(crate) headers: Vec<(String, String)>,
    /// Without its transfer coding.
    pub(crate) body: Bytes,
    /// Which connection it came on, counted from 0.
    pub(crate) connection: usize,
}

/// What to answer: bytes, pauses and cuts, in order.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    framing: Framing,
    before_head: Vec<Step>,
    body: Vec<Step>,
}

/// Holds an answer until it is opened. Clones are the same gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<watch::Sender<bool>>);

#[derive(Clone, Debug)]
enum Step {
    Send(Bytes),
    WaitFor(Gate),
    Hang,
    Close,
    Reset,
    Echo,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Framing {
    Length,
    Chunked,
    UntilClose,
    Raw,
}

#[derive(Default)]
struct Shared {
    script: Mutex<Script>,
    counts: watch::Sender<Counts>,
}

#[derive(Default)]
struct Script {
    next: VecDeque<Answer>,
    by_path: HashMap<String, Answer>,
    requests: Vec<Recorded>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    connections: usize,
    requests: usize,
    aborted: usize,
}

/// How an answer ended, for the connection it was sent on.
enum Ended {
    KeepAlive,
    Close,
    Reset,
    PeerLeft,
}

// === impl Upstream ===

impl Upstream {
    /// Begins to listen on a free port of 127.0.0.1.
    pub(crate) fn start() -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = watch::channel(false);
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(accept(listener, for_thread, stopped));
        });
        Self { addr, shared, stop, thread: Some(thread) }
    }

    /// An address where nobody listens.
    pub(crate) fn nowhere() -> SocketAddr {
        StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Queues an answer for the next request, whatever it asks.
    pub(crate) fn next(&self, answer: Answer) {
        self.script().next.push_back(answer);
    }

    /// Answers every request for this path (without query) so, when nothing is queued.
    pub(crate) fn on(&self, path: &str, answer: Answer) {
        self.script().by_path.insert(path.to_owned(), answer);
    }

    /// Everything asked so far, in the order in which it was complete.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.script().requests.clone()
    }

    /// The latest request.
    pub(crate) fn last(&self) -> Recorded {
        self.script().requests.last().cloned().expect("the upstream was never asked")
    }

    /// How many requests came through.
    pub(crate) fn hits(&self) -> usize {
        self.shared.counts.borrow().requests
    }

    /// How many connections were opened.
    pub(crate) fn connections(&self) -> usize {
        self.shared.counts.borrow().connections
    }

    /// Waits until `n` requests have come in all.
    pub(crate) async fn arrived(&self, n: usize) {
        self.until(&format!("{n} requests"), |counts| counts.requests >= n).await;
    }

    /// Waits until the gate has closed a connection before its answer was at an end.
    pub(crate) async fn closed(&self) {
        self.until("an abandoned connection", |counts| counts.aborted >= 1).await;
    }

    /// How many answers the gate walked away from.
    pub(crate) fn abandoned(&self) -> usize {
        self.shared.counts.borrow().aborted
    }

    /// Stops listening and cuts every connection.
    pub(crate) fn leave(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    async fn until(&self, what: &str, enough: impl FnMut(&Counts) -> bool) {
        let mut counts = self.shared.counts.subscribe();
        let waited = tokio::time::timeout(PATIENCE, counts.wait_for(enough)).await.map(drop);
        assert!(waited.is_ok(), "the upstream waited in vain for {what}: {:?}", self.shared.counts.borrow());
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.shared.script.lock().unwrap()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.leave();
    }
}

// === impl Recorded ===

impl Recorded {
    /// The value of a header; several are joined by ", ". Names match in any case.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self.all(name);
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// Every value of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The names of all headers, in lower case.
    pub(crate) fn names(&self) -> Vec<String> {
        self.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The whole request as text, to look for what must not be in it.
    pub(crate) fn everything(&self) -> String {
        format!(
            "{} {}\n{:?}\n{}",
            self.method,
            self.target,
            self.headers,
            String::from_utf8_lossy(&self.body)
        )
    }
}

// === impl Gate ===

impl Gate {
    /// A closed gate.
    pub(crate) fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets everyone through, now and later.
    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

// === impl Answer ===

impl Answer {
    /// A JSON document with its `Content-Length`.
    pub(crate) fn json(document: &Value) -> Self {
        Self::bytes("application/json", document.to_string())
    }

    /// A body of this type, sent at once with its `Content-Length`.
    pub(crate) fn bytes(content_type: &str, body: impl Into<Bytes>) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            framing: Framing::Length,
            before_head: Vec::new(),
            body: vec![Step::Send(body.into())],
        }
    }

    /// A stream of this type: each piece is one chunk and one write.
    pub(crate) fn stream(content_type: &str, pieces: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        let body = pieces.into_iter().map(|piece| Step::Send(piece.into())).collect();
        Self { framing: Framing::Chunked, body, ..Self::bytes(content_type, "") }
    }

    /// A `text/event-stream`; the pieces are sent exactly as given.
    pub(crate) fn sse(pieces: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        Self::stream("text/event-stream", pieces)
    }

    /// An `application/x-ndjson`, one line a piece.
    pub(crate) fn ndjson(lines: &[Value]) -> Self {
        Self::stream("application/x-ndjson", lines.iter().map(|line| format!("{line}\n")))
    }

    /// An OpenAI chat stream that says these words, reports 7 + 5 tokens and ends in `[DONE]`.
    pub(crate) fn chat_stream(words: &[&str]) -> Self {
        Self::sse(chat_events(words))
    }

    /// These bytes and nothing else; then the connection closes.
    pub(crate) fn raw(bytes: impl Into<Bytes>) -> Self {
        Self { framing: Framing::Raw, ..Self::bytes("", bytes) }
    }

    /// No answer at all: the connection is closed after the request was read.
    pub(crate) fn cut() -> Self {
        Self::raw("").then(Step::Close)
    }

    /// No answer at all: the connection is reset after the request was read.
    pub(crate) fn reset() -> Self {
        Self::raw("").then(Step::Reset)
    }

    /// The connection stays open and silent until the gate leaves.
    pub(crate) fn silence() -> Self {
        Self { before_head: vec![Step::Hang], ..Self::bytes("text/plain", "") }
    }

    /// `101 Switching Protocols`; then every byte comes back.
    pub(crate) fn echo_tunnel() -> Self {
        let head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
                    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        Self::raw(head).then(Step::Echo)
    }

    /// What a small friendly model answers to this request.
    pub(crate) fn default_for(request: &Recorded) -> Self {
        let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let path = request.target.split('?').next().unwrap_or_default();
        let streamed = asked.get("stream") == Some(&Value::Bool(true));
        match path {
            p if p.ends_with("/chat/completions") && streamed => Self::chat_stream(&["Hel", "lo"]),
            p if p.ends_with("/chat/completions") => Self::json(&chat_answer("Hello")),
            p if p.ends_with("/messages") => Self::json(&json!({
                "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test",
                "content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn",
                "usage": {"input_tokens": 7, "output_tokens": 5}
            })),
            p if p.ends_with("/api/chat") => Self::ndjson(&[
                json!({"model": "llama", "message": {"role": "assistant", "content": "Hel"}, "done": false}),
                json!({"model": "llama", "message": {"role": "assistant", "content": "lo"}, "done": false}),
                json!({"model": "llama", "message": {"role": "assistant", "content": ""}, "done": true,
                       "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 5}),
            ]),
            p if p.ends_with("/models") => {
                Self::json(&json!({"object": "list", "data": [{"id": "gpt-test"}]}))
            }
            _ => Self::json(&json!({"reply": "Hello"})),
        }
    }

    /// With another status.
    pub(crate) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// With one more header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With the body sent up to the end of the connection, without length or chunks.
    pub(crate) fn until_close(mut self) -> Self {
        self.framing = Framing::UntilClose;
        self
    }

    /// Nothing is sent before the gate opens.
    pub(crate) fn hold_head(mut self, gate: &Gate) -> Self {
        self.before_head.push(Step::WaitFor(gate.clone()));
        self
    }

    /// What follows is held until the gate opens.
    pub(crate) fn hold(self, gate: &Gate) -> Self {
        self.then(Step::WaitFor(gate.clone()))
    }

    /// One more piece.
    pub(crate) fn send(self, piece: impl Into<Bytes>) -> Self {
        self.then(Step::Send(piece.into()))
    }

    /// The connection is closed here, before the body's end.
    pub(crate) fn then_cut(self) -> Self {
        self.then(Step::Close)
    }

    /// The connection is reset (RST) here.
    pub(crate) fn then_reset(self) -> Self {
        self.then(Step::Reset)
    }

    /// Silence from here on, until the gate leaves.
    pub(crate) fn then_silence(self) -> Self {
        self.then(Step::Hang)
    }

    fn then(mut self, step: Step) -> Self {
        self.body.push(step);
        self
    }

    fn head(&self) -> Bytes {
        if self.framing == Framing::Raw {
            return Bytes::new();
        }
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match self.framing {
            Framing::Length => head.push_str(&format!("content-length: {}\r\n", self.length())),
            Framing::Chunked => head.push_str("transfer-encoding: chunked\r\n"),
            _ => head.push_str("connection: close\r\n"),
        }
        (head + "\r\n").into()
    }

    fn length(&self) -> usize {
        self.body.iter().map(|step| if let Step::Send(bytes) = step { bytes.len() } else { 0 }).sum()
    }
}

/// The JSON answer of an OpenAI chat completion that says `text` and reports 7 + 5 tokens.
pub(crate) fn chat_answer(text: &str) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_790_848_800, "model": "gpt-test",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    })
}

/// The events of an OpenAI chat stream, each with its blank line, `[DONE]` last.
pub(crate) fn chat_events(words: &[&str]) -> Vec<String> {
    let event = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-test", "choices": [choice]})
    };
    let usage = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-test", "choices": [],
                       "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}});
    let mut events = vec![event(json!({"role": "assistant", "content": ""}), Value::Null)];
    events.extend(words.iter().map(|word| event(json!({"content": word}), Value::Null)));
    events.push(event(json!({}), json!("stop")));
    events.push(usage);
    let mut lines: Vec<String> = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    lines.push("data: [DONE]\n\n".to_owned());
    lines
}

// === the server ===

async fn accept(listener: StdListener, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
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

// === impl Shared ===

impl Shared {
    fn choose(&self, request: &Recorded) -> Answer {
        let mut script = self.script.lock().unwrap();
        script.requests.push(request.clone());
        let path = request.target.split('?').next().unwrap_or_default();
        let answer = script.next.pop_front().or_else(|| script.by_path.get(path).cloned());
        drop(script);
        self.counts.send_modify(|counts| counts.requests += 1);
        answer.unwrap_or_else(|| Answer::default_for(request))
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Gate, Upstream, chat_events};
    use crate::wire::Wire;

    const ASK: &str = "POST /v1/x HTTP/1.1\r\nhost: m\r\ncontent-length: 2\r\n\r\n{}";

    #[tokio::test]
    async fn the_upstream_says_what_it_was_told_and_remembers_what_it_heard() {
        let upstream = Upstream::start();
        upstream.on("/v1/x", Answer::chat_stream(&["a"]));
        upstream.next(Answer::bytes("text/plain", "no").status(500).header("x-why", "told to"));
        let mut wire = Wire::connect(upstream.addr).await;
        wire.send([ASK, ASK].concat()).await;
        let first = wire.answer().await;
        assert_eq!(
            (first.status(), first.header("x-why"), first.body.as_slice()),
            (500, Some("told to"), b"no".as_slice())
        );
        assert_eq!(wire.answer().await.body, chat_events(&["a"]).concat().into_bytes());
        assert_eq!((upstream.hits(), upstream.connections(), upstream.abandoned()), (2, 1, 0));
        assert_eq!(upstream.last().body, "{}");
    }

    #[tokio::test]
    async fn it_holds_cuts_and_notices_who_leaves() {
        let upstream = Upstream::start();
        let gate = Gate::closed();
        upstream.next(Answer::sse(["data: 1\n\n"]).hold(&gate).send("data: 2\n\n"));
        let mut wire = Wire::connect(upstream.addr).await;
        wire.send(ASK).await;
        wire.head().await;
        assert_eq!(wire.chunk().await.unwrap(), b"data: 1\n\n");
        gate.open();
        assert_eq!(wire.chunk().await.unwrap(), b"data: 2\n\n");
        assert_eq!(wire.chunk().await, None);

        upstream.next(Answer::bytes("text/plain", "half").then_cut().send("other half"));
        wire.send(ASK).await;
        assert!(wire.rest().await.ends_with(b"content-length: 14\r\n\r\nhalf"));

        upstream.next(Answer::silence());
        let mut wire = Wire::connect(upstream.addr).await;
        wire.send(ASK).await;
        upstream.arrived(3).await;
        wire.kill();
        upstream.closed().await;
    }
}
