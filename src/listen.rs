//! The client's side of the wire: sockets, TLS, HTTP/1.1 and HTTP/2, what one client may take in
//! time and space, and leaving without cutting anyone off.
//!
//! Each worker is one thread with a current-thread runtime and a `LocalSet`. On it, [`serve`]
//! accepts from the worker's own `SO_REUSEPORT` sockets ([`bind`]); a connection lives and dies
//! there. What all workers share, the caps, the counters and the certificate, is one [`Acceptor`].
//!
//! hyper speaks HTTP. What it leaves to its user is added here: caps ([`caps`]), write stalls and
//! lingering close ([`wire`]), idle connections and slow heads ([`watch`]), the client's address
//! behind proxies ([`ClientIps`]), certificates that change ([`TlsWatch`]). The reader of a request's body
//! wraps it in [`Paced`], which ends one that comes too slowly, and in [`Lingering`], which lets a client that
//! still sends hear an early refusal.

mod caps;
mod client_ip;
mod leftover;
mod malformed;
mod pace;
mod protocol;
mod reply;
mod sockets;
mod tls;
mod unpushed;
mod watch;
mod window;
mod wire;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Connections;

pub use caps::{Admission, Connected, NoPlace};
pub use client_ip::{ClientIp, ClientIps, FromTrustedProxy, UnreadableAddress};
pub use leftover::{Lingering, RequestBody, Rest, on_worker};
pub use pace::{Paced, PacedError};
pub use sockets::{WorkerSockets, bind};
pub use tls::{EXPIRES_SOON_DAYS, TlsError, TlsKeys, TlsWatch, Validity, inspect as inspect_tls};

use caps::Caps;
use protocol::Connection;
use watch::LAST_CALL;

/// Most connections taken from the kernel's queue as its socket closes: of a socket's backlog, and some
/// that arrive meanwhile.
const LAST_ACCEPTS: usize = 2048;
/// How long accepting pauses after the kernel had no descriptor or memory for another connection, or this
/// server no place.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a request is told of the connection it came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conn {
    /// The other end of the socket: the client, or a proxy before us.
    pub peer: SocketAddr,
    /// Our end of the socket.
    pub local: SocketAddr,
    /// Whether the client speaks TLS with us.
    pub tls: bool,
}

/// What the workers of one set of addresses share.
#[derive(Debug)]
pub struct Acceptor {
    limits: Connections,
    tls: Option<Arc<TlsKeys>>,
    proxies: Arc<ClientIps>,
    caps: Caps,
    connected: Connected,
}

/// The signals by which a server ends, in this order. Clones are the same signals.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Go on accepting and answering, but ask HTTP/1.1 clients to come back on another connection.
    pub leaving: CancellationToken,
    /// Accept nothing new; let every running exchange come to its end.
    pub drain: CancellationToken,
    /// Drop what is still running.
    pub hard: CancellationToken,
}

// === impl Stop ===

impl Stop {
    /// Signals that come with these ones, for a worker of its own.
    fn child(&self) -> Self {
        let Self { leaving, drain, hard } = self;
        Self { leaving: leaving.child_token(), drain: drain.child_token(), hard: hard.child_token() }
    }

    /// Whether clients should use another connection for their next request.
    fn is_leaving(&self) -> bool {
        self.leaving.is_cancelled() || self.drain.is_cancelled()
    }

    /// Runs a step of a connection that carries no request yet. Once the drain has begun it may go on for
    /// [`LAST_CALL`], since a request probably follows; `None` when it is given up.
    async fn last_call<F: Future>(&self, step: F) -> Option<F::Output> {
        let over = async {
            self.drain.cancelled().await;
            let _ = timeout(LAST_CALL, self.hard.cancelled()).await;
        };
        tokio::select! { biased; done = step => Some(done), () = over => None }
    }
}

// === impl Acceptor ===

impl Acceptor {
    /// `proxies` are not held to the cap per address: behind one, all clients share its address.
    #[must_use]
    pub fn new(limits: Connections, tls: Option<Arc<TlsKeys>>, proxies: Arc<ClientIps>) -> Self {
        let caps = Caps::new(limits.max, limits.max_per_address);
        Self { limits, tls, proxies, caps, connected: Connected::default() }
    }

    /// What came and was turned away, for the metrics to read.
    #[must_use]
    pub fn connected(&self) -> &Connected {
        &self.connected
    }
}

/// Accepts from `sockets` and answers every request with `service`, until `stop`.
///
/// Must run on a current-thread runtime inside a `LocalSet`. Each request is given to `service` with
/// the connection it came over; the future, or the response's body, is dropped when the client
/// leaves. After `stop.leaving` every HTTP/1.1 answer says `Connection: close`. After `stop.drain` the
/// connections that the kernel has queued are the last ones accepted, HTTP/2 clients are sent GOAWAY, and
/// running exchanges finish; a request that is on its way is one of them (see `LAST_CALL`). After
/// `stop.hard` all of these are dropped too. Returns when every connection is gone (an upgraded one counts
/// as gone: it is the service's).
///
/// # Errors
/// When a socket cannot be given to the runtime.
pub async fn serve<S, F, B>(
    sockets: WorkerSockets,
    acceptor: Arc<Acceptor>,
    service: S,
    stop: Stop,
) -> io::Result<()>
where
    S: Fn(Rc<Conn>, Request<Incoming>) -> F + 'static,
    F: Future<Output = Response<B>> + 'static,
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let worker = Worker {
        acceptor,
        service: Rc::new(service),
        // Children, so that connections of different workers never meet at one lock.
        stop: stop.child(),
        tasks: TaskTracker::new(),
    };
    let listeners =
        sockets.into_listeners().map(TcpListener::from_std).collect::<io::Result<Vec<TcpListener>>>()?;
    join_all(listeners.into_iter().map(|listener| worker.accept_all(listener))).await;
    worker.stop.drain.cancel();
    worker.tasks.close();
    worker.tasks.wait().await;
    Ok(())
}

/// One thread's view of the server.
struct Worker<S> {
    acceptor: Arc<Acceptor>,
    service: Rc<S>,
    stop: Stop,
    tasks: TaskTracker,
}

// === impl Worker ===

impl<S> Worker<S> {
    /// Accepts until one of the signals; the socket closes on return.
    async fn accept_all<F, B>(&self, listener: TcpListener)
    where
        S: Fn(Rc<Conn>, Request<Incoming>) -> F + 'static,
        F: Future<Output = Response<B>> + 'static,
        B: Body<Data = Bytes> + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut starved = false;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.drain.cancelled() => return self.accept_queued(listener),
                () = self.stop.hard.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    starved = false;
                    if let Some(admission) = self.admitted(peer).await {
                        self.welcome(stream, peer, admission);
                    }
                }
                // The client left before it was met.
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.acceptor.connected.accept_errors.fetch_add(1, Ordering::Relaxed);
                    if !starved {
                        tracing::error!(%error, "cannot accept connections; trying again every 100 ms");
                    }
                    starved = true;
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// A place for a new connection; none when its address has all it may, or the server stops. While all
    /// places are taken by connections in use nothing else is accepted here: clients wait in the kernel's queue.
    async fn admitted(&self, peer: SocketAddr) -> Option<Admission> {
        let mut paused = false;
        loop {
            match Admission::ask(&self.acceptor, peer.ip()) {
                Ok(admission) => return Some(admission),
                Err(NoPlace::Address) => return None,
                Err(NoPlace::Full) if !paused => {
                    paused = true;
                    self.acceptor.connected.paused_full.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(
                        max = self.acceptor.limits.max,
                        "all connections are in use; accepting pauses"
                    );
                }
                Err(NoPlace::Full) => {}
            }
            self.stop.drain.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await?;
        }
    }

    /// Accepts what the kernel has queued and closes the socket: it would reset the rest.
    fn accept_queued<F, B>(&self, listener: TcpListener)
    where
        S: Fn(Rc<Conn>, Request<Incoming>) -> F + 'static,
        F: Future<Output = Response<B>> + 'static,
        B: Body<Data = Bytes> + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        // Asked directly: the runtime learns of a new connection only at its next turn.
        let Ok(listener) = listener.into_std() else { return };
        for _ in 0..LAST_ACCEPTS {
            match listener.accept() {
                Ok((stream, peer)) => {
                    let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                    if let (Ok(stream), Ok(admission)) = (stream, Admission::ask(&self.acceptor, peer.ip())) {
                        self.welcome(stream, peer, admission);
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(_) => return,
            }
        }
    }

    /// Gives a new connection its task.
    fn welcome<F, B>(&self, stream: TcpStream, peer: SocketAddr, admission: Admission)
    where
        S: Fn(Rc<Conn>, Request<Incoming>) -> F + 'static,
        F: Future<Output = Response<B>> + 'static,
        B: Body<Data = Bytes> + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        // These fail only on a socket that is already dead; its first read will tell.
        let _ = stream.set_nodelay(true);
        sockets::bound_unsent(&stream);
        let Ok(local) = stream.local_addr() else { return };
        let tls = self.acceptor.tls.as_ref().map(|keys| TlsAcceptor::from(keys.server_config()));
        let connection = Connection {
            conn: Rc::new(Conn { peer, local, tls: tls.is_some() }),
            admission,
            service: Rc::clone(&self.service),
            stop: self.stop.clone(),
            tasks: self.tasks.clone(),
        };
        drop(self.tasks.spawn_local(async move {
            match tls {
                Some(tls) => connection.serve_tls(tls, stream).await,
                None => connection.serve_plain(stream).await,
            }
        }));
    }
}

/// Whether accepting failed because of the connection at hand, so that the next may well succeed.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::{JoinHandle, LocalSet, yield_now};
    use tokio::time::timeout;

    use super::protocol::testing::{Stage, limits};
    use super::{Acceptor, ClientIps, Stop, bind, serve};
    use crate::config::Connections;

    /// Long enough that only a hang meets it.
    const PATIENCE: Duration = Duration::from_secs(20);

    struct Server {
        address: SocketAddr,
        acceptor: Arc<Acceptor>,
        stage: Stage,
        stop: Stop,
        ended: JoinHandle<()>,
    }

    impl Server {
        /// Two "workers", to be called inside a `LocalSet`.
        fn start(limits: Connections) -> Self {
            let acceptor = Arc::new(Acceptor::new(limits, None, Arc::new(ClientIps::default())));
            let (stage, stop) = (Stage::default(), Stop::default());
            let sets = bind(&["127.0.0.1:0".parse().unwrap()], 2).unwrap();
            let address = sets[0].addresses()[0];
            let workers: Vec<_> = sets
                .into_iter()
                .map(|set| serve(set, Arc::clone(&acceptor), stage.service(), stop.clone()))
                .collect();
            let ended = tokio::task::spawn_local(async move {
                for worker in futures_util::future::join_all(workers).await {
                    worker.unwrap();
                }
            });
            Self { address, acceptor, stage, stop, ended }
        }

        async fn send(&self, text: &str) -> TcpStream {
            let mut client = TcpStream::connect(self.address).await.unwrap();
            client.write_all(text.as_bytes()).await.unwrap();
            client
        }

        async fn has_inside(&self, count: u32) {
            while self.stage.inside.get() != count {
                yield_now().await;
            }
        }
    }

    async fn read_all(mut client: TcpStream) -> String {
        let mut got = Vec::new();
        timeout(PATIENCE, client.read_to_end(&mut got)).await.unwrap().unwrap();
        String::from_utf8(got).unwrap()
    }

    const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    const WAIT: &str = "GET /wait HTTP/1.1\r\nhost: x\r\n\r\n";

    #[tokio::test]
    async fn requests_over_tcp_are_answered_on_every_worker() {
        let story = async {
            let server = Server::start(limits());
            for _ in 0..20 {
                assert!(read_all(server.send(GET).await).await.ends_with("hello"));
            }
            assert_eq!(server.acceptor.connected().accepted.load(Ordering::Relaxed), 20);
        };
        LocalSet::new().run_until(story).await;
    }

    #[tokio::test]
    async fn beyond_the_cap_of_its_address_a_client_is_closed_on_at_once() {
        let story = async {
            let server = Server::start(Connections { max_per_address: 2, ..limits() });
            let first = server.send(WAIT).await;
            let _second = server.send(WAIT).await;
            server.has_inside(2).await;
            let mut third = TcpStream::connect(server.address).await.unwrap();
            assert_eq!(timeout(PATIENCE, third.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
            assert_eq!(server.acceptor.connected().refused_address.load(Ordering::Relaxed), 1);
            drop(first);
            server.has_inside(1).await;
            while server.acceptor.connected().open.load(Ordering::Relaxed) > 1 {
                yield_now().await;
            }
            assert!(read_all(server.send(GET).await).await.ends_with("hello"));
        };
        LocalSet::new().run_until(story).await;
    }

    #[tokio::test]
    async fn idle_connections_make_room_and_used_ones_are_waited_for() {
        let story = async {
            let server = Server::start(Connections { max: 3, max_per_address: 3, ..limits() });
            let opened = async |count| {
                while server.acceptor.connected().open.load(Ordering::Relaxed) != count {
                    yield_now().await;
                }
            };
            let _used = server.send(WAIT).await;
            server.has_inside(1).await;
            let silent = TcpStream::connect(server.address).await.unwrap();
            opened(2).await;
            let mut unused = server.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
            let mut got = Vec::new();
            while !got.ends_with(b"hello") {
                unused.read_buf(&mut got).await.unwrap();
            }
            let second = server.send(WAIT).await;
            server.has_inside(2).await;
            assert_eq!((read_all(silent).await, read_all(unused).await), (String::new(), String::new()));
            let third = server.send(WAIT).await;
            server.has_inside(3).await;

            let waiting = server.send(GET).await;
            while server.acceptor.connected().paused_full.load(Ordering::Relaxed) == 0 {
                yield_now().await;
            }
            drop(second);
            assert!(read_all(waiting).await.ends_with("hello"));
            drop(third);
        };
        LocalSet::new().run_until(story).await;
    }

    #[tokio::test]
    async fn draining_finishes_what_runs_and_refuses_what_is_new() {
        let story = async {
            let server = Server::start(limits());
            let running = server.send(WAIT).await;
            server.has_inside(1).await;
            let mut idle = server.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
            let mut got = Vec::new();
            while !got.ends_with(b"hello") {
                idle.read_buf(&mut got).await.unwrap();
            }
            server.stop.drain.cancel();
            assert_eq!(read_all(idle).await, "");
            assert!(TcpStream::connect(server.address).await.is_err());
            assert!(!server.ended.is_finished());
            server.stage.go.notify_one();
            let answer = read_all(running).await;
            assert!(answer.ends_with("hello") && answer.contains("connection: close"), "{answer}");
            timeout(PATIENCE, server.ended).await.unwrap().unwrap();
        };
        LocalSet::new().run_until(story).await;
    }

    #[tokio::test]
    async fn a_hard_stop_drops_what_still_runs() {
        let story = async {
            let server = Server::start(limits());
            let _running = server.send(WAIT).await;
            server.has_inside(1).await;
            server.stop.drain.cancel();
            yield_now().await;
            assert_eq!(server.stage.inside.get(), 1);
            server.stop.hard.cancel();
            timeout(PATIENCE, server.ended).await.unwrap().unwrap();
            assert_eq!(server.stage.inside.get(), 0);
            assert_eq!(server.acceptor.connected().open.load(Ordering::Relaxed), 0);
        };
        LocalSet::new().run_until(story).await;
    }

    #[tokio::test]
    async fn an_early_answer_reaches_a_client_that_sends_all_before_it_reads() {
        let story = async {
            let server = Server::start(limits());
            let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 20000000\r\n\r\n";
            let mut client = server.send(head).await;
            timeout(PATIENCE, client.write_all(&vec![b'x'; 20_000_000])).await.unwrap().unwrap();
            assert!(read_all(client).await.starts_with("HTTP/1.1 200 "));

            let big = format!("GET / HTTP/1.1\r\nhost: x\r\nx-big: {}\r\n\r\n", "a".repeat(400_000));
            assert!(read_all(server.send(&big).await).await.starts_with("HTTP/1.1 431 "));
        };
        LocalSet::new().run_until(story).await;
    }
}
