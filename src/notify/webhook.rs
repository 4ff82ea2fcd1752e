//! One signed message to the operator's receiver, in the form of Standard Webhooks 1.0.
//!
//! The receiver is resolved anew for every message, and only addresses that were checked are connected
//! to: a name cannot lead into the operator's network by pointing there. Redirects are answers like
//! others, and no success. Whether and when to try again is for the caller to say.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::ServerName;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::clock::Timestamp;
use crate::config::Webhooks;
use crate::roots;

mod address;

pub use address::is_public;

/// The operator's receiver.
pub struct Webhook {
    url: Uri,
    secret: SecretSlice<u8>,
    allow_private: bool,
    tls: TlsConnector,
}

/// Why a message was not taken.
#[derive(Debug, Error)]
pub enum SendError {
    /// The receiver's name leads nowhere.
    #[error("the receiver's name cannot be resolved: {0}")]
    Unknown(#[source] io::Error),
    /// The receiver's name leads only where messages must not go.
    #[error("the receiver is at a private address; allow_private_addresses would let it be")]
    Private,
    /// Nobody is there, or TLS could not be agreed on.
    #[error("the receiver cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    /// Something that is not HTTP, or ended early.
    #[error("the receiver did not answer: {0}")]
    NoAnswer(#[from] hyper::Error),
    /// It took too long.
    #[error("the receiver did not answer in time")]
    TimedOut,
    /// It answered with anything but 2xx.
    #[error("the receiver answered {0}")]
    Refused(u16),
}

/// Name resolution, connection and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The whole exchange. No message takes longer.
pub const TIMEOUT: Duration = Duration::from_secs(15);
/// As much of an answer is read, so that the receiver is not cut off; nobody looks at it.
const MOST_ANSWER: usize = 64 << 10;
const AGENT: HeaderValue = HeaderValue::from_static(concat!("tollgate/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// How a secret of Standard Webhooks begins.
const SECRET_PREFIX: &str = "whsec_";

// === impl Webhook ===

impl Webhook {
    /// The receiver as configured.
    ///
    /// # Errors
    ///
    /// When TLS cannot be set up.
    pub fn new(config: &Webhooks) -> Result<Self, rustls::Error> {
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots::system())
            .with_no_client_auth();
        Ok(Self {
            url: config.url.clone(),
            secret: key_of(&config.secret),
            allow_private: config.allow_private_addresses,
            tls: TlsConnector::from(Arc::new(tls)),
        })
    }

    /// Sends one message and waits for the answer, at most [`TIMEOUT`]. `id` stays the same when a
    /// message is sent again; `at` is now.
    ///
    /// # Errors
    ///
    /// [`SendError`]: the receiver did not take it, or is not known to have.
    pub async fn send(&self, id: &str, at: Timestamp, body: &str) -> Result<(), SendError> {
        let exchange = self.exchange(id, at, body);
        tokio::time::timeout(TIMEOUT, exchange).await.map_err(|_| SendError::TimedOut)?
    }

    async fn exchange(&self, id: &str, at: Timestamp, body: &str) -> Result<(), SendError> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.connect());
        let stream = connecting.await.map_err(|_| SendError::TimedOut)??;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let talk = async {
            let response = sender.send_request(self.request(id, at, body)).await?;
            let status = response.status();
            // What does not fit, or breaks off, changes nothing: the status has been said.
            let _ = Limited::new(response.into_body(), MOST_ANSWER).collect().await;
            if status.is_success() { Ok(()) } else { Err(SendError::Refused(status.as_u16())) }
        };
        tokio::pin!(talk);
        tokio::select! {
            answered = &mut talk => answered,
            ended = connection => match ended {
                Ok(()) => talk.await,
                Err(error) => Err(error.into()),
            },
        }
    }

    fn request(&self, id: &str, at: Timestamp, body: &str) -> Request<Full<Bytes>> {
        let seconds = at.unix_seconds();
        let signature = sign(&self.secret, id, seconds, body);
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
        *request.method_mut() = http::Method::POST;
        if let Ok(uri) = path.parse() {
            *request.uri_mut() = uri;
        }
        let authority = self.url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(USER_AGENT, AGENT);
        headers.insert("webhook-timestamp", seconds.into());
        for (name, value) in
            [(HOST.as_str(), authority), ("webhook-id", id), ("webhook-signature", &signature)]
        {
            if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        request
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, SendError> {
        let is_tls = self.url.scheme_str() == Some("https");
        let host = self.url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = self.url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let addresses = tokio::net::lookup_host((host, port)).await.map_err(SendError::Unknown)?;
        let open = self.reachable(addresses)?;
        let stream = TcpStream::connect(open.as_slice()).await.map_err(SendError::Unreachable)?;
        if !is_tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| SendError::Unreachable(io::Error::other(error)))?;
        Ok(Box::new(self.tls.connect(name, stream).await.map_err(SendError::Unreachable)?))
    }

    /// Where messages may go, of where the name leads.
    fn reachable(&self, found: impl Iterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, SendError> {
        let open: Vec<_> = found.filter(|address| self.may_reach(address.ip())).collect();
        if open.is_empty() { Err(SendError::Private) } else { Ok(open) }
    }

    fn may_reach(&self, ip: IpAddr) -> bool {
        self.allow_private || is_public(ip)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The scheme `v1`: HMAC-SHA256 over id, timestamp and body, in Base64.
fn sign(key: &SecretSlice<u8>, id: &str, seconds: i64, body: &str) -> String {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret()).expect("any key is a key");
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body.as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// What stands behind `whsec_` is Base64; any other text is the key as it is.
fn key_of(secret: &SecretString) -> SecretSlice<u8> {
    let text = secret.expose_secret();
    let decoded = text.strip_prefix(SECRET_PREFIX).and_then(|encoded| STANDARD.decode(encoded).ok());
    SecretSlice::from(decoded.unwrap_or_else(|| text.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use secrecy::{ExposeSecret, SecretString};

    use super::{SendError, Webhook, key_of, sign};
    use crate::clock::Timestamp;
    use crate::config::{WebhookEvent, Webhooks};

    /// The example of Standard Webhooks' own libraries.
    #[test]
    fn a_signature_is_that_of_standard_webhooks() {
        let key = key_of(&SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
        let signature = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn any_other_text_is_a_key_too() {
        for text in ["a plain secret", "whsec_not base64!"] {
            assert_eq!(key_of(&SecretString::from(text)).expose_secret(), text.as_bytes());
        }
    }

    #[tokio::test]
    async fn no_name_leads_to_a_private_address() {
        for host in
            ["127.0.0.1:1", "localhost:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "169.254.169.254", "0:1"]
        {
            let config = Webhooks {
                url: format!("http://{host}/hook").parse().unwrap(),
                secret: SecretString::from("s"),
                events: vec![WebhookEvent::UserCreated],
                allow_private_addresses: false,
            };
            let hook = Webhook::new(&config).unwrap();
            let refused = hook.send("msg_1", Timestamp(0), "{}").await;
            assert!(matches!(refused, Err(SendError::Private)), "{host}: {refused:?}");
            let open = Webhook::new(&Webhooks { allow_private_addresses: true, ..config }).unwrap();
            assert!(open.may_reach("127.0.0.1".parse().unwrap()));
        }
    }
}
