//! Connections to upstreams: made, kept and lent by one worker, never shared with another.
//!
//! HTTP/1.1 connections wait on a stack, the warmest on top. Where TLS negotiates HTTP/2 one
//! connection carries all of a worker's requests.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::local::LocalExecutor;
use super::outgoing::Outgoing;
use super::roots;
use super::sockets::Sockets;
use crate::config;

/// One worker's connections to one upstream.
pub(super) struct Upstream {
    pub(super) config: config::Upstream,
    pub(super) sockets: Rc<Sockets>,
    tls: Option<TlsConnector>,
    /// Offers HTTP/1.1 only: a WebSocket needs a connection to itself.
    tunnel_tls: Option<TlsConnector>,
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Option<http2::SendRequest<Outgoing>>>,
    /// Whether the last connection spoke HTTP/2: then a second one is not opened while one opens.
    opening: tokio::sync::Mutex<()>,
    speaks_h2: Cell<bool>,
}

/// A connection lent to one request. Dropped before [`Lent::give_back`] it is closed: bytes of one
/// answer must never be read as the next one's.
pub(super) struct Lent {
    upstream: Rc<Upstream>,
    sender: Sender,
    /// Whether it carried a request before, so that the upstream may have closed it meanwhile.
    pub(super) used: bool,
}

enum Sender {
    Http1 { sender: Option<http1::SendRequest<Outgoing>>, driver: AbortHandle },
    Http2(http2::SendRequest<Outgoing>),
}

struct Idle {
    sender: http1::SendRequest<Outgoing>,
    driver: AbortHandle,
    since: Instant,
}

/// No connection.
#[derive(Debug, Error)]
pub(super) enum ConnectError {
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("the host is no name that TLS could verify")]
    Name,
    /// There may be one in a moment.
    #[error("no descriptor for a socket")]
    NoDescriptor,
}

/// What became of a request that was sent.
pub(super) enum SendError {
    /// The connection was gone before a byte of it was written; here it is again.
    NotSent(Box<Request<Outgoing>>),
    /// It may have arrived.
    Sent(hyper::Error),
}

/// A waiting connection is ready at once, unless its last answer overtook its request.
const READY: Duration = Duration::from_millis(50);

// === impl Upstream ===

impl Upstream {
    /// # Errors
    /// When the CA bundle cannot be used.
    pub(super) fn new(config: config::Upstream, sockets: Rc<Sockets>) -> anyhow::Result<Rc<Self>> {
        let secure = config.scheme == Scheme::HTTPS;
        let tls = secure.then(|| roots::client_config(config.ca_file.as_deref())).transpose()?;
        let tunnel_tls = tls.clone().map(|mut tls| {
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
            TlsConnector::from(Arc::new(tls))
        });
        Ok(Rc::new(Self {
            config,
            sockets,
            tls: tls.map(|tls| TlsConnector::from(Arc::new(tls))),
            tunnel_tls,
            idle: RefCell::default(),
            shared: RefCell::default(),
            opening: tokio::sync::Mutex::default(),
            speaks_h2: Cell::new(false),
        }))
    }

    /// A connection: the shared one, a waiting one, or a new one.
    pub(super) async fn lend(self: &Rc<Self>) -> Result<Lent, ConnectError> {
        if let Some(shared) = self.shared() {
            return Ok(self.lent(Sender::Http2(shared), true));
        }
        while let Some(Idle { mut sender, driver, since }) = self.pop() {
            let fresh = since.elapsed() < self.config.pool_idle_timeout;
            if fresh && !sender.is_closed() && matches!(timeout(READY, sender.ready()).await, Ok(Ok(()))) {
                return Ok(self.lent(Sender::Http1 { sender: Some(sender), driver }, true));
            }
            driver.abort();
        }
        self.connect().await
    }

    /// A new connection, whatever is waiting.
    pub(super) async fn connect(self: &Rc<Self>) -> Result<Lent, ConnectError> {
        // Requests that arrive together must not open a connection each where one carries all.
        let _one_at_a_time = if self.speaks_h2.get() { Some(self.opening.lock().await) } else { None };
        if let Some(shared) = self.shared() {
            return Ok(self.lent(Sender::Http2(shared), true));
        }
        self.open(self.tls.as_ref()).await
    }

    /// A connection that will become a tunnel: never one that others use.
    pub(super) async fn connect_for_tunnel(self: &Rc<Self>) -> Result<Lent, ConnectError> {
        self.open(self.tunnel_tls.as_ref()).await
    }

    async fn open(self: &Rc<Self>, tls: Option<&TlsConnector>) -> Result<Lent, ConnectError> {
        let patience = self.config.connect_timeout;
        let opened = timeout(patience, self.dial(tls)).await;
        Ok(self.lent(opened.map_err(|_| ConnectError::TimedOut(patience))??, false))
    }

    fn lent(self: &Rc<Self>, sender: Sender, used: bool) -> Lent {
        Lent { upstream: Rc::clone(self), sender, used }
    }

    fn shared(&self) -> Option<http2::SendRequest<Outgoing>> {
        let mut shared = self.shared.borrow_mut();
        if shared.as_ref().is_some_and(http2::SendRequest::is_closed) {
            *shared = None;
        }
        shared.clone()
    }

    fn pop(&self) -> Option<Idle> {
        self.idle.borrow_mut().pop()
    }

    async fn dial(&self, tls: Option<&TlsConnector>) -> Result<Sender, ConnectError> {
        let authority = &self.config.authority;
        let port = if tls.is_some() { 443 } else { 80 };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let tcp = self.sockets.connect(host, authority.port_u16().unwrap_or(port)).await?;
        let Some(tls) = tls else { return self.http1(tcp).await };
        let name = host.to_owned().try_into().map_err(|_| ConnectError::Name)?;
        let stream = tls.connect(name, tcp).await?;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if h2 { self.http2(stream).await } else { self.http1(stream).await }
    }

    async fn http1<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: T,
    ) -> Result<Sender, ConnectError> {
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = spawn_local(driver.with_upgrades()).abort_handle();
        Ok(Sender::Http1 { sender: Some(sender), driver })
    }

    async fn http2<T: AsyncRead + AsyncWrite + Unpin + 'static>(
        &self,
        stream: T,
    ) -> Result<Sender, ConnectError> {
        let (sender, driver) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .max_send_buf_size(64 * 1024)
            .handshake(TokioIo::new(stream))
            .await?;
        spawn_local(driver);
        self.speaks_h2.set(true);
        *self.shared.borrow_mut() = Some(sender.clone());
        Ok(Sender::Http2(sender))
    }
}

// === impl Lent ===

impl Lent {
    /// Whose connection it is.
    pub(super) fn config(&self) -> &config::Upstream {
        &self.upstream.config
    }

    /// Whether requests need a scheme and an authority (HTTP/2) or a `Host` (HTTP/1.1).
    pub(super) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&mut self, req: Request<Outgoing>) -> Result<Response<Incoming>, SendError> {
        let sent = match &mut self.sender {
            Sender::Http1 { sender: Some(sender), .. } => sender.try_send_request(req).await,
            Sender::Http1 { sender: None, .. } => return Err(SendError::NotSent(Box::new(req))),
            Sender::Http2(sender) => sender.try_send_request(req).await,
        };
        sent.map_err(|mut error| match error.take_message() {
            Some(req) => SendError::NotSent(Box::new(req)),
            None => SendError::Sent(error.into_error()),
        })
    }

    /// The answer was read to its end: the connection may serve another request.
    pub(super) fn give_back(mut self) {
        let Sender::Http1 { sender, driver } = &mut self.sender else { return };
        let Some(sender) = sender.take().filter(|sender| !sender.is_closed()) else { return };
        let mut idle = self.upstream.idle.borrow_mut();
        if idle.len() < self.upstream.config.pool_max_idle && !self.upstream.sockets.are_scarce() {
            idle.push(Idle { sender, driver: driver.clone(), since: Instant::now() });
        } else {
            driver.abort();
        }
    }

    /// The connection has become a tunnel: whoever holds its ends closes it.
    pub(super) fn hand_over(mut self) {
        if let Sender::Http1 { sender, .. } = &mut self.sender {
            *sender = None;
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Sender::Http1 { sender: Some(_), driver } = &self.sender {
            driver.abort();
        }
    }
}
