//! Whose certificates are believed when we call others.

use rustls::RootCertStore;

/// The system's roots; without any, Mozilla's.
#[must_use]
pub fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}
