//! The sockets and their workers: opened before anything that may take long, furnished once the gateway is
//! complete.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::body::Body;
use http::{Request, Response};
use tokio_util::sync::CancellationToken;

use super::door::Doors;
use super::stop::AdminListener;
use super::worker::{Unfurnished, Workers};
use crate::background::Background;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::control::{self, Readiness};
use crate::ids::RequestId;
use crate::listen::{self, Acceptor, ClientIps, Stop, TlsKeys, TlsWatch};
use crate::telemetry::Metrics;

/// Open sockets. Until their doors come, workers answer by [`Starting`].
pub(super) struct Listeners {
    pub(super) workers: Workers,
    pub(super) client_ips: Arc<ClientIps>,
    pub(super) local_addr: SocketAddr,
    /// `server.admin_listen`, which answers the same way until it is furnished.
    pub(super) admin: Option<AdminListener>,
    public: Option<Unfurnished>,
}

/// Answers instead of a gateway that is not complete yet, or no longer. It holds nothing that the last rows
/// wait for.
#[derive(Clone)]
pub(super) struct Starting {
    pub(super) readiness: Readiness,
    pub(super) clock: Clock,
    /// Shown, while the gateway stops.
    pub(super) metrics: Option<Arc<Metrics>>,
}

// === impl Listeners ===

impl Listeners {
    /// Loads the certificate, binds every address and starts the workers.
    ///
    /// # Errors
    ///
    /// What is in the way, naming the configuration path at fault. Some workers may run: see [`Stop`].
    pub(super) async fn open(
        config: &Config,
        (background, metrics): (&Background, &Arc<Metrics>),
        stop: &Stop,
        starting: Starting,
    ) -> anyhow::Result<Self> {
        let server = &config.server;
        let client_ips = Arc::new(ClientIps::new(server.trusted_proxies.clone()));
        let watched = (starting.clock.clone(), Arc::clone(metrics), stop.drain.clone());
        let tls = load_tls(server, background, watched)?;
        let public = bind("server.listen", &server.listen, server.workers)?;
        let local_addr = first(&public)?;
        let admin = bind("server.admin_listen", &server.admin_listen, 1)?;
        let acceptor = Acceptor::new(server.connections.clone(), tls, Arc::clone(&client_ips));
        let mut workers = Workers::new(Arc::new(acceptor), stop.clone(), starting);
        let public = Some(workers.open(public).await?);
        let admin = if server.admin_listen.is_empty() {
            None
        } else {
            let (leaving, hard) = (stop.leaving.clone(), stop.hard.child_token());
            let own = Stop { leaving, hard, ..Stop::default() };
            Some(AdminListener::open(workers.beside(own, None), admin).await?)
        };
        Ok(Self { workers, client_ips, local_addr, admin, public })
    }

    /// Gives the workers of `server.listen` their doors; from now on they answer everything.
    ///
    /// # Errors
    ///
    /// When a door cannot be made.
    pub(super) async fn furnish(&mut self, doors: Doors) -> anyhow::Result<()> {
        let Some(unfurnished) = self.public.take() else { return Ok(()) };
        unfurnished.furnish(doors).await
    }
}

fn load_tls(
    server: &config::Server,
    background: &Background,
    (clock, metrics, shutdown): (Clock, Arc<Metrics>, CancellationToken),
) -> anyhow::Result<Option<Arc<TlsKeys>>> {
    let Some(files) = &server.tls else { return Ok(None) };
    let keys = Arc::new(TlsKeys::load(files)?);
    background.keep("certificate reload", TlsWatch::new(Arc::clone(&keys), clock, metrics).run(shutdown));
    Ok(Some(keys))
}

pub(super) fn bind(
    path: &str,
    addresses: &[SocketAddr],
    workers: usize,
) -> anyhow::Result<Vec<listen::WorkerSockets>> {
    let shown = || format!("{path}: cannot listen on {addresses:?}; is another program there?");
    listen::bind(addresses, workers).with_context(shown)
}

pub(super) fn first(sockets: &[listen::WorkerSockets]) -> anyhow::Result<SocketAddr> {
    let first = sockets.first().and_then(|sockets| sockets.addresses().first());
    first.copied().context("server.listen: no address to listen on")
}

// === impl Starting ===

impl Starting {
    /// Whether the answer may be another one a moment later: a liveness check never waits.
    pub(super) fn is_worth_a_wait<B>(&self, request: &Request<B>) -> bool {
        self.metrics.is_none() && request.uri().path() != "/livez"
    }

    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok());
        let id = id.and_then(RequestId::parse);
        let id = id.map_or_else(RequestId::generate, RequestId::chosen_by_client);
        let shown = self.metrics.as_deref().filter(|_| request.uri().path() == "/metrics");
        control::starting(request, &id, (&self.readiness, shown), self.clock.now()).await
    }
}
