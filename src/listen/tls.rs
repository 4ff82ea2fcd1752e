//! The gateway's certificate, read again when its files change.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::config::Tls;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What the gateway proves itself with to TLS clients.
pub struct TlsKeys {
    files: Tls,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
    server_config: Arc<ServerConfig>,
}

/// Why a certificate cannot be used, by the setting that names it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file could not be read.
    #[error("{setting}: cannot read {}: {source}; give the path of a PEM file that the gateway may read", file.display())]
    Unreadable {
        /// Path in the configuration.
        setting: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds nothing of the kind.
    #[error("{setting}: {} holds no {wanted} in PEM", file.display())]
    Empty {
        /// Path in the configuration.
        setting: &'static str,
        /// The file.
        file: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// Certificate and key are not of use together.
    #[error(
        "server.tls: the private key does not serve the certificate ({0}); give the key the certificate was made for, and the certificate itself before its issuers"
    )]
    Mismatch(rustls::Error),
    /// The library refused its own defaults.
    #[error("server.tls: {0}")]
    Unsupported(rustls::Error),
}

/// The key in use; workers read it once for each handshake.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

/// How both files looked.
type Stamp = [Option<(SystemTime, u64)>; 2];

// === impl TlsKeys ===

impl TlsKeys {
    /// Reads certificate and key: TLS 1.2 and 1.3, with HTTP/2 offered before HTTP/1.1.
    ///
    /// # Errors
    /// When a file is missing or holds something else, or when the two do not belong together.
    pub fn load(files: &Tls) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = read(files, &provider)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(key))));
        let mut server_config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unsupported)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        server_config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Tickets instead of a session cache, which would be one lock for all workers.
        server_config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Unsupported)?;
        Ok(Self { files: files.clone(), provider, current, server_config: Arc::new(server_config) })
    }

    /// What handshakes are made with.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server_config)
    }

    /// Takes up new files within some seconds, for handshakes from then on, until `shutdown`. New
    /// files that cannot be used are logged and change nothing.
    pub async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        let mut known = self.stamp().await;
        while shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            let seen = self.stamp().await;
            if seen == known {
                continue;
            }
            known = seen;
            match self.reload() {
                Ok(()) => tracing::info!("the TLS certificate was read again"),
                Err(error) => {
                    tracing::error!(%error, "keeping the old TLS certificate: the new is of no use");
                }
            }
        }
    }

    fn reload(&self) -> Result<(), TlsError> {
        let key = Arc::new(read(&self.files, &self.provider)?);
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(())
    }

    async fn stamp(&self) -> Stamp {
        [stamp_of(&self.files.certificate).await, stamp_of(&self.files.private_key).await]
    }
}

impl fmt::Debug for TlsKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsKeys").field("files", &self.files).finish_non_exhaustive()
    }
}

// === impl Current ===

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Both files, checked against each other.
fn read(files: &Tls, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let setting = "server.tls.certificate";
    let pem = read_file(setting, &files.certificate)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().unwrap_or_default();
    if chain.is_empty() {
        let file = files.certificate.clone();
        return Err(TlsError::Empty { setting, file, wanted: "certificate" });
    }
    let setting = "server.tls.private_key";
    let pem = read_file(setting, &files.private_key)?;
    let Ok(key) = PrivateKeyDer::from_pem_slice(&pem) else {
        let file = files.private_key.clone();
        return Err(TlsError::Empty {
            setting,
            file,
            wanted: "private key (unencrypted PKCS#8, PKCS#1 or SEC1)",
        });
    };
    CertifiedKey::from_der(chain, key, provider).map_err(TlsError::Mismatch)
}

fn read_file(setting: &'static str, file: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    std::fs::read(file).map(Zeroizing::new).map_err(|source| TlsError::Unreadable {
        setting,
        file: file.to_owned(),
        source,
    })
}

async fn stamp_of(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = tokio::fs::metadata(file).await.ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::SocketAddr;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, RootCertStore};
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::LocalSet;
    use tokio::time::timeout;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;
    use tokio_util::sync::CancellationToken;

    use super::{TlsError, TlsKeys};
    use crate::config::Tls;
    use crate::listen::protocol::testing::{Stage, limits};
    use crate::listen::{Acceptor, ClientIps, Stop, bind, serve};

    fn files(folder: &Path) -> Tls {
        Tls { certificate: folder.join("cert.pem"), private_key: folder.join("key.pem") }
    }

    /// Writes a new pair; the certificate, for the client to trust.
    fn write_pair(files: &Tls) -> CertificateDer<'static> {
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs::write(&files.private_key, pair.signing_key.serialize_pem()).unwrap();
        fs::write(&files.certificate, pair.cert.pem()).unwrap();
        pair.cert.der().clone()
    }

    /// One worker over TLS, inside a `LocalSet`.
    fn start(keys: &Arc<TlsKeys>) -> (SocketAddr, Arc<Acceptor>) {
        let proxies = Arc::new(ClientIps::default());
        let acceptor = Arc::new(Acceptor::new(limits(), Some(Arc::clone(keys)), proxies));
        let mut sets = bind(&["127.0.0.1:0".parse().unwrap()], 1).unwrap();
        let set = sets.remove(0);
        let address = set.addresses()[0];
        let serving = serve(set, Arc::clone(&acceptor), Stage::default().service(), Stop::default());
        drop(tokio::task::spawn_local(serving));
        (address, acceptor)
    }

    async fn connect(
        address: SocketAddr,
        trusted: &CertificateDer<'static>,
        alpn: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    #[tokio::test]
    async fn clients_get_the_http_they_ask_for() {
        let story = async {
            let folder = TempDir::new().unwrap();
            let files = files(folder.path());
            let certificate = write_pair(&files);
            let (address, acceptor) = start(&Arc::new(TlsKeys::load(&files).unwrap()));

            for alpn in [&[][..], &["http/1.1"]] {
                let mut client = connect(address, &certificate, alpn).await.unwrap();
                client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
                let mut got = String::new();
                client.read_to_string(&mut got).await.unwrap();
                assert!(got.starts_with("HTTP/1.1 200 OK") && got.ends_with("hello"), "{got}");
            }

            let client = connect(address, &certificate, &["http/1.1", "h2"]).await.unwrap();
            assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let io = hyper_util::rt::TokioIo::new(client);
            let executor = crate::listen::protocol::testing::Local;
            let (mut sender, conn) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
            drop(tokio::task::spawn_local(conn));
            let request = http::Request::get("https://localhost/");
            let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
            assert_eq!(sender.send_request(request).await.unwrap().status(), 200);

            let mut plain = TcpStream::connect(address).await.unwrap();
            plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            let _ = plain.read_to_end(&mut Vec::new()).await;
            assert_eq!(acceptor.connected().failed_handshakes.load(Ordering::Relaxed), 1);
        };
        Box::pin(LocalSet::new().run_until(story)).await;
    }

    #[tokio::test]
    async fn new_files_are_taken_up_and_bad_ones_are_not() {
        let story = async {
            let folder = TempDir::new().unwrap();
            let files = files(folder.path());
            let first = write_pair(&files);
            let keys = Arc::new(TlsKeys::load(&files).unwrap());
            let (address, _acceptor) = start(&keys);
            connect(address, &first, &[]).await.unwrap();

            fs::write(&files.certificate, "garbage").unwrap();
            assert!(matches!(keys.reload(), Err(TlsError::Empty { .. })));
            connect(address, &first, &[]).await.unwrap();

            let second = write_pair(&files);
            keys.reload().unwrap();
            connect(address, &second, &[]).await.unwrap();
            assert!(connect(address, &first, &[]).await.is_err());
        };
        LocalSet::new().run_until(story).await;
    }

    #[tokio::test]
    async fn the_watch_sees_changed_files_and_ends_with_the_server() {
        let folder = TempDir::new().unwrap();
        let files = files(folder.path());
        write_pair(&files);
        let keys = Arc::new(TlsKeys::load(&files).unwrap());
        let of = |keys: &TlsKeys| Arc::clone(&keys.current.0.read().unwrap());
        let old = of(&keys);
        let shutdown = CancellationToken::new();
        tokio::time::pause();
        let watching = Arc::clone(&keys).watch(shutdown.clone());
        let story = async {
            // Passed by the paused clock; the watch looks for the first time before.
            tokio::time::sleep(Duration::from_secs(1)).await;
            write_pair(&files);
            while Arc::ptr_eq(&of(&keys), &old) {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            shutdown.cancel();
        };
        let both = futures_util::future::join(watching, story);
        timeout(Duration::from_hours(1), both).await.unwrap();
    }

    #[test]
    fn errors_name_the_setting_and_the_file() {
        let folder = TempDir::new().unwrap();
        let files = files(folder.path());
        let error = TlsKeys::load(&files).unwrap_err().to_string();
        assert!(error.contains("server.tls.certificate") && error.contains("cert.pem"), "{error}");

        write_pair(&files);
        fs::write(&files.private_key, "").unwrap();
        let error = TlsKeys::load(&files).unwrap_err().to_string();
        assert!(error.contains("server.tls.private_key") && error.contains("key.pem"), "{error}");

        let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs::write(&files.private_key, other.signing_key.serialize_pem()).unwrap();
        assert!(matches!(TlsKeys::load(&files), Err(TlsError::Mismatch(_))));
    }
}
