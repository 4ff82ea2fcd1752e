//! The recording origin: a chat model that does what the question tells it to, and keeps one entry for
//! each request, so that nobody has to take the gate's word for what was sent.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::books::{Ended, Seen, Terms, now};
use super::canary::{Act, Canary};

/// A model behind the gate. It stops when dropped.
pub(crate) struct Origin {
    pub(crate) addr: SocketAddr,
    record: Arc<Mutex<Record>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What it has seen so far.
#[derive(Default)]
struct Record {
    seen: HashMap<Canary, Seen>,
    terms: HashMap<u32, Terms>,
    tallies: HashMap<u32, Tally>,
    over: Vec<String>,
    strangers: u64,
}

/// How one user stands while requests are under way.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    arrived: i64,
    failed: i64,
}

/// How long a slow answer takes.
const SLOWNESS: Duration = Duration::from_millis(30);

// === impl Origin ===

impl Origin {
    /// Begins to listen on a free port of 127.0.0.1.
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let record = Arc::new(Mutex::new(Record::default()));
        let (stop, stopped) = oneshot::channel();
        let for_thread = Arc::clone(&record);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, for_thread) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { addr, record, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What this user may have, so that more is noticed when it comes.
    pub(crate) fn expect(&self, user: u32, terms: Terms) {
        self.lock().terms.insert(user, terms);
    }

    /// Every request that came.
    pub(crate) fn seen(&self) -> HashMap<Canary, Seen> {
        self.lock().seen.clone()
    }

    /// Requests of a user that came, and those of them that were failed.
    pub(crate) fn tally(&self, user: u32) -> (i64, i64) {
        let tally = self.lock().tallies.get(&user).copied().unwrap_or_default();
        (tally.arrived, tally.failed)
    }

    /// What must not have come: more than a user may have at that moment, or a request twice.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let record = self.lock();
        let mut over = record.over.clone();
        if record.strangers > 0 {
            over.push(format!("{} requests that no client sent reached the origin", record.strangers));
        }
        over
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

// === impl Record ===

impl Record {
    fn arrives(&mut self, canary: Canary, request_id: String) {
        let (came_at, ended_at) = (now(), f64::INFINITY);
        let seen = Seen { request_id, ended: Ended::Open, came_at, ended_at };
        if self.seen.insert(canary, seen).is_some() {
            self.over.push(format!("{canary} was sent to the origin twice"));
        }
        let tally = self.tallies.entry(canary.user).or_default();
        tally.arrived += 1;
        let Some(terms) = self.terms.get(&canary.user) else { return };
        let held = tally.arrived - tally.failed.min(terms.refunds);
        if held > terms.limit {
            self.over.push(format!("{canary}: {held} conversations held at a time, of {}", terms.limit));
        }
    }

    fn ends(&mut self, canary: Canary, ended: Ended) {
        if let Some(seen) = self.seen.get_mut(&canary) {
            (seen.ended, seen.ended_at) = (ended, now());
        }
        if ended == Ended::Failed {
            self.tallies.entry(canary.user).or_default().failed += 1;
        }
    }
}

async fn accept(listener: std::net::TcpListener, record: Arc<Mutex<Record>>) {
    let listener = TcpListener::from_std(listener).unwrap();
    let connections = TaskTracker::new();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let record = Arc::clone(&record);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&record)));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    record: Arc<Mutex<Record>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let id = id.to_owned();
    let Ok(body) = request.into_body().collect().await else { return Ok(said(400, "{}")) };
    let Some((canary, act)) = Canary::find(&body.to_bytes()) else {
        record.lock().unwrap().strangers += 1;
        return Ok(said(200, "{}"));
    };
    record.lock().unwrap().arrives(canary, id);
    let response = match act {
        Act::Quick => said(200, &reply(canary, 1)),
        Act::Long => said(200, &reply(canary, 4000)),
        Act::Slow => {
            tokio::time::sleep(SLOWNESS).await;
            said(200, &reply(canary, 1))
        }
        Act::Fail => said(500, r#"{"error":{"message":"told to","type":"server_error"}}"#),
    };
    // Noted before the gate can know it, so that what it gives back is never counted as held.
    record.lock().unwrap().ends(canary, if act == Act::Fail { Ended::Failed } else { Ended::Answered });
    Ok(response)
}

fn said(status: u16, body: &str) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
}

fn reply(canary: Canary, words: usize) -> String {
    let text = format!("heard {canary} ") + &"word ".repeat(words);
    format!(
        r#"{{"id":"c","object":"chat.completion","model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":3,"completion_tokens":{words},"total_tokens":{}}}}}"#,
        words + 3
    )
}
