//! Services of the cluster on this machine: what kube-proxy and the cluster's DNS do, for TCP.
//!
//! Each port of a ClusterIP is a listener that passes connections on to a ready endpoint; names are lines of pods'
//! `/etc/hosts`. With the rights of `system:kube-proxy`. Not there: UDP, node ports, session affinity, traffic
//! policies, source addresses of clients.

mod hosts;
mod table;

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};
use rand::seq::IndexedRandom;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

pub(super) use hosts::Hosts;
use table::{Backends, Table};

/// The running services; dropping it closes them.
pub(super) struct Services {
    _tasks: JoinSet<()>,
}

impl Services {
    /// Follows the cluster's Services. The one called `kubernetes` leads to `api_server`.
    pub(super) fn start(client: Client, hosts: Arc<Hosts>, api_server: SocketAddrV4) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(client, hosts, api_server));
        Self { _tasks: tasks }
    }
}

async fn follow(client: Client, hosts: Arc<Hosts>, api_server: SocketAddrV4) {
    let (services, write_services) = reflector::store();
    let (slices, write_slices) = reflector::store();
    let events = watcher(
        Api::<Service>::all(client.clone()),
        watcher::Config::default(),
    );
    let events = events.default_backoff().reflect(write_services);
    let of_services = events.map(|_| ()).boxed();
    let events = watcher(
        Api::<EndpointSlice>::all(client),
        watcher::Config::default(),
    );
    let events = events.default_backoff().reflect(write_slices);
    let of_slices = events.map(|_| ()).boxed();
    let mut changes = futures::stream::select(of_services, of_slices);
    let mut listeners = Listeners::default();
    while changes.next().await.is_some() {
        let table = Table::of(&services.state(), &slices.state(), api_server);
        hosts.update(table.names);
        listeners.update(table.ports).await;
    }
}

/// Open ports, by the address that a Service has.
#[derive(Default)]
struct Listeners {
    open: BTreeMap<SocketAddrV4, (watch::Sender<Backends>, AbortHandle)>,
    tasks: JoinSet<()>,
}

impl Listeners {
    async fn update(&mut self, ports: BTreeMap<SocketAddrV4, Backends>) {
        self.open.retain(|address, (_, task)| {
            let kept = ports.contains_key(address);
            if !kept {
                task.abort();
            }
            kept
        });
        while self.tasks.try_join_next().is_some() {}
        for (address, backends) in ports {
            if let Some((sender, _)) = self.open.get(&address) {
                sender.send_if_modified(|old| {
                    let changed = *old != backends;
                    *old = backends;
                    changed
                });
                continue;
            }
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    let (sender, receiver) = watch::channel(backends);
                    let task = self.tasks.spawn(serve(listener, receiver));
                    self.open.insert(address, (sender, task));
                }
                // A moment ago it may have been another Service's; the next change tries again.
                Err(error) => tracing::warn!(%address, %error, "a Service's port cannot be opened"),
            }
        }
    }
}

/// Open connections go on when the port is closed, as they do in a real cluster.
async fn serve(listener: TcpListener, backends: watch::Receiver<Backends>) {
    while let Ok((client, _)) = listener.accept().await {
        let backend = backends.borrow().choose(&mut rand::rng()).copied();
        if let Some(backend) = backend {
            tokio::spawn(pass(client, SocketAddr::V4(backend)));
        }
    }
}

async fn pass(mut client: TcpStream, backend: SocketAddr) {
    // No second try: a real one has chosen before it knows whether anyone listens.
    let Ok(mut backend) = TcpStream::connect(backend).await else {
        return;
    };
    client.set_nodelay(true).ok();
    backend.set_nodelay(true).ok();
    tokio::io::copy_bidirectional(&mut client, &mut backend)
        .await
        .ok();
}
