//! TLS of connections to other machines: which certificates are trusted.

#[cfg(all(feature = "cli", feature = "server"))]
mod health;

use std::sync::{Arc, LazyLock};

/// Loaded once: reading the system's certificates takes tens of milliseconds.
static CLIENT: LazyLock<Result<rustls::ClientConfig, rustls::Error>> = LazyLock::new(load);

/// Returns the settings of a client that speaks HTTP/2 and HTTP/1.1.
///
/// # Errors
/// If the cryptography does not support the protocols.
pub(crate) fn client_config() -> Result<rustls::ClientConfig, rustls::Error> {
    CLIENT.clone()
}

/// Returns the settings of a client that accepts every certificate. Only for the health of a server on this machine, whose
/// certificate is for its public name: nothing secret is sent, and the answer has no content.
///
/// # Errors
/// If the cryptography does not support the protocols.
#[cfg(all(feature = "cli", feature = "server"))]
pub(crate) fn health_client_config() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone());
    let any = Arc::new(health::AnyCertificate(provider));
    let config = config.with_safe_default_protocol_versions()?;
    let mut config = config.dangerous().with_custom_certificate_verifier(any).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Trusts the system's roots and Mozilla's, so that a container without certificates can still call a provider.
fn load() -> Result<rustls::ClientConfig, rustls::Error> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // A system certificate that cannot be parsed is not trusted.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
