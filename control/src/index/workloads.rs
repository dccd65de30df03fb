//! Pods and the ModelServers that select them, namespace by namespace: who is in which pool, and what came of it last.
//!
//! A pod's change touches that pod. A server's change touches the pods that it selected and those that it selects now,
//! found by the rarest of their labels. A node's change touches its pods.

mod pool;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use sluice_config::push::{EndpointMessage, ResourceType};

use self::pool::{Evaluated, Pool};
use super::endpoint;
use super::facts::Counts;
use super::object::{Node, ObjectKey, Pod};
use super::output::Output;
use super::selection::Selection;
use crate::state::Resource;

/// All pods and selections.
#[derive(Debug, Default)]
pub(super) struct Workloads {
    pools: HashMap<Arc<str>, Pool>,
    by_node: HashMap<Arc<str>, HashSet<ObjectKey>>,
    dirty: HashSet<ObjectKey>,
    pods: usize,
}

impl Workloads {
    /// How many pods are known.
    pub(super) fn len(&self) -> usize {
        self.pods
    }

    pub(super) fn set_pod(&mut self, pod: Pod) {
        let key = pod.key.clone();
        let pool = self.pools.entry(key.namespace.clone()).or_default();
        if pool.pods.get(&key.name) == Some(&pod) {
            return;
        }
        let old = pool.remove_pod(&key.name);
        match old {
            Some(old) => self.leave_node(&old),
            None => self.pods += 1,
        }
        if !pod.node.is_empty() {
            let pods = self.by_node.entry(pod.node.clone()).or_default();
            pods.insert(key.clone());
        }
        self.pools
            .entry(key.namespace.clone())
            .or_default()
            .insert_pod(pod);
        self.dirty.insert(key);
    }

    pub(super) fn remove_pod(&mut self, key: &ObjectKey) {
        let Some(pool) = self.pools.get_mut(&key.namespace) else {
            return;
        };
        if let Some(old) = pool.remove_pod(&key.name) {
            self.pods -= 1;
            self.leave_node(&old);
            self.dirty.insert(key.clone());
        }
    }

    /// Keys of all pods, or of those in one namespace.
    pub(super) fn pods(&self, namespace: Option<&str>) -> Vec<ObjectKey> {
        let pools: Vec<&Pool> = match namespace {
            Some(namespace) => self.pools.get(namespace).into_iter().collect(),
            None => self.pools.values().collect(),
        };
        let pods = pools.into_iter().flat_map(|pool| pool.pods.values());
        pods.map(|pod| pod.key.clone()).collect()
    }

    /// A server selects differently from now on; with `None` it selects nothing, or is gone.
    pub(super) fn select(&mut self, server: &ObjectKey, selection: Option<Selection>) {
        if selection.is_none() && !self.pools.contains_key(&server.namespace) {
            return;
        }
        let namespace = &server.namespace;
        let pool = self.pools.entry(namespace.clone()).or_default();
        let touched = pool.select(&server.name, selection);
        if pool.is_empty() {
            self.pools.remove(namespace);
        }
        let key = |name| ObjectKey::new(namespace.clone(), name);
        self.dirty.extend(touched.into_iter().map(key));
    }

    /// A node stands elsewhere, or is new or gone.
    pub(super) fn node_changed(&mut self, node: &str) {
        let pods = self.by_node.get(node).into_iter().flatten();
        self.dirty.extend(pods.cloned());
    }

    /// What the pods of a server come to.
    pub(super) fn counts(&self, server: &ObjectKey) -> Counts {
        let pool = self.pools.get(&server.namespace);
        pool.and_then(|pool| pool.counts.get(&server.name).copied())
            .unwrap_or_default()
    }

    /// Works off what is dirty. Answers the servers whose counts changed.
    pub(super) fn reconcile(
        &mut self,
        nodes: &HashMap<Arc<str>, Node>,
        output: &mut Output,
    ) -> HashSet<ObjectKey> {
        let mut recounted = HashSet::new();
        for key in std::mem::take(&mut self.dirty) {
            let Some(pool) = self.pools.get_mut(&key.namespace) else {
                continue;
            };
            reconcile_pod(pool, &key, nodes, output, &mut recounted);
            if pool.is_empty() {
                self.pools.remove(&key.namespace);
            }
        }
        recounted
    }

    fn leave_node(&mut self, pod: &Pod) {
        if let Some(pods) = self.by_node.get_mut(&pod.node) {
            pods.remove(&pod.key);
            if pods.is_empty() {
                self.by_node.remove(&pod.node);
            }
        }
    }
}

fn reconcile_pod(
    pool: &mut Pool,
    key: &ObjectKey,
    nodes: &HashMap<Arc<str>, Node>,
    output: &mut Output,
    recounted: &mut HashSet<ObjectKey>,
) {
    let (places, endpoints) = match pool.pods.get(&key.name) {
        None => Default::default(),
        Some(pod) => {
            let (places, memberships) = pool.places(pod);
            let node = nodes.get(&pod.node);
            (places, endpoint::endpoints(pod, node, memberships))
        }
    };
    let old = pool.evaluated.remove(&key.name).unwrap_or_default();
    let mut new = Evaluated::default();
    for (port, _) in &old.endpoints {
        if !endpoints.contains_key(port) {
            let name = endpoint::name(&key.namespace, &key.name, *port);
            output.remove(ResourceType::Endpoint, name.into());
        }
    }
    for (port, message) in endpoints {
        let known = old.endpoints.iter().find(|(known, _)| *known == port);
        let (version, resource) = encode(key, port, &message);
        if known.is_none_or(|(_, known)| *known != version) {
            output.upserts.push(resource);
        }
        new.endpoints.push((port, version));
    }
    if old.places != places {
        let servers = pool.recount(&old.places, &places);
        let server = |name| ObjectKey::new(key.namespace.clone(), name);
        recounted.extend(servers.into_iter().map(server));
    }
    new.places = places;
    if !new.places.is_empty() {
        pool.evaluated.insert(key.name.clone(), new);
    }
}

fn encode(key: &ObjectKey, port: u16, message: &EndpointMessage) -> (Arc<str>, Resource) {
    let value = Bytes::from(message.encode_to_vec());
    let name = endpoint::name(&key.namespace, &key.name, port);
    let resource = Resource::new(ResourceType::Endpoint, name, key.namespace.clone(), value);
    (resource.version.clone(), resource)
}
