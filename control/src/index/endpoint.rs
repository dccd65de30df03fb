//! A pod in its pools, as endpoints: one for each port.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_config::push::{EndpointMessage, MembershipMessage, RoleMessage};

use super::object::{Node, Pod, PodState};

/// A pod's place in one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Membership {
    pub(super) server: Arc<str>,
    pub(super) port: u16,
    pub(super) role: RoleMessage,
    pub(super) group: String,
}

/// The endpoints of a pod, by port. None of a pod that may not serve. `memberships` come in order of the servers'
/// names.
pub(super) fn endpoints(
    pod: &Pod,
    node: Option<&Node>,
    memberships: Vec<Membership>,
) -> BTreeMap<u16, EndpointMessage> {
    let mut endpoints = BTreeMap::new();
    let Some(address) = pod.address.filter(|_| pod.state != PodState::Idle) else {
        return endpoints;
    };
    for membership in memberships {
        let endpoint = endpoints
            .entry(membership.port)
            .or_insert_with(|| EndpointMessage {
                namespace: pod.key.namespace.to_string(),
                pod: pod.key.name.to_string(),
                uid: pod.uid.to_string(),
                host: address.to_string(),
                port: membership.port.into(),
                memberships: Vec::new(),
                labels: pod.labels.to_map(),
                revision: pod.revision().to_owned(),
                node: pod.node.to_string(),
                zone: node.map(Node::zone).unwrap_or_default().to_owned(),
                draining: pod.state == PodState::Draining,
                topology: node.map(Node::topology).unwrap_or_default(),
            });
        endpoint.memberships.push(MembershipMessage {
            server: membership.server.to_string(),
            role: membership.role.into(),
            pd_group: membership.group,
        });
    }
    endpoints
}

/// Name of the resource of a pod's endpoint.
pub(super) fn name(namespace: &str, pod: &str, port: u16) -> String {
    format!("{namespace}/{pod}:{port}")
}
