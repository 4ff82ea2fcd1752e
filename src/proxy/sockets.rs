//! Sockets to upstreams, of which there are only so many: a request waits for one rather than fail.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use super::upstream::{ConnectError, Lent};

/// How long to wait after the kernel had no descriptor, before another try.
const PAUSE: Duration = Duration::from_millis(100);
/// Names that a worker resolves at a time: each takes descriptors of its own for a moment.
const LOOKUPS: usize = 2;
/// How long the addresses of a name are used without asking again: connections that are opened together
/// share one question.
const RESOLVED_FOR: Duration = Duration::from_secs(1);

/// What a worker opens sockets with.
pub(super) struct Sockets {
    all: Arc<Semaphore>,
    lookups: Semaphore,
    /// The upstreams' names, as they were resolved last.
    resolved: RefCell<HashMap<(String, u16), Resolved>>,
    /// Permits that requests of this worker have waited for.
    waited_for: RefCell<Vec<OwnedSemaphorePermit>>,
    /// Requests whose turn it is.
    turns: Cell<usize>,
}

/// The turn of a request that has waited; over when dropped.
struct Turn<'s>(&'s Sockets);

/// Addresses of a name, and when they were found.
type Resolved = (Instant, Vec<SocketAddr>);

/// A socket, counted until it is closed.
pub(super) struct Socket {
    tcp: TcpStream,
    _permit: OwnedSemaphorePermit,
}

// === impl Sockets ===

impl Sockets {
    /// `all` are the permits of every worker.
    pub(super) fn new(all: Arc<Semaphore>) -> Rc<Self> {
        Rc::new(Self {
            all,
            lookups: Semaphore::new(LOOKUPS),
            resolved: RefCell::default(),
            waited_for: RefCell::default(),
            turns: Cell::new(0),
        })
    }

    /// Whether a request waits for a socket, so that none should be kept idle.
    pub(super) fn are_scarce(&self) -> bool {
        self.all.available_permits() == 0
    }

    /// A new connection.
    ///
    /// # Errors
    ///
    /// [`ConnectError::NoDescriptor`] at once when there is none to be had.
    pub(super) async fn connect(&self, host: &str, port: u16) -> Result<Socket, ConnectError> {
        let waited_for = self.waited_for.borrow_mut().pop();
        let permit = waited_for.or_else(|| Arc::clone(&self.all).try_acquire_owned().ok());
        let permit = permit.ok_or(ConnectError::NoDescriptor)?;
        let tcp = self.dial(host, port).await.map_err(|error| {
            if is_exhausted(&error) { ConnectError::NoDescriptor } else { ConnectError::Io(error) }
        })?;
        tcp.set_nodelay(true)?;
        Ok(Socket { tcp, _permit: permit })
    }

    async fn dial(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return TcpStream::connect((ip, port)).await;
        }
        TcpStream::connect(self.resolve(host, port).await?.as_slice()).await
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let _turn = self.lookups.acquire().await;
        let name = (host.to_owned(), port);
        let known = self.resolved.borrow().get(&name).cloned();
        if let Some((at, addresses)) = known
            && at.elapsed() < RESOLVED_FOR
        {
            return Ok(addresses);
        }
        let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
        self.resolved.borrow_mut().insert(name, (Instant::now(), addresses.clone()));
        Ok(addresses)
    }

    /// Borrows a connection with `lend`; again whenever there was no descriptor for it and one may be free now,
    /// for at most `patience`.
    ///
    /// # Errors
    ///
    /// Those of `lend`; [`ConnectError::NoDescriptor`] when the time is over.
    pub(super) async fn patiently<F>(
        &self,
        patience: Duration,
        mut lend: impl FnMut() -> F,
    ) -> Result<Lent, ConnectError>
    where
        F: Future<Output = Result<Lent, ConnectError>>,
    {
        let told = lend().await;
        if !matches!(told, Err(ConnectError::NoDescriptor)) {
            return told;
        }
        let deadline = Instant::now() + patience;
        loop {
            let turn = timeout_at(deadline, self.wait()).await.map_err(|_| ConnectError::NoDescriptor)?;
            let told = lend().await;
            drop(turn);
            if !matches!(told, Err(ConnectError::NoDescriptor)) {
                return told;
            }
        }
    }

    /// Waits in line for a permit, or a little where the kernel has no descriptor for one.
    async fn wait(&self) -> Option<Turn<'_>> {
        if !self.are_scarce() {
            sleep(PAUSE).await;
            return None;
        }
        let permit = Arc::clone(&self.all).acquire_owned().await.ok()?;
        self.waited_for.borrow_mut().push(permit);
        self.turns.set(self.turns.get() + 1);
        Some(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let turns = self.0.turns.get().saturating_sub(1);
        self.0.turns.set(turns);
        // What was not needed, because another connection became free.
        self.0.waited_for.borrow_mut().truncate(turns);
    }
}

// === impl Socket ===

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// Whether the process, or the system, has no descriptor left.
fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].map(rustix::io::Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| exhausted.contains(&code))
}
