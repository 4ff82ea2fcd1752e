//! Connections to upstreams: made, kept and lent by one worker, never shared with another.
//!
//! HTTP/1.1 connections wait on a stack, the warmest on top. Where TLS negotiates HTTP/2, requests
//! are lent streams of few connections ([`streams`]).

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use h2::Reason;
use http::uri::Scheme;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::outgoing::Outgoing;
use super::roots;
use super::sockets::Sockets;
use crate::config;

mod streams;

use streams::{Stream, Streams};

/// One worker's connections to one upstream.
pub(super) struct Upstream {
    pub(super) config: config::Upstream,
    pub(super) sockets: Rc<Sockets>,
    tls: Option<TlsConnector>,
    /// Offers HTTP/1.1 only: a WebSocket needs a connection to itself.
    tunnel_tls: Option<TlsConnector>,
    idle: RefCell<Vec<Idle>>,
    streams: Streams,
    spoken: Cell<Spoken>,
}

/// What the upstream spoke on the newest connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spoken {
    /// TLS will tell. Until it has, one connection is opened and not one for each request.
    Unknown,
    Http1,
    Http2,
}

/// A connection lent to one request. Dropped before [`Lent::give_back`] it is closed: bytes of one
/// answer must never be read as the next one's.
pub(super) struct Lent {
    upstream: Rc<Upstream>,
    sender: Sender,
    /// For how long the upstream says that it keeps the connection.
    kept_for: Option<Duration>,
    /// Whether it carried a request before, so that the upstream may have closed it meanwhile.
    pub(super) used: bool,
}

enum Sender {
    Http1 { sender: Option<http1::SendRequest<Outgoing>>, driver: AbortHandle },
    Http2(Stream),
}

struct Idle {
    sender: http1::SendRequest<Outgoing>,
    driver: AbortHandle,
    /// When the upstream may be about to close it.
    until: Instant,
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
    /// The upstream says that it did nothing with it (RFC 9113 §8.7).
    Unprocessed,
    /// It may have arrived.
    Sent(hyper::Error),
}

/// A waiting connection is ready at once, unless its last answer overtook its request.
const READY: Duration = Duration::from_millis(50);
/// How long before the upstream closes a waiting connection it is no longer used: a request that crosses
/// the close may have been read or not, so it could not be sent again.
const MARGIN: Duration = Duration::from_secs(1);

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
            streams: Streams::default(),
            spoken: Cell::new(if secure { Spoken::Unknown } else { Spoken::Http1 }),
        }))
    }

    /// A connection: a stream of one, a waiting one, or a new one.
    ///
    /// # Errors
    /// Where there is none within `connect_timeout`.
    pub(super) async fn lend(self: &Rc<Self>) -> Result<Lent, ConnectError> {
        if let Some(stream) = self.streams.take(false) {
            return Ok(self.lent(Sender::Http2(stream), true));
        }
        while let Some(Idle { mut sender, driver, until }) = self.pop() {
            let fresh = Instant::now() < until;
            if fresh && !sender.is_closed() && matches!(timeout(READY, sender.ready()).await, Ok(Ok(()))) {
                return Ok(self.lent(Sender::Http1 { sender: Some(sender), driver }, true));
            }
            driver.abort();
        }
        self.connect().await
    }

    /// A new connection whatever is waiting, or a stream as soon as one is free.
    ///
    /// # Errors
    /// Where there is neither within `connect_timeout`.
    pub(super) async fn connect(self: &Rc<Self>) -> Result<Lent, ConnectError> {
        let patience = self.config.connect_timeout;
        timeout(patience, self.connected()).await.map_err(|_| ConnectError::TimedOut(patience))?
    }

    async fn connected(self: &Rc<Self>) -> Result<Lent, ConnectError> {
        let _waiting = self.streams.wait();
        loop {
            let changed = self.streams.changed();
            if let Some(stream) = self.streams.take(false) {
                return Ok(self.lent(Sender::Http2(stream), true));
            }
            let opens = match self.spoken.get() {
                Spoken::Http1 => true,
                Spoken::Unknown => !self.streams.is_opening(),
                Spoken::Http2 => self.streams.wants_another(),
            };
            if opens {
                let _opening = self.streams.open();
                return Ok(self.lent(self.dial(self.tls.as_ref()).await?, false));
            }
            if let Some(stream) = self.streams.take(true) {
                return Ok(self.lent(Sender::Http2(stream), true));
            }
            changed.await;
        }
    }

    /// A connection that will become a tunnel: never one that others use.
    pub(super) async fn connect_for_tunnel(self: &Rc<Self>) -> Result<Lent, ConnectError> {
        let patience = self.config.connect_timeout;
        let opened = timeout(patience, self.dial(self.tunnel_tls.as_ref())).await;
        Ok(self.lent(opened.map_err(|_| ConnectError::TimedOut(patience))??, false))
    }

    fn lent(self: &Rc<Self>, sender: Sender, used: bool) -> Lent {
        Lent { upstream: Rc::clone(self), sender, kept_for: None, used }
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
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.spoken.set(Spoken::Http2);
            return self.streams.begin(stream).await.map(Sender::Http2);
        }
        self.spoken.set(Spoken::Http1);
        self.http1(stream).await
    }

    async fn http1<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: T,
    ) -> Result<Sender, ConnectError> {
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = spawn_local(driver.with_upgrades()).abort_handle();
        Ok(Sender::Http1 { sender: Some(sender), driver })
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
            Sender::Http2(stream) => stream.sender().try_send_request(req).await,
        };
        sent.map_err(|mut error| match error.take_message() {
            Some(req) => {
                self.give_up();
                SendError::NotSent(Box::new(req))
            }
            None => self.judge(error.into_error()),
        })
    }

    /// What an error says of a request that was written.
    fn judge(&self, error: hyper::Error) -> SendError {
        let Sender::Http2(stream) = &self.sender else { return SendError::Sent(error) };
        match error.source().and_then(|source| source.downcast_ref::<h2::Error>()) {
            // h2 reports GOAWAY to those streams that are above its last stream identifier.
            Some(error) if error.is_go_away() && error.is_remote() => {
                self.give_up();
                SendError::Unprocessed
            }
            Some(error) if error.is_reset() && error.is_remote() && is_refusal(error) => {
                stream.refused();
                SendError::Unprocessed
            }
            _ => SendError::Sent(error),
        }
    }

    /// The connection takes no more requests.
    fn give_up(&self) {
        if let Sender::Http2(stream) = &self.sender {
            self.upstream.streams.retire(stream);
        }
    }

    /// The upstream keeps the connection for so long once it has answered (`Keep-Alive: timeout=…`).
    pub(super) fn keep_for(&mut self, time: Duration) {
        self.kept_for = Some(time);
    }

    /// The answer was read to its end: the connection may serve another request.
    pub(super) fn give_back(mut self) {
        let upstream = Rc::clone(&self.upstream);
        let longest = upstream.config.pool_idle_timeout;
        let idle_for = self.kept_for.map_or(longest, |time| longest.min(time.saturating_sub(MARGIN)));
        let Sender::Http1 { sender, driver } = &mut self.sender else { return };
        let Some(sender) = sender.take().filter(|sender| !sender.is_closed()) else { return };
        let mut idle = upstream.idle.borrow_mut();
        let has_room = idle.len() < upstream.config.pool_max_idle && !upstream.sockets.are_scarce();
        if has_room && !idle_for.is_zero() {
            idle.push(Idle { sender, driver: driver.clone(), until: Instant::now() + idle_for });
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

fn is_refusal(error: &h2::Error) -> bool {
    error.reason() == Some(Reason::REFUSED_STREAM)
}
