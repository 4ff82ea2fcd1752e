//! HTTP/2 connections of one worker to one upstream, and the streams that are open on them.
//!
//! Each connection carries at most [`MAX_STREAMS`] streams, or fewer where the peer allows fewer
//! (SETTINGS_MAX_CONCURRENT_STREAMS). Its flow-control window holds what all of them may hold
//! together, so answers that are not read cannot stop the others. When no stream is free, another
//! connection is opened, up to [`MAX_CONNECTIONS`]; beyond that a request waits for a stream.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::super::outgoing::Outgoing;
use super::super::sockets::Socket;
use super::ConnectError;

/// The open connections, and those that are being opened.
#[derive(Default)]
pub(super) struct Streams {
    connections: RefCell<Vec<Rc<Connection>>>,
    /// Connections that are being opened.
    opening: Cell<usize>,
    /// Requests that need a stream and have none, those that open a connection included.
    waiting: Cell<usize>,
    /// Streams that the newest connection had at its start: what the next one is expected to have.
    expected: Cell<usize>,
    /// Notified when a stream may have become free, or an attempt to open a connection has ended.
    changed: Rc<Notify>,
}

/// One connection.
pub(super) struct Connection {
    sender: http2::SendRequest<Outgoing>,
    peer: Rc<Peer>,
    /// Streams that are lent.
    lent: Cell<usize>,
    last_used: Cell<Instant>,
    /// When the peer last refused a stream.
    refused_at: Cell<Option<Instant>>,
}

/// A stream that is lent to one request, until it is dropped.
pub(super) struct Stream {
    connection: Rc<Connection>,
    changed: Rc<Notify>,
}

/// Counts a request or an attempt for as long as it lasts.
pub(super) struct Counted<'s> {
    count: &'s Cell<usize>,
    changed: &'s Notify,
}

/// What the peer has said of itself.
struct Peer {
    /// `None` once the connection takes no more requests.
    driver: RefCell<Option<Driver>>,
    /// SETTINGS_MAX_CONCURRENT_STREAMS as last seen; 0 until the peer's first SETTINGS.
    max_streams: Cell<usize>,
    changed: Rc<Notify>,
}

/// Runs hyper's tasks on the worker's thread and looks, after each step, whether the peer's limit changed.
#[derive(Clone)]
struct Watching(Weak<Peer>);

type Driver = http2::Connection<TokioIo<TlsStream<Socket>>, Outgoing, Watching>;

/// Most streams of one connection.
const MAX_STREAMS: usize = 100;
/// Most connections of one worker to one upstream.
const MAX_CONNECTIONS: usize = 64;
/// What one answer may hold unread, in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
/// What all answers of a connection may hold unread: each its whole window, and one more.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * 101;
const _: () = assert!(CONNECTION_WINDOW as usize > STREAM_WINDOW as usize * MAX_STREAMS);
/// A connection without a stream is not used again after this time: a middlebox may have forgotten it.
const IDLE: Duration = Duration::from_secs(55);
/// For how long a connection whose peer refused a stream is used only when there is no other.
const REST: Duration = Duration::from_secs(1);

// === impl Streams ===

impl Streams {
    /// A stream of an open connection, if one is free. A connection whose peer refused a stream a
    /// moment ago counts only with `any`.
    pub(super) fn take(&self, any: bool) -> Option<Stream> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|one| one.is_usable());
        let found = connections.iter().find(|one| one.has_room() && (any || !one.rests()))?;
        found.lent.set(found.lent.get() + 1);
        Some(Stream { connection: Rc::clone(found), changed: Rc::clone(&self.changed) })
    }

    /// Whether the connections that are being opened are too few for the requests that wait. The first
    /// one tells how many streams a connection has.
    pub(super) fn wants_another(&self) -> bool {
        let (opening, expected) = (self.opening.get(), self.expected.get());
        let all = self.connections.borrow().len() + opening;
        let are_enough = if expected == 0 { opening > 0 } else { opening * expected >= self.waiting.get() };
        all < MAX_CONNECTIONS && !are_enough
    }

    /// Whether a connection is being opened.
    pub(super) fn is_opening(&self) -> bool {
        self.opening.get() > 0
    }

    /// Counts a request that needs a stream.
    pub(super) fn wait(&self) -> Counted<'_> {
        Counted::new(&self.waiting, &self.changed)
    }

    /// Counts an attempt to open a connection.
    pub(super) fn open(&self) -> Counted<'_> {
        Counted::new(&self.opening, &self.changed)
    }

    /// Resolves when a stream may have become free; counted from this call on.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + '_ {
        self.changed.notified()
    }

    /// Begins HTTP/2 on a connection and takes its first stream, once the peer has said how many
    /// there may be.
    pub(super) async fn begin(&self, stream: TlsStream<Socket>) -> Result<Stream, ConnectError> {
        let changed = Rc::clone(&self.changed);
        let peer = Rc::new(Peer { driver: RefCell::new(None), max_streams: Cell::new(0), changed });
        let (sender, driver) = http2::Builder::new(Watching(Rc::downgrade(&peer)))
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .max_send_buf_size(64 * 1024)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(0)
            .handshake(TokioIo::new(stream))
            .await?;
        *peer.driver.borrow_mut() = Some(driver);
        spawn_local(drive(Rc::clone(&peer)));
        loop {
            let changed = self.changed.notified();
            if peer.driver.borrow().is_none() {
                return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
            }
            if peer.max_streams.get() > 0 {
                break;
            }
            changed.await;
        }
        self.expected.set(peer.max_streams.get().min(MAX_STREAMS));
        let (last_used, refused_at) = (Cell::new(Instant::now()), Cell::new(None));
        let connection = Rc::new(Connection { sender, peer, lent: Cell::new(1), last_used, refused_at });
        self.connections.borrow_mut().push(Rc::clone(&connection));
        self.changed.notify_waiters();
        Ok(Stream { connection, changed: Rc::clone(&self.changed) })
    }

    /// Lends no more streams of this one's connection; those that are open go on.
    pub(super) fn retire(&self, stream: &Stream) {
        self.connections.borrow_mut().retain(|one| !Rc::ptr_eq(one, &stream.connection));
    }
}

/// Drives the connection until it takes no more requests. Streams that are open then go on without it.
async fn drive(peer: Rc<Peer>) {
    let ended = poll_fn(|cx| match peer.driver.borrow_mut().as_mut() {
        Some(driver) => Pin::new(driver).poll(cx),
        None => Poll::Ready(Ok(())),
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(%error, "http/2 connection to upstream ended");
    }
    let driver = peer.driver.borrow_mut().take();
    drop(driver);
    peer.changed.notify_waiters();
}

// === impl Connection ===

impl Connection {
    fn is_usable(&self) -> bool {
        let is_fresh = self.lent.get() > 0 || self.last_used.get().elapsed() < IDLE;
        is_fresh && !self.sender.is_closed() && self.peer.driver.borrow().is_some()
    }

    fn has_room(&self) -> bool {
        self.lent.get() < self.peer.max_streams.get().min(MAX_STREAMS)
    }

    fn rests(&self) -> bool {
        self.refused_at.get().is_some_and(|at| at.elapsed() < REST)
    }
}

// === impl Stream ===

impl Stream {
    /// What sends the request.
    pub(super) fn sender(&self) -> http2::SendRequest<Outgoing> {
        self.connection.sender.clone()
    }

    /// Notes that the peer refused a stream.
    pub(super) fn refused(&self) {
        self.connection.refused_at.set(Some(Instant::now()));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.lent.set(connection.lent.get().saturating_sub(1));
        connection.last_used.set(Instant::now());
        self.changed.notify_waiters();
    }
}

// === impl Counted ===

impl<'s> Counted<'s> {
    fn new(count: &'s Cell<usize>, changed: &'s Notify) -> Self {
        count.set(count.get() + 1);
        Self { count, changed }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.count.set(self.count.get().saturating_sub(1));
        self.changed.notify_waiters();
    }
}

// === impl Peer ===

impl Peer {
    fn look(&self) {
        let Ok(driver) = self.driver.try_borrow() else { return };
        let Some(max) = driver.as_ref().map(Driver::current_max_send_streams) else { return };
        if self.max_streams.replace(max) != max {
            self.changed.notify_waiters();
        }
    }
}

// === impl Watching ===

impl<F: Future + 'static> Executor<F> for Watching {
    fn execute(&self, task: F) {
        let peer = Weak::clone(&self.0);
        spawn_local(async move {
            let mut task = Box::pin(task);
            poll_fn(|cx| {
                let polled = task.as_mut().poll(cx).map(drop);
                if let Some(peer) = peer.upgrade() {
                    peer.look();
                }
                polled
            })
            .await;
        });
    }
}
