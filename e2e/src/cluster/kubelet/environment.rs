//! A container's environment: values, references to fields and objects, and `$(NAME)` in what follows.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};

use super::objects::Objects;

/// What a kubelet knows of a pod that its manifest does not say.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) ip: Ipv4Addr,
    pub(super) node: String,
    pub(super) node_ip: Ipv4Addr,
}

pub(super) type Variables = BTreeMap<String, String>;

/// The variables of one container on top of `base`, which the kubelet gives to each.
///
/// # Errors
/// When an object or a key that is not optional is missing, or a reference is of a kind that we do not know.
pub(super) async fn resolve(
    objects: &Objects,
    pod: &Pod,
    container: &Container,
    facts: &Facts,
    base: &Variables,
) -> anyhow::Result<Variables> {
    let mut variables = base.clone();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let mut data = BTreeMap::new();
        if let Some(reference) = &from.config_map_ref {
            let optional = reference.optional == Some(true);
            data.extend(objects.config_map(&reference.name, optional).await?);
        }
        if let Some(reference) = &from.secret_ref {
            let optional = reference.optional == Some(true);
            data.extend(objects.secret(&reference.name, optional).await?);
        }
        for (key, value) in data {
            let value = String::from_utf8(value).with_context(|| format!("{key} is not text"))?;
            variables.insert(format!("{prefix}{key}"), value);
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(source) => referred(objects, pod, facts, source)
                .await
                .with_context(|| format!("environment variable {}", variable.name))?,
            None => {
                let value = variable.value.as_deref().unwrap_or_default();
                Some(expand(value, &variables))
            }
        };
        if let Some(value) = value {
            variables.insert(variable.name.clone(), value);
        }
    }
    Ok(variables)
}

/// `None` for an optional key that is not there.
async fn referred(
    objects: &Objects,
    pod: &Pod,
    facts: &Facts,
    source: &EnvVarSource,
) -> anyhow::Result<Option<String>> {
    if let Some(reference) = &source.field_ref {
        return field(pod, facts, &reference.field_path).map(Some);
    }
    let (mut data, key, optional) = if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional == Some(true);
        let data = objects.config_map(&reference.name, optional).await?;
        (data, &reference.key, optional)
    } else if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional == Some(true);
        let data = objects.secret(&reference.name, optional).await?;
        (data, &reference.key, optional)
    } else {
        anyhow::bail!("only fieldRef, configMapKeyRef and secretKeyRef are known to this kubelet");
    };
    match data.remove(key) {
        Some(value) => Ok(Some(String::from_utf8(value).context("not text")?)),
        None if optional => Ok(None),
        None => anyhow::bail!("there is no key {key}"),
    }
}

/// A field of the pod, as the downward API names it.
///
/// # Errors
/// When there is no such field.
pub(super) fn field(pod: &Pod, facts: &Facts, path: &str) -> anyhow::Result<String> {
    let metadata = &pod.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let account = || pod.spec.as_ref()?.service_account_name.clone();
    Ok(match path {
        "metadata.name" => text(&metadata.name),
        "metadata.namespace" => text(&metadata.namespace),
        "metadata.uid" => text(&metadata.uid),
        "metadata.labels" => lines(metadata.labels.as_ref()),
        "metadata.annotations" => lines(metadata.annotations.as_ref()),
        "spec.nodeName" => facts.node.clone(),
        "spec.serviceAccountName" => account().unwrap_or_default(),
        "status.podIP" | "status.podIPs" => facts.ip.to_string(),
        "status.hostIP" | "status.hostIPs" => facts.node_ip.to_string(),
        _ => {
            let (map, key) = keyed(path).with_context(|| format!("there is no field {path}"))?;
            let map = match map {
                "metadata.labels" => &metadata.labels,
                "metadata.annotations" => &metadata.annotations,
                _ => anyhow::bail!("there is no field {path}"),
            };
            let value = map.as_ref().and_then(|map| map.get(key));
            value.cloned().unwrap_or_default()
        }
    })
}

/// `metadata.labels['app']` in its two parts.
fn keyed(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten();
    let lines: Vec<_> = lines
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    lines.join("\n")
}

/// Puts variables in place of `$(NAME)`. `$$` is a dollar sign; an unknown name stays as it is written.
pub(super) fn expand(text: &str, variables: &Variables) -> String {
    let mut output = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        output.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            output.push('$');
            rest = after;
        } else if let Some((name, after)) = reference(rest)
            && let Some(value) = variables.get(name)
        {
            output.push_str(value);
            rest = after;
        } else {
            output.push('$');
        }
    }
    output.push_str(rest);
    output
}

fn reference(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('(')?.split_once(')')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        let variables = Variables::from([("A".to_owned(), "x".to_owned())]);
        for (text, expected) in [
            ("$(A)-$(A)", "x-x"),
            ("$$(A)", "$(A)"),
            ("$(B) $(A", "$(B) $(A"),
            ("$A $", "$A $"),
        ] {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }

    #[test]
    fn fields_of_the_pod_are_found() {
        let mut pod = Pod::default();
        pod.metadata.labels = Some(BTreeMap::from([("app/x".to_owned(), "y".to_owned())]));
        let facts = Facts {
            ip: Ipv4Addr::new(10, 244, 1, 2),
            node: "one".to_owned(),
            node_ip: Ipv4Addr::new(10, 244, 1, 1),
        };
        let field = |path| field(&pod, &facts, path);
        assert_eq!(field("metadata.labels['app/x']").unwrap(), "y");
        assert_eq!(field("metadata.labels").unwrap(), "app/x=\"y\"");
        assert_eq!(field("status.podIP").unwrap(), "10.244.1.2");
        assert!(field("spec.containers").is_err());
    }
}
