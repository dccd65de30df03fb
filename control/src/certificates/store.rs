//! The Secret that holds the authorities.
//!
//! Written by the leader with the version that it read, so that of two who think they lead one loses and reads again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use futures::{Stream, StreamExt};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use super::{Authorities, Authority, CertificateError};
use crate::api_error::is_code;

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const PREVIOUS_CERTIFICATE: &str = "previous.crt";
const PREVIOUS_KEY: &str = "previous.key";
/// Not read: for people and for those who mount the Secret instead of the ConfigMap.
const BUNDLE: &str = "ca.crt";

/// Reads and writes the Secret.
#[derive(Clone)]
pub struct SecretStore {
    secrets: Api<Secret>,
    name: String,
}

/// What stood in the Secret.
#[derive(Debug)]
pub struct Stored {
    /// The authorities, or what is wrong with them. `None`: it is empty, as the chart makes it.
    pub authorities: Option<Result<Authorities, CertificateError>>,
    object: Secret,
}

impl SecretStore {
    /// The Secret `namespace/name`.
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self {
            secrets: Api::namespaced(client, namespace),
            name: name.to_owned(),
        }
    }

    /// What is in it; `None`: there is no such Secret.
    ///
    /// # Errors
    /// When the API server does not say.
    pub async fn read(&self) -> kube::Result<Option<Stored>> {
        let object = self.secrets.get_opt(&self.name).await?;
        Ok(object.map(|object| Stored {
            authorities: parse(&object),
            object,
        }))
    }

    /// Puts `authorities` in place of what was read. Answers whether that was done: not when someone else wrote
    /// meanwhile.
    ///
    /// # Errors
    /// When the API server refuses or does not answer.
    pub async fn write(
        &self,
        authorities: &Authorities,
        last: Option<&Stored>,
        now: SystemTime,
    ) -> kube::Result<bool> {
        let parameters = PostParams::default();
        let result = match last {
            Some(last) => {
                let secret = Secret {
                    data: Some(data(authorities, now)),
                    ..last.object.clone()
                };
                self.secrets.replace(&self.name, &parameters, &secret).await
            }
            None => {
                let secret = Secret {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        labels: Some(crate::own_labels()),
                        ..ObjectMeta::default()
                    },
                    data: Some(data(authorities, now)),
                    type_: Some("Opaque".into()),
                    ..Secret::default()
                };
                self.secrets.create(&parameters, &secret).await
            }
        };
        match result {
            Ok(_) => Ok(true),
            Err(error) if is_code(&error, 409) => Ok(false),
            Err(error) if last.is_some() && is_code(&error, 404) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Wakes whenever the Secret may have changed; never ends.
    pub fn changes(&self) -> impl Stream<Item = ()> + Send + use<> {
        watcher::watch_object(self.secrets.clone(), &self.name)
            .default_backoff()
            .map(|_| ())
    }
}

fn parse(secret: &Secret) -> Option<Result<Authorities, CertificateError>> {
    let data = secret.data.as_ref().filter(|data| !data.is_empty())?;
    Some(authorities(data))
}

fn authorities(data: &BTreeMap<String, ByteString>) -> Result<Authorities, CertificateError> {
    let text = |key: &str| {
        let bytes = data.get(key).map(|bytes| bytes.0.as_slice());
        String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
    };
    let previous = match data.contains_key(PREVIOUS_CERTIFICATE) {
        // Lost, it is only a nuisance to those who have not seen the new one yet.
        true => Authority::from_pem(&text(PREVIOUS_CERTIFICATE), &text(PREVIOUS_KEY))
            .ok()
            .map(Arc::new),
        false => None,
    };
    Ok(Authorities {
        current: Arc::new(Authority::from_pem(&text(CERTIFICATE), &text(KEY))?),
        previous,
    })
}

fn data(authorities: &Authorities, now: SystemTime) -> BTreeMap<String, ByteString> {
    let mut data = BTreeMap::from([
        (CERTIFICATE, authorities.current.certificate().to_owned()),
        (KEY, authorities.current.key().to_owned()),
        (BUNDLE, authorities.bundle(now)),
    ]);
    if let Some(previous) = &authorities.previous {
        data.insert(PREVIOUS_CERTIFICATE, previous.certificate().to_owned());
        data.insert(PREVIOUS_KEY, previous.key().to_owned());
    }
    data.into_iter()
        .map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes())))
        .collect()
}
