//! What the two planes are made of, started from the ground up.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::run::Entered;
use super::{database, recovery, run};
use crate::background::Background;
use crate::chatlog::{self, Chatlog};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Config};
use crate::control::{self, Control, Readiness, Reason};
use crate::credential::account_digest::AccountDigests;
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
use crate::listen::ClientIps;
use crate::notify::mail::Mailer;
use crate::proxy;
use crate::quota::Quota;
use crate::secrets;
use crate::spool::{self, Spool};
use crate::store::presence::Presence;
use crate::store::runs::Run;
use crate::store::{self, Db, SlowReads};
use crate::telemetry::Metrics;
use crate::timekeeper::{self, Timekeeper};

/// What is there before the database is opened.
pub(super) struct Ground {
    pub(super) readiness: Readiness,
    pub(super) metrics: Arc<Metrics>,
    pub(super) run: RunId,
    /// The spool, what is read of it, and where what cannot become a row is kept.
    pub(super) log: (Spool, spool::Reader, PathBuf),
    /// Sockets to upstreams that may be open at a time.
    pub(super) upstream_sockets: Arc<Semaphore>,
}

/// What the floors below the planes are made of, once started.
pub(super) struct Services {
    pub(super) readiness: Readiness,
    pub(super) db: Db,
    pub(super) slow_reads: SlowReads,
    pub(super) presence: Presence,
    pub(super) run: Run,
    pub(super) directory: Directory,
    pub(super) limits: Arc<Limits>,
    pub(super) quota: Quota,
    pub(super) chatlog: Chatlog,
    pub(super) metrics: Arc<Metrics>,
    pub(super) pepper: Pepper,
    pub(super) undelivered: CancellationToken,
    pub(super) mailer: Mailer,
    pub(super) background: Background,
}

/// The secrets, once it is certain that they are the database's; those that are missing are made.
async fn own_secrets(
    db: &Db,
    mut security: config::Security,
    background: &Background,
    now: Timestamp,
) -> anyhow::Result<config::Security> {
    let db = db.clone();
    let settled = background.run(async move {
        let accept_lost = security.accept_lost;
        secrets::settle(&db, &mut security, accept_lost, now).await.map(|()| security)
    });
    Ok(settled.await??)
}

/// Whether keys without a checksum are accepted: as the operator says, else where the database holds any.
async fn accepts_v1(
    db: &Db,
    security: &config::Security,
    background: &Background,
    now: Timestamp,
) -> anyhow::Result<bool> {
    if let Some(said) = security.accept_v1_keys {
        return Ok(said);
    }
    let db = db.clone();
    Ok(background.run(async move { store::keys::holds_v1(&db, now).await }).await??)
}

// === impl Services ===

impl Services {
    /// Starts them, from the ground up.
    pub(super) async fn build(
        config: &mut Config,
        clock: &Clock,
        (background, draining): (&Background, &CancellationToken),
        ground: Ground,
    ) -> anyhow::Result<Self> {
        let Ground { readiness, metrics, run, log: (spool, reader, poison), .. } = ground;
        let (db, slow_reads) = database::open(config, background, (&readiness, &metrics), draining).await?;
        keep_time((&db, clock), &metrics, background, draining.clone()).await?;
        config.security = own_secrets(&db, config.security.clone(), background, clock.now()).await?;
        let pepper = Pepper::derive(&config.security.encryption_key);
        let directory = known_keys(config, (&db, clock), &pepper, (background, &metrics)).await?;
        let limits = Arc::new(Limits::new(&config.limits, &config.plans, clock));
        let Entered { run, quota, presence } =
            run::enter(config, clock, (&db, background), (&spool, run), &metrics).await?;
        let is_told = config.webhooks.as_ref().is_some_and(config::Webhooks::tells_of_rows);
        let (decided, alive) = oneshot::channel();
        let sources = chatlog::Sources { db: db.clone(), spool, reader, alive, poison, is_told };
        let chatlog = Chatlog::start(&config.message_log, sources, background, clock, Arc::clone(&metrics));
        let earlier = recovery::Earlier {
            db: db.clone(),
            data_dir: config.server.data_dir.clone(),
            may_be_alive: Box::new(readiness.setter(Reason::EarlierRunMayBeAlive)),
            decided,
        };
        earlier.take_over(background, &chatlog, &quota).await;
        let queue = Queue { db: db.clone(), clock: clock.clone(), metrics: Arc::clone(&metrics) };
        let undelivered = deliver(queue, config, background).await?;
        let mailer = Mailer::start(&config.mail, background, draining.clone())?;
        let background = background.clone();
        Ok(Self {
            readiness,
            db,
            slow_reads,
            presence,
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

    /// What the control plane works with.
    pub(super) fn control(&self, config: &Config, clock: &Clock, jobs: &Jobs) -> anyhow::Result<Control> {
        let security = &config.security;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Control {
            db: self.db.clone(),
            slow_reads: self.slow_reads.clone(),
            directory: self.directory.clone(),
            quota: self.quota.clone(),
            chatlog: self.chatlog.clone(),
            limits: Arc::clone(&self.limits),
            refresh_key: TicketKey::of_sessions(&security.secret_key),
            code_key: TicketKey::of_codes(&security.encryption_key),
            letters: control::Letters::new(self.mailer.clone(), self.background.clone()),
            sightings: control::Sightings::new(self.db.clone(), self.background.clone()),
            tokens: Arc::new(Tokens::new(&security.secret_key, security.access_token_ttl)),
            sealer: Arc::new(Sealer::new(&security.encryption_key)),
            pepper: Arc::new(self.pepper.clone()),
            digests: AccountDigests::derive(&security.encryption_key),
            erasures: Erasures::derive(&security.encryption_key),
            plans: config.plans.clone(),
            clock: clock.clone(),
            passwords: control::Passwords::open(security.bcrypt_rounds, cores)?,
            backoff: control::Backoff::default(),
            metrics: Arc::clone(&self.metrics),
            metrics_access: config.metrics.clone(),
            vitals: control::Vitals::new(config.server.data_dir.clone()),
            routes: config.routes.clone(),
            authz: config.authz.clone(),
            settings: control::Settings {
                allow_registration: security.allow_registration,
                registration_by_mail: security.registration_by_mail,
                refresh_token_ttl: security.refresh_token_ttl,
                require_totp: security.require_totp,
                require_verified_email: security.require_verified_email,
                docs: config.server.docs,
                rate_limit_per_minute: config.limits.rate_limit_per_minute,
            },
            scheduler_running: jobs.running(),
            schedule: jobs.schedule().clone(),
            verifying: Semaphore::new(1),
            readiness: self.readiness.clone(),
        })
    }

    /// What the jobs work with.
    pub(super) fn sources(&self, clock: &Clock) -> jobs::Sources {
        let backlog = self.chatlog.backlog().clone();
        let (db, clock, node) = (self.db.clone(), clock.clone(), self.run.node.clone());
        jobs::Sources { db, backlog, clock, node, resident: Box::new(jobs::of_this_process) }
    }

    /// What every worker works with.
    pub(super) fn shared(
        &self,
        client_ips: Arc<ClientIps>,
        sockets: Arc<Semaphore>,
        clock: Clock,
        cut: CancellationToken,
    ) -> proxy::Shared {
        proxy::Shared {
            directory: self.directory.clone(),
            client_ips,
            limits: Arc::clone(&self.limits),
            quota: self.quota.clone(),
            chatlog: self.chatlog.clone(),
            metrics: Arc::clone(&self.metrics),
            sockets,
            clock,
            cut,
        }
    }
}

/// Finds out whether the clock is right, before anything goes by it, and watches it from then on.
async fn keep_time(
    (db, clock): (&Db, &Clock),
    metrics: &Arc<Metrics>,
    background: &Background,
    draining: CancellationToken,
) -> anyhow::Result<()> {
    let (db, clock, metrics) = (db.clone(), clock.clone(), Arc::clone(metrics));
    let sources = timekeeper::Sources { db, clock, metrics };
    let timekeeper = background.run(Timekeeper::begin(sources)).await??;
    background.keep("clock", timekeeper.work(draining));
    Ok(())
}

/// The keys in use, which also hears of changes that commands and other nodes make.
async fn known_keys(
    config: &Config,
    (db, clock): (&Db, &Clock),
    pepper: &Pepper,
    (background, metrics): (&Background, &Arc<Metrics>),
) -> anyhow::Result<Directory> {
    let directory = Directory::new(Sources {
        db: db.clone(),
        background: background.clone(),
        clock: clock.clone(),
        metrics: Arc::clone(metrics),
        pepper: pepper.clone(),
        plans: config.plans.clone(),
        access: config.access.clone(),
        accept_v1: accepts_v1(db, &config.security, background, clock.now()).await?,
        capacity: config.limits.max_cached_keys,
    });
    directory.follow().await?;
    Ok(directory)
}

/// Delivers webhooks until what it returns is cancelled.
async fn deliver(
    queue: Queue,
    config: &Config,
    background: &Background,
) -> anyhow::Result<CancellationToken> {
    let undelivered = CancellationToken::new();
    deliveries::start(background, queue, config.webhooks.as_ref(), undelivered.clone()).await?;
    Ok(undelivered)
}
