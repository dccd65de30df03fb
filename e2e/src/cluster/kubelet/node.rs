//! The node that a kubelet stands for: its object, its heartbeat, its addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::images::Images;
use crate::cluster::services::Hosts;
use crate::cluster::wait::{Look, eventually};

const HEARTBEAT: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;
const LEASES: &str = "kube-node-lease";

/// Each node of this process takes the next 10.244.N.0/24: clusters of one test run share a network.
static NEXT_NETWORK: AtomicU8 = AtomicU8::new(1);

/// A node as a test wants it.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Its name.
    pub name: String,
    /// Labels besides the host name.
    pub labels: BTreeMap<String, String>,
    /// Resources besides `cpu`, `memory` and `pods`, such as `nvidia.com/gpu`.
    pub resources: BTreeMap<String, String>,
}

impl NodeOptions {
    /// A node in a zone.
    pub fn in_zone(name: &str, zone: &str) -> Self {
        let label = ("topology.kubernetes.io/zone".to_owned(), zone.to_owned());
        Self {
            name: name.to_owned(),
            labels: BTreeMap::from([label]),
            resources: BTreeMap::new(),
        }
    }
}

/// What all pods of a node share.
pub(super) struct NodeContext {
    pub(super) name: String,
    pub(super) client: Client,
    pub(super) folder: PathBuf,
    pub(super) images: Images,
    /// Directly, and as a Service.
    pub(super) api_server: [SocketAddrV4; 2],
    pub(super) hosts: Arc<Hosts>,
    pub(super) beating: AtomicBool,
    addresses: Mutex<Addresses>,
}

impl NodeContext {
    pub(super) fn new(
        name: String,
        client: Client,
        folder: PathBuf,
        images: Images,
        api_server: [SocketAddrV4; 2],
        hosts: Arc<Hosts>,
    ) -> Self {
        Self {
            name,
            client,
            folder,
            images,
            api_server,
            hosts,
            beating: AtomicBool::new(true),
            addresses: Mutex::new(Addresses::new(NEXT_NETWORK.fetch_add(1, Ordering::Relaxed))),
        }
    }

    pub(super) fn ip(&self) -> Ipv4Addr {
        self.lock().at(1)
    }

    pub(super) fn take_address(&self) -> Option<Ipv4Addr> {
        self.lock().take()
    }

    pub(super) fn give_back(&self, address: Ipv4Addr) {
        self.lock().used.remove(&address.octets()[3]);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Addresses> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the Node object, or takes over the one that is there, and says that it is ready.
    pub(super) async fn register(&self, options: &NodeOptions) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let what = format!("node {} is registered", self.name);
        // The node's own rights come with the API server's first seconds.
        eventually(&what, || async {
            match nodes
                .create(&PostParams::default(), &self.object(options)?)
                .await
            {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error.into()),
            }
            let status = Patch::Strategic(self.status(options));
            nodes
                .patch_status(&self.name, &PatchParams::default(), &status)
                .await?;
            Ok(Look::Done(()))
        })
        .await?;
        eventually(&format!("node {} has a lease", self.name), || async {
            self.renew().await?;
            Ok(Look::Done(()))
        })
        .await
    }

    fn object(&self, options: &NodeOptions) -> anyhow::Result<Node> {
        let network = Ipv4Addr::from(u32::from(self.ip()) & !0xff);
        let mut labels = options.labels.clone();
        labels.insert("kubernetes.io/hostname".to_owned(), self.name.clone());
        labels.insert("kubernetes.io/os".to_owned(), "linux".to_owned());
        serde_json::from_value(json!({
            "metadata": {"name": self.name, "labels": labels},
            "spec": {"podCIDR": format!("{network}/24")},
        }))
        .context("a node is one")
    }

    fn status(&self, options: &NodeOptions) -> serde_json::Value {
        let mut resources = options.resources.clone();
        for (name, amount) in [("cpu", "64"), ("memory", "256Gi"), ("pods", "250")] {
            resources
                .entry(name.to_owned())
                .or_insert_with(|| amount.to_owned());
        }
        let now = Timestamp::now();
        json!({"status": {
            "capacity": resources,
            "allocatable": resources,
            "addresses": [
                {"type": "InternalIP", "address": self.ip()},
                {"type": "Hostname", "address": self.name},
            ],
            "conditions": [{
                "type": "Ready",
                "status": "True",
                "reason": "KubeletReady",
                "message": "the process kubelet runs",
                "lastHeartbeatTime": now,
                "lastTransitionTime": now,
            }],
        }})
    }

    /// Says every ten seconds that the node lives.
    pub(super) async fn beat(self: Arc<Self>) {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            if self.beating.load(Ordering::Relaxed)
                && let Err(error) = self.renew().await
            {
                tracing::debug!(node = %self.name, error = format!("{error:#}"), "no heartbeat");
            }
        }
    }

    async fn renew(&self) -> anyhow::Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), LEASES);
        let spec = json!({
            "holderIdentity": self.name,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": format!("{:.6}", Timestamp::now()),
        });
        let patch = Patch::Merge(json!({"spec": spec}));
        match leases
            .patch(&self.name, &PatchParams::default(), &patch)
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let lease = json!({"metadata": {"name": self.name}, "spec": spec});
                let lease = serde_json::from_value(lease).context("a lease is one")?;
                leases.create(&PostParams::default(), &lease).await?;
            }
            answer => {
                answer?;
            }
        }
        Ok(())
    }
}

/// Addresses of one /24, given out in a circle, so that none comes back soon. `.1` is the node's own.
struct Addresses {
    network: u8,
    last: u8,
    used: BTreeSet<u8>,
}

impl Addresses {
    fn new(network: u8) -> Self {
        Self {
            network,
            last: 1,
            used: BTreeSet::new(),
        }
    }

    fn at(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.network, host)
    }

    fn take(&mut self) -> Option<Ipv4Addr> {
        for _ in 2..=254 {
            self.last = if self.last >= 254 { 2 } else { self.last + 1 };
            if self.used.insert(self.last) {
                return Some(self.at(self.last));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_only_after_all_others() {
        let mut addresses = Addresses::new(7);
        let first = addresses.take().unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 244, 7, 2));
        addresses.used.remove(&2);
        for _ in 3..=254 {
            assert_ne!(addresses.take(), Some(first));
        }
        assert_eq!(addresses.take(), Some(first));
        assert_eq!(addresses.take(), None);
    }
}
