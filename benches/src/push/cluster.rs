//! The resources of a large cluster, as the control loop would make them.

use std::collections::BTreeMap;

use prost::Message;
use serde_json::json;
use sluice_config::push::{
    DocumentMessage, EndpointMessage, MembershipMessage, ResourceType, RoleMessage,
};
use sluice_control::state::Resource;

const NAMESPACE: &str = "models";

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// ModelRoutes.
    pub routes: usize,
    /// ModelServers.
    pub servers: usize,
    /// Endpoints, spread over the servers.
    pub endpoints: usize,
}

impl Scale {
    /// All resources.
    pub const fn total(self) -> usize {
        self.routes + self.servers + self.endpoints
    }

    /// Everything at the start.
    pub fn resources(self) -> Vec<Resource> {
        let servers = (0..self.servers).map(server);
        let endpoints = (0..self.endpoints).map(|number| self.endpoint(number, false));
        let routes = (0..self.routes).map(|number| self.route(number));
        servers.chain(endpoints).chain(routes).collect()
    }

    /// One pod of an ordinary Deployment.
    pub fn endpoint(self, number: usize, draining: bool) -> Resource {
        let server = format!("server-{}", number % self.servers);
        let pod = format!("{server}-6b8f7c9d5-{number:05x}");
        let text = str::to_owned;
        let labels = [
            ("app.kubernetes.io/name", "engine"),
            ("app.kubernetes.io/instance", server.as_str()),
            ("model", "llama-3.1-70b-instruct"),
            ("pod-template-hash", "6b8f7c9d5"),
        ];
        let message = EndpointMessage {
            namespace: text(NAMESPACE),
            pod: pod.clone(),
            uid: format!("5f1c3f0e-9d7a-4a55-8a49-{number:012x}"),
            host: format!(
                "10.{}.{}.{}",
                number >> 16 & 255,
                number >> 8 & 255,
                number & 255
            ),
            port: 8000,
            memberships: vec![MembershipMessage {
                server: server.clone(),
                role: RoleMessage::Whole.into(),
                pd_group: String::new(),
            }],
            labels: labels.map(|(key, value)| (text(key), text(value))).into(),
            revision: text("6b8f7c9d5"),
            node: format!("node-{}", number / 8),
            zone: format!("zone-{}", number % 3),
            draining,
            topology: BTreeMap::from([
                (
                    text("kubernetes.io/hostname"),
                    format!("node-{}", number / 8),
                ),
                (text("topology.kubernetes.io/region"), text("region-1")),
            ]),
        };
        let name = format!("{NAMESPACE}/{pod}:8000");
        resource(ResourceType::Endpoint, name, &message)
    }

    fn route(self, number: usize) -> Resource {
        let target = |offset: usize, weight: u32| {
            let server = format!("server-{}", (number + offset) % self.servers);
            json!({ "modelServerName": server, "weight": weight })
        };
        let name = format!("route-{number}");
        let spec = json!({
            "modelName": format!("model-{number}"),
            "rules": [{
                "name": "canary",
                "modelMatch": { "headers": { "x-canary": { "exact": "yes" } } },
                "targetModels": [target(0, 10), target(1, 90)],
            }, {
                "name": "default",
                "targetModels": [target(1, 100)],
            }],
        });
        document(ResourceType::ModelRoute, "ModelRoute", &name, &spec)
    }
}

fn server(number: usize) -> Resource {
    let name = format!("server-{number}");
    let labels = json!({ "app.kubernetes.io/instance": name });
    let spec = json!({
        "model": "meta-llama/Llama-3.1-70B-Instruct",
        "inferenceEngine": "vLLM",
        "workloadSelector": { "matchLabels": labels },
        "workloadPort": { "port": 8000, "protocol": "http" },
        "trafficPolicy": { "timeout": "10m" },
    });
    document(ResourceType::ModelServer, "ModelServer", &name, &spec)
}

fn document(kind: ResourceType, kind_name: &str, name: &str, spec: &serde_json::Value) -> Resource {
    let document = json!({
        "apiVersion": "networking.serving.volcano.sh/v1alpha1",
        "kind": kind_name,
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": "0c7b3a52-4e7d-4b61-9f0e-6f0f7c1d2e3a",
            "generation": 1,
            "creationTimestamp": "2026-11-28T10:00:00Z",
        },
        "spec": spec,
    });
    let message = DocumentMessage {
        json: document.to_string(),
    };
    resource(kind, format!("{NAMESPACE}/{name}"), &message)
}

fn resource(kind: ResourceType, name: String, message: &impl Message) -> Resource {
    Resource::new(kind, name, NAMESPACE, message.encode_to_vec().into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_is_as_much_as_wanted_and_every_name_once() {
        let scale = Scale {
            routes: 7,
            servers: 3,
            endpoints: 20,
        };
        let resources = scale.resources();
        let names: BTreeSet<_> = resources.iter().map(|one| (one.kind, &one.name)).collect();
        assert_eq!(names.len(), scale.total());
    }

    #[test]
    fn an_endpoint_that_drains_is_the_same_one_in_another_version() {
        let scale = Scale {
            routes: 1,
            servers: 3,
            endpoints: 20,
        };
        let (before, after) = (scale.endpoint(5, false), scale.endpoint(5, true));
        assert_eq!(before.name, after.name);
        assert_ne!(before.version, after.version);
    }
}
