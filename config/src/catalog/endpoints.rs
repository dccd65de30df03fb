//! Pushed endpoints: checked one by one, and kept by the pools they are in.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use prost::Message;

use crate::live::PoolEndpoints;
use crate::push::{EndpointMessage, MembershipMessage, RoleMessage};
use crate::snapshot::{Endpoint, Role, authority};

use super::pushed::Wrong;

/// Most endpoints.
pub(super) const MAX_ENDPOINTS: usize = 200_000;
/// Most pools that one endpoint is in.
const MAX_MEMBERSHIPS: usize = 256;
/// Largest message of one endpoint, in bytes: labels are most of it.
const MAX_BYTES: usize = 256 << 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    by_name: HashMap<Arc<str>, Known>,
    pools: PoolEndpoints,
}

#[derive(Debug)]
struct Known {
    version: String,
    /// `namespace/name` of each.
    pools: Vec<String>,
}

impl Endpoints {
    pub(super) fn pools(&self) -> &PoolEndpoints {
        &self.pools
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn versions(&self) -> impl Iterator<Item = (String, String)> {
        let known = self.by_name.iter();
        known.map(|(name, known)| (name.to_string(), known.version.clone()))
    }

    /// Takes one in; `touched` are the pools for which that makes a difference.
    pub(super) fn insert(
        &mut self,
        name: &str,
        version: &str,
        value: &[u8],
        touched: &mut BTreeSet<String>,
    ) -> Result<(), Wrong> {
        let message = read(name, value)?;
        let known = self.by_name.get_key_value(name);
        if known.is_none() && self.by_name.len() >= MAX_ENDPOINTS {
            let message = format!("there are {MAX_ENDPOINTS} endpoints already");
            return Err(Wrong::whole(message, "narrow the gateway's namespaces"));
        }
        let name: Arc<str> = known.map_or_else(|| name.into(), |(name, _)| Arc::clone(name));
        let members = members(&message)?;
        let pools: Vec<String> = members.iter().map(|(pool, _)| pool.clone()).collect();
        if let Some(known) = self.by_name.get(&name) {
            let left = known.pools.clone();
            for pool in left.iter().filter(|pool| !pools.contains(pool)) {
                self.leave(&name, pool, touched);
            }
        }
        for (pool, endpoint) in members {
            let pool_endpoints = self.pools.entry(pool.clone()).or_default();
            let before = pool_endpoints.get(&name);
            if before.is_none_or(|before| **before != endpoint) {
                pool_endpoints.insert(Arc::clone(&name), Arc::new(endpoint));
                touched.insert(pool);
            }
        }
        let version = version.to_owned();
        self.by_name.insert(name, Known { version, pools });
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str, touched: &mut BTreeSet<String>) {
        if let Some((name, known)) = self.by_name.remove_entry(name) {
            for pool in &known.pools {
                self.leave(&name, pool, touched);
            }
        }
    }

    fn leave(&mut self, name: &str, pool: &str, touched: &mut BTreeSet<String>) {
        let Some(endpoints) = self.pools.get_mut(pool) else {
            return;
        };
        if endpoints.remove(name).is_some() {
            touched.insert(pool.to_owned());
        }
        if endpoints.is_empty() {
            self.pools.remove(pool);
        }
    }
}

/// The message, if it is what its name says and can be connected to.
fn read(name: &str, value: &[u8]) -> Result<EndpointMessage, Wrong> {
    if value.len() > MAX_BYTES {
        let message = format!("it is larger than {} KiB", MAX_BYTES >> 10);
        return Err(Wrong::whole(message, "give the pod fewer labels"));
    }
    let message = EndpointMessage::decode(value).map_err(|error| Wrong::unreadable(&error))?;
    let EndpointMessage {
        namespace,
        pod,
        host,
        port,
        ..
    } = &message;
    if !(1..=65535).contains(port) {
        let words = format!("the port {port} is out of range");
        let remedy = "write a port from 1 to 65535 as the ModelServer's `workloadPort`";
        return Err(Wrong::at("port", words, remedy));
    }
    if format!("{namespace}/{pod}:{port}") != name {
        let words = format!("it says that it is {namespace}/{pod}:{port}");
        return Err(Wrong::misnamed(words));
    }
    if host.parse::<IpAddr>().is_err() {
        let words = format!("{host:?} is not an IP address");
        return Err(Wrong::at("host", words, "wait until the pod has one"));
    }
    if message.memberships.is_empty() || message.memberships.len() > MAX_MEMBERSHIPS {
        let count = message.memberships.len();
        let words = format!("it is in {count} pools, 1 to {MAX_MEMBERSHIPS} are allowed");
        let remedy = "look at the selectors of the namespace's ModelServers";
        return Err(Wrong::at("memberships", words, remedy));
    }
    Ok(message)
}

/// The endpoint as each of its pools (`namespace/name`) sees it.
fn members(message: &EndpointMessage) -> Result<Vec<(String, Endpoint)>, Wrong> {
    let port = u16::try_from(message.port).unwrap_or_default();
    let common = Endpoint {
        address: authority(&message.host, port),
        host: message.host.clone(),
        port,
        labels: Arc::new(message.labels.clone()),
        pod: format!("{}/{}", message.namespace, message.pod),
        uid: message.uid.clone(),
        node: message.node.clone(),
        zone: message.zone.clone(),
        topology: Arc::new(message.topology.clone()),
        revision: message.revision.clone(),
        draining: message.draining,
        ..Endpoint::default()
    };
    let mut members: Vec<(String, Endpoint)> = Vec::with_capacity(message.memberships.len());
    for (index, membership) in message.memberships.iter().enumerate() {
        let MembershipMessage {
            server, pd_group, ..
        } = membership;
        let pool = format!("{}/{server}", message.namespace);
        let at = |key: &str| format!("memberships[{index}].{key}");
        let twice = members.iter().any(|(other, _)| *other == pool);
        if server.is_empty() || twice {
            let words = match twice {
                true => format!("the pool `{server}` stands there twice"),
                false => "the pool has no name".to_owned(),
            };
            return Err(Wrong::at(
                &at("server"),
                words,
                "this is a fault of the sender",
            ));
        }
        let role = match RoleMessage::try_from(membership.role) {
            Ok(RoleMessage::Whole) => Role::Whole,
            Ok(RoleMessage::Prefill) => Role::Prefill,
            Ok(RoleMessage::Decode) => Role::Decode,
            Err(_) => {
                let words = format!("role {} is not known", membership.role);
                return Err(Wrong::at(
                    &at("role"),
                    words,
                    "bring the gateway up to date",
                ));
            }
        };
        let endpoint = Endpoint {
            role,
            pd_group: pd_group.clone(),
            ..common.clone()
        };
        members.push((pool, endpoint));
    }
    Ok(members)
}
