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
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;

use crate::proof::ports::free_port;

mod answer;
mod frames;
mod server;
mod socket;

pub(crate) use answer::{Answer, Gate, chat_answer, chat_events};
pub(crate) use frames::{ANSWER, FrameModel, Play};
pub(crate) use socket::{SocketModel, frame};

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

// === impl Upstream ===

impl Upstream {
    /// Begins to listen on a free port of 127.0.0.1.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = watch::channel(false);
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(server::accept(listener, for_thread, stopped));
        });
        Self { addr, shared, stop, thread: Some(thread) }
    }

    /// An address where nothing listens.
    pub(crate) fn nowhere() -> SocketAddr {
        free_port()
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
