//! Certificates that others keep in files, such as cert-manager in a mounted Secret.
//!
//! Read again every few seconds rather than on file events: three small files cost nothing, and every way in which a
//! volume may be swapped looks the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::watch;

use super::{CertificateError, Clock, Resolver, ServingCertificate, Trust};

/// Time between two looks.
const POLL: Duration = Duration::from_secs(5);

/// Where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain in PEM, leaf first.
    pub certificate: PathBuf,
    /// The leaf's private key in PEM.
    pub key: PathBuf,
    /// Whom clients must trust, in PEM; `None`: they know by other means.
    pub authority: Option<PathBuf>,
}

/// What stood in the files at one look.
#[derive(PartialEq, Eq)]
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authority: Option<Vec<u8>>,
}

/// Follows the files for as long as it runs.
pub struct FileCertificates {
    files: CertificateFiles,
    clock: Clock,
    resolver: Arc<Resolver>,
    trust: watch::Sender<Option<Trust>>,
    seen: Option<Content>,
    failing: Option<String>,
}

impl FileCertificates {
    /// Puts what is in `files` into `resolver`. The second part is the bundle of the authority's file, once it is good.
    pub fn new(
        files: CertificateFiles,
        clock: Clock,
        resolver: Arc<Resolver>,
    ) -> (Self, watch::Receiver<Option<Trust>>) {
        let (trust, receiver) = watch::channel(None);
        let files = Self {
            files,
            clock,
            resolver,
            trust,
            seen: None,
            failing: None,
        };
        (files, receiver)
    }

    /// Runs until dropped. Files that are missing at first may come later.
    pub async fn run(mut self) {
        loop {
            self.look().await;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Takes what is new, if it is good; else the last good stays in use.
    pub(super) async fn look(&mut self) {
        match self.take().await {
            Ok(()) => self.failing = None,
            Err(error) => {
                let error = error.to_string();
                if self.failing.as_ref() != Some(&error) {
                    let certificate = self.files.certificate.display().to_string();
                    tracing::warn!(
                        error,
                        certificate,
                        "certificate files refused, the last good ones stay in use"
                    );
                    self.failing = Some(error);
                }
            }
        }
    }

    async fn take(&mut self) -> Result<(), CertificateError> {
        let files = self.files.clone();
        let content = tokio::task::spawn_blocking(move || Content::read(&files))
            .await
            .expect("reading does not panic")?;
        if self.seen.as_ref() == Some(&content) {
            return Ok(());
        }
        let certificate =
            ServingCertificate::from_pem(&content.certificate, &content.key, (self.clock)())?;
        let trust = content.authority.as_deref().map(bundle).transpose()?;
        self.resolver.set(&certificate);
        self.trust.send_replace(trust);
        self.seen = Some(content);
        tracing::info!(certificate = %self.files.certificate.display(), "certificate files read");
        Ok(())
    }
}

impl Content {
    fn read(files: &CertificateFiles) -> Result<Self, CertificateError> {
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            authority: files.authority.as_deref().map(read).transpose()?,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|source| CertificateError::Read {
        path: path.display().to_string(),
        source,
    })
}

fn bundle(text: &[u8]) -> Result<Trust, CertificateError> {
    let not_certificate = |error: String| CertificateError::Certificate(error);
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(text) {
        certificate.map_err(|error| not_certificate(error.to_string()))?;
        count += 1;
    }
    if count == 0 {
        return Err(not_certificate(
            "there is none in the authority's file".into(),
        ));
    }
    let bundle = String::from_utf8(text.to_vec());
    Ok(Trust {
        bundle: bundle.map_err(|error| not_certificate(error.to_string()))?,
    })
}
