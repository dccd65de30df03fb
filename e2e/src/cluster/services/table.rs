//! Which addresses lead where: a pure function of Services and EndpointSlices.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;

use super::hosts::Name;

pub(super) type Backends = Vec<SocketAddrV4>;

/// What is open and what is known by name.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Ports without a backend are left out: who connects is refused.
    pub(super) ports: BTreeMap<SocketAddrV4, Backends>,
    pub(super) names: Vec<Name>,
}

impl Table {
    pub(super) fn of(
        services: &[Arc<Service>],
        slices: &[Arc<EndpointSlice>],
        api_server: SocketAddrV4,
    ) -> Self {
        let mut table = Self::default();
        for service in services {
            let slices: Vec<_> = slices
                .iter()
                .filter(|slice| belongs(slice, service))
                .map(Arc::as_ref)
                .collect();
            table.add(service, &slices, api_server);
        }
        table
    }

    fn add(&mut self, service: &Service, slices: &[&EndpointSlice], api_server: SocketAddrV4) {
        let spec = service.spec.clone().unwrap_or_default();
        let address = spec.cluster_ip.as_deref().map(str::parse::<Ipv4Addr>);
        let Some(Ok(address)) = address else {
            // Headless: the name is the pods'.
            self.add_pods(service, slices);
            return;
        };
        self.names.push(Name::of(service, None, address));
        let is_the_api =
            service.name_any() == "kubernetes" && service.namespace().as_deref() == Some("default");
        for port in spec.ports.iter().flatten() {
            let backends = if is_the_api {
                vec![api_server]
            } else {
                backends(port, slices)
            };
            if let Ok(number) = u16::try_from(port.port)
                && !backends.is_empty()
                && port.protocol.as_deref().unwrap_or("TCP") == "TCP"
            {
                let at = SocketAddrV4::new(address, number);
                self.ports.insert(at, backends);
            }
        }
    }

    fn add_pods(&mut self, service: &Service, slices: &[&EndpointSlice]) {
        let endpoints = slices
            .iter()
            .flat_map(|slice| slice.endpoints.iter().flatten());
        for endpoint in endpoints.filter(|endpoint| is(endpoint, Wish::Ready)) {
            for address in addresses(endpoint) {
                self.names.push(Name::of(service, None, address));
                if let Some(host) = &endpoint.hostname {
                    self.names.push(Name::of(service, Some(host), address));
                }
            }
        }
    }
}

fn belongs(slice: &EndpointSlice, service: &Service) -> bool {
    let name = slice.labels().get("kubernetes.io/service-name");
    slice.namespace() == service.namespace() && name == Some(&service.name_any())
}

/// Ready ones; where there are none, those that still serve while they end.
fn backends(port: &ServicePort, slices: &[&EndpointSlice]) -> Backends {
    let of = |wish| -> Backends {
        let mut all = Vec::new();
        for slice in slices {
            let mut ports = slice.ports.iter().flatten();
            let name = port.name.as_deref().unwrap_or_default();
            let port = ports.find(|port| port.name.as_deref().unwrap_or_default() == name);
            let number = port.and_then(|port| port.port);
            let Some(Ok(number)) = number.map(u16::try_from) else {
                continue;
            };
            let endpoints = slice.endpoints.iter().flatten();
            let endpoints = endpoints.filter(|endpoint| is(endpoint, wish));
            all.extend(
                endpoints
                    .flat_map(addresses)
                    .map(|address| SocketAddrV4::new(address, number)),
            );
        }
        all
    };
    let ready = of(Wish::Ready);
    if ready.is_empty() {
        of(Wish::ServingWhileEnding)
    } else {
        ready
    }
}

#[derive(Clone, Copy)]
enum Wish {
    Ready,
    ServingWhileEnding,
}

fn is(endpoint: &Endpoint, wish: Wish) -> bool {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    match wish {
        Wish::Ready => conditions.ready != Some(false),
        Wish::ServingWhileEnding => {
            conditions.serving == Some(true) && conditions.terminating == Some(true)
        }
    }
}

fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = Ipv4Addr> {
    endpoint
        .addresses
        .iter()
        .filter_map(|text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const API: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 6443);

    fn service(address: &str) -> Arc<Service> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": "a", "namespace": "n"},
                "spec": {"clusterIP": address, "ports": [{"name": "http", "port": 80}]},
            }))
            .unwrap(),
        )
    }

    fn slice(endpoints: serde_json::Value) -> Arc<EndpointSlice> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {
                    "name": "a-x",
                    "namespace": "n",
                    "labels": {"kubernetes.io/service-name": "a"},
                },
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": 8000}],
                "endpoints": endpoints,
            }))
            .unwrap(),
        )
    }

    fn ending(address: &str) -> serde_json::Value {
        json!({
            "addresses": [address],
            "conditions": {"ready": false, "serving": true, "terminating": true},
        })
    }

    fn leads_to(endpoints: serde_json::Value) -> Vec<String> {
        let table = Table::of(&[service("10.0.1.9")], &[slice(endpoints)], API);
        let at = SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 9), 80);
        let backends = table.ports.get(&at).cloned().unwrap_or_default();
        backends.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_port_leads_to_ready_endpoints_and_to_ending_ones_only_without_them() {
        let ready = json!({"addresses": ["10.244.1.2"], "conditions": {"ready": true}});
        let both = json!([ready, ending("10.244.1.3")]);
        assert_eq!(leads_to(both), ["10.244.1.2:8000"]);
        assert_eq!(leads_to(json!([ending("10.244.1.3")])), ["10.244.1.3:8000"]);
        assert!(leads_to(json!([])).is_empty());
    }

    #[test]
    fn a_headless_service_is_known_by_its_pods_addresses() {
        let ready = json!([{"addresses": ["10.244.1.2"], "hostname": "a-0"}]);
        let table = Table::of(&[service("None")], &[slice(ready)], API);
        assert!(table.ports.is_empty());
        assert_eq!(table.names.len(), 2);
    }
}
