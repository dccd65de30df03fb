//! Certificates of listeners and authorities of engines: looked at before Pingora does, which panics on bad ones.

mod certificate;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use pingora_core::listeners::tls::TlsSettings;
use pingora_rustls::{RootCertStore, load_ca_file_into_store};
use sluice_config::bootstrap::ListenerTls;

use self::certificate::ListenerCertificate;
use crate::telemetry::Metrics;

pub(super) use self::certificate::CertificateWatch;

/// A listener's TLS settings, HTTP/2 included, and what keeps its certificate the newest.
///
/// # Errors
/// When certificate or key cannot be read, or do not belong together.
pub(super) fn settings(
    listener: SocketAddr,
    tls: &ListenerTls,
    metrics: Arc<Metrics>,
) -> anyhow::Result<(TlsSettings, CertificateWatch)> {
    let (certificate, watch) = ListenerCertificate::follow(listener, tls, metrics)?;
    // The files are not read by Pingora: the resolver takes their place.
    let mut settings = TlsSettings::intermediate("", "").map_err(|error| anyhow!("{error}"))?;
    settings.set_cert_resolver(certificate);
    settings.enable_h2();
    Ok((settings, watch))
}

/// Are there authorities in the file that `field` names?
///
/// # Errors
/// When the file cannot be read or holds anything else.
pub(super) fn check_authorities(field: &str, file: &Path) -> anyhow::Result<()> {
    let mut store = RootCertStore::empty();
    load_ca_file_into_store(file, &mut store)
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| format!("{field} {}", file.display()))?;
    anyhow::ensure!(
        !store.is_empty(),
        "{field} {}: no certificate in it",
        file.display()
    );
    Ok(())
}
