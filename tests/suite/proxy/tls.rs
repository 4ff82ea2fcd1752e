//! TLS by rustls, HTTP/1.1 and HTTP/2 by ALPN, on both sides of the gate.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::world::World;

/// A certificate for `localhost` by an authority made for the occasion: chain, key, authority.
pub(super) fn certificate() -> (String, String, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    (leaf.pem(), key.serialize_pem(), authority.pem())
}

#[tokio::test]
async fn clients_choose_http_1_or_2_in_the_handshake() {
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
    let ann = world.user("ann").await;
    let answer = world.chat(&ann).send().await;
    assert_eq!((answer.status, answer.version), (200, Version::HTTP_2), "{}", answer.text());

    let trusted = reqwest::Certificate::from_pem(authority.as_bytes()).unwrap();
    let client =
        reqwest::Client::builder().no_proxy().tls_certs_only([trusted]).http1_only().build().unwrap();
    let call =
        world.post_with(&client, "/v1/chat/completions").bearer(&ann.key).json(&crate::world::chat_request());
    let answer = call.send().await;
    assert_eq!((answer.status, answer.version), (200, Version::HTTP_11));
    assert_eq!(world.upstream.hits(), 2);
}

/// TLS with this certificate that offers `protocol`.
pub(super) fn acceptor(chain: &str, key: &str, protocol: &str) -> TlsAcceptor {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// A model that speaks TLS and offers `protocol`; it answers with the version it was asked in. Stops
/// with the test's runtime.
async fn tls_model(chain: &str, key: &str, protocol: &str) -> SocketAddr {
    let acceptor = acceptor(chain, key, protocol);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(acceptor.clone(), stream));
        }
    });
    addr
}

async fn serve(acceptor: TlsAcceptor, stream: tokio::net::TcpStream) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(async |request: Request<Incoming>| {
        let said = format!("{:?} {}", request.version(), request.uri().path());
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(said))))
    });
    let second = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = TokioIo::new(stream);
    let _ = if second {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await
    };
}

#[tokio::test]
async fn the_upstream_chooses_http_1_or_2_in_the_handshake() {
    for (protocol, version) in [("h2", Version::HTTP_2), ("http/1.1", Version::HTTP_11)] {
        let (chain, key, authority) = certificate();
        let model = tls_model(&chain, &key, protocol).await;
        let files = tempfile::tempdir().unwrap();
        let ca_file = files.path().join("authority.pem");
        std::fs::write(&ca_file, authority).unwrap();
        let world = World::with(|setup| {
            let (port, ca_file) = (model.port(), ca_file.display());
            setup.add(&format!(
                "[[upstreams]]\nname = \"model\"\nurl = \"https://localhost:{port}\"\nca_file = \"{ca_file}\""
            ));
        })
        .await;
        let ann = world.user("ann").await;
        for _ in 0..2 {
            let answer = world.chat(&ann).send().await;
            assert_eq!((answer.status, answer.text()), (200, format!("{version:?} /v1/chat/completions")));
        }
        assert_eq!(world.left(&ann).await, 8);
    }
}

#[tokio::test]
async fn an_upstream_nobody_vouches_for_is_not_spoken_to_and_costs_nothing() {
    let (chain, key, _) = certificate();
    let model = tls_model(&chain, &key, "http/1.1").await;
    let world = World::with(|setup| {
        let port = model.port();
        setup.add(&format!("[[upstreams]]\nname = \"model\"\nurl = \"https://localhost:{port}\""));
    })
    .await;
    let ann = world.user("ann").await;
    assert_eq!(world.chat(&ann).send().await.status, 502);
    assert_eq!(world.left(&ann).await, 10);
}
