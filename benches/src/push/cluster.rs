//! A large cluster, as the API server would show it to the control loop.

use anyhow::Context;
use serde_json::{Value, json};
use sluice_config::Kind;
use sluice_control::index::{Document, Input, Node, Object, ObjectKind, Pod};

const NAMESPACE: &str = "models";

/// Pods on one node.
const PODS_A_NODE: usize = 8;

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// ModelRoutes.
    pub routes: usize,
    /// ModelServers.
    pub servers: usize,
    /// Pods, spread over the servers; each is an endpoint.
    pub endpoints: usize,
}

impl Scale {
    /// All resources that gateways get.
    pub const fn total(self) -> usize {
        self.routes + self.servers + self.endpoints
    }

    /// What the watches list at first; every pod is ready.
    ///
    /// # Errors
    /// Never in practice: when an object is none.
    pub fn listed(self) -> anyhow::Result<Vec<Input>> {
        let documents = |kind, objects: Vec<Object>| (ObjectKind::Document(kind), objects);
        let servers: Result<_, _> = (0..self.servers).map(server).collect();
        let routes: Result<_, _> = (0..self.routes).map(|number| self.route(number)).collect();
        let pods: Result<_, _> = (0..self.endpoints).map(|pod| self.pod(pod, true)).collect();
        let nodes = self.endpoints.div_ceil(PODS_A_NODE);
        let nodes: Result<_, _> = (0..nodes).map(node).collect();
        let lists = [
            (ObjectKind::Node, nodes?),
            documents(Kind::ModelServer, servers?),
            documents(Kind::ModelRoute, routes?),
            (ObjectKind::Pod, pods?),
        ];
        let listed = lists.map(|(kind, objects)| Input::Restarted {
            kind,
            namespace: None,
            objects,
        });
        Ok(listed.into())
    }

    /// One pod of an ordinary Deployment.
    ///
    /// # Errors
    /// Never in practice: when it is none.
    pub fn pod(self, number: usize, ready: bool) -> anyhow::Result<Object> {
        let server = format!("server-{}", number % self.servers);
        let [high, middle, low] = [number >> 16 & 255, number >> 8 & 255, number & 255];
        let pod = json!({
            "metadata": {
                "name": format!("{server}-6b8f7c9d5-{number:05x}"),
                "namespace": NAMESPACE,
                "uid": format!("5f1c3f0e-9d7a-4a55-8a49-{number:012x}"),
                "labels": {
                    "app.kubernetes.io/name": "engine",
                    "app.kubernetes.io/instance": server,
                    "model": "llama-3.1-70b-instruct",
                    "pod-template-hash": "6b8f7c9d5",
                },
            },
            "spec": { "nodeName": format!("node-{}", number / PODS_A_NODE) },
            "status": {
                "phase": "Running",
                "podIP": format!("10.{high}.{middle}.{low}"),
                "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
            },
        });
        let pod = Pod::of(serde_json::from_value(pod)?).context("a pod without a name")?;
        Ok(Object::Pod(pod))
    }

    fn route(self, number: usize) -> anyhow::Result<Object> {
        let target = |offset: usize, weight: u32| {
            let server = format!("server-{}", (number + offset) % self.servers);
            json!({ "modelServerName": server, "weight": weight })
        };
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
        document(Kind::ModelRoute, &format!("route-{number}"), &spec)
    }
}

fn node(number: usize) -> anyhow::Result<Object> {
    let name = format!("node-{number}");
    let node = json!({
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "topology.kubernetes.io/region": "region-1",
                "topology.kubernetes.io/zone": format!("zone-{}", number % 3),
            },
        },
    });
    let node = Node::of(&serde_json::from_value(node)?).context("a node without a name")?;
    Ok(Object::Node(node))
}

fn server(number: usize) -> anyhow::Result<Object> {
    let name = format!("server-{number}");
    let labels = json!({ "app.kubernetes.io/instance": name });
    let spec = json!({
        "model": "meta-llama/Llama-3.1-70B-Instruct",
        "inferenceEngine": "vLLM",
        "workloadSelector": { "matchLabels": labels },
        "workloadPort": { "port": 8000, "protocol": "http" },
        "trafficPolicy": { "timeout": "10m" },
    });
    document(Kind::ModelServer, &name, &spec)
}

fn document(kind: Kind, name: &str, spec: &Value) -> anyhow::Result<Object> {
    let document = json!({
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": "0c7b3a52-4e7d-4b61-9f0e-6f0f7c1d2e3a",
            "generation": 1,
            "creationTimestamp": "2026-11-28T10:00:00Z",
        },
        "spec": spec,
    });
    let document = Document::of(kind, serde_json::from_value(document)?);
    Ok(Object::Document(
        document.context("a document without a name")?,
    ))
}

#[cfg(test)]
mod tests {
    use sluice_control::index::Index;

    use super::*;

    const SCALE: Scale = Scale {
        routes: 7,
        servers: 3,
        endpoints: 20,
    };

    fn index() -> Index {
        let mut index = Index::default();
        for input in SCALE.listed().unwrap() {
            index.apply(input);
        }
        index
    }

    #[test]
    fn there_is_as_much_as_wanted() {
        assert_eq!(index().reconcile().upserts.len(), SCALE.total());
    }

    #[test]
    fn the_readiness_of_one_pod_is_one_endpoint_less_or_more() {
        let mut index = index();
        index.reconcile();
        let mut change = |ready| {
            index.apply(Input::Applied(SCALE.pod(5, ready).unwrap()));
            let output = index.reconcile();
            (output.upserts.len(), output.removals.len())
        };
        assert_eq!(change(false), (0, 1));
        assert_eq!(change(true), (1, 0));
        assert_eq!(change(true), (0, 0));
    }
}
