//! An issuer's public keys: a JSON Web Key Set read, and the keys that may check a token.
//!
//! A set may hold keys for other ends and of kinds that are not known here: they are passed over.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// Most keys of a set.
const MAX_KEYS: usize = 100;

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// Keys that can check signatures.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Key>);

/// One of them.
pub(super) struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Key")
            .field("id", &self.id)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

/// Why a set is of no use.
#[derive(Debug, Error)]
pub(super) enum KeysError {
    /// It is something else.
    #[error("this is no JSON Web Key Set: {0}")]
    Json(#[from] serde_json::Error),
    /// Nothing in it helps.
    #[error("none of its {keys} keys can check a signature (RS*, PS*, ES256, ES384, EdDSA)")]
    None {
        /// Keys in it.
        keys: usize,
    },
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl Keys {
    /// Reads a set.
    pub(super) fn parse(page: &[u8]) -> Result<Self, KeysError> {
        let set: Set = serde_json::from_slice(page)?;
        let count = set.keys.len();
        let keys = set.keys.into_iter().take(MAX_KEYS).filter_map(Key::read);
        let keys: Vec<Key> = keys.collect();
        if keys.is_empty() {
            return Err(KeysError::None { keys: count });
        }
        Ok(Self(keys))
    }

    /// Those that may have signed a token with this `kid` and `alg`. Without a `kid` every fitting key is tried.
    pub(super) fn candidates<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a DecodingKey> {
        let named = move |key: &&Key| id.is_none() || key.id.as_deref() == id;
        let fits = move |key: &&Key| key.algorithms.contains(&algorithm);
        let found = self.0.iter().filter(named).filter(fits);
        found.map(|key| &key.key)
    }

    /// Names and algorithms, for people.
    pub(super) fn describe(&self) -> Vec<String> {
        let describe = |key: &Key| {
            let id = key.id.as_deref().unwrap_or("without id");
            let algorithms: Vec<String> = (key.algorithms.iter())
                .map(|algorithm| format!("{algorithm:?}"))
                .collect();
            format!("{id} ({})", algorithms.join(", "))
        };
        self.0.iter().map(describe).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Key {
    fn read(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let common = &jwk.common;
        let signs =
            (common.public_key_use.as_ref()).is_none_or(|to| *to == PublicKeyUse::Signature);
        let operations = common.key_operations.as_ref();
        let verifies = operations.is_none_or(|all| all.contains(&KeyOperations::Verify));
        if !signs || !verifies {
            return None;
        }
        let mut algorithms = algorithms(&jwk.algorithm);
        if let Some(only) = common.key_algorithm {
            let only = Algorithm::try_from(only).ok()?;
            algorithms.retain(|algorithm| *algorithm == only);
        }
        if algorithms.is_empty() {
            return None;
        }
        Some(Self {
            id: common.key_id.clone(),
            algorithms,
            key: DecodingKey::from_jwk(&jwk).ok()?,
        })
    }
}

/// What a kind of key can check. Secrets (`oct`) are no public keys and check nothing.
fn algorithms(parameters: &AlgorithmParameters) -> Vec<Algorithm> {
    match parameters {
        AlgorithmParameters::RSA(_) => RSA.to_vec(),
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => Vec::new(),
        },
        AlgorithmParameters::OctetKeyPair(pair) => match pair.curve {
            EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}
