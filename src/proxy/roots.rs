//! Whose certificates are believed when we call an upstream.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::roots;

/// TLS 1.2 and 1.3, HTTP/2 preferred. `ca_file` replaces the system's roots; without either,
/// Mozilla's are used.
///
/// # Errors
///
/// When the bundle cannot be read or holds no certificate.
pub(super) fn client_config(ca_file: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let roots = match ca_file {
        Some(path) => bundle(path)?,
        None => roots::system(),
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn bundle(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(path).with_context(|| format!("reading {}", path.display()))?;
    for certificate in certificates {
        roots.add(certificate.with_context(|| format!("reading {}", path.display()))?)?;
    }
    anyhow::ensure!(!roots.is_empty(), "{} holds no certificate", path.display());
    Ok(roots)
}
