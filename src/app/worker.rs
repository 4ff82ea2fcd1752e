//! The threads of the data plane: one for each core, each with a runtime, sockets and a door of its
//! own.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::door::{Door, Doors};
use crate::background::Background;
use crate::limits::Limits;
use crate::listen::{self, Acceptor, Stop, WorkerSockets};
use crate::telemetry::Metrics;

/// Every worker of a gateway.
pub(super) struct Workers {
    acceptor: Arc<Acceptor>,
    stop: Stop,
    /// Each worker holds a clone of it for as long as it lives.
    alive: Option<mpsc::Sender<()>>,
    all_gone: mpsc::Receiver<()>,
}

/// How old the connection gauges may be.
const COUNT_EVERY: Duration = Duration::from_secs(1);

// === impl Workers ===

impl Workers {
    pub(super) fn new(acceptor: Arc<Acceptor>, stop: Stop) -> Self {
        let (alive, all_gone) = mpsc::channel(1);
        Self { acceptor, stop, alive: Some(alive), all_gone }
    }

    /// Starts one worker for each set of sockets.
    ///
    /// # Errors
    ///
    /// When a thread cannot be started or its door cannot be made.
    pub(super) async fn open(&mut self, sockets: Vec<WorkerSockets>, doors: Doors) -> anyhow::Result<()> {
        for (number, sockets) in sockets.into_iter().enumerate() {
            let (ready, is_ready) = oneshot::channel();
            let alive = self.alive.clone();
            let (doors, acceptor, stop) = (Arc::clone(&doors), Arc::clone(&self.acceptor), self.stop.clone());
            let work = move || {
                let _alive = alive;
                let served = run(&doors, sockets, acceptor, stop, ready);
                if let Err(error) = served {
                    tracing::error!(%error, "a worker ended");
                }
            };
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(work)?;
            is_ready.await.context("a worker did not start")??;
        }
        Ok(())
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

/// A worker's life, on its own thread.
fn run(
    doors: &Doors,
    sockets: WorkerSockets,
    acceptor: Arc<Acceptor>,
    stop: Stop,
    ready: oneshot::Sender<anyhow::Result<()>>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let door = match doors() {
            Ok(door) => Rc::new(door),
            Err(error) => {
                let _ = ready.send(Err(error));
                return Ok(());
            }
        };
        // From here on the kernel queues clients for this worker.
        let _ = ready.send(Ok(()));
        let answering = Rc::clone(&door);
        let service = move |conn: Rc<listen::Conn>, req| {
            let door: Rc<Door> = Rc::clone(&answering);
            async move { door.answer(conn, req).await }
        };
        listen::serve(sockets, acceptor, service, stop).await?;
        door.finish().await;
        Ok(())
    })
}
