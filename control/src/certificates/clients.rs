//! TLS settings of the push port: our certificate, and who may sign those of gateways.
//!
//! The file of authorities is read again when it changes; connections that are open stay.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;

use super::{CertificateError, Resolver, server_config};

/// Time between two looks.
const POLL: Duration = Duration::from_secs(5);

/// HTTP/2 only: gRPC.
const PROTOCOLS: [&str; 1] = ["h2"];

/// Keeps the settings of a port at what its files say.
pub struct ClientAuthorities {
    path: PathBuf,
    seen: Vec<u8>,
    resolver: Arc<Resolver>,
    settings: watch::Sender<Arc<ServerConfig>>,
    failing: Option<String>,
}

/// Settings that ask for no certificate.
///
/// # Errors
/// Never in practice.
pub fn without_clients(
    resolver: Arc<Resolver>,
) -> Result<watch::Receiver<Arc<ServerConfig>>, CertificateError> {
    let config = server_config(resolver, None, &PROTOCOLS)?;
    // The last value stays when the sender goes.
    Ok(watch::channel(Arc::new(config)).1)
}

impl ClientAuthorities {
    /// Settings that take certificates signed by the authorities in `path` (PEM). They insist on none: whoever shows
    /// none has to identify otherwise.
    ///
    /// # Errors
    /// When the file is no good at the start.
    pub fn new(
        path: PathBuf,
        resolver: Arc<Resolver>,
    ) -> Result<(Self, watch::Receiver<Arc<ServerConfig>>), CertificateError> {
        let seen = read(&path)?;
        let config = settings(&seen, resolver.clone())?;
        let (settings, receiver) = watch::channel(config);
        let authorities = Self {
            path,
            seen,
            resolver,
            settings,
            failing: None,
        };
        Ok((authorities, receiver))
    }

    /// Runs until dropped.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(POLL).await;
            self.look().await;
        }
    }

    pub(super) async fn look(&mut self) {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read(&path)).await;
        let taken = read.expect("reading does not panic").and_then(|text| {
            if text != self.seen {
                self.settings
                    .send_replace(settings(&text, self.resolver.clone())?);
                tracing::info!(path = %self.path.display(), "authorities of gateways read");
                self.seen = text;
            }
            Ok(())
        });
        let error = taken.err().map(|error| error.to_string());
        if let Some(error) = error.as_ref().filter(|_| error != self.failing) {
            let path = self.path.display().to_string();
            tracing::warn!(
                error,
                path,
                "authorities of gateways refused, the last good ones stay in use"
            );
        }
        self.failing = error;
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|source| CertificateError::Read {
        path: path.display().to_string(),
        source,
    })
}

fn settings(
    authorities: &[u8],
    resolver: Arc<Resolver>,
) -> Result<Arc<ServerConfig>, CertificateError> {
    let verifier = verifier(authorities)?;
    Ok(Arc::new(server_config(
        resolver,
        Some(verifier),
        &PROTOCOLS,
    )?))
}

fn verifier(authorities: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    let not_certificate = |error: String| CertificateError::Certificate(error);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities) {
        let certificate = certificate.map_err(|error| not_certificate(error.to_string()))?;
        roots.add(certificate)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|error| not_certificate(error.to_string()))
}
