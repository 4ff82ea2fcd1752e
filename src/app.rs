//! The gateway as a whole: what is started in which order, and stopped in which.
//!
//! Start: database, this run, identity and quota, the log, the control plane, then the workers with their
//! sockets; a client is met only when everything behind is ready. Stop: the reverse, in four steps:
//! nothing new is accepted; running answers come to their end; what is left after the drain time is
//! ended with a word; what is still to be written is written.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::background::Background;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::control::{self, Readiness, Reason, Surface};
use crate::ids::RunId;
use crate::jobs::Jobs;
use crate::listen::{self, Acceptor, ClientIps, Stop, TlsKeys};
use crate::quota::Quota;
use crate::store::Db;
use crate::store::runs::Run;
use crate::telemetry::Metrics;

mod descriptors;
mod door;
mod first_admin;
mod preflight;
mod recovery;
mod run;
mod services;
mod signals;
mod weaknesses;
mod worker;

use door::{Door, Hallway};
pub use preflight::{folders, preflight};
use services::Services;
pub use signals::Signals;
pub use weaknesses::weaknesses;
use worker::Workers;

/// A running gateway. Several fit in one process.
pub struct App {
    runtime: Option<Runtime>,
    readiness: Readiness,
    background: Background,
    db: Db,
    quota: Quota,
    run: RunId,
    metrics: Arc<Metrics>,
    workers: Workers,
    jobs: Jobs,
    /// Cancelled when webhooks are to be left for the next start.
    undelivered: CancellationToken,
    stop: Stop,
    /// Cancelled when running answers can be waited for no longer.
    cut: CancellationToken,
    drain_timeout: Duration,
    local_addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
}

/// Between the last word to running answers and the end of their connections.
const LAST_WORD: Duration = Duration::from_secs(1);
/// How long the last rows may take to be written.
const LAST_ROWS: Duration = Duration::from_secs(30);
/// Threads behind the data plane.
const BACKGROUND_THREADS: usize = 2;

// === impl App ===

impl App {
    /// Starts everything, and returns when clients are met.
    ///
    /// # Errors
    ///
    /// What is in the way, naming the configuration path where one is at fault. Nothing is left
    /// running.
    pub async fn start(config: Config, clock: Clock) -> anyhow::Result<Self> {
        for weakness in &config.warnings {
            tracing::warn!("{weakness}");
        }
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime =
            builder.worker_threads(BACKGROUND_THREADS).thread_name("background").enable_all().build()?;
        let background = Background::new(runtime.handle().clone());
        match Self::build(config, clock, background).await {
            Ok(app) => Ok(Self { runtime: Some(runtime), ..app }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    async fn build(mut config: Config, clock: Clock, background: Background) -> anyhow::Result<Self> {
        let upstream_sockets = Arc::new(Semaphore::new(descriptors::fit(&mut config)?));
        let (stop, cut) = (Stop::default(), CancellationToken::new());
        let services = Services::build(&config, &clock, &background, stop.drain.clone()).await?;
        let jobs = Jobs::start(&background, services.sources(&clock), &config)?;
        let control = Arc::new(services.control(&config, &clock, &jobs)?);
        let client_ips = Arc::new(ClientIps::new(config.server.trusted_proxies.clone()));
        let tls = load_tls(&config.server, &background, &stop)?;
        let acceptor = Acceptor::new(config.server.connections.clone(), tls, Arc::clone(&client_ips));
        let acceptor = Arc::new(acceptor);
        let started_at = clock.now();
        let shared = Arc::new(services.shared(Arc::clone(&client_ips), upstream_sockets, clock, cut.clone()));
        let hallway = |surface| Hallway {
            control: control::router(Arc::clone(&control), surface),
            background: background.clone(),
            client_ips: Arc::clone(&client_ips),
            pace: config.server.connections.clone(),
            limits: Arc::clone(&services.limits),
            claims_root: config.routes.iter().any(|route| route.prefix.is_empty()),
        };

        let mut workers = Workers::new(acceptor, stop.clone());
        let separate = !config.server.admin_listen.is_empty();
        let public = if separate { Surface::Public } else { Surface::Everything };
        let sockets = bind("server.listen", &config.server.listen, config.server.workers)?;
        let local_addr = first(&sockets)?;
        let admin_sockets = bind("server.admin_listen", &config.server.admin_listen, 1)?;
        let admin_addr = if separate { Some(first(&admin_sockets)?) } else { None };
        // Made and told when nothing is left that could keep the start from succeeding: what is told once
        // must not be lost.
        first_admin::ensure(&services.db, &config.security, &background, started_at).await?;
        workers.open(sockets, Door::proxying(hallway(public), config.clone(), shared)).await?;
        if separate {
            workers.open(admin_sockets, Door::controlling(hallway(Surface::Admin))).await?;
        }
        workers.count_into(Arc::clone(&services.metrics), Arc::clone(&services.limits), &background);
        tracing::info!(listen = %local_addr, "the gate is open");
        let Services { readiness, db, quota, run: Run { id: run, .. }, metrics, undelivered, .. } = services;
        let drain_timeout = config.server.drain_timeout;
        let runtime = None;
        Ok(Self {
            runtime,
            readiness,
            background,
            db,
            quota,
            run,
            metrics,
            workers,
            jobs,
            undelivered,
            stop,
            cut,
            drain_timeout,
            local_addr,
            admin_addr,
        })
    }

    /// Where clients are met: the first of `server.listen`, with the port the system chose for 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where the admin API is, if it has a listener of its own.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// The database, for commands that start a gateway.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// What `/metrics` shows.
    pub fn metrics_text(&self) -> String {
        self.metrics.text()
    }

    /// Serves until SIGTERM or SIGINT, then stops as [`App::shutdown`] does. A second signal cuts
    /// the drain short; what is to be written is written all the same.
    ///
    /// # Errors
    ///
    /// When signals cannot be listened to.
    pub async fn run_until_signal(self) -> anyhow::Result<()> {
        self.run_until(Signals::catch()?).await;
        Ok(())
    }

    /// The same with signals that were caught before, so that none is lost which came during the start.
    pub async fn run_until(self, mut signals: Signals) {
        signals.next().await;
        let cut = self.cut.clone();
        let again = async {
            signals.next().await;
            cut.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! { () = self.shutdown() => {}, () = again => {} }
    }

    /// Stops: accepts nothing new, lets running answers end within the drain time, ends the rest
    /// with a word, writes what is to be written.
    pub async fn shutdown(mut self) {
        tracing::info!(in_flight = self.metrics.in_flight.get(), "draining");
        self.readiness.set(Reason::Stopping, true);
        self.stop.drain.cancel();
        let drained = tokio::select! {
            drained = tokio::time::timeout(self.drain_timeout, self.workers.closed()) => drained.is_ok(),
            () = self.cut.cancelled() => false,
        };
        self.cut.cancel();
        if !drained && tokio::time::timeout(LAST_WORD, self.workers.closed()).await.is_err() {
            self.stop.hard.cancel();
            self.workers.closed().await;
        }
        self.jobs.stop();
        self.undelivered.cancel();
        if tokio::time::timeout(LAST_ROWS, self.quota.close()).await.is_err() {
            tracing::error!("the conversations in hand could not be given back in time");
        }
        let Self { background, db, run, runtime, .. } = self;
        if tokio::time::timeout(LAST_ROWS, background.finish()).await.is_err() {
            tracing::error!("the last rows could not be written in time");
        }
        run::end(&db, &background, run).await;
        db.close().await;
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
        tracing::info!("the gate is closed");
    }
}

fn load_tls(
    server: &config::Server,
    background: &Background,
    stop: &Stop,
) -> anyhow::Result<Option<Arc<TlsKeys>>> {
    let Some(files) = &server.tls else { return Ok(None) };
    let keys = Arc::new(TlsKeys::load(files)?);
    background.spawn(Arc::clone(&keys).watch(stop.drain.clone()));
    Ok(Some(keys))
}

fn bind(path: &str, addresses: &[SocketAddr], workers: usize) -> anyhow::Result<Vec<listen::WorkerSockets>> {
    let shown = || format!("{path}: cannot listen on {addresses:?}; is another program there?");
    listen::bind(addresses, workers).with_context(shown)
}

fn first(sockets: &[listen::WorkerSockets]) -> anyhow::Result<SocketAddr> {
    let first = sockets.first().and_then(|sockets| sockets.addresses().first());
    first.copied().context("server.listen: no address to listen on")
}
