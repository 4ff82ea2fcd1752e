//! From a fresh connection to requests: TLS, the choice of HTTP/1.1 or HTTP/2, and hyper set up with
//! every limit it has.

use std::cell::RefCell;
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::caps::Admission;
use super::malformed::malformed;
use super::reply::{Handed, Reply, unless_stalled};
use super::unpushed::Unpushed;
use super::watch::{End, Patience, Pulse, drive};
use super::wire::Wire;
use super::{Acceptor, Conn, Stop};

/// How an HTTP/2 client that knows beforehand begins (RFC 9113 §3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// hyper's buffer for one HTTP/1.1 connection, each way.
const H1_BUFFER: usize = 64 * 1024;
/// What an HTTP/2 client may send unasked on one stream.
const H2_STREAM_WINDOW: u32 = 64 * 1024;
/// What an HTTP/2 client may send unasked on all streams together.
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What waits on one stream for the client's window.
const H2_SEND_BUFFER: usize = 64 * 1024;
/// Largest head on HTTP/2, counted as RFC 9113 §6.5.2 does; larger ones are answered 431.
const H2_HEADER_LIST: u32 = 16 * 1024;
/// Streams reset by the client before we took them up (CVE-2023-44487).
const H2_PENDING_RESETS: usize = 20;
/// Streams that the client's mistakes made us reset (CVE-2025-8671).
const H2_LOCAL_RESETS: usize = 128;
/// How often an HTTP/2 client is asked whether it is there, and how long it may take to say so.
const H2_PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// What plain HTTP is told where TLS is spoken, and how much of it is read afterwards.
const PLAIN_REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 44\r\nconnection: close\r\n\r\nThis port speaks TLS: use https:// with it.\n";
const PLAIN_REST: u64 = 64 * 1024;

/// A connection that was let in.
pub(super) struct Connection<S> {
    pub(super) conn: Rc<Conn>,
    pub(super) admission: Admission,
    pub(super) service: Rc<S>,
    pub(super) stop: Stop,
    pub(super) tasks: TaskTracker,
}

/// What each request of a connection meets before the service.
struct Dispatch<S> {
    conn: Rc<Conn>,
    service: Rc<S>,
    pulse: Arc<Pulse>,
    acceptor: Arc<Acceptor>,
    stop: Rc<Stop>,
    streams: Option<Streams>,
}

/// Spawns the streams of one HTTP/2 connection on this thread.
#[derive(Clone)]
struct Streams {
    tasks: TaskTracker,
    acceptor: Arc<Acceptor>,
    /// The stream hyper is about to spawn: it calls the service for a request and then, before
    /// anything else, hands over the future that runs that stream.
    next: Rc<RefCell<Option<Rc<Handed>>>>,
}

// === impl Connection ===

impl<S, F, B> Connection<S>
where
    S: Fn(Rc<Conn>, Request<Incoming>) -> F + 'static,
    F: Future<Output = Response<B>> + 'static,
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// TLS first; ALPN says which HTTP (none means HTTP/1.1).
    pub(super) async fn serve_tls(self, tls: TlsAcceptor, stream: TcpStream) {
        let acceptor = Arc::clone(self.admission.acceptor());
        let patience = acceptor.limits.tls_handshake_timeout;
        let handshake = async {
            if speaks_plainly(&stream).await? { Ok(Err(stream)) } else { tls.accept(stream).await.map(Ok) }
        };
        let handshake = timeout(patience, handshake);
        let Some(shaken) = self.unless_over(handshake).await else { return };
        let stream = match shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(Ok(stream)) => stream,
            failed => {
                acceptor.connected.failed_handshakes.fetch_add(1, Ordering::Relaxed);
                if let Ok(Err(plain)) = failed {
                    self.unless_over(timeout(patience, refuse_plain(plain))).await;
                }
                return;
            }
        };
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let pulse = Pulse::new(Instant::now(), Arc::clone(self.admission.seat()));
        if is_h2 {
            self.serve_h2(stream, Bytes::new(), pulse).await;
        } else {
            self.serve_h1(stream, Bytes::new(), pulse).await;
        }
    }

    /// No TLS: the first bytes say which HTTP.
    pub(super) async fn serve_plain<T>(self, mut stream: T)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let acceptor = Arc::clone(self.admission.acceptor());
        let pulse = Pulse::new(Instant::now(), Arc::clone(self.admission.seat()));
        let first = timeout(acceptor.limits.head_timeout, first_bytes(&mut stream));
        let Some(read) = self.unless_over(first).await else { return };
        let Ok(first) = read else {
            acceptor.connected.slow_heads.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if first.starts_with(H2_PREFACE) {
            self.serve_h2(stream, first, pulse).await;
        } else if !first.is_empty() {
            self.serve_h1(stream, first, pulse).await;
        }
    }

    /// `None` when the server stops, or this connection has to make room.
    async fn unless_over<T>(&self, begin: impl Future<Output = T>) -> Option<T> {
        let begin = self.stop.last_call(begin);
        self.admission.seat().evicted.run_until_cancelled(begin).await.flatten()
    }

    async fn serve_h1<T>(self, io: T, first: Bytes, pulse: Arc<Pulse>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let acceptor = Arc::clone(self.admission.acceptor());
        let limits = &acceptor.limits;
        let wire = Wire::new(io, first, Arc::clone(&pulse), self.admission);
        let dispatch = Dispatch {
            conn: self.conn,
            service: self.service,
            pulse: Arc::clone(&pulse),
            acceptor: Arc::clone(&acceptor),
            stop: Rc::new(self.stop.clone()),
            streams: None,
        };
        let conn = http1::Builder::new()
            .max_headers(limits.max_headers)
            .max_header_size(limits.max_head_size)
            .max_buf_size(H1_BUFFER.max(limits.max_head_size))
            // hyper's clock does not tell an idle connection from a slow head: `drive` does.
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(wire), service_fn(move |request| dispatch.answer(request)))
            .with_upgrades();
        let close = |conn: Pin<&mut _>| http1::UpgradeableConnection::graceful_shutdown(conn);
        let end = Box::pin(drive(conn, close, &pulse, Patience::http1(limits), &self.stop)).await;
        if end == End::SlowHead {
            acceptor.connected.slow_heads.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn serve_h2<T>(self, io: T, first: Bytes, pulse: Arc<Pulse>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let acceptor = Arc::clone(self.admission.acceptor());
        let limits = &acceptor.limits;
        let preface = H2_PREFACE.len().saturating_sub(first.len());
        let wire = Wire::new(Unpushed::new(io, preface), first, Arc::clone(&pulse), self.admission);
        let streams =
            Streams { tasks: self.tasks, acceptor: Arc::clone(&acceptor), next: Rc::new(RefCell::new(None)) };
        let dispatch = Dispatch {
            conn: self.conn,
            service: self.service,
            pulse: Arc::clone(&pulse),
            acceptor: Arc::clone(&acceptor),
            stop: Rc::new(self.stop.clone()),
            streams: Some(streams.clone()),
        };
        let conn = http2::Builder::new(streams)
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.h2_max_streams)
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_send_buf_size(H2_SEND_BUFFER)
            .max_header_list_size(H2_HEADER_LIST)
            .max_pending_accept_reset_streams(H2_PENDING_RESETS)
            .max_local_error_reset_streams(H2_LOCAL_RESETS)
            .keep_alive_interval(H2_PING.0)
            .keep_alive_timeout(H2_PING.1)
            .serve_connection(TokioIo::new(wire), service_fn(move |request| dispatch.answer(request)));
        let close = |conn: Pin<&mut _>| http2::Connection::graceful_shutdown(conn);
        Box::pin(drive(conn, close, &pulse, Patience::http2(limits), &self.stop)).await;
    }
}

// === impl Dispatch ===

impl<S> Dispatch<S> {
    fn answer<F, B>(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Reply<B>>, Infallible>> + use<S, F, B>
    where
        S: Fn(Rc<Conn>, Request<Incoming>) -> F,
        F: Future<Output = Response<B>>,
    {
        let running = self.pulse.begin();
        let handed = self.streams.as_ref().map(Streams::announce);
        let version = request.version();
        let stop = Rc::clone(&self.stop);
        let answer = match self.unfit(&request) {
            Some(status) => Err(status),
            None => Ok((self.service)(Rc::clone(&self.conn), request)),
        };
        let is_refused = answer.is_err();
        async move {
            let mut answer = match answer {
                Ok(answer) => answer.await.map(|body| Reply::new(Some(body), running, handed)),
                Err(status) => refusal(status, Reply::new(None, running, handed)),
            };
            if version <= Version::HTTP_11 && (is_refused || may_close(&answer) && stop.is_leaving()) {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answer)
        }
    }

    /// The rules and limits for heads that hyper has no setting for, or not in both protocols.
    fn unfit(&self, request: &Request<Incoming>) -> Option<StatusCode> {
        if let Some(status) = malformed(request) {
            return Some(status);
        }
        let limits = &self.acceptor.limits;
        let uri = request.uri();
        let target = uri.path_and_query().map_or(0, |target| target.as_str().len())
            + uri.authority().map_or(0, |authority| authority.as_str().len());
        if target > limits.max_uri_length {
            return Some(StatusCode::URI_TOO_LONG);
        }
        (request.headers().len() > limits.max_headers).then_some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    }
}

/// Bare, like the answers hyper itself gives to heads it cannot take: no dialect is known yet.
fn refusal<B>(status: StatusCode, reply: Reply<B>) -> Response<Reply<B>> {
    let mut response = Response::new(reply);
    *response.status_mut() = status;
    response
}

/// Not after an answer by which the connection becomes another protocol's.
fn may_close<B>(answer: &Response<B>) -> bool {
    answer.status() != StatusCode::SWITCHING_PROTOCOLS
}

// === impl Streams ===

impl Streams {
    /// Notes that hyper will spawn a stream next, and makes what both of them look at.
    fn announce(&self) -> Rc<Handed> {
        let handed = Rc::new(Handed::default());
        self.next.replace(Some(Rc::clone(&handed)));
        handed
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Streams {
    fn execute(&self, future: F) {
        let Some(handed) = self.next.take() else {
            drop(self.tasks.spawn_local(future));
            return;
        };
        let acceptor = Arc::clone(&self.acceptor);
        drop(self.tasks.spawn_local(async move {
            if unless_stalled(future, handed, &acceptor.limits).await {
                acceptor.connected.stalled.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
}

/// Whether a client begins with a method's name where a TLS record (RFC 8446 §5.1) is expected.
async fn speaks_plainly(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    Ok(stream.peek(&mut first).await? == 1 && first.iter().all(u8::is_ascii_alphabetic))
}

/// Answers plain HTTP on a TLS port with HTTP: a TLS alert would read as HTTP/0.9.
async fn refuse_plain(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(PLAIN_REFUSAL).await?;
    stream.shutdown().await?;
    // What was sent is read, for a while, so that the answer is not lost to a reset.
    let mut rest = tokio::io::sink();
    tokio::io::copy(&mut stream.take(PLAIN_REST), &mut rest).await?;
    Ok(())
}

/// Reads until it is certain whether the client begins with HTTP/2's preface. Empty when the client
/// left without a byte.
async fn first_bytes<T: AsyncRead + Unpin>(stream: &mut T) -> Bytes {
    let mut first = BytesMut::with_capacity(H2_PREFACE.len());
    while first.len() < H2_PREFACE.len() && H2_PREFACE.starts_with(&first) {
        let room = H2_PREFACE.len() - first.len();
        match (&mut *stream).take(room as u64).read_buf(&mut first).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
    first.freeze()
}

#[cfg(test)]
pub(super) mod testing;

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use bytes::Bytes;
    use http::Request;
    use http_body_util::{BodyExt, Empty};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::{JoinHandle, LocalSet};
    use tokio::time::{Instant, sleep, timeout};
    use tokio_util::task::TaskTracker;

    use super::testing::{Local, Stage, limits};
    use super::{Admission, Connection};
    use crate::listen::{Acceptor, ClientIps, Conn, Stop};

    /// A server with one client, and the paused clock's start.
    struct Scene {
        acceptor: Arc<Acceptor>,
        client: DuplexStream,
        stage: Stage,
        stop: Stop,
        start: Instant,
    }

    impl Scene {
        /// To be called inside a `LocalSet`. `buffer` is what the "kernel" holds each way.
        fn open(buffer: usize) -> Self {
            let acceptor = Arc::new(Acceptor::new(limits(), None, Arc::new(ClientIps::default())));
            let (client, server) = duplex(buffer);
            let (stage, stop) = (Stage::default(), Stop::default());
            let address = "192.0.2.1:4711".parse().unwrap();
            let connection = Connection {
                conn: Rc::new(Conn { peer: address, local: address, tls: false }),
                admission: Admission::ask(&acceptor, address.ip()).unwrap(),
                service: Rc::new(stage.service()),
                stop: stop.clone(),
                tasks: TaskTracker::new(),
            };
            drop(tokio::task::spawn_local(connection.serve_plain(server)));
            Self { acceptor, client, stage, stop, start: Instant::now() }
        }

        /// Sends, and reads one `hello`.
        async fn ask(&mut self, head: &str) {
            self.client.write_all(head.as_bytes()).await.unwrap();
            let mut got = Vec::new();
            while !got.ends_with(b"hello") {
                assert_ne!(self.client.read_buf(&mut got).await.unwrap(), 0, "closed after {got:?}");
            }
            assert!(got.starts_with(b"HTTP/1.1 200 OK\r\n"));
        }

        /// Reads to the end; what came, and at which second of the scene it ended.
        async fn end(&mut self) -> (Vec<u8>, u64) {
            let mut got = Vec::new();
            let _ = self.client.read_to_end(&mut got).await;
            (got, (self.start.elapsed() + Duration::from_millis(500)).as_secs())
        }

        fn open_connections(&self) -> usize {
            self.acceptor.connected().open.load(Ordering::Relaxed)
        }
    }

    const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn a_first_head_has_ten_seconds_however_it_drips() {
        let drip = async {
            let scene = Scene::open(1024);
            let (mut read, mut write) = tokio::io::split(scene.client);
            let dripping: JoinHandle<()> = tokio::task::spawn_local(async move {
                for byte in b"GET / HTTP/1.1\r\nx-slow: aaaaaaaaaaaaaaaaaaaaa" {
                    let _ = write.write_all(&[*byte]).await;
                    sleep(Duration::from_secs(1)).await;
                }
            });
            let mut got = Vec::new();
            let _ = read.read_to_end(&mut got).await;
            assert_eq!((got.len(), scene.start.elapsed().as_secs()), (0, 10));
            assert_eq!(scene.acceptor.connected().slow_heads.load(Ordering::Relaxed), 1);
            dripping.abort();
        };
        LocalSet::new().run_until(drip).await;

        let silent = async { Scene::open(1024).end().await };
        assert_eq!(LocalSet::new().run_until(silent).await, (Vec::new(), 10));
        let half_a_preface = async {
            let mut scene = Scene::open(1024);
            scene.client.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
            scene.end().await
        };
        assert_eq!(LocalSet::new().run_until(half_a_preface).await, (Vec::new(), 10));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_kept_for_sixty_seconds_after_each_answer() {
        let story = async {
            let mut scene = Scene::open(1024);
            scene.ask(GET).await;
            sleep(Duration::from_secs(59)).await;
            scene.ask(GET).await;
            assert_eq!(scene.end().await, (Vec::new(), 119));
            assert_eq!(scene.acceptor.connected().slow_heads.load(Ordering::Relaxed), 0);
        };
        LocalSet::new().run_until(story).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_head_has_ten_seconds_from_its_first_byte() {
        let story = async {
            let mut scene = Scene::open(1024);
            scene.ask(GET).await;
            sleep(Duration::from_secs(55)).await;
            let (first, rest) = GET.split_at(9);
            scene.client.write_all(first.as_bytes()).await.unwrap();
            sleep(Duration::from_secs(9)).await;
            scene.ask(rest).await;
            scene.client.write_all(first.as_bytes()).await.unwrap();
            assert_eq!(scene.end().await, (Vec::new(), 55 + 9 + 10));
        };
        LocalSet::new().run_until(story).await;
    }

    #[tokio::test(start_paused = true)]
    async fn pipelined_requests_are_answered_in_turn_and_the_wait_begins_after_the_last() {
        let story = async {
            let mut scene = Scene::open(4096);
            scene.client.write_all(format!("{GET}{GET}{GET}").as_bytes()).await.unwrap();
            let (got, ended) = scene.end().await;
            assert_eq!(String::from_utf8(got).unwrap().matches("hello").count(), 3);
            assert_eq!(ended, 60);
        };
        LocalSet::new().run_until(story).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_take_its_time() {
        let story = async {
            let mut scene = Scene::open(1024);
            scene.ask("GET /late HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert_eq!(scene.end().await, (Vec::new(), 300 + 60));
        };
        LocalSet::new().run_until(story).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_or_next_to_nothing_is_cut_after_twenty_seconds() {
        // Bytes, and seconds between them.
        for (bytes, pause) in [(0, 1), (1, 1), (1, 12), (1024, 2), (1024, 19), (4096, 7), (9000, 10)] {
            let story = async {
                let mut scene = Scene::open(1024);
                scene.client.write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
                let mut some = vec![0; bytes];
                while scene.open_connections() == 1 && scene.start.elapsed() < Duration::from_mins(2) {
                    sleep(Duration::from_secs(pause)).await;
                    let _ = scene.client.read_exact(&mut some).await;
                }
                let ended = scene.start.elapsed().as_secs();
                assert!((20..20 + 2 * pause.max(1)).contains(&ended), "{bytes} in {pause} s: {ended} s");
                assert_eq!(scene.acceptor.connected().stalled.load(Ordering::Relaxed), 1);
            };
            LocalSet::new().run_until(story).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_slowly_but_reads_is_served() {
        for (bytes, pause) in [(2048, 1), (20_000, 9), (60_000, 18)] {
            let story = async {
                let mut scene = Scene::open(1024);
                scene.client.write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
                let mut some = vec![0; bytes];
                while scene.start.elapsed() < Duration::from_mins(5) {
                    sleep(Duration::from_secs(pause)).await;
                    scene.client.read_exact(&mut some).await.unwrap();
                }
                assert_eq!(scene.open_connections(), 1);
            };
            LocalSet::new().run_until(story).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_http_2_client_that_opens_its_window_a_little_at_a_time_is_cut_and_a_slow_one_is_not() {
        for (pause, survives) in [(19, false), (12, true)] {
            let story = async {
                let scene = Scene::open(1024 * 1024);
                let (mut sender, _ended) = h2(scene.client).await;
                let mut body = sender.send_request(get("/endless")).await.unwrap().into_body();
                let mut read = 0;
                let served = loop {
                    sleep(Duration::from_secs(pause)).await;
                    let from = read;
                    while read < from + if survives { 20_000 } else { 8_000 } {
                        match body.frame().await {
                            Some(Ok(frame)) => read += frame.into_data().unwrap().len(),
                            _ => break,
                        }
                    }
                    if read == from || scene.start.elapsed() > Duration::from_mins(5) {
                        break read > from;
                    }
                };
                assert_eq!(served, survives, "every {pause} s; {read} bytes");
            };
            LocalSet::new().run_until(story).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_takes_its_request_with_it() {
        let story = async {
            let mut scene = Scene::open(1024);
            scene.client.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            while scene.stage.inside.get() == 0 {
                tokio::task::yield_now().await;
            }
            drop(scene.client);
            let gone = async {
                while scene.stage.inside.get() > 0 {
                    tokio::task::yield_now().await;
                }
            };
            timeout(Duration::from_secs(1), gone).await.unwrap();
        };
        LocalSet::new().run_until(story).await;
    }

    #[tokio::test(start_paused = true)]
    async fn heads_beyond_the_limits_are_answered_and_the_connection_closed() {
        let many = "x-many: 1\r\n".repeat(65);
        let cases = [
            (format!("GET / HTTP/1.1\r\nhost: x\r\nx-big: {}\r\n\r\n", "a".repeat(64 * 1024)), "431"),
            (format!("GET / HTTP/1.1\r\nhost: x\r\nx-big: {}", "a".repeat(64 * 1024)), "431"),
            (format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"), "431"),
            (format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(9 * 1024)), "414"),
            ("GET / HTTP/1.1\r\nhost : x\r\n\r\n".to_owned(), "400"),
            ("nonsense\r\n\r\n".to_owned(), "400"),
            ("POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_owned(), "400"),
        ];
        for (head, status) in cases {
            let story = async {
                let mut scene = Scene::open(256 * 1024);
                scene.client.write_all(head.as_bytes()).await.unwrap();
                let (got, ended) = scene.end().await;
                let got = String::from_utf8(got).unwrap();
                assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {got}");
                assert!(got.contains("connection: close\r\n"), "{got}");
                assert_eq!(ended, 0);
                sleep(Duration::from_secs(6)).await;
                assert_eq!(scene.open_connections(), 0);
                assert_eq!(scene.stage.inside.get(), 0);
            };
            LocalSet::new().run_until(story).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_upgraded_connection_is_the_services_and_keeps_its_place() {
        let story = async {
            let mut scene = Scene::open(4096);
            let head = "GET /tunnel HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
            scene.client.write_all(head.as_bytes()).await.unwrap();
            let mut got = Vec::new();
            while !got.ends_with(b"\r\n\r\n") {
                scene.client.read_buf(&mut got).await.unwrap();
            }
            assert!(got.starts_with(b"HTTP/1.1 101 "));
            sleep(Duration::from_mins(10)).await;
            scene.client.write_all(b"ping").await.unwrap();
            let mut echo = [0; 4];
            scene.client.read_exact(&mut echo).await.unwrap();
            assert_eq!((&echo, scene.open_connections()), (b"ping", 1));
            scene.client.shutdown().await.unwrap();
            while scene.open_connections() > 0 {
                tokio::task::yield_now().await;
            }
        };
        LocalSet::new().run_until(story).await;
    }

    type H2 = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

    /// HTTP/2 without TLS, with windows of 64 KiB; the task ends with the connection.
    async fn h2(client: DuplexStream) -> (H2, JoinHandle<bool>) {
        let mut builder = hyper::client::conn::http2::Builder::new(Local);
        builder.initial_stream_window_size(65_535);
        let (sender, conn) = builder.handshake(TokioIo::new(client)).await.unwrap();
        (sender, tokio::task::spawn_local(async move { conn.await.is_ok() }))
    }

    fn get(path: &str) -> Request<Empty<Bytes>> {
        Request::get(format!("http://x{path}")).body(Empty::new()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn http_2_works_without_tls_and_closes_when_unused() {
        let story = async {
            let scene = Scene::open(4096);
            let (mut sender, ended) = h2(scene.client).await;
            for _ in 0..3 {
                let response = sender.send_request(get("/")).await.unwrap();
                assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
            }
            let late = sender.send_request(get("/late")).await.unwrap();
            assert_eq!(late.status(), 200);
            drop(late);
            assert!(ended.await.unwrap());
            assert_eq!(scene.start.elapsed().as_secs(), 300 + 60);
        };
        LocalSet::new().run_until(story).await;
    }

    #[tokio::test(start_paused = true)]
    async fn http_2_heads_beyond_the_limits_are_answered() {
        let story = async {
            let scene = Scene::open(64 * 1024);
            let (mut sender, _ended) = h2(scene.client).await;
            let long = sender.send_request(get(&format!("/{}", "a".repeat(9 * 1024)))).await.unwrap();
            assert_eq!(long.status(), 414);
            let mut many = get("/");
            for n in 0..65 {
                let name = http::HeaderName::try_from(format!("x-{n}")).unwrap();
                many.headers_mut().insert(name, http::HeaderValue::from_static("1"));
            }
            assert_eq!(sender.send_request(many).await.unwrap().status(), 431);
            assert_eq!(sender.send_request(get("/")).await.unwrap().status(), 200);
        };
        LocalSet::new().run_until(story).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_http_2_stream_that_is_not_read_is_reset_and_the_others_live() {
        let story = async {
            let scene = Scene::open(1024 * 1024);
            let (mut sender, _ended) = h2(scene.client).await;
            let unread = sender.send_request(get("/endless")).await.unwrap();
            sleep(Duration::from_secs(19)).await;
            assert_eq!(scene.acceptor.connected().stalled.load(Ordering::Relaxed), 0);
            sleep(Duration::from_secs(2)).await;
            assert_eq!(scene.acceptor.connected().stalled.load(Ordering::Relaxed), 1);
            assert!(unread.into_body().collect().await.is_err());
            assert_eq!(sender.send_request(get("/")).await.unwrap().status(), 200);
        };
        LocalSet::new().run_until(story).await;
    }

    #[tokio::test(start_paused = true)]
    async fn draining_lets_http_2_streams_finish_and_takes_no_more() {
        let story = async {
            let scene = Scene::open(4096);
            let (mut sender, ended) = h2(scene.client).await;
            let running = tokio::task::spawn_local(sender.send_request(get("/wait")));
            while scene.stage.inside.get() == 0 {
                tokio::task::yield_now().await;
            }
            scene.stop.drain.cancel();
            sleep(Duration::from_secs(5)).await;
            assert!(sender.send_request(get("/")).await.is_err());
            scene.stage.go.notify_one();
            let response = running.await.unwrap().unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
            assert!(ended.await.unwrap());
        };
        LocalSet::new().run_until(story).await;
    }

    #[tokio::test(start_paused = true)]
    async fn http_2_requests_end_with_their_client_or_their_server() {
        for hard_stop in [false, true] {
            let story = async {
                let scene = Scene::open(4096);
                let (mut sender, _ended) = h2(scene.client).await;
                let running = tokio::task::spawn_local(sender.send_request(get("/wait")));
                let is_inside = async |count| {
                    while scene.stage.inside.get() != count {
                        sleep(Duration::from_millis(1)).await;
                    }
                };
                is_inside(1).await;
                if hard_stop {
                    scene.stop.drain.cancel();
                    scene.stop.hard.cancel();
                } else {
                    running.abort();
                    drop(sender);
                }
                timeout(Duration::from_secs(1), is_inside(0)).await.unwrap();
                sleep(Duration::from_secs(5)).await;
                assert_eq!(scene.acceptor.connected().open.load(Ordering::Relaxed), 0);
            };
            LocalSet::new().run_until(story).await;
        }
    }
}
