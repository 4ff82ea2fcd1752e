//! The threads of the data plane: one for each core, each with a runtime, sockets and a door of its
//! own.

use std::cell::OnceCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use http_body_util::Either;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::door::{Door, Doors};
use super::listeners::Starting;
use crate::background::Background;
use crate::limits::Limits;
use crate::listen::{self, Acceptor, Stop, WorkerSockets};
use crate::telemetry::Metrics;

/// Every worker of a gateway.
pub(super) struct Workers {
    acceptor: Arc<Acceptor>,
    stop: Stop,
    starting: Starting,
    /// Each worker holds a clone of it for as long as it lives.
    alive: Option<mpsc::Sender<()>>,
    all_gone: mpsc::Receiver<()>,
}

/// Workers that accept and have no door yet.
pub(super) struct Unfurnished(Vec<oneshot::Sender<Delivery>>);

/// A worker's door on its way.
struct Delivery {
    doors: Doors,
    done: oneshot::Sender<anyhow::Result<()>>,
}

/// What each request of a worker finds: its door, once there is one.
struct Entrance {
    door: OnceCell<Door>,
    opened: Notify,
    /// Answers without a door.
    starting: Starting,
}

/// What a worker runs on.
struct Bench {
    sockets: WorkerSockets,
    acceptor: Arc<Acceptor>,
    stop: Stop,
    starting: Starting,
}

/// How long a request waits that comes while the gateway starts: most starts take less.
const MOST_STARTS: Duration = Duration::from_millis(500);
/// How old the connection gauges may be.
const COUNT_EVERY: Duration = Duration::from_secs(1);

// === impl Workers ===

impl Workers {
    pub(super) fn new(acceptor: Arc<Acceptor>, stop: Stop, starting: Starting) -> Self {
        let (alive, all_gone) = mpsc::channel(1);
        Self { acceptor, stop, starting, alive: Some(alive), all_gone }
    }

    /// Workers that share everything with these but the signals by which they stop. Until they have doors they
    /// show these metrics, if any.
    pub(super) fn beside(&self, stop: Stop, metrics: Option<Arc<Metrics>>) -> (Self, Stop) {
        let starting = Starting { metrics, ..self.starting.clone() };
        (Self::new(Arc::clone(&self.acceptor), stop.clone(), starting), stop)
    }

    /// Starts one worker for each set of sockets.
    ///
    /// # Errors
    ///
    /// When a thread cannot be started.
    pub(super) async fn open(&mut self, sockets: Vec<WorkerSockets>) -> anyhow::Result<Unfurnished> {
        let mut unfurnished = Vec::with_capacity(sockets.len());
        for (number, sockets) in sockets.into_iter().enumerate() {
            let (ready, is_ready) = oneshot::channel();
            let (deliver, delivered) = oneshot::channel();
            let alive = self.alive.clone();
            let (acceptor, stop) = (Arc::clone(&self.acceptor), self.stop.clone());
            let bench = Bench { sockets, acceptor, stop, starting: self.starting.clone() };
            let work = move || {
                let _alive = alive;
                let served = run(bench, ready, delivered);
                if let Err(error) = served {
                    tracing::error!(%error, "a worker ended");
                }
            };
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(work)?;
            is_ready.await.context("a worker did not start")?;
            unfurnished.push(deliver);
        }
        Ok(Unfurnished(unfurnished))
    }

    /// Keeps the connection gauges true, until the drain begins.
    pub(super) fn count_into(&self, metrics: Arc<Metrics>, limits: Arc<Limits>, background: &Background) {
        let (acceptor, drain) = (Arc::clone(&self.acceptor), self.stop.drain.clone());
        background.spawn(async move {
            let mut tick = tokio::time::interval(COUNT_EVERY);
            while drain.run_until_cancelled(tick.tick()).await.is_some() {
                let connected = acceptor.connected();
                let open = connected.open.load(Ordering::Relaxed);
                metrics.connections.set(i64::try_from(open).unwrap_or(i64::MAX));
                raise(&metrics.connections_refused, connected.refused_address.load(Ordering::Relaxed));
                raise(&metrics.connections_evicted, connected.evicted.load(Ordering::Relaxed));
                raise(&metrics.connections_stalled, connected.stalled.load(Ordering::Relaxed));
                metrics.body_memory.set(i64::try_from(limits.body_bytes()).unwrap_or(i64::MAX));
            }
        });
    }

    /// Waits until every worker is gone. May be called again.
    pub(super) async fn closed(&mut self) {
        self.alive = None;
        while self.all_gone.recv().await.is_some() {}
    }
}

/// Shows in a counter what another has counted.
fn raise(shown: &Counter<u64, AtomicU64>, counted: u64) {
    shown.inc_by(counted.saturating_sub(shown.get()));
}

// === impl Unfurnished ===

impl Unfurnished {
    /// Makes a door for each worker, on the worker's own thread.
    ///
    /// # Errors
    ///
    /// When a door cannot be made.
    pub(super) async fn furnish(self, doors: Doors) -> anyhow::Result<()> {
        for worker in self.0 {
            let (done, is_done) = oneshot::channel();
            let sent = worker.send(Delivery { doors: Arc::clone(&doors), done });
            sent.map_err(|_| anyhow::anyhow!("a worker ended"))?;
            is_done.await.context("a worker ended")??;
        }
        Ok(())
    }
}

/// A worker's life, on its own thread.
fn run(bench: Bench, ready: oneshot::Sender<()>, delivered: oneshot::Receiver<Delivery>) -> io::Result<()> {
    let Bench { sockets, acceptor, stop, starting } = bench;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let entrance = Rc::new(Entrance { door: OnceCell::new(), opened: Notify::new(), starting });
        // From here on the kernel queues clients for this worker.
        let _ = ready.send(());
        let answering = Rc::clone(&entrance);
        let service = move |conn: Rc<listen::Conn>, req| {
            let entrance = Rc::clone(&answering);
            async move {
                let Entrance { door, opened, starting } = &*entrance;
                if door.get().is_none() && starting.is_worth_a_wait(&req) {
                    let _ = timeout(MOST_STARTS, opened.notified()).await;
                }
                match door.get() {
                    Some(door) => door.answer(conn, req).await,
                    None => starting.answer(&req).await.map(Either::Right),
                }
            }
        };
        let furnishing = async {
            let Ok(Delivery { doors, done }) = delivered.await else { return };
            let made = doors().map(|made| drop(entrance.door.set(made)));
            entrance.opened.notify_waiters();
            let _ = done.send(made);
        };
        let (served, ()) = tokio::join!(listen::serve(sockets, acceptor, service, stop), furnishing);
        if let Some(door) = entrance.door.get() {
            door.finish().await;
        }
        served
    })
}
