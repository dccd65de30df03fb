//! Who may ask: JSON Web Tokens, as written and as meant.
//!
//! For: the bootstrap file's `auth` and the `auth` of Kthena's router configuration, by the same rules. Not for
//! tokens and keys themselves: those are the proxy's.

mod check;

use std::path::PathBuf;

use kube::core::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::check::check;

/// Who may ask.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AuthConfig {
    /// Whoever brings a token that these rules accept; default: everybody.
    pub jwt: Option<JwtConfig>,
}

/// JSON Web Tokens, in the `authorization` field as `Bearer`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtConfig {
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must have one of; empty: `aud` is not looked at.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Where the issuer publishes its keys, `https://host/path`. Fetched again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
    /// The keys in a file instead. Watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_file: Option<PathBuf>,
    /// Time between two fetches of the keys; default 5 minutes. A token with an unknown key is reason for one between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub refresh_interval: Option<Duration>,
    /// PEM file of the authorities that sign the certificate of `jwksUri`; default: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// What is read from tokens.
    #[serde(default)]
    pub claims: ClaimsConfig,
}

/// What is read from tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClaimsConfig {
    /// The claim that names the user.
    pub user: String,
}

impl Default for ClaimsConfig {
    fn default() -> Self {
        Self { user: "sub".into() }
    }
}

/// Checked rules for tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtParams {
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must have one of; empty: `aud` is not looked at.
    pub audiences: Vec<String>,
    /// Where the keys are.
    pub keys: KeySource,
    /// The claim that names the user.
    pub user_claim: String,
}

/// Where keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Published by the issuer.
    Uri(KeyUri),
    /// In a file.
    File(PathBuf),
}

/// Where an issuer publishes its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUri {
    /// As written.
    pub uri: String,
    /// By TLS.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `host` or `host:port`, as written.
    pub authority: String,
    /// Path with query, beginning with `/`.
    pub path: String,
    /// Time between two fetches.
    pub refresh: std::time::Duration,
    /// Authorities of its certificate, other than the system's.
    pub ca_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests;
