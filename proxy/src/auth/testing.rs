//! An issuer for tests: keys of every kind, their public halves as a set, and tokens signed with them. Elliptic keys are
//! made anew each time; `ring` makes no RSA keys, so that one is a file, of use to nobody but these tests.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding,
    RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};

const RSA: &[u8] = include_bytes!("testing/rsa.pk8");

/// A private key.
pub(super) enum Signer {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair, &'static str),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    pub(super) fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::from_pkcs8(RSA).unwrap())
    }

    pub(super) fn p256() -> Self {
        Self::ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, "P-256")
    }

    pub(super) fn p384() -> Self {
        Self::ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, "P-384")
    }

    fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm, curve: &'static str) -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap();
        Self::Ecdsa(key, curve)
    }

    pub(super) fn ed25519() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed25519(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    /// Its public half.
    pub(super) fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Rsa(key) => {
                let RsaPublicKeyComponents { n, e } =
                    RsaPublicKeyComponents::<Vec<u8>>::from(key.public_key());
                json!({"kty": "RSA", "use": "sig", "kid": id, "n": text(&n), "e": text(&e)})
            }
            Self::Ecdsa(key, curve) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "kid": id, "crv": curve, "x": text(x), "y": text(y)})
            }
            Self::Ed25519(key) => json!({
                "kty": "OKP", "kid": id, "crv": "Ed25519", "x": text(key.public_key().as_ref()),
            }),
        }
    }

    /// A token. `algorithm` is what its head says, and for RSA what is done.
    pub(super) fn token(&self, algorithm: &str, id: Option<&str>, claims: &Value) -> String {
        let head = match id {
            Some(id) => json!({"typ": "JWT", "alg": algorithm, "kid": id}),
            None => json!({"alg": algorithm}),
        };
        self.sign(&head, claims, algorithm)
    }

    pub(super) fn sign(&self, head: &Value, claims: &Value, algorithm: &str) -> String {
        let message = format!("{}.{}", part(head), part(claims));
        let random = SystemRandom::new();
        let signature = match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(
                    encoding(algorithm),
                    &random,
                    message.as_bytes(),
                    &mut signature,
                )
                .unwrap();
                signature
            }
            Self::Ecdsa(key, _) => {
                let signature = key.sign(&random, message.as_bytes()).unwrap();
                signature.as_ref().to_vec()
            }
            Self::Ed25519(key) => key.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", text(&signature))
    }
}

fn encoding(algorithm: &str) -> &'static dyn RsaEncoding {
    match algorithm {
        "RS384" => &signature::RSA_PKCS1_SHA384,
        "RS512" => &signature::RSA_PKCS1_SHA512,
        "PS256" => &signature::RSA_PSS_SHA256,
        "PS384" => &signature::RSA_PSS_SHA384,
        "PS512" => &signature::RSA_PSS_SHA512,
        _ => &signature::RSA_PKCS1_SHA256,
    }
}

/// A set of public keys.
pub(super) fn set(keys: &[Value]) -> Vec<u8> {
    json!({"keys": keys}).to_string().into_bytes()
}

/// A part of a token.
pub(super) fn part(value: &Value) -> String {
    text(value.to_string().as_bytes())
}

/// base64url.
pub(super) fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
