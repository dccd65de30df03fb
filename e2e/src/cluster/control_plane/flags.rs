//! Flags of the control plane's processes, and the files that they name.
//!
//! Just enough to start upstream's programs on 127.0.0.1.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::harness::free_port;

pub(super) const AUTHORITY: &str = "authority.pem";
pub(super) const SERVER_CERTIFICATE: &str = "server.pem";
pub(super) const SERVER_KEY: &str = "server.key";
pub(super) const TOKEN_KEY: &str = "tokens.key";
pub(super) const TOKEN_PUBLIC_KEY: &str = "tokens.pem";
pub(super) const AUDIT_POLICY: &str = "audit-policy.yaml";
pub(super) const AUDIT_LOG: &str = "audit.log";

/// Where the processes listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    etcd: u16,
    etcd_peer: u16,
    pub(super) api_server: u16,
    scheduler: u16,
    controller_manager: u16,
    /// Services have addresses of 10.0.N.0/24: the clusters of one test run share a network.
    services: u8,
}

impl Ports {
    pub(super) fn free() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        Self {
            etcd: free_port(),
            etcd_peer: free_port(),
            api_server: free_port(),
            scheduler: free_port(),
            controller_manager: free_port(),
            services: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Address of the Service `kubernetes`.
    pub(super) fn first_service(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, self.services, 1)
    }
}

pub(super) type Flags = std::vec::IntoIter<String>;

pub(super) fn etcd(folder: &Path, ports: &Ports) -> Flags {
    let data = folder.join("etcd");
    flags([
        ("data-dir", data.display().to_string()),
        ("client-url", format!("http://127.0.0.1:{}", ports.etcd)),
        ("peer-url", format!("http://127.0.0.1:{}", ports.etcd_peer)),
    ])
}

pub(super) fn api_server(folder: &Path, ports: &Ports) -> Flags {
    let file = |name| folder.join(name).display().to_string();
    let local = || "127.0.0.1".to_owned();
    flags([
        ("etcd-servers", format!("http://127.0.0.1:{}", ports.etcd)),
        ("bind-address", local()),
        ("advertise-address", local()),
        ("secure-port", ports.api_server.to_string()),
        (
            "service-cluster-ip-range",
            format!("10.0.{}.0/24", ports.services),
        ),
        // The default refuses to publish 127.0.0.1, and the server exits.
        ("endpoint-reconciler-type", "none".to_owned()),
        ("client-ca-file", file(AUTHORITY)),
        ("tls-cert-file", file(SERVER_CERTIFICATE)),
        ("tls-private-key-file", file(SERVER_KEY)),
        (
            "service-account-issuer",
            format!("https://127.0.0.1:{}", ports.api_server),
        ),
        ("service-account-key-file", file(TOKEN_PUBLIC_KEY)),
        ("service-account-signing-key-file", file(TOKEN_KEY)),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("allow-privileged", "true".to_owned()),
    ])
}

pub(super) fn audit(folder: &Path) -> Flags {
    let file = |name| folder.join(name).display().to_string();
    flags([
        ("audit-policy-file", file(AUDIT_POLICY)),
        ("audit-log-path", file(AUDIT_LOG)),
        // Written when it happens: a test reads it right after.
        ("audit-log-mode", "blocking".to_owned()),
    ])
}

pub(super) fn scheduler(kubeconfig: &Path, ports: &Ports) -> Flags {
    flags(component(kubeconfig, ports.scheduler))
}

pub(super) fn controller_manager(
    folder: &Path,
    kubeconfig: &Path,
    ports: &Ports,
    controllers: &str,
) -> Flags {
    let file = |name| folder.join(name).display().to_string();
    let own = [
        ("use-service-account-credentials", "true".to_owned()),
        ("service-account-private-key-file", file(TOKEN_KEY)),
        ("root-ca-file", file(AUTHORITY)),
        ("controllers", controllers.to_owned()),
    ];
    flags(
        component(kubeconfig, ports.controller_manager)
            .into_iter()
            .chain(own),
    )
}

fn component(kubeconfig: &Path, port: u16) -> [(&'static str, String); 6] {
    let kubeconfig = kubeconfig.display().to_string();
    [
        ("kubeconfig", kubeconfig.clone()),
        ("authentication-kubeconfig", kubeconfig.clone()),
        ("authorization-kubeconfig", kubeconfig),
        ("leader-elect", "false".to_owned()),
        ("bind-address", "127.0.0.1".to_owned()),
        ("secure-port", port.to_string()),
    ]
}

fn flags(pairs: impl IntoIterator<Item = (&'static str, String)>) -> Flags {
    let flags = pairs.into_iter();
    let flags: Vec<_> = flags
        .map(|(name, value)| format!("--{name}={value}"))
        .collect();
    flags.into_iter()
}
