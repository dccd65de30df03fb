//! The authority that signs our certificates, and its successor while both are in use.
//!
//! Pure: the time comes in, secrets go out as PEM. Where they are kept is the store's business.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Lifetimes, Validity};

/// Why a certificate or a key is of no use.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Not PEM, or not a certificate inside.
    #[error("not a certificate in PEM: {0}")]
    Certificate(String),
    /// No private key in it, or one of a kind that we cannot use.
    #[error("not a private key in PEM: {0}")]
    Key(String),
    /// Two files of different pairs.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// Its time is over.
    #[error("the certificate expired {0} s ago")]
    Expired(u64),
    /// Signing failed.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// TLS would not have it.
    #[error("TLS refuses the certificate: {0}")]
    Tls(#[from] rustls::Error),
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Its path.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// A certificate that signs, and its key.
pub struct Authority {
    certificate: String,
    key: String,
    validity: Validity,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Authority {
    fn eq(&self, other: &Self) -> bool {
        self.certificate == other.certificate && self.key == other.key
    }
}

impl Authority {
    /// A new one: ECDSA on P-256, its own name, so that verifiers tell it from its predecessor.
    ///
    /// # Errors
    /// When the machine gives no randomness.
    pub fn generate(now: SystemTime, life: Duration) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let validity = Validity::starting(now, life);
        let mut params = CertificateParams::default();
        set_validity(&mut params, validity);
        params.distinguished_name = DistinguishedName::new();
        let name = format!("sluice-control authority {:016x}", rand::random::<u64>());
        params.distinguished_name.push(DnType::CommonName, name);
        // Signs servers directly, and nothing else.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        Self::from_pem(&certificate, &key.serialize_pem())
    }

    /// One that was written down.
    ///
    /// # Errors
    /// When either text is not what it should be, or they do not belong together.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, CertificateError> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|error| CertificateError::Certificate(error.to_string()))?;
        let pair =
            KeyPair::from_pem(key).map_err(|error| CertificateError::Key(error.to_string()))?;
        let (_, parsed) = X509Certificate::from_der(&der)
            .map_err(|error| CertificateError::Certificate(error.to_string()))?;
        if parsed.public_key().subject_public_key.data.as_ref() != pair.public_key_raw() {
            return Err(CertificateError::Mismatch);
        }
        if !parsed.is_ca() {
            return Err(CertificateError::Certificate(
                "it may not sign others".into(),
            ));
        }
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            validity: validity_of(&parsed),
            issuer: Issuer::from_ca_cert_der(&der, pair)?,
        })
    }

    /// The certificate in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The private key in PEM.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// From when to when.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

/// The newest authority and, for as long as it is good, the one before. Clones are cheap.
#[derive(Debug, Clone, PartialEq)]
pub struct Authorities {
    /// The newest.
    pub current: Arc<Authority>,
    /// Its predecessor, whose signatures are still about.
    pub previous: Option<Arc<Authority>>,
}

impl Authorities {
    /// A first one.
    ///
    /// # Errors
    /// As [`Authority::generate`].
    pub fn first(now: SystemTime, lifetimes: &Lifetimes) -> Result<Self, CertificateError> {
        Ok(Self {
            current: Arc::new(Authority::generate(now, lifetimes.authority)?),
            previous: None,
        })
    }

    /// A new one in front of `last`, which stays trusted until it is over.
    ///
    /// # Errors
    /// As [`Authority::generate`].
    pub fn succeed(
        last: Arc<Authority>,
        now: SystemTime,
        lifetimes: &Lifetimes,
    ) -> Result<Self, CertificateError> {
        let first = Self::first(now, lifetimes)?;
        Ok(Self {
            previous: Some(last).filter(|last| !last.validity.is_over(now)),
            ..first
        })
    }

    /// Who signs now: the newest once it has been published for long enough, or at once where nobody else could.
    pub fn issuer(&self, now: SystemTime, lifetimes: &Lifetimes) -> &Authority {
        match &self.previous {
            Some(previous)
                if now < self.signs_from(lifetimes) && !previous.validity.is_over(now) =>
            {
                previous
            }
            _ => &self.current,
        }
    }

    fn signs_from(&self, lifetimes: &Lifetimes) -> SystemTime {
        self.current.validity.made() + lifetimes.publication
    }

    /// What clients must trust now.
    pub fn bundle(&self, now: SystemTime) -> String {
        let previous = self.previous.as_ref();
        let mut bundle = self.current.certificate.clone();
        if let Some(previous) = previous.filter(|previous| !previous.validity.is_over(now)) {
            bundle.push_str(&previous.certificate);
        }
        bundle
    }

    /// Is it time for a new one?
    pub fn is_due(&self, now: SystemTime) -> bool {
        now >= self.current.validity.renew_at()
    }

    /// Has the predecessor served its time?
    pub fn is_previous_over(&self, now: SystemTime) -> bool {
        let previous = self.previous.as_ref();
        previous.is_some_and(|previous| previous.validity.is_over(now))
    }

    /// When something of the above changes next.
    pub fn next_change(&self, now: SystemTime, lifetimes: &Lifetimes) -> SystemTime {
        let renewal = self.current.validity.renew_at();
        let signs_from = self.previous.as_ref().map(|_| self.signs_from(lifetimes));
        let over = self
            .previous
            .as_ref()
            .map(|previous| previous.validity.until);
        let later = [Some(renewal), signs_from, over].into_iter().flatten();
        later.filter(|at| *at > now).min().unwrap_or(renewal)
    }
}

/// In whole seconds, as certificates have it.
pub(super) fn set_validity(params: &mut CertificateParams, validity: Validity) {
    let date = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since.unwrap_or_default().as_secs();
        date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    params.not_before = date(validity.from);
    params.not_after = date(validity.until);
}

pub(super) fn validity_of(certificate: &X509Certificate<'_>) -> Validity {
    let time = |seconds: i64| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    };
    let validity = certificate.validity();
    Validity {
        from: time(validity.not_before.timestamp()),
        until: time(validity.not_after.timestamp()),
    }
}
