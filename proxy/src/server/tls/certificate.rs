//! A listener's certificate, read again when its files change: new handshakes get the newest good one, connections that
//! are open keep theirs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use arc_swap::ArcSwap;
use pingora_rustls::sign::CertifiedKey;
use pingora_rustls::{
    ClientHello, CryptoProvider, ResolvesServerCert, install_default_crypto_provider,
    load_certs_and_key_files,
};
use sluice_config::bootstrap::ListenerTls;
use sluice_config::watch::{Fingerprint, Watcher};

use crate::telemetry::Metrics;

/// Certificate and key are two files, and are written one after the other.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// What new handshakes of one listener get.
#[derive(Debug)]
pub(super) struct ListenerCertificate {
    listener: SocketAddr,
    files: ListenerTls,
    current: ArcSwap<CertifiedKey>,
    /// Why what is in the files now is not in use. Held while the files are read: by two watches, never by a handshake.
    refused: Mutex<Option<String>>,
    metrics: Arc<Metrics>,
}

/// Watches the files until dropped.
pub(in crate::server) struct CertificateWatch {
    _watchers: [Watcher; 2],
}

impl ListenerCertificate {
    /// Reads the files, and again whenever they change.
    ///
    /// # Errors
    /// When certificate or key cannot be read or do not belong together, or no thread can be started.
    pub(super) fn follow(
        listener: SocketAddr,
        files: &ListenerTls,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<(Arc<Self>, CertificateWatch)> {
        // Before reading: what changes from here on is noticed.
        let watched = [&files.cert_file, &files.key_file].map(|file| (Fingerprint::of(file), file));
        let certificate = Arc::new(Self {
            listener,
            files: files.clone(),
            current: ArcSwap::from_pointee(load(files)?),
            refused: Mutex::default(),
            metrics,
        });
        let [cert, key] = watched.map(|(seen, file)| certificate.watch(seen, file));
        let watch = CertificateWatch {
            _watchers: [cert?, key?],
        };
        Ok((certificate, watch))
    }

    fn watch(self: &Arc<Self>, seen: Fingerprint, file: &PathBuf) -> anyhow::Result<Watcher> {
        let certificate = Arc::downgrade(self);
        let on_change = move || {
            if let Some(certificate) = certificate.upgrade() {
                certificate.read();
            }
        };
        Watcher::since(seen, file, DEBOUNCE, on_change)
            .context("no thread to watch the certificate's files")
    }

    /// Takes what is in the files now, if it is good; else the last good one stays in use.
    fn read(&self) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let listener = self.listener;
        let loaded = load(&self.files);
        let series = &self.metrics.certificates;
        match loaded {
            Ok(new) => {
                if refused.take().is_some() {
                    series.refused.dec();
                }
                // Both files have changed, and the watch of the other one was first.
                if new.cert == self.current.load().cert {
                    return;
                }
                self.current.store(Arc::new(new));
                series.read(true);
                tracing::info!(%listener, "new certificate, for new connections");
            }
            Err(error) => {
                let words = format!("{error:#}");
                if refused.as_ref() == Some(&words) {
                    return;
                }
                tracing::error!(
                    %listener,
                    error = words,
                    "the new certificate is refused, the last good one stays in use"
                );
                if refused.replace(words).is_none() {
                    series.refused.inc();
                }
                series.read(false);
            }
        }
    }
}

impl ResolvesServerCert for ListenerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn load(files: &ListenerTls) -> anyhow::Result<CertifiedKey> {
    let (cert, key) = (path(&files.cert_file), path(&files.key_file));
    pair(&cert, &key).with_context(|| format!("certFile {cert}, keyFile {key}"))
}

fn pair(cert: &str, key: &str) -> anyhow::Result<CertifiedKey> {
    install_default_crypto_provider();
    let loaded = load_certs_and_key_files(cert, key).map_err(|error| anyhow!("{error}"))?;
    let (chain, key) = loaded.context("no PEM certificate, or no PEM private key, in the file")?;
    let provider = CryptoProvider::get_default().context("no cryptography is installed")?;
    CertifiedKey::from_der(chain, key, provider)
        .context("certificate and key do not belong together")
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
