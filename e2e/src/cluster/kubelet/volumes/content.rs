//! What is in a volume: its sources, and the files that they give.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccount, ServiceAccountTokenProjection, Volume,
};
use kube::Api;
use kube::api::PostParams;

use crate::cluster::kubelet::environment::{Facts, field};
use crate::cluster::kubelet::objects::{Data, Objects};

const DEFAULT_MODE: i32 = 0o644;
const DEFAULT_TOKEN_SECONDS: i64 = 3600;

/// Where a volume's files come from, in order.
pub(super) struct Sources {
    list: Vec<Source>,
    mode: u32,
}

enum Source {
    ConfigMap(Reference),
    Secret(Reference),
    Fields(Vec<DownwardAPIVolumeFile>),
    Token(ServiceAccountTokenProjection),
}

struct Reference {
    name: String,
    optional: bool,
    items: Option<Vec<KeyToPath>>,
}

/// The files of a volume at one moment.
pub(super) struct Content {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) mode: u32,
    /// When a token in it is to be replaced.
    pub(super) renew_after: Option<Duration>,
}

impl Sources {
    /// `None` for kinds of volume that we do not know.
    pub(super) fn of(volume: &Volume) -> Option<Self> {
        let (list, mode) = if let Some(map) = &volume.config_map {
            let source = Source::ConfigMap(Reference {
                name: map.name.clone(),
                optional: map.optional == Some(true),
                items: map.items.clone(),
            });
            (vec![source], map.default_mode)
        } else if let Some(secret) = &volume.secret {
            let source = Source::Secret(Reference {
                name: secret.secret_name.clone()?,
                optional: secret.optional == Some(true),
                items: secret.items.clone(),
            });
            (vec![source], secret.default_mode)
        } else if let Some(fields) = &volume.downward_api {
            let source = Source::Fields(fields.items.clone().unwrap_or_default());
            (vec![source], fields.default_mode)
        } else {
            let projected = volume.projected.as_ref()?;
            let mut list = Vec::new();
            for source in projected.sources.iter().flatten() {
                list.push(projection(source)?);
            }
            (list, projected.default_mode)
        };
        let mode = mode.unwrap_or(DEFAULT_MODE).unsigned_abs();
        Some(Self { list, mode })
    }

    pub(super) fn config_maps(&self) -> impl Iterator<Item = &str> {
        self.list.iter().filter_map(|source| match source {
            Source::ConfigMap(reference) => Some(reference.name.as_str()),
            _ => None,
        })
    }

    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        self.list.iter().filter_map(|source| match source {
            Source::Secret(reference) => Some(reference.name.as_str()),
            _ => None,
        })
    }

    /// Whether labels and annotations of the pod may be in it.
    pub(super) fn show_the_pod(&self) -> bool {
        let mut sources = self.list.iter();
        sources.any(|source| matches!(source, Source::Fields(_)))
    }

    /// Reads everything anew. A token is a new one each time.
    ///
    /// # Errors
    /// When an object or key that is not optional is missing.
    pub(super) async fn read(
        &self,
        objects: &Objects,
        pod: &Pod,
        facts: &Facts,
    ) -> anyhow::Result<Content> {
        let mut content = Content {
            files: BTreeMap::new(),
            mode: self.mode,
            renew_after: None,
        };
        for source in &self.list {
            match source {
                Source::ConfigMap(reference) => {
                    let data = objects.config_map(&reference.name, reference.optional);
                    content.files.extend(reference.files(data.await?)?);
                }
                Source::Secret(reference) => {
                    let data = objects.secret(&reference.name, reference.optional);
                    content.files.extend(reference.files(data.await?)?);
                }
                Source::Fields(items) => {
                    for item in items {
                        let reference = item.field_ref.as_ref();
                        let reference = reference.context("only fieldRef is known")?;
                        let value = field(pod, facts, &reference.field_path)?;
                        content.files.insert(item.path.clone(), value.into_bytes());
                    }
                }
                Source::Token(projection) => {
                    let (token, lasts) = token(objects, pod, projection).await?;
                    content
                        .files
                        .insert(projection.path.clone(), token.into_bytes());
                    // As a real kubelet does, well before the end.
                    content.renew_after = Some(lasts.mul_f64(0.8));
                }
            }
        }
        Ok(content)
    }
}

fn projection(source: &k8s_openapi::api::core::v1::VolumeProjection) -> Option<Source> {
    if let Some(map) = &source.config_map {
        Some(Source::ConfigMap(Reference {
            name: map.name.clone(),
            optional: map.optional == Some(true),
            items: map.items.clone(),
        }))
    } else if let Some(secret) = &source.secret {
        Some(Source::Secret(Reference {
            name: secret.name.clone(),
            optional: secret.optional == Some(true),
            items: secret.items.clone(),
        }))
    } else if let Some(fields) = &source.downward_api {
        Some(Source::Fields(fields.items.clone().unwrap_or_default()))
    } else {
        source.service_account_token.clone().map(Source::Token)
    }
}

impl Reference {
    fn files(&self, mut data: Data) -> anyhow::Result<Data> {
        let Some(items) = &self.items else {
            return Ok(data);
        };
        let mut files = Data::new();
        for item in items {
            match data.remove(&item.key) {
                Some(value) => {
                    files.insert(item.path.clone(), value);
                }
                None => {
                    anyhow::ensure!(self.optional, "{} has no key {}", self.name, item.key);
                }
            }
        }
        Ok(files)
    }
}

/// A token of the pod's service account that is good only while the pod lives.
async fn token(
    objects: &Objects,
    pod: &Pod,
    projection: &ServiceAccountTokenProjection,
) -> anyhow::Result<(String, Duration)> {
    let account = pod.spec.as_ref().and_then(|spec| {
        let name = spec.service_account_name.clone();
        name.filter(|name| !name.is_empty())
    });
    let account = account.unwrap_or_else(|| "default".to_owned());
    let seconds = projection
        .expiration_seconds
        .unwrap_or(DEFAULT_TOKEN_SECONDS);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(projection.audience.clone().into_iter().collect()),
            expiration_seconds: Some(seconds),
            bound_object_ref: Some(BoundObjectReference {
                kind: Some("Pod".to_owned()),
                api_version: Some("v1".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let api: Api<ServiceAccount> = Api::namespaced(objects.client.clone(), &objects.namespace);
    let answer = api
        .create_token_request(&account, &PostParams::default(), &request)
        .await
        .with_context(|| format!("no token of service account {account}"))?;
    let token = answer.status.and_then(|status| status.token);
    let token = token.context("the token request has no answer")?;
    Ok((token, Duration::from_secs(seconds.unsigned_abs())))
}
