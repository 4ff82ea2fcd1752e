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
use crate::chatlog::{self, Chatlog};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::control::{self, Control, Surface};
use crate::credential::erasure::Erasures;
use crate::credential::key::Pepper;
use crate::credential::seal::Sealer;
use crate::credential::ticket::TicketKey;
use crate::credential::token::Tokens;
use crate::identity::{Directory, Sources};
use crate::ids::RunId;
use crate::jobs::deliveries::{self, Queue};
use crate::jobs::{self, Jobs};
use crate::limits::Limits;
use crate::listen::{self, Acceptor, ClientIps, Stop, TlsKeys};
use crate::notify::mail::Mailer;
use crate::proxy;
use crate::quota::{self, Quota};
use crate::store::Db;
use crate::store::runs::Run;
use crate::telemetry::Metrics;

mod door;
mod first_admin;
mod recovery;
mod run;
mod signals;
mod worker;

use door::{Door, Hallway};
pub use signals::Signals;
use worker::Workers;

/// A running gateway. Several fit in one process.
pub struct App {
    runtime: Option<Runtime>,
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

/// What the floors below the planes are made of, once started.
struct House {
    db: Db,
    run: Run,
    directory: Directory,
    limits: Arc<Limits>,
    quota: Quota,
    chatlog: Chatlog,
    metrics: Arc<Metrics>,
    pepper: Pepper,
    undelivered: CancellationToken,
    mailer: Mailer,
    background: Background,
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

    async fn build(config: Config, clock: Clock, background: Background) -> anyhow::Result<Self> {
        for weakness in &config.warnings {
            tracing::warn!("{weakness}");
        }
        let (stop, cut) = (Stop::default(), CancellationToken::new());
        let house = House::build(&config, &clock, &background, stop.drain.clone()).await?;
        let jobs = Jobs::start(&background, house.sources(&clock), &config).await?;
        let control = Arc::new(house.control(&config, &clock, &jobs, stop.drain.clone())?);
        let client_ips = Arc::new(ClientIps::new(config.server.trusted_proxies.clone()));
        let tls = load_tls(&config.server, &background, &stop)?;
        let acceptor = Acceptor::new(config.server.connections.clone(), tls, Arc::clone(&client_ips));
        let acceptor = Arc::new(acceptor);
        let shared = Arc::new(house.shared(Arc::clone(&client_ips), clock, cut.clone()));
        let hallway = |surface| Hallway {
            control: control::router(Arc::clone(&control), surface),
            background: background.clone(),
            client_ips: Arc::clone(&client_ips),
            claims_root: config.routes.iter().any(|route| route.prefix.is_empty()),
        };

        let mut workers = Workers::new(acceptor, stop.clone());
        let separate = !config.server.admin_listen.is_empty();
        let public = if separate { Surface::Public } else { Surface::Everything };
        let sockets = bind("server.listen", &config.server.listen, config.server.workers)?;
        let local_addr = first(&sockets)?;
        let doors = Door::proxying(hallway(public), config.clone(), shared);
        workers.open(sockets, doors).await?;
        let admin_addr = if separate {
            let sockets = bind("server.admin_listen", &config.server.admin_listen, 1)?;
            let admin_addr = first(&sockets)?;
            workers.open(sockets, Door::controlling(hallway(Surface::Admin))).await?;
            Some(admin_addr)
        } else {
            None
        };
        workers.count_into(Arc::clone(&house.metrics), &background);
        tracing::info!(listen = %local_addr, "the gate is open");
        let House { db, quota, run: Run { id: run, .. }, metrics, undelivered, .. } = house;
        let drain_timeout = config.server.drain_timeout;
        let runtime = None;
        Ok(Self {
            runtime,
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
        self.jobs.stop().await;
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

// === impl House ===

impl House {
    async fn build(
        config: &Config,
        clock: &Clock,
        background: &Background,
        draining: CancellationToken,
    ) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new());
        let run = RunId::generate();
        let (spool, reader, poison) = recovery::open_spool(config, run, background, &metrics).await?;
        let database = config.database.clone();
        let db = background.run(async move { Db::connect(&database).await }).await??;
        first_admin::ensure(&db, &config.security, background, clock.now()).await?;
        let pepper = Pepper::derive(&config.security.encryption_key);
        let directory = Directory::new(Sources {
            db: db.clone(),
            background: background.clone(),
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            pepper: pepper.clone(),
            plans: config.plans.clone(),
            access: config.access.clone(),
            accept_v1: config.security.accept_v1_keys,
            capacity: config.limits.max_cached_keys,
        });
        let limits = Arc::new(Limits::new(&config.limits, &config.plans, clock));
        let run = run::new(run, &config.server.data_dir, clock.now())?;
        let earlier = run::begin(&db, background, &run).await?;
        let quota = Quota::start(quota::Sources {
            db: db.clone(),
            background: background.clone(),
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            run: run.clone(),
            earlier,
            max_lease: config.limits.max_lease.into(),
        });
        let is_told = config.webhooks.as_ref().is_some_and(config::Webhooks::tells_of_rows);
        let sources = chatlog::Sources { db: db.clone(), spool, reader, run: run.id, poison, is_told };
        let chatlog = Chatlog::start(&config.message_log, sources, background, clock, Arc::clone(&metrics));
        recovery::begin(background, &chatlog, &quota);
        let undelivered = CancellationToken::new();
        let queue = Queue { db: db.clone(), clock: clock.clone(), metrics: Arc::clone(&metrics) };
        let (webhooks, stop) = (config.webhooks.as_ref(), undelivered.clone());
        deliveries::start(background, queue, webhooks, stop).await?;
        let mailer = Mailer::start(&config.mail, background, draining)?;
        let background = background.clone();
        Ok(Self {
            db,
            run,
            directory,
            limits,
            quota,
            chatlog,
            metrics,
            pepper,
            undelivered,
            mailer,
            background,
        })
    }

    fn control(
        &self,
        config: &Config,
        clock: &Clock,
        jobs: &Jobs,
        draining: CancellationToken,
    ) -> anyhow::Result<Control> {
        let security = &config.security;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Control {
            db: self.db.clone(),
            directory: self.directory.clone(),
            quota: self.quota.clone(),
            chatlog: self.chatlog.clone(),
            limits: Arc::clone(&self.limits),
            refresh_key: TicketKey::of_sessions(&security.secret_key),
            code_key: TicketKey::of_codes(&security.encryption_key),
            letters: control::Letters::new(self.mailer.clone(), self.background.clone()),
            tokens: Arc::new(Tokens::new(&security.secret_key, security.access_token_ttl)),
            sealer: Arc::new(Sealer::new(&security.encryption_key)),
            pepper: Arc::new(self.pepper.clone()),
            erasures: Erasures::derive(&security.encryption_key),
            plans: config.plans.clone(),
            clock: clock.clone(),
            passwords: control::Passwords::open(security.bcrypt_rounds, cores)?,
            backoff: control::Backoff::default(),
            metrics: Arc::clone(&self.metrics),
            vitals: control::Vitals::new(config.server.data_dir.clone()),
            routes: config.routes.clone(),
            authz: config.authz.clone(),
            settings: control::Settings {
                allow_registration: security.allow_registration,
                refresh_token_ttl: security.refresh_token_ttl,
                require_totp: security.require_totp,
                require_verified_email: security.require_verified_email,
                docs: config.server.docs,
                rate_limit_per_minute: config.limits.rate_limit_per_minute,
            },
            scheduler_running: jobs.running(),
            schedule: jobs.schedule().clone(),
            verifying: Semaphore::new(1),
            draining,
        })
    }

    fn sources(&self, clock: &Clock) -> jobs::Sources {
        let backlog = self.chatlog.backlog().clone();
        let (db, clock, node) = (self.db.clone(), clock.clone(), self.run.node.clone());
        jobs::Sources { db, backlog, clock, node, resident: Box::new(jobs::of_this_process) }
    }

    fn shared(&self, client_ips: Arc<ClientIps>, clock: Clock, cut: CancellationToken) -> proxy::Shared {
        proxy::Shared {
            directory: self.directory.clone(),
            client_ips,
            limits: Arc::clone(&self.limits),
            quota: self.quota.clone(),
            chatlog: self.chatlog.clone(),
            metrics: Arc::clone(&self.metrics),
            clock,
            cut,
        }
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
