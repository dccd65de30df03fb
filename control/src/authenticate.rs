//! Who is at the other end of a stream: by the certificate of its connection, or by its service-account token.
//!
//! For: an identity, or words that say why there is none. Not for what that identity may see: [`grants`](crate::grants).

mod certificate;
mod token;

use std::sync::Arc;

use thiserror::Error;
use tonic::Code;

pub use token::{AUDIENCE, TokenReviewer};

/// What everybody is called where nobody is asked.
const ANYBODY: &str = "anybody";

/// Longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Finds out who somebody is.
#[derive(Debug)]
pub struct Authenticator {
    insecure: bool,
    /// Without one, tokens do not count.
    reviewer: Option<TokenReviewer>,
}

/// Why somebody is nobody.
#[derive(Debug, Error)]
pub enum AuthenticateError {
    /// Neither certificate nor token.
    #[error(
        "no client certificate and no token: connect with a certificate of the configured authority, or send \
         `authorization: Bearer` with a projected service-account token for audience {AUDIENCE}"
    )]
    Missing,
    /// A token, where only certificates count.
    #[error("tokens are not accepted here: connect with a certificate of the configured authority")]
    NoReviewer,
    /// A header that is no bearer token.
    #[error("the authorization header must be `Bearer TOKEN`")]
    Malformed,
    /// A certificate that cannot be read.
    #[error("the client certificate cannot be read: {0}")]
    Certificate(String),
    /// A certificate without a name.
    #[error(
        "the client certificate names nobody: it has neither a spiffe:// URI, nor a DNS name, nor a common name"
    )]
    NoName,
    /// A token for somebody else.
    #[error(
        "the token is not meant for this service: project a service-account token with audience {AUDIENCE}"
    )]
    WrongAudience,
    /// A token that was good.
    #[error("the token has expired: read it anew from its file before connecting")]
    Expired,
    /// A token that is no good, in the API server's words.
    #[error("the token is refused by the API server: {0}")]
    Refused(String),
    /// Nobody can say now whether the token is good.
    #[error("the token cannot be checked now: {0}")]
    Unreachable(String),
}

impl AuthenticateError {
    /// What it is in gRPC: everything but [`Unreachable`](Self::Unreachable) is the caller's to mend.
    pub const fn code(&self) -> Code {
        match self {
            Self::Unreachable(_) => Code::Unavailable,
            _ => Code::Unauthenticated,
        }
    }
}

impl Authenticator {
    /// By certificate, and with a reviewer by token too.
    pub const fn new(reviewer: Option<TokenReviewer>) -> Self {
        Self {
            insecure: false,
            reviewer,
        }
    }

    /// Takes everybody for the same, who may see everything. For development only, and says so in the log.
    pub fn insecure() -> Self {
        tracing::warn!(
            "--insecure-push: anybody who reaches the push port sees every resource, credentials included"
        );
        Self {
            insecure: true,
            reviewer: None,
        }
    }

    /// Is everybody let in, without grants?
    pub const fn is_insecure(&self) -> bool {
        self.insecure
    }

    /// The identity behind a verified certificate (DER), else behind the value of the `authorization` header.
    ///
    /// # Errors
    /// When there is none, with words for the caller; they hold nothing of the token.
    pub async fn identify(
        &self,
        certificate: Option<&[u8]>,
        authorization: Option<&[u8]>,
    ) -> Result<Arc<str>, AuthenticateError> {
        if self.insecure {
            return Ok(ANYBODY.into());
        }
        if let Some(certificate) = certificate {
            return certificate::identity(certificate).map(Into::into);
        }
        let token = bearer(authorization.ok_or(AuthenticateError::Missing)?)?;
        let reviewer = self
            .reviewer
            .as_ref()
            .ok_or(AuthenticateError::NoReviewer)?;
        reviewer.identity(token).await
    }
}

/// The token of an `authorization` header.
fn bearer(header: &[u8]) -> Result<&str, AuthenticateError> {
    let malformed = || AuthenticateError::Malformed;
    let header = std::str::from_utf8(header).map_err(|_| malformed())?;
    let (scheme, token) = header.trim().split_once(' ').ok_or_else(malformed)?;
    let token = token.trim();
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    let fits = !token.is_empty() && token.len() <= MAX_TOKEN_BYTES;
    (is_bearer && fits).then_some(token).ok_or_else(malformed)
}

#[cfg(test)]
mod tests;
