//! Certificates of listeners and authorities of engines: looked at before Pingora does, which panics on bad ones.

use std::path::Path;

use anyhow::{Context, anyhow};
use pingora_core::listeners::tls::TlsSettings;
use pingora_rustls::{
    RootCertStore, ServerConfig, install_default_crypto_provider, load_ca_file_into_store,
    load_certs_and_key_files,
};
use sluice_config::bootstrap::ListenerTls;

/// A listener's TLS settings, HTTP/2 included.
///
/// # Errors
/// When certificate or key cannot be read, or do not belong together.
pub(super) fn settings(tls: &ListenerTls) -> anyhow::Result<TlsSettings> {
    let (cert, key) = (path(&tls.cert_file), path(&tls.key_file));
    check(&cert, &key).with_context(|| format!("certFile {cert}, keyFile {key}"))?;
    let mut settings =
        TlsSettings::intermediate(&cert, &key).map_err(|error| anyhow!("{error}"))?;
    settings.enable_h2();
    Ok(settings)
}

fn check(cert: &str, key: &str) -> anyhow::Result<()> {
    install_default_crypto_provider();
    let loaded = load_certs_and_key_files(cert, key).map_err(|error| anyhow!("{error}"))?;
    let (chain, key) = loaded.context("no PEM certificate, or no PEM private key, in the file")?;
    ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("certificate and key do not belong together")?;
    Ok(())
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

fn path(path: &Path) -> String {
    path.display().to_string()
}
