//! Manifests into the cluster, as `kubectl apply --server-side` does, and the custom resource definitions of `crds/yaml`.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::{self, ApiCapabilities, Scope};
use kube::{Client, ResourceExt};
use serde::Deserialize;
use serde_json::Value;

use super::wait::{Look, eventually};

/// Field manager of everything that tests apply.
const MANAGER: &str = "sluice-e2e";

/// Applies manifests; those without a namespace go to `namespace`. What others own is taken over.
/// Returns the objects as the API server keeps them, in order.
///
/// # Errors
/// When the text is not manifests, a kind is not served, or the API server refuses one; what came before is applied.
pub async fn apply(
    client: &Client,
    namespace: &str,
    text: &str,
) -> anyhow::Result<Vec<DynamicObject>> {
    let mut kinds = Kinds::new(client.clone());
    let mut applied = Vec::new();
    for document in documents(text)? {
        let api = kinds.api(&document, namespace).await?;
        let parameters = PatchParams::apply(MANAGER).force().validation_strict();
        let name = document.name_any();
        let object = api
            .patch(&name, &parameters, &Patch::Apply(&document))
            .await
            .with_context(|| format!("{} is refused", describe(&document)))?;
        applied.push(object);
    }
    Ok(applied)
}

/// Deletes what the manifests name, without waiting. What is gone already is no error.
///
/// # Errors
/// As [`apply`].
pub async fn delete(client: &Client, namespace: &str, text: &str) -> anyhow::Result<()> {
    let mut kinds = Kinds::new(client.clone());
    for document in documents(text)? {
        let api = kinds.api(&document, namespace).await?;
        match api
            .delete(&document.name_any(), &kube::api::DeleteParams::background())
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            answer => {
                answer.with_context(|| format!("{} cannot be deleted", describe(&document)))?;
            }
        }
    }
    Ok(())
}

/// The custom resource definitions of `crds/yaml`, in one text.
///
/// # Errors
/// When they cannot be read.
pub fn crds() -> anyhow::Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/yaml");
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(&folder).context("crds/yaml is missing")? {
        texts.push(std::fs::read_to_string(entry?.path())?);
    }
    Ok(texts.join("\n---\n"))
}

/// Applies `crds/yaml` and waits until its kinds are served.
///
/// # Errors
/// When one is refused or not served in time.
pub async fn apply_crds(client: &Client) -> anyhow::Result<()> {
    for crd in apply(client, "default", &crds()?).await? {
        established(client, &crd.name_any()).await?;
    }
    Ok(())
}

/// Waits until a custom resource definition is established.
///
/// # Errors
/// When it is not in time.
pub async fn established(client: &Client, name: &str) -> anyhow::Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let what = format!("CustomResourceDefinition {name} is established");
    eventually(&what, || async {
        let crd = crds.get(name).await?;
        let conditions = crd.status.and_then(|status| status.conditions);
        let conditions = conditions.unwrap_or_default();
        let holds = conditions
            .iter()
            .any(|condition| condition.type_ == "Established" && condition.status == "True");
        Ok(Look::when(holds, conditions))
    })
    .await
}

/// Splits text into objects; lists (`kind: List`) are taken apart.
fn documents(text: &str) -> anyhow::Result<Vec<DynamicObject>> {
    let mut objects = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document).context("not YAML")?;
        let items = match value {
            Value::Null => continue,
            Value::Object(mut list) if list.get("kind") == Some(&"List".into()) => {
                match list.remove("items") {
                    Some(Value::Array(items)) => items,
                    _ => anyhow::bail!("a List without items"),
                }
            }
            object => vec![object],
        };
        for item in items {
            let object = serde_json::from_value(item).context("not a Kubernetes object")?;
            objects.push(object);
        }
    }
    Ok(objects)
}

fn describe(object: &DynamicObject) -> String {
    let kind = object
        .types
        .as_ref()
        .map_or("object", |types| types.kind.as_str());
    format!("{kind} {}", object.name_any())
}

/// What the API server says of the kinds met so far.
struct Kinds {
    client: Client,
    known: HashMap<GroupVersionKind, (ApiResource, ApiCapabilities)>,
}

impl Kinds {
    fn new(client: Client) -> Self {
        Self {
            client,
            known: HashMap::new(),
        }
    }

    async fn api(
        &mut self,
        object: &DynamicObject,
        namespace: &str,
    ) -> anyhow::Result<Api<DynamicObject>> {
        let types = object.types.as_ref();
        let types = types.context("an object without apiVersion and kind")?;
        let kind = GroupVersionKind::try_from(types)?;
        if !self.known.contains_key(&kind) {
            let found = discovery::pinned_kind(&self.client, &kind).await;
            let found = found
                .with_context(|| format!("{} {} is not served", types.api_version, types.kind))?;
            self.known.insert(kind.clone(), found);
        }
        let (resource, capabilities) = &self.known[&kind];
        Ok(match capabilities.scope {
            Scope::Cluster => Api::all_with(self.client.clone(), resource),
            Scope::Namespaced => {
                let namespace = object.metadata.namespace.as_deref().unwrap_or(namespace);
                Api::namespaced_with(self.client.clone(), namespace, resource)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::documents;

    #[test]
    fn empty_documents_are_passed_over_and_lists_are_taken_apart() {
        let text = "---\n# nothing\n---\nkind: List\napiVersion: v1\nitems:\n\
            - {apiVersion: v1, kind: Pod, metadata: {name: a}}\n---\n\
            {apiVersion: v1, kind: Pod, metadata: {name: b}}\n";
        let names: Vec<_> = documents(text).unwrap();
        let names: Vec<_> = names
            .iter()
            .map(|item| item.metadata.name.as_deref())
            .collect();
        assert_eq!(names, [Some("a"), Some("b")]);
    }
}
