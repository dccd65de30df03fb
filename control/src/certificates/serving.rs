//! The certificate with which one replica serves.

use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::{set_validity, validity_of};
use super::{Authority, CertificateError, Lifetimes, Names, Validity};

/// A chain, its key, and how long it is good.
#[derive(Debug, Clone)]
pub struct ServingCertificate {
    /// For TLS.
    pub certified: Arc<CertifiedKey>,
    /// From when to when.
    pub validity: Validity,
    /// Certificate of who signed it; `None`: read from a file.
    issuer: Option<String>,
}

impl ServingCertificate {
    /// A new one with a key of its own, which never leaves the process.
    ///
    /// # Errors
    /// When a name is none, or the machine gives no randomness.
    pub fn issue(
        authority: &Authority,
        names: &Names,
        now: SystemTime,
        lifetimes: &Lifetimes,
    ) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut validity = Validity::starting(now, lifetimes.serving);
        validity.until = validity.until.min(authority.validity().until);
        let certificate = params(names, validity)?.signed_by(&key, authority.issuer())?;
        let chain = vec![certificate.der().clone()];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Self {
            certified: certified(chain, &key)?,
            validity,
            issuer: Some(authority.certificate().to_owned()),
        })
    }

    /// One that others made: a chain, its leaf first, and the leaf's key.
    ///
    /// # Errors
    /// When either is not what it should be, they do not belong together, or the leaf has expired.
    pub fn from_pem(chain: &[u8], key: &[u8], now: SystemTime) -> Result<Self, CertificateError> {
        let not_certificate = |error: String| CertificateError::Certificate(error);
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| not_certificate(error.to_string()))?;
        let leaf = chain
            .first()
            .ok_or_else(|| not_certificate("there is none in it".into()))?;
        let (_, leaf) =
            X509Certificate::from_der(leaf).map_err(|error| not_certificate(error.to_string()))?;
        let validity = validity_of(&leaf);
        if let Ok(over) = now.duration_since(validity.until) {
            return Err(CertificateError::Expired(over.as_secs()));
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| CertificateError::Key(error.to_string()))?;
        Ok(Self {
            certified: certified(chain, &key)?,
            validity,
            issuer: None,
        })
    }

    /// Must a replica whose authority is `authority` have a new one?
    pub fn is_due(&self, authority: &Authority, now: SystemTime) -> bool {
        now >= self.validity.renew_at() || self.issuer.as_deref() != Some(authority.certificate())
    }
}

fn params(names: &Names, validity: Validity) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::new(names.dns.clone())?;
    let addresses = names.addresses.iter().copied().map(SanType::IpAddress);
    params.subject_alt_names.extend(addresses);
    set_validity(&mut params, validity);
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "sluice-control");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, CertificateError> {
    let certified = CertifiedKey::new(chain, any_supported_type(key)?);
    match certified.keys_match() {
        Ok(()) => Ok(Arc::new(certified)),
        Err(rustls::Error::InconsistentKeys(_)) => Err(CertificateError::Mismatch),
        Err(error) => Err(error.into()),
    }
}
