//! The certificate that new handshakes get, replaced under way.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use super::{ServingCertificate, Validity};

/// Hands out the newest certificate. Share it in an `Arc`.
#[derive(Debug)]
pub struct Resolver {
    current: ArcSwapOption<CertifiedKey>,
    /// `None`: there is no certificate yet.
    validity: watch::Sender<Option<Validity>>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self {
            current: ArcSwapOption::empty(),
            validity: watch::channel(None).0,
        }
    }
}

impl Resolver {
    /// From the next handshake on.
    pub fn set(&self, certificate: &ServingCertificate) {
        self.current.store(Some(certificate.certified.clone()));
        self.validity.send_replace(Some(certificate.validity));
    }

    /// How long the certificate in use is good; wakes when it is replaced.
    pub fn validity(&self) -> watch::Receiver<Option<Validity>> {
        self.validity.subscribe()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}

/// TLS 1.2 and 1.3 with the certificates of `resolver`. `clients` checks certificates of clients, where they are wanted;
/// `protocols` in order of preference, such as `h2`.
///
/// # Errors
/// Never in practice: when the ciphers built in fit no version of TLS.
pub fn server_config(
    resolver: Arc<Resolver>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    protocols: &[&str],
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match clients {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(resolver);
    config.alpn_protocols = protocols
        .iter()
        .map(|protocol| protocol.as_bytes().to_vec())
        .collect();
    Ok(config)
}
