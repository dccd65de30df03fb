//! Which pods a ModelServer selects, and what each does in the pool.
//!
//! Read from the document as it was written, field by field: a server whose retries make no sense still has its pods,
//! for the gateway keeps its last good version and needs them. What cannot be read selects nothing.

use serde_json::Value;
use sluice_config::push::RoleMessage;

use super::labels::Labels;

/// A ModelServer's selector and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Labels that a pod must have; never empty.
    pub labels: Labels,
    /// Port of its pods; `None` when the document has none that can be used.
    pub port: Option<u16>,
    /// Who prefills and who decodes; `None`: every pod takes whole requests.
    roles: Option<Roles>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Roles {
    group_key: Box<str>,
    prefill: Labels,
    decode: Labels,
}

/// What a pod does in a pool that selects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// It serves there.
    Member(RoleMessage),
    /// The pool has roles, and it has none of them.
    Stray,
}

impl Selection {
    /// From a ModelServer's `spec`; `None` when it selects no pods.
    pub fn of(spec: &Value) -> Option<Self> {
        let selector = &spec["workloadSelector"];
        let labels = labels(&selector["matchLabels"])?;
        let port = spec["workloadPort"]["port"].as_u64();
        let port = port.and_then(|port| u16::try_from(port).ok());
        let group = &selector["pdGroup"];
        let roles = group.is_object().then(|| Roles {
            group_key: group["groupKey"].as_str().unwrap_or_default().into(),
            // An empty selector selects nothing.
            prefill: self::labels(&group["prefillLabels"]).unwrap_or_default(),
            decode: self::labels(&group["decodeLabels"]).unwrap_or_default(),
        });
        Some(Self {
            labels,
            port: port.filter(|port| *port > 0),
            roles,
        })
    }

    /// Has the pool roles?
    pub fn has_roles(&self) -> bool {
        self.roles.is_some()
    }

    /// What a pod with these labels does in the pool; `None` when it is not selected. A pod with the labels of both
    /// roles prefills: it must have one.
    pub fn place(&self, pod: &Labels) -> Option<Place> {
        if !pod.match_selector(&self.labels) {
            return None;
        }
        let Some(roles) = &self.roles else {
            return Some(Place::Member(RoleMessage::Whole));
        };
        Some(if pod.match_selector(&roles.prefill) {
            Place::Member(RoleMessage::Prefill)
        } else if pod.match_selector(&roles.decode) {
            Place::Member(RoleMessage::Decode)
        } else {
            Place::Stray
        })
    }

    /// Value of the pod's group label; empty without roles or without the label.
    pub fn group<'a>(&self, pod: &'a Labels) -> &'a str {
        let roles = self.roles.as_ref();
        roles
            .and_then(|roles| pod.get(&roles.group_key))
            .unwrap_or_default()
    }

    /// Label sets of the selector, each to be kept once.
    pub(super) fn label_sets(&mut self) -> impl Iterator<Item = &mut Labels> {
        let roles = self.roles.iter_mut();
        let sets = roles.flat_map(|roles| [&mut roles.prefill, &mut roles.decode]);
        std::iter::once(&mut self.labels).chain(sets)
    }
}

/// `None` unless it is a mapping of texts with at least one entry: leaving out what cannot be read would select more
/// pods than meant.
fn labels(value: &Value) -> Option<Labels> {
    let map = value.as_object().filter(|map| !map.is_empty())?;
    map.iter()
        .map(|(key, value)| Some((key.as_str(), value.as_str()?)))
        .collect::<Option<Vec<_>>>()
        .map(|pairs| pairs.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selection(spec: Value) -> Option<Selection> {
        Selection::of(&spec)
    }

    fn pod(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().copied().collect()
    }

    fn split() -> Selection {
        selection(json!({
            "workloadSelector": {
                "matchLabels": { "app": "chat" },
                "pdGroup": {
                    "groupKey": "group",
                    "prefillLabels": { "role": "prefill" },
                    "decodeLabels": { "role": "decode" },
                },
            },
            "workloadPort": { "port": 8000 },
        }))
        .unwrap()
    }

    #[test]
    fn without_roles_every_selected_pod_takes_whole_requests() {
        let selection = selection(json!({
            "workloadSelector": { "matchLabels": { "app": "chat" } },
            "workloadPort": { "port": 8000 },
        }))
        .unwrap();
        assert_eq!(selection.port, Some(8000));
        let place = selection.place(&pod(&[("app", "chat"), ("group", "g")]));
        assert_eq!(place, Some(Place::Member(RoleMessage::Whole)));
        assert_eq!(selection.group(&pod(&[("group", "g")])), "");
        assert_eq!(selection.place(&pod(&[("app", "other")])), None);
    }

    #[test]
    fn with_roles_a_pod_prefills_decodes_or_is_a_stray() {
        let selection = split();
        let prefill = pod(&[("app", "chat"), ("role", "prefill"), ("group", "g1")]);
        let decode = pod(&[("app", "chat"), ("role", "decode")]);
        let stray = pod(&[("app", "chat"), ("role", "router")]);
        let place = |labels: &Labels| selection.place(labels);
        assert_eq!(place(&prefill), Some(Place::Member(RoleMessage::Prefill)));
        assert_eq!(place(&decode), Some(Place::Member(RoleMessage::Decode)));
        assert_eq!(place(&stray), Some(Place::Stray));
        assert_eq!(selection.group(&prefill), "g1");
        assert_eq!(selection.group(&decode), "");
    }

    #[test]
    fn what_cannot_be_read_selects_nothing() {
        let cases = [
            json!({}),
            json!({ "workloadSelector": null }),
            json!({ "workloadSelector": { "matchLabels": {} } }),
            json!({ "workloadSelector": { "matchLabels": { "app": 1, "tier": "a" } } }),
            json!({ "workloadSelector": { "matchLabels": ["app"] } }),
        ];
        for spec in cases {
            assert_eq!(selection(spec.clone()), None, "{spec}");
        }
    }

    #[test]
    fn a_port_out_of_range_is_no_port() {
        for port in [
            json!(0),
            json!(65536),
            json!(-1),
            json!("8000"),
            json!(null),
        ] {
            let spec = json!({
                "workloadSelector": { "matchLabels": { "app": "chat" } },
                "workloadPort": { "port": port },
            });
            assert_eq!(selection(spec).unwrap().port, None, "{port}");
        }
    }
}
