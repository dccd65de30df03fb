//! One token held against the rules: where it stands in a request, its signature, its claims.

use http::header::{self, HeaderMap};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header, get_current_timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};
use sluice_config::auth::JwtParams;
use thiserror::Error;

use super::keys::Keys;

/// Clocks may differ so far, in seconds.
const LEEWAY_SECONDS: u64 = 30;
/// Most keys that one token without `kid` is tried with.
const MAX_TRIES: usize = 16;
/// Longest user name taken from a token, in bytes.
const MAX_USER_BYTES: usize = 256;

/// Public-key signatures only: never `none`, and no `HS*`, for which a public key would be a password.
const ACCEPTED: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Why a token is not accepted. Nothing of the token is in the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenError {
    /// There is none.
    #[error("a token is needed: send `authorization: Bearer TOKEN`")]
    Missing,
    /// Another scheme, or more than a token.
    #[error("the authorization field is not of the form `Bearer TOKEN`")]
    Scheme,
    /// Which of them would count?
    #[error("there is more than one authorization field")]
    Several,
    /// Not three parts of base64url with JSON in them.
    #[error("the token is no JSON Web Token")]
    Malformed,
    /// Its `alg`.
    #[error("the token's algorithm is not accepted; accepted are RS*, PS*, ES256, ES384 and EdDSA")]
    Algorithm,
    /// Its `kid`, or no key of its kind.
    #[error("the token is signed with a key that its issuer does not publish")]
    UnknownKey,
    /// The signature.
    #[error("the token's signature is wrong")]
    Signature,
    /// `exp`.
    #[error("the token has expired")]
    Expired,
    /// `nbf`.
    #[error("the token is not valid yet (`nbf`)")]
    NotYet,
    /// `iat`.
    #[error("the token was issued in the future (`iat`)")]
    FromTheFuture,
    /// `iss`.
    #[error("the token's issuer (`iss`) is not the one that is accepted here")]
    Issuer,
    /// `aud`.
    #[error("the token is not meant for this gateway (`aud`)")]
    Audience,
    /// A claim that must be there, or is of another type.
    #[error(
        "the token's claims are incomplete or malformed: `exp` and `iss` are needed, and `aud` where it is checked"
    )]
    Claims,
}

impl TokenError {
    /// Every one, in declaration order.
    pub const ALL: [Self; 13] = [
        Self::Missing,
        Self::Scheme,
        Self::Several,
        Self::Malformed,
        Self::Algorithm,
        Self::UnknownKey,
        Self::Signature,
        Self::Expired,
        Self::NotYet,
        Self::FromTheFuture,
        Self::Issuer,
        Self::Audience,
        Self::Claims,
    ];

    /// Metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Scheme => "scheme",
            Self::Several => "several",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::FromTheFuture => "from_the_future",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claims => "claims",
        }
    }
}

/// The token of a request.
pub(super) fn find(headers: &HeaderMap) -> Result<&str, TokenError> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let field = fields.next().ok_or(TokenError::Missing)?;
    if fields.next().is_some() {
        return Err(TokenError::Several);
    }
    let field = field.to_str().map_err(|_| TokenError::Scheme)?.trim();
    let (scheme, token) = field.split_once(' ').ok_or(TokenError::Scheme)?;
    let token = token.trim_start();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.contains([' ', ',']) {
        return Err(TokenError::Scheme);
    }
    Ok(token)
}

/// Rules, as the library wants them.
pub(super) struct Rules {
    validation: Validation,
    user_claim: String,
}

/// What is read besides what the library checks.
#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    iat: Option<Value>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Rules {
    pub(super) fn new(params: &JwtParams) -> Self {
        let mut validation = Validation {
            leeway: LEEWAY_SECONDS,
            validate_nbf: true,
            validate_aud: !params.audiences.is_empty(),
            ..Validation::default()
        };
        validation.set_issuer(&[&params.issuer]);
        let mut required = vec!["exp", "iss"];
        if validation.validate_aud {
            validation.set_audience(&params.audiences);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        Self {
            validation,
            user_claim: params.user_claim.clone(),
        }
    }

    /// Holds a token against the rules; `Some`: the user it names.
    pub(super) fn check(&self, token: &str, keys: &Keys) -> Result<Option<String>, TokenError> {
        let header = decode_header(token).map_err(|error| unreadable(token, error.kind()))?;
        if !ACCEPTED.contains(&header.alg) {
            return Err(TokenError::Algorithm);
        }
        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.alg];
        let mut refused = TokenError::UnknownKey;
        let candidates = keys.candidates(header.kid.as_deref(), header.alg);
        for key in candidates.take(MAX_TRIES) {
            match decode::<Claims>(token, key, &validation) {
                Ok(data) => return self.user(data.claims),
                Err(error) => refused = reason(error.kind()),
            }
            // Another key can only mend the signature.
            if refused != TokenError::Signature {
                break;
            }
        }
        Err(refused)
    }

    fn user(&self, claims: Claims) -> Result<Option<String>, TokenError> {
        let latest = (get_current_timestamp() + LEEWAY_SECONDS) as f64;
        match claims.iat.as_ref().map(Value::as_f64) {
            None => {}
            Some(None) => return Err(TokenError::Claims),
            Some(Some(issued)) if issued > latest => return Err(TokenError::FromTheFuture),
            Some(Some(_)) => {}
        }
        let user = claims.others.get(&self.user_claim).and_then(Value::as_str);
        let user = user.filter(|user| !user.is_empty() && user.len() <= MAX_USER_BYTES);
        Ok(user.map(str::to_owned))
    }
}

/// Why a head could not be read: an `alg` that the library does not know is no accident of form.
fn unreadable(token: &str, kind: &ErrorKind) -> TokenError {
    let parts = token.split('.').count();
    match kind {
        ErrorKind::Json(error) if parts == 3 && error.to_string().contains("unknown variant") => {
            TokenError::Algorithm
        }
        _ => TokenError::Malformed,
    }
}

fn reason(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::NotYet,
        ErrorKind::InvalidIssuer => TokenError::Issuer,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => TokenError::Algorithm,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => TokenError::Claims,
        _ => TokenError::Malformed,
    }
}
