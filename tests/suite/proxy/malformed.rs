//! Messages that RFC 9112 and RFC 9113 call malformed, as bytes: none of them reaches an upstream.

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::tls::certificate;
use crate::upstream::PATIENCE;
use crate::wire::exchange;
use crate::world::World;

#[tokio::test]
async fn a_body_is_chunked_once_or_refused() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    for (version, coding, status) in [
        ("1.1", "gzip, chunked", 501),
        ("1.1", "chunked, chunked", 400),
        ("1.1", "chunked\r\ntransfer-encoding: chunked", 400),
        ("1.1", "identity, chunked", 501),
        ("1.1", "chunked, identity", 400),
        ("1.0", "chunked", 400),
        ("1.1", "Chunked", 200),
    ] {
        let request = format!(
            "POST /v1/chat/completions HTTP/{version}\r\nhost: gate\r\nx-api-key: {}\r\ncontent-type: application/json\r\n\
             transfer-encoding: {coding}\r\n\r\nd\r\n{{\"model\":\"m\"}}\r\n0\r\n\r\n",
            ann.key,
        );
        let heard = exchange(world.addr, request).await;
        let (is_refused, hits) = (status != 200, world.upstream.hits());
        assert_eq!((heard.status(), hits), (status, usize::from(!is_refused)), "{version} {coding}");
        assert_eq!(heard.header("connection") == Some("close"), is_refused, "{version} {coding}");
    }
}

type H2<B> = hyper::client::conn::http2::SendRequest<B>;

/// HTTP/2 without TLS, whose connection ends with the story's runtime.
async fn h2<B>(world: &World) -> H2<B>
where
    B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(world.addr).await.unwrap();
    let (sender, conn) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(conn);
    sender
}

#[tokio::test]
async fn an_http_2_request_names_one_host() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let mut sender = h2::<http_body_util::Empty<Bytes>>(&world).await;
    for (host, status) in [("gate", 200), ("GATE", 200), ("other", 400), ("gate:80", 400)] {
        let request = http::Request::get("http://gate/v1/models").header("host", host);
        let request = request.header("x-api-key", &ann.key).body(http_body_util::Empty::new()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), status, "{host}");
    }
    assert_eq!(world.upstream.hits(), 2);
}

#[tokio::test]
async fn trailers_of_a_request_go_no_further() {
    let world = World::start().await;
    let ann = world.user("ann").await;
    let mut trailers = http::HeaderMap::new();
    trailers.insert("authorization", "Bearer mine".parse().unwrap());
    trailers.insert("x-forwarded-for", "127.0.0.1".parse().unwrap());
    let frames = [
        http_body::Frame::data(Bytes::from_static(b"--x\r\n")),
        http_body::Frame::data(Bytes::from_static(b"--x--\r\n")),
        http_body::Frame::trailers(trailers),
    ];
    let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, std::io::Error>)));
    let request = http::Request::post("http://gate/v1/images/edits").header("x-api-key", &ann.key);
    let request = request.header("content-type", "multipart/form-data; boundary=x").body(body).unwrap();
    let answer = h2(&world).await.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let seen = world.upstream.last();
    assert_eq!(&seen.body[..], b"--x\r\n--x--\r\n");
    assert_eq!((seen.header("x-forwarded-for"), seen.header("trailer")), (None, None));
}

#[tokio::test]
async fn a_client_that_pushes_is_cut() {
    let world = World::start().await;
    let mut stream = TcpStream::connect(world.addr).await.unwrap();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let promise = [0, 0, 5, 5, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0x82];
    let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings, &promise].concat();
    stream.write_all(&bytes).await.unwrap();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "the connection stays open");
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_told_so_in_http() {
    let (chain, key, authority) = certificate();
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("cert.pem"), &chain).unwrap();
    std::fs::write(files.path().join("key.pem"), &key).unwrap();
    let world = World::with(|setup| {
        let folder = files.path().display();
        setup.add(&format!(
            "[server.tls]\ncertificate = \"{folder}/cert.pem\"\nprivate_key = \"{folder}/key.pem\""
        ));
        setup.trust = Some(authority.clone());
    })
    .await;
    for request in ["GET / HTTP/1.1\r\nhost: gate\r\n\r\n", "GET /\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let heard = exchange(world.addr, request).await;
        assert_eq!((heard.status(), heard.header("connection")), (400, Some("close")), "{request:?}");
        assert!(heard.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
        assert!(heard.body.ends_with(b"https:// with it.\n"));
    }
    let ann = world.user("ann").await;
    assert_eq!(world.chat(&ann).send().await.status, 200, "TLS goes on");
}
