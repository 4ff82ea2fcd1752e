//! How a gateway stops, in steps, and what answers meanwhile.
//!
//! 1. Readiness turns red, and for `server.shutdown_delay` everything goes on: load balancers take notice
//!    and send new requests elsewhere. HTTP/1.1 answers say `Connection: close`.
//! 2. The drain: HTTP/2 clients get GOAWAY, the listeners close, and running answers come to their end,
//!    within `server.drain_timeout`. What is left then is ended with a word.
//! 3. What is still to be written is written.
//!
//! `server.admin_listen` serves the admin's API to the end of the drain, and `/livez` and `/metrics` to the
//! very end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::door::Doors;
use super::listeners::first;
use super::worker::{Unfurnished, Workers};
use super::{App, Signals, run};
use crate::control::Reason;
use crate::listen::{Stop, WorkerSockets};
use crate::telemetry::Metrics;

/// How long load balancers have, by default, to see that the readiness is red: a check each second, of
/// which three must fail, and some time to act on it.
const DELAY_WHEN_PROBED: Duration = Duration::from_secs(5);
/// Between the last word to running answers and the end of their connections.
const LAST_WORD: Duration = Duration::from_secs(1);
/// How long the last rows may take to be written.
const LAST_ROWS: Duration = Duration::from_secs(30);

/// The time between red readiness and the drain.
pub(super) struct Delay {
    configured: Option<Duration>,
    /// Cancelled when the delay is over, or is to be over.
    over: CancellationToken,
}

/// `server.admin_listen`: a listener that outlives the others.
pub(super) struct AdminListener {
    addr: SocketAddr,
    workers: Workers,
    stop: Stop,
    /// The same sockets, so that they stay open when the workers close theirs.
    kept: Vec<WorkerSockets>,
    /// Its workers, until they have their doors.
    unfurnished: Option<Unfurnished>,
}

// === impl App ===

impl App {
    /// Serves until a signal asks to stop, then stops as [`App::shutdown`] does. A second signal ends
    /// `server.shutdown_delay`, the next one the drain; what is to be written is written all the same.
    pub async fn run_until(self, mut signals: Signals) {
        signals.next().await;
        let (delay, cut) = (self.delay.over.clone(), self.cut.clone());
        let again = async {
            loop {
                signals.next().await;
                if delay.is_cancelled() {
                    cut.cancel();
                }
                delay.cancel();
            }
        };
        tokio::select! { biased; () = self.shutdown() => {}, () = again => {} }
    }

    /// Stops: turns readiness red and waits for `server.shutdown_delay`, accepts nothing new, lets running
    /// answers end within the drain time, ends the rest with a word, writes what is to be written.
    pub async fn shutdown(mut self) {
        self.readiness.set(Reason::Stopping, true);
        self.stop.leaving.cancel();
        self.delay.pass(self.readiness.was_asked()).await;
        self.drain().await;
        let last = match &mut self.admin {
            Some(admin) => admin.answer_last(&self.metrics).await,
            None => None,
        };
        self.jobs.stop().await;
        self.undelivered.cancel();
        if timeout(LAST_ROWS, self.quota.close()).await.is_err() {
            tracing::error!("the conversations in hand could not be given back in time");
        }
        let run = self.quota.run();
        let Self { background, db, slow_reads, runtime, .. } = self;
        if timeout(LAST_ROWS, background.finish()).await.is_err() {
            tracing::error!("the last rows could not be written in time");
        }
        run::end(&db, &background, run).await;
        slow_reads.close().await;
        db.close().await;
        if let Some((mut workers, stop)) = last {
            stop.drain.cancel();
            stop.hard.cancel();
            workers.closed().await;
        }
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
        tracing::info!("the gate is closed");
    }

    /// Ends every connection of clients, and then those of the admin's API.
    async fn drain(&mut self) {
        tracing::info!(in_flight = self.metrics.in_flight.get(), "draining");
        let deadline = Instant::now() + self.drain_timeout;
        self.stop.drain.cancel();
        let mut is_drained = is_closed_by(deadline, &mut self.workers, &self.cut).await;
        if let Some(admin) = &mut self.admin {
            admin.stop.drain.cancel();
            is_drained &= is_closed_by(deadline, &mut admin.workers, &self.cut).await;
        }
        self.cut.cancel();
        if !is_drained && timeout(LAST_WORD, self.all_closed()).await.is_err() {
            self.stop.hard.cancel();
            if let Some(admin) = &self.admin {
                admin.stop.hard.cancel();
            }
            self.all_closed().await;
        }
    }

    async fn all_closed(&mut self) {
        self.workers.closed().await;
        if let Some(admin) = &mut self.admin {
            admin.workers.closed().await;
        }
    }
}

async fn is_closed_by(deadline: Instant, workers: &mut Workers, cut: &CancellationToken) -> bool {
    tokio::select! {
        closed = timeout_at(deadline, workers.closed()) => closed.is_ok(),
        () = cut.cancelled() => false,
    }
}

// === impl Delay ===

impl Delay {
    /// As configured; by default it depends on whether anything asks for the readiness.
    pub(super) fn new(configured: Option<Duration>) -> Self {
        Self { configured, over: CancellationToken::new() }
    }

    /// Waits until it is over.
    async fn pass(&self, is_probed: bool) {
        let by_default = if is_probed { DELAY_WHEN_PROBED } else { Duration::ZERO };
        let delay = self.configured.unwrap_or(by_default);
        if !delay.is_zero() {
            tracing::info!(?delay, "serving until the drain begins, with readiness red");
            self.over.run_until_cancelled(sleep(delay)).await;
        }
        self.over.cancel();
    }
}

// === impl AdminListener ===

impl AdminListener {
    /// Opens it; until it is furnished it answers as a gateway that starts.
    ///
    /// # Errors
    ///
    /// When a thread or a descriptor is wanting.
    pub(super) async fn open(
        (mut workers, stop): (Workers, Stop),
        sockets: Vec<WorkerSockets>,
    ) -> anyhow::Result<Self> {
        let addr = first(&sockets)?;
        let kept = sockets.iter().map(WorkerSockets::try_clone).collect::<Result<_, _>>();
        let kept = kept.context("server.admin_listen")?;
        let unfurnished = Some(workers.open(sockets).await?);
        Ok(Self { addr, workers, stop, kept, unfurnished })
    }

    /// Gives its workers their doors.
    ///
    /// # Errors
    ///
    /// When a door cannot be made.
    pub(super) async fn furnish(&mut self, doors: Doors) -> anyhow::Result<()> {
        let Some(unfurnished) = self.unfurnished.take() else { return Ok(()) };
        unfurnished.furnish(doors).await
    }

    /// Where it listens.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Goes on answering what orchestrators ask, now that the admin's API is closed.
    async fn answer_last(&mut self, metrics: &Arc<Metrics>) -> Option<(Workers, Stop)> {
        let (mut workers, stop) = self.workers.beside(Stop::default(), Some(Arc::clone(metrics)));
        stop.leaving.cancel();
        match workers.open(std::mem::take(&mut self.kept)).await {
            // Without doors they answer as `Starting` does.
            Ok(_) => Some((workers, stop)),
            Err(error) => {
                tracing::warn!(%error, "the admin listener closes early");
                None
            }
        }
    }
}
