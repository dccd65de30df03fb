//! The identity in a certificate. Its chain has been verified by then; here it is only read.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::AuthenticateError;

/// How workload identities begin.
const SPIFFE: &str = "spiffe://";

/// The `spiffe://` URI among the alternative names, else their first DNS name, else the common name of the subject.
pub(super) fn identity(der: &[u8]) -> Result<String, AuthenticateError> {
    let unreadable = |error: String| AuthenticateError::Certificate(error);
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| unreadable(error.to_string()))?;
    let names = certificate.subject_alternative_name();
    let names = names.map_err(|error| unreadable(error.to_string()))?;
    let names = names.map_or(&[][..], |extension| &extension.value.general_names);
    let spiffe = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) if uri.starts_with(SPIFFE) => Some((*uri).to_owned()),
        _ => None,
    };
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    let common = || {
        let mut names = certificate.subject().iter_common_name();
        names.find_map(|name| name.as_str().ok()).map(str::to_owned)
    };
    names
        .iter()
        .find_map(spiffe)
        .or_else(|| names.iter().find_map(dns))
        .or_else(common)
        .filter(|name| !name.is_empty())
        .ok_or(AuthenticateError::NoName)
}
