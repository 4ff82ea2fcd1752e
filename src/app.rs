//! The gateway as a whole: what is started in which order, and stopped in which.
//!
//! Start: the log's folder and its lock, the workers with their sockets, which answer health checks only; then
//! the database, this run, identity and quota, the log, the control plane. Then everything is answered. Stop: the reverse, in four steps:
//! nothing new is accepted; running answers come to their end; what is left after the drain time is
//! ended with a word; what is still to be written is written.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::background::Background;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{self, Readiness, Reason, Surface};
use crate::ids::RunId;
use crate::jobs::Jobs;
use crate::listen::Stop;
use crate::quota::Quota;
use crate::store::presence::Presence;
use crate::store::{Db, SlowReads};
use crate::telemetry::Metrics;

mod changes;
mod database;
mod descriptors;
mod door;
mod first_admin;
mod listeners;
mod preflight;
mod recovery;
mod run;
mod services;
mod signals;
mod stop;
mod weaknesses;
mod worker;

pub use changes::{changes, v1_keys};
use door::{Door, Hallway};
use listeners::{Listeners, Starting};
pub use preflight::{folders, preflight};
use services::{Ground, Services};
pub use signals::Signals;
use stop::{AdminListener, Delay};
pub use weaknesses::weaknesses;
use worker::Workers;

/// A running gateway. Several fit in one process.
pub struct App {
    runtime: Option<Runtime>,
    readiness: Readiness,
    background: Background,
    db: Db,
    slow_reads: SlowReads,
    quota: Quota,
    /// Held for as long as this gateway runs.
    _presence: Presence,
    metrics: Arc<Metrics>,
    workers: Workers,
    jobs: Jobs,
    /// Cancelled when webhooks are to be left for the next start.
    undelivered: CancellationToken,
    stop: Stop,
    /// Cancelled when running answers can be waited for no longer.
    cut: CancellationToken,
    delay: Delay,
    drain_timeout: Duration,
    local_addr: SocketAddr,
    admin: Option<AdminListener>,
}

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
        match Box::pin(Self::build(config, clock, background)).await {
            Ok(app) => Ok(Self { runtime: Some(runtime), ..app }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    async fn build(mut config: Config, clock: Clock, background: Background) -> anyhow::Result<Self> {
        let upstream_sockets = Arc::new(Semaphore::new(descriptors::fit(&mut config)?));
        let stop = Stop::default();
        let readiness = Readiness::default();
        readiness.set(Reason::Starting, true);
        let (failed, watched) = (readiness.setter(Reason::TaskFailed), background.clone());
        drop(background.untracked().spawn(async move {
            watched.failure().await;
            failed(true);
        }));
        let (metrics, run) = (Arc::new(Metrics::new()), RunId::generate());
        // The lock of the data folder comes before the sockets: another gateway here would share them.
        let log = recovery::open_spool(&config, run, &background, &metrics).await?;
        let starting = Starting { readiness: readiness.clone(), clock: clock.clone(), metrics: None };
        let listeners = Listeners::open(&config, (&background, &metrics), &stop, starting).await;
        let listeners = listeners.inspect_err(|_| stop.hard.cancel())?;
        tracing::info!(listen = %listeners.local_addr, "listening; health checks are answered, the database is opened");
        let ground = Ground { readiness, metrics, run, log, upstream_sockets };
        let complete = Self::complete(config, clock, background, (ground, listeners, stop.clone()));
        Box::pin(complete).await.inspect_err(|_| {
            stop.drain.cancel();
            stop.hard.cancel();
        })
    }

    /// Everything behind the sockets.
    async fn complete(
        mut config: Config,
        clock: Clock,
        background: Background,
        (ground, mut listeners, stop): (Ground, Listeners, Stop),
    ) -> anyhow::Result<Self> {
        let cut = CancellationToken::new();
        let upstream_sockets = Arc::clone(&ground.upstream_sockets);
        let services = Services::build(&mut config, &clock, (&background, &stop.drain), ground).await?;
        let jobs = Jobs::start(&background, services.sources(&clock), &config).await?;
        let control = Arc::new(services.control(&config, &clock, &jobs)?);
        let client_ips = Arc::clone(&listeners.client_ips);
        let started_at = clock.now();
        let shared = Arc::new(services.shared(Arc::clone(&client_ips), upstream_sockets, clock, cut.clone()));
        let hallway = |surface, background: &Background| Hallway {
            control: control::router(Arc::clone(&control), surface),
            background: background.clone(),
            client_ips: Arc::clone(&client_ips),
            pace: config.server.connections.clone(),
            limits: Arc::clone(&services.limits),
            claims_root: config.routes.iter().any(|route| route.prefix.is_empty()),
        };
        let public = if listeners.admin.is_some() { Surface::Public } else { Surface::Everything };
        // Made and told when nothing is left that could keep the start from succeeding: what is told once
        // must not be lost.
        first_admin::ensure(&services.db, &config.security, &background, started_at).await?;
        listeners.furnish(Door::proxying(hallway(public, &background), config.clone(), shared)).await?;
        if let Some(admin) = &mut listeners.admin {
            let doors = Door::controlling(hallway(Surface::Admin, &background));
            admin.furnish(doors).await?;
        }
        let Listeners { workers, local_addr, admin, .. } = listeners;
        workers.count_into(Arc::clone(&services.metrics), Arc::clone(&services.limits), &background);
        let Services { readiness, db, slow_reads, presence, quota, metrics, undelivered, .. } = services;
        readiness.set(Reason::Starting, false);
        tracing::info!(listen = %local_addr, "the gate is open");
        let drain_timeout = config.server.drain_timeout;
        let runtime = None;
        Ok(Self {
            runtime,
            readiness,
            background,
            db,
            slow_reads,
            quota,
            _presence: presence,
            metrics,
            workers,
            jobs,
            undelivered,
            stop,
            cut,
            delay: Delay::new(config.server.shutdown_delay),
            drain_timeout,
            local_addr,
            admin,
        })
    }

    /// Where clients are met: the first of `server.listen`, with the port the system chose for 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where the admin API is, if it has a listener of its own.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(AdminListener::addr)
    }

    /// The database, for commands that start a gateway.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// What `/metrics` shows.
    pub fn metrics_text(&self) -> String {
        self.metrics.text()
    }
}
