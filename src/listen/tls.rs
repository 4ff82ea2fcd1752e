//! The gateway's certificate, read again when its files change ([`TlsWatch`]).

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::config::Tls;

mod validity;
mod watch;

pub use validity::Validity;
pub use watch::{EXPIRES_SOON_DAYS, TlsWatch};

/// Largest file that is read; a chain with a key has some kilobytes.
const MAX_FILE: u64 = 1024 * 1024;

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
struct Current(RwLock<Loaded>);

/// A certificate with its key, and what it was made of.
#[derive(Clone, Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    digest: [u8; 32],
    validity: Option<Validity>,
}

/// What both files held at one time.
struct Files {
    tls: Tls,
    certificate: Zeroizing<Vec<u8>>,
    private_key: Zeroizing<Vec<u8>>,
}

/// When the certificate of these files is valid, once they are found to belong together; `None` where it
/// does not say so in a way that can be read.
///
/// # Errors
/// As [`TlsKeys::load`].
pub fn inspect(files: &Tls) -> Result<Option<Validity>, TlsError> {
    Ok(Files::read(files)?.load(&aws_lc_rs::default_provider())?.validity)
}

// === impl TlsKeys ===

impl TlsKeys {
    /// Reads certificate and key: TLS 1.2 and 1.3, with HTTP/2 offered before HTTP/1.1.
    ///
    /// # Errors
    /// When a file is missing or holds something else, or when the two do not belong together.
    pub fn load(files: &Tls) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let loaded = Files::read(files)?.load(&provider)?;
        let current = Arc::new(Current(RwLock::new(loaded)));
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

    /// When the certificate in use is valid, where it says so.
    #[must_use]
    pub fn validity(&self) -> Option<Validity> {
        self.current.loaded().validity
    }

    /// Uses what the files hold from now on; whether that is anything new.
    fn take_up(&self, files: &Files) -> Result<bool, TlsError> {
        if files.digest() == self.current.loaded().digest {
            return Ok(false);
        }
        let loaded = files.load(&self.provider)?;
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(true)
    }
}

impl fmt::Debug for TlsKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsKeys").field("files", &self.files).finish_non_exhaustive()
    }
}

// === impl Current ===

impl Current {
    fn loaded(&self) -> Loaded {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).key))
    }
}

// === impl Files ===

impl Files {
    fn read(tls: &Tls) -> Result<Self, TlsError> {
        let certificate = read_file("server.tls.certificate", &tls.certificate)?;
        let private_key = read_file("server.tls.private_key", &tls.private_key)?;
        Ok(Self { tls: tls.clone(), certificate, private_key })
    }

    /// The same, but never of a pipe, which could be waited on for ever.
    fn read_again(tls: &Tls) -> Result<Self, TlsError> {
        for (setting, file) in
            [("server.tls.certificate", &tls.certificate), ("server.tls.private_key", &tls.private_key)]
        {
            let is_file = std::fs::metadata(file).and_then(|metadata| {
                metadata.is_file().then_some(()).ok_or_else(|| io::Error::other("not a regular file"))
            });
            is_file.map_err(|source| TlsError::Unreadable { setting, file: file.clone(), source })?;
        }
        Self::read(tls)
    }

    fn digest(&self) -> [u8; 32] {
        let lengths = [&self.certificate, &self.private_key].map(|file| file.len().to_le_bytes());
        let all = Sha256::new().chain_update(lengths.concat());
        all.chain_update(&self.certificate).chain_update(&self.private_key).finalize().into()
    }

    /// Both, checked against each other.
    fn load(&self, provider: &CryptoProvider) -> Result<Loaded, TlsError> {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(&self.certificate).collect::<Result<_, _>>().unwrap_or_default();
        if chain.is_empty() {
            let (setting, file) = ("server.tls.certificate", self.tls.certificate.clone());
            return Err(TlsError::Empty { setting, file, wanted: "certificate" });
        }
        let Ok(key) = PrivateKeyDer::from_pem_slice(&self.private_key) else {
            let (setting, file) = ("server.tls.private_key", self.tls.private_key.clone());
            let wanted = "private key (unencrypted PKCS#8, PKCS#1 or SEC1)";
            return Err(TlsError::Empty { setting, file, wanted });
        };
        let validity = Validity::of_chain(chain.iter().map(AsRef::as_ref));
        let key = CertifiedKey::from_der(chain, key, provider).map_err(TlsError::Mismatch)?;
        Ok(Loaded { key: Arc::new(key), digest: self.digest(), validity })
    }
}

fn read_file(setting: &'static str, file: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    // Never grown, so that no copy of a key is left in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 * 1024));
    let read = File::open(file).and_then(|open| open.take(MAX_FILE).read_to_end(&mut bytes));
    read.map_err(|source| TlsError::Unreadable { setting, file: file.to_owned(), source })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
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

    use super::{Files, TlsError, TlsKeys, TlsWatch, inspect};
    use crate::clock::{Clock, Timestamp};
    use crate::config::Tls;
    use crate::listen::protocol::testing::{Stage, limits};
    use crate::listen::{Acceptor, ClientIps, Stop, bind, serve};
    use crate::telemetry::Metrics;

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

            let reload = || keys.take_up(&Files::read_again(&files)?);
            fs::write(&files.certificate, "garbage").unwrap();
            assert!(matches!(reload(), Err(TlsError::Empty { .. })));
            connect(address, &first, &[]).await.unwrap();

            let second = write_pair(&files);
            assert!(reload().unwrap());
            assert!(!reload().unwrap(), "there is nothing new");
            connect(address, &second, &[]).await.unwrap();
            assert!(connect(address, &first, &[]).await.is_err());
        };
        LocalSet::new().run_until(story).await;
    }

    /// A watch over the files of a folder, on a clock that stands on a day in 2026.
    struct Watched {
        folder: TempDir,
        files: Tls,
        keys: Arc<TlsKeys>,
        metrics: Arc<Metrics>,
        clock: Clock,
    }

    impl Watched {
        fn new() -> Self {
            let folder = TempDir::new().unwrap();
            let files = files(folder.path());
            write_pair(&files);
            let keys = Arc::new(TlsKeys::load(&files).unwrap());
            let clock = Clock::manual(Timestamp(1_780_000_000_000));
            Self { folder, files, keys, metrics: Arc::new(Metrics::new()), clock }
        }

        /// The story, with the watch beside it on a clock that never waits.
        async fn beside(&self, story: impl AsyncFnOnce()) {
            let shutdown = CancellationToken::new();
            tokio::time::pause();
            let watch = TlsWatch::new(Arc::clone(&self.keys), self.clock.clone(), Arc::clone(&self.metrics));
            let watching = watch.run(shutdown.clone());
            let story = async {
                story().await;
                shutdown.cancel();
            };
            let both = futures_util::future::join(watching, story);
            timeout(Duration::from_hours(1), both).await.unwrap();
        }

        fn in_use(&self) -> Vec<u8> {
            self.keys.current.loaded().key.cert[0].to_vec()
        }

        async fn takes_up(&self, certificate: &[u8]) {
            while self.in_use() != certificate {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }

        async fn fails_again(&self) {
            let failed = self.metrics.tls_reload_errors.get();
            while self.metrics.tls_reload_errors.get() <= failed {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    #[tokio::test]
    async fn the_watch_takes_up_new_files_however_they_come() {
        let watched = Watched::new();
        let files = &watched.files;
        let story = async || {
            let certificate = write_pair(files);
            watched.takes_up(&certificate).await;

            // By rename, with the times of the old files.
            let modified = fs::metadata(&files.certificate).unwrap().modified().unwrap();
            let beside = Tls {
                certificate: watched.folder.path().join("new.pem"),
                private_key: watched.folder.path().join("new-key.pem"),
            };
            let certificate = write_pair(&beside);
            File::options().write(true).open(&beside.certificate).unwrap().set_modified(modified).unwrap();
            fs::rename(&beside.private_key, &files.private_key).unwrap();
            fs::rename(&beside.certificate, &files.certificate).unwrap();
            watched.takes_up(&certificate).await;

            // By a symlink in the path, as Kubernetes changes a mounted secret.
            let generations = ["one", "two"].map(|name| watched.folder.path().join(name));
            let made = generations.map(|folder| {
                fs::create_dir(&folder).unwrap();
                (write_pair(&self::files(&folder)), folder)
            });
            let data = watched.folder.path().join("..data");
            for path in [&files.certificate, &files.private_key] {
                fs::remove_file(path).unwrap();
                std::os::unix::fs::symlink(data.join(path.file_name().unwrap()), path).unwrap();
            }
            for (certificate, folder) in made {
                let next = watched.folder.path().join("..next");
                std::os::unix::fs::symlink(folder, &next).unwrap();
                fs::rename(&next, &data).unwrap();
                watched.takes_up(&certificate).await;
            }
        };
        watched.beside(story).await;
    }

    #[tokio::test]
    async fn a_reload_that_failed_is_tried_until_it_succeeds() {
        let watched = Watched::new();
        let files = &watched.files;
        let next = Tls {
            certificate: watched.folder.path().join("next.pem"),
            private_key: watched.folder.path().join("next-key.pem"),
        };
        // Moved away and back: times, sizes and inodes of the second state are those of the first.
        let story = async || {
            let old = watched.in_use();
            let certificate = write_pair(&next);
            fs::rename(&next.certificate, &files.certificate).unwrap();
            for _ in 0..3 {
                watched.fails_again().await;
            }
            assert_eq!(watched.in_use(), old, "half a pair is of no use");
            fs::rename(&next.private_key, &files.private_key).unwrap();
            watched.takes_up(&certificate).await;

            // Not readable at that moment: here a name that leads nowhere, which root cannot read either.
            let certificate = write_pair(&next);
            let aside = watched.folder.path().join("aside.pem");
            fs::rename(&next.certificate, &aside).unwrap();
            fs::remove_file(&files.certificate).unwrap();
            std::os::unix::fs::symlink(watched.folder.path().join("missing.pem"), &files.certificate)
                .unwrap();
            fs::rename(&next.private_key, &files.private_key).unwrap();
            watched.fails_again().await;
            watched.fails_again().await;
            fs::rename(&aside, watched.folder.path().join("missing.pem")).unwrap();
            watched.takes_up(&certificate).await;

            // A pipe is never waited on.
            fs::remove_file(&files.certificate).unwrap();
            let made = std::process::Command::new("mkfifo").arg(&files.certificate).status().unwrap();
            assert!(made.success());
            watched.fails_again().await;
            fs::remove_file(&files.certificate).unwrap();
            let certificate = write_pair(files);
            watched.takes_up(&certificate).await;
        };
        watched.beside(story).await;
    }

    #[tokio::test]
    async fn the_days_until_the_certificate_expires_are_a_metric_that_follows_the_clock() {
        let watched = Watched::new();
        let days = || {
            let text = watched.metrics.text();
            let line = text.lines().find(|line| line.starts_with("tollgate_tls_certificate_expiry_days{"));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<i64>().ok())
        };
        assert_eq!(days(), None, "none without a certificate");
        let end = watched.keys.validity().unwrap().not_after;
        let story = async || {
            for left in [20, 0, -3] {
                watched.clock.set(Timestamp(end.0 - left * 24 * 60 * 60 * 1000));
                while days() != Some(left) {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        };
        watched.beside(story).await;
    }

    #[test]
    fn errors_name_the_setting_and_the_file() {
        let folder = TempDir::new().unwrap();
        let files = files(folder.path());
        let error = TlsKeys::load(&files).unwrap_err().to_string();
        assert!(error.contains("server.tls.certificate") && error.contains("cert.pem"), "{error}");

        write_pair(&files);
        assert!(inspect(&files).unwrap().is_some());
        fs::write(&files.private_key, "").unwrap();
        let error = TlsKeys::load(&files).unwrap_err().to_string();
        assert!(error.contains("server.tls.private_key") && error.contains("key.pem"), "{error}");

        let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs::write(&files.private_key, other.signing_key.serialize_pem()).unwrap();
        assert!(matches!(TlsKeys::load(&files), Err(TlsError::Mismatch(_))));
    }
}
