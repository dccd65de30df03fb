//! Signatures by ring, for `jsonwebtoken`, which brings no cryptography of its own here.
//!
//! Checks only, and only with public keys: what `HS*` would be checked with is no key here.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result, new_error};
use jsonwebtoken::signature::{Error as SignatureError, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: no_signer,
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Once per process; later calls change nothing.
pub(super) fn install() {
    // The only provider there is: an error says that it is installed.
    let _ = PROVIDER.install_default();
}

fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(new_error(ErrorKind::UnsupportedAlgorithm))
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    let check = check_of(*algorithm).ok_or_else(|| new_error(ErrorKind::InvalidAlgorithm))?;
    let fits = match (&check, key.kind()) {
        (Check::Rsa(_), DecodingKeyKind::RsaModulusExponent { .. })
        | (Check::Other(_), DecodingKeyKind::SecretOrDer(_)) => key.family() == algorithm.family(),
        _ => false,
    };
    if !fits {
        return Err(new_error(ErrorKind::InvalidAlgorithm));
    }
    Ok(Box::new(RingVerifier {
        algorithm: *algorithm,
        check,
        key: key.clone(),
    }))
}

enum Check {
    Rsa(&'static RsaParameters),
    Other(&'static dyn VerificationAlgorithm),
}

/// `None` for what is not accepted.
fn check_of(algorithm: Algorithm) -> Option<Check> {
    // From 2048 bits on.
    let rsa = |parameters| Some(Check::Rsa(parameters));
    match algorithm {
        Algorithm::RS256 => rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => rsa(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => rsa(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => rsa(&signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::ES256 => Some(Check::Other(&signature::ECDSA_P256_SHA256_FIXED)),
        Algorithm::ES384 => Some(Check::Other(&signature::ECDSA_P384_SHA384_FIXED)),
        Algorithm::EdDSA => Some(Check::Other(&signature::ED25519)),
        _ => None,
    }
}

struct RingVerifier {
    algorithm: Algorithm,
    check: Check,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], given: &Vec<u8>) -> std::result::Result<(), SignatureError> {
        let verified = match (&self.check, self.key.kind()) {
            (Check::Rsa(parameters), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, given)
            }
            (Check::Other(algorithm), DecodingKeyKind::SecretOrDer(point)) => {
                signature::UnparsedPublicKey::new(*algorithm, point).verify(message, given)
            }
            _ => Err(ring::error::Unspecified),
        };
        verified.map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
