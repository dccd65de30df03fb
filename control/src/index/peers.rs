//! Gateways' own pods: whom a gateway can talk to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use sluice_config::push::{PeerMessage, ResourceType};

use super::object::{Node, ObjectKey, Pod, PodState};
use super::output::{GivenOut, Output};
use crate::state::Resource;

/// The pods.
#[derive(Debug, Default)]
pub(super) struct Peers {
    pods: HashMap<ObjectKey, Pod>,
    dirty: HashSet<ObjectKey>,
}

impl Peers {
    pub(super) fn set(&mut self, pod: Pod) {
        let key = pod.key.clone();
        if self.pods.get(&key) != Some(&pod) {
            self.pods.insert(key.clone(), pod);
            self.dirty.insert(key);
        }
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) {
        if self.pods.remove(key).is_some() {
            self.dirty.insert(key.clone());
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.pods.keys()
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.pods.len()
    }

    /// A node stands elsewhere, or is new or gone.
    pub(super) fn node_changed(&mut self, node: &str) {
        let on_node = self.pods.values().filter(|pod| *pod.node == *node);
        self.dirty.extend(on_node.map(|pod| pod.key.clone()));
    }

    pub(super) fn reconcile(
        &mut self,
        nodes: &HashMap<Arc<str>, Node>,
        given_out: &mut GivenOut,
        output: &mut Output,
    ) {
        for key in std::mem::take(&mut self.dirty) {
            let name: Arc<str> = key.to_string().into();
            let pod = self.pods.get(&key);
            let resource = pod.and_then(|pod| resource(pod, nodes, name.clone()));
            given_out.settle(ResourceType::Peer, name, resource, output);
        }
    }
}

/// `None` while it has no address, and once it has ended.
fn resource(pod: &Pod, nodes: &HashMap<Arc<str>, Node>, name: Arc<str>) -> Option<Resource> {
    let address = pod.address.filter(|_| pod.running)?;
    let message = PeerMessage {
        namespace: pod.key.namespace.to_string(),
        pod: pod.key.name.to_string(),
        host: address.to_string(),
        zone: nodes
            .get(&pod.node)
            .map(Node::zone)
            .unwrap_or_default()
            .to_owned(),
        ready: pod.state == PodState::Serving,
    };
    let value = Bytes::from(message.encode_to_vec());
    let namespace = pod.key.namespace.clone();
    Some(Resource::new(ResourceType::Peer, name, namespace, value))
}
