//! kthena-router's flags: those that have an equivalent are taken, the others say what to use.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use clap::error::ErrorKind;
use sluice_config::Bootstrap;
use sluice_config::bootstrap::{Listener, ListenerTls};

/// Those with an equivalent. Hidden: there are better ones.
#[derive(Debug, Args)]
pub(super) struct KthenaFlags {
    /// `--listen 0.0.0.0:PORT`.
    #[arg(long, hide = true, conflicts_with = "listen", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// `--admin 127.0.0.1:PORT`.
    #[arg(long, hide = true, conflicts_with = "admin", value_parser = clap::value_parser!(u16).range(1..))]
    debug_port: Option<u16>,
    /// `--metrics 0.0.0.0:PORT`.
    #[arg(long, hide = true, conflicts_with = "metrics", value_parser = clap::value_parser!(u16).range(1..))]
    metrics_port: Option<u16>,
    /// `tls.certFile` of the listeners.
    #[arg(long, hide = true, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// `tls.keyFile` of the listeners.
    #[arg(long, hide = true, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

const CONTROL: &str = "admission is the control loop's: see `sluice-control --help`";
const GATEWAY: &str = "the Gateway API is not served yet: leave it out";
const CLIENT: &str = "the gateway asks no Kubernetes API, `sluice-control` does: leave it out";
const STICKY: &str = "write `scheduling: {policy: session}` in the bootstrap file";

/// Those without. A switch among them (true) may be off.
const REFUSED: [(&str, bool, &str); 16] = [
    ("enable-gateway-api", true, GATEWAY),
    ("enable-gateway-api-inference-extension", true, GATEWAY),
    ("enable-webhook", true, CONTROL),
    ("webhook-port", false, CONTROL),
    ("webhook-tls-cert-file", false, CONTROL),
    ("webhook-tls-private-key-file", false, CONTROL),
    ("cert-secret-name", false, CONTROL),
    ("webhook-service-name", false, CONTROL),
    (
        "expose-metrics-on-router-port",
        true,
        "metrics have an address of their own: use `--metrics ADDRESS`",
    ),
    ("kube-api-qps", false, CLIENT),
    ("kube-api-burst", false, CLIENT),
    ("session-sticky-store", false, STICKY),
    ("session-sticky-redis-address", false, STICKY),
    (
        "v",
        false,
        "set the environment variable RUST_LOG, such as RUST_LOG=debug",
    ),
    (
        "vmodule",
        false,
        "set the environment variable RUST_LOG, such as RUST_LOG=sluice_proxy=debug",
    ),
    ("logtostderr", true, "logs go to stderr: leave it out"),
];

/// The arguments without switches of kthena-router that are off, as its chart passes them.
pub(super) fn without_idle(
    arguments: impl Iterator<Item = OsString>,
) -> Result<Vec<OsString>, clap::Error> {
    let mut kept = Vec::new();
    let mut over = false;
    for argument in arguments {
        over = over || argument == "--";
        let text = argument.to_string_lossy();
        let flag = text.strip_prefix("--").or_else(|| text.strip_prefix('-'));
        let (name, value) =
            flag.map_or(("", ""), |flag| flag.split_once('=').unwrap_or((flag, "")));
        let known = REFUSED
            .iter()
            .find(|(refused, ..)| !over && *refused == name);
        match known {
            None => kept.push(argument),
            Some((_, true, _)) if matches!(value, "false" | "0" | "f") => {}
            Some((name, _, instead)) => {
                let message = format!("--{name} is a flag of kthena-router: {instead}\n");
                return Err(clap::Error::raw(ErrorKind::UnknownArgument, message));
            }
        }
    }
    Ok(kept)
}

impl KthenaFlags {
    pub(super) fn apply(self, bootstrap: &mut Bootstrap) {
        let at = |ip: Ipv4Addr, port| SocketAddr::new(IpAddr::V4(ip), port);
        if let Some(port) = self.port {
            bootstrap.listeners = vec![Listener {
                address: at(Ipv4Addr::UNSPECIFIED, port),
                ..Listener::default()
            }];
        }
        if let Some(port) = self.debug_port {
            bootstrap.admin.address = at(Ipv4Addr::LOCALHOST, port);
        }
        if let Some(port) = self.metrics_port {
            bootstrap.metrics.address = at(Ipv4Addr::UNSPECIFIED, port);
        }
        if let (Some(cert_file), Some(key_file)) = (self.tls_cert, self.tls_key) {
            let tls = ListenerTls {
                cert_file,
                key_file,
            };
            for listener in &mut bootstrap.listeners {
                listener.tls = Some(tls.clone());
            }
        }
    }
}
