//! What comes by push only, beside documents and endpoints: credentials and other gateways.

use std::collections::BTreeMap;
use std::fmt;

/// Keys of a Kubernetes Secret. In memory only: never logged, never written to disk.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its version on the stream: all of it that may be shown.
    pub version: String,
    /// Value by key.
    pub data: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Secret {
    /// Without the values.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Secret")
            .field("version", &self.version)
            .field("keys", &self.data.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// Another gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its version on the stream.
    pub version: String,
    /// IP address.
    pub host: String,
    /// Zone of its node; empty if it has none.
    pub zone: String,
    /// Is it ready?
    pub ready: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_its_keys_and_no_value() {
        let secret = Secret {
            version: "7".into(),
            data: BTreeMap::from([("key".into(), b"hunter2".to_vec())]),
        };
        let shown = format!("{secret:?} {:?}", std::sync::Arc::new(secret.clone()));
        assert!(shown.contains("key") && shown.contains('7'), "{shown}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("104"),
            "{shown}"
        );
    }
}
