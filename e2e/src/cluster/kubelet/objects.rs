//! ConfigMaps and Secrets of a pod's namespace, read with the node's own rights.

use std::collections::BTreeMap;

use anyhow::Context;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};

pub(super) type Data = BTreeMap<String, Vec<u8>>;

/// Reads objects of one namespace.
#[derive(Clone)]
pub(super) struct Objects {
    pub(super) client: Client,
    pub(super) namespace: String,
}

impl Objects {
    /// Keys and values of a ConfigMap; empty when it is optional and missing.
    pub(super) async fn config_map(&self, name: &str, optional: bool) -> anyhow::Result<Data> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = api.get_opt(name).await;
        let found = found.with_context(|| format!("ConfigMap {name} cannot be read"))?;
        let Some(map) = found else {
            anyhow::ensure!(optional, "there is no ConfigMap {name}");
            return Ok(Data::new());
        };
        let text = map.data.into_iter().flatten();
        let text = text.map(|(key, value)| (key, value.into_bytes()));
        let binary = map.binary_data.into_iter().flatten();
        let binary = binary.map(|(key, value)| (key, value.0));
        Ok(text.chain(binary).collect())
    }

    /// Keys and values of a Secret; empty when it is optional and missing.
    pub(super) async fn secret(&self, name: &str, optional: bool) -> anyhow::Result<Data> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = api.get_opt(name).await;
        let found = found.with_context(|| format!("Secret {name} cannot be read"))?;
        let Some(secret) = found else {
            anyhow::ensure!(optional, "there is no Secret {name}");
            return Ok(Data::new());
        };
        let data = secret.data.into_iter().flatten();
        Ok(data.map(|(key, value)| (key, value.0)).collect())
    }
}
