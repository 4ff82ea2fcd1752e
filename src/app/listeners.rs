//! The sockets and their workers: opened before anything that may take long, furnished once the gateway is
//! complete.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::body::Body;
use http::{Request, Response};

use super::door::Doors;
use super::worker::{Unfurnished, Workers};
use crate::background::Background;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::control::{self, Readiness};
use crate::ids::RequestId;
use crate::listen::{self, Acceptor, ClientIps, Stop, TlsKeys};

/// Open sockets. Until their doors come, workers answer by [`Starting`].
pub(super) struct Listeners {
    pub(super) workers: Workers,
    pub(super) client_ips: Arc<ClientIps>,
    pub(super) local_addr: SocketAddr,
    pub(super) admin_addr: Option<SocketAddr>,
    public: Unfurnished,
    admin: Option<Unfurnished>,
}

/// Answers in the stead of a gateway that is not complete.
#[derive(Clone)]
pub(super) struct Starting {
    pub(super) readiness: Readiness,
    pub(super) clock: Clock,
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
        background: &Background,
        stop: &Stop,
        starting: Starting,
    ) -> anyhow::Result<Self> {
        let server = &config.server;
        let client_ips = Arc::new(ClientIps::new(server.trusted_proxies.clone()));
        let tls = load_tls(server, background, stop)?;
        let public = bind("server.listen", &server.listen, server.workers)?;
        let local_addr = first(&public)?;
        let admin = if server.admin_listen.is_empty() {
            None
        } else {
            Some(bind("server.admin_listen", &server.admin_listen, 1)?)
        };
        let admin_addr = admin.as_ref().map(|sockets| first(sockets)).transpose()?;
        let acceptor = Acceptor::new(server.connections.clone(), tls, Arc::clone(&client_ips));
        let mut workers = Workers::new(Arc::new(acceptor), stop.clone(), starting);
        let public = workers.open(public).await?;
        let admin = match admin {
            Some(sockets) => Some(workers.open(sockets).await?),
            None => None,
        };
        Ok(Self { workers, client_ips, local_addr, admin_addr, public, admin })
    }

    /// Gives the workers their doors; from now on everything is answered.
    ///
    /// # Errors
    ///
    /// When a door cannot be made.
    pub(super) async fn furnish(self, public: Doors, admin: Doors) -> anyhow::Result<Workers> {
        self.public.furnish(public).await?;
        if let Some(unfurnished) = self.admin {
            unfurnished.furnish(admin).await?;
        }
        Ok(self.workers)
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

pub(super) fn bind(
    path: &str,
    addresses: &[SocketAddr],
    workers: usize,
) -> anyhow::Result<Vec<listen::WorkerSockets>> {
    let shown = || format!("{path}: cannot listen on {addresses:?}; is another program there?");
    listen::bind(addresses, workers).with_context(shown)
}

fn first(sockets: &[listen::WorkerSockets]) -> anyhow::Result<SocketAddr> {
    let first = sockets.first().and_then(|sockets| sockets.addresses().first());
    first.copied().context("server.listen: no address to listen on")
}

// === impl Starting ===

impl Starting {
    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok());
        let id = id.and_then(RequestId::parse).unwrap_or_else(RequestId::generate);
        control::starting(request, &id, &self.readiness, self.clock.now()).await
    }
}
