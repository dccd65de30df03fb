//! Who talks to the API server: kubeconfig files and clients of users with real credentials, never impersonated.

use std::path::{Path, PathBuf};

use anyhow::Context;
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::keys::Certificate;

/// How long a token of [`token`] lasts; no test runs longer.
const TOKEN_SECONDS: i64 = 3600;

/// Where the API server is and how to know that it is the right one. A cheap copy of what a kubeconfig needs.
#[derive(Clone, Debug)]
pub struct Access {
    /// `https://127.0.0.1:PORT`.
    pub server: String,
    /// The authority's certificate, as PEM.
    pub authority: String,
}

/// What a user proves to be with.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A client certificate.
    Certificate(Certificate),
    /// A service account's token.
    Token(String),
}

impl Access {
    /// Text of a kubeconfig file. It is JSON, which is YAML too.
    pub fn kubeconfig(&self, user: &Credential) -> String {
        let user = match user {
            Credential::Certificate(certificate) => json!({
                "client-certificate-data": bytes(&certificate.certificate),
                "client-key-data": bytes(&certificate.key),
            }),
            Credential::Token(token) => json!({"token": token}),
        };
        self.text(&user)
    }

    fn text(&self, user: &Value) -> String {
        let cluster = json!({
            "server": self.server,
            "certificate-authority-data": bytes(&self.authority),
        });
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
            "current-context": "test",
        });
        config.to_string()
    }

    /// Writes a kubeconfig file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_kubeconfig(&self, user: &Credential, path: &Path) -> anyhow::Result<PathBuf> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, self.kubeconfig(user))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path.to_owned())
    }

    /// A client of nobody: whoever uses it brings credentials with each request, and sees every answer as it came.
    ///
    /// # Errors
    /// When the authority's certificate is none.
    pub async fn stranger(&self) -> anyhow::Result<Client> {
        let config = Kubeconfig::from_yaml(&self.text(&json!({})))?;
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(config, &options).await?;
        config.default_retry = false;
        config.disable_compression = true;
        Ok(Client::try_from(config)?)
    }

    /// A client of this user. It lives on the runtime that makes it.
    ///
    /// # Errors
    /// When the credential is not one.
    pub async fn client(&self, user: &Credential) -> anyhow::Result<Client> {
        let config = Kubeconfig::from_yaml(&self.kubeconfig(user))?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(config, &options).await?;
        Ok(Client::try_from(config)?)
    }
}

/// A token of a service account for an audience; the API server's own where none is named.
///
/// # Errors
/// When the service account does not exist, or the client may not ask.
pub async fn token(
    client: &Client,
    namespace: &str,
    service_account: &str,
    audience: Option<&str>,
) -> anyhow::Result<String> {
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(audience.map(str::to_owned).into_iter().collect()),
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let answer = accounts
        .create_token_request(service_account, &PostParams::default(), &request)
        .await
        .with_context(|| format!("no token for service account {namespace}/{service_account}"))?;
    let token = answer.status.and_then(|status| status.token);
    token.context("the token request has no answer")
}

/// As Kubernetes writes bytes: base64.
fn bytes(text: &str) -> ByteString {
    ByteString(text.as_bytes().to_vec())
}
