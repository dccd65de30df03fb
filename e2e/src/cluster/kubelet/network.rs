//! A network of its own for a pod, where its image asks for one: its programs may listen on every address, its loopback
//! is its alone, and its cable can be pulled. On the bridge that `e2e-cluster.sh` makes.
//!
//! Most pods share the network of the test run and listen on their own address; that costs nothing.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

const BRIDGE: &str = "sluice0";
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 245, 0, 1);

/// The network of one pod.
#[derive(Clone, Debug)]
pub(super) struct PodNetwork {
    address: Ipv4Addr,
    /// Name of the network, and of its cable's end at the bridge.
    name: String,
}

impl PodNetwork {
    /// The network of the pod that would have `address` in the common one.
    pub(super) fn of(address: Ipv4Addr) -> Self {
        let [_, _, node, pod] = address.octets();
        Self {
            address: Ipv4Addr::new(10, 245, node, pod),
            name: format!("pod-{node}-{pod}"),
        }
    }

    /// Its address in there.
    pub(super) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A file by which it can be entered.
    pub(super) fn file(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Makes it.
    ///
    /// # Errors
    /// When `ip` refuses, for instance because there is no bridge.
    pub(super) async fn make(&self) -> anyhow::Result<()> {
        let made = self.try_make().await;
        if made.is_err() {
            self.remove().await;
        }
        made
    }

    async fn try_make(&self) -> anyhow::Result<()> {
        let Self { address, name } = self;
        let outside = format!(
            "netns add {name}\nlink add {name} type veth peer name eth0 netns {name}\n\
             link set {name} master {BRIDGE} up\n"
        );
        ip(&[], &outside).await?;
        let inside = format!(
            "link set lo up\naddress add {address}/16 dev eth0\nlink set eth0 up\n\
             route add default via {GATEWAY}\n"
        );
        ip(&["-n", name], &inside).await
    }

    /// Pulls its cable, or puts it back.
    ///
    /// # Errors
    /// When there is none any more.
    pub(super) async fn connect(&self, connected: bool) -> anyhow::Result<()> {
        let state = if connected { "up" } else { "down" };
        ip(&[], &format!("link set {} {state}\n", self.name)).await
    }

    /// Takes it away. What still runs in it keeps it, without a cable.
    pub(super) async fn remove(&self) {
        let commands = format!(
            "link delete {name}\nnetns delete {name}\n",
            name = self.name
        );
        if let Err(error) = ip(&[], &commands).await {
            tracing::debug!(name = %self.name, error = format!("{error:#}"), "network not removed");
        }
    }
}

/// Runs `ip` once for several commands: each start takes some milliseconds.
async fn ip(arguments: &[&str], commands: &str) -> anyhow::Result<()> {
    let mut ip = Command::new("ip")
        .args(arguments)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start ip")?;
    let mut input = ip.stdin.take().context("it has an input")?;
    input.write_all(commands.as_bytes()).await?;
    drop(input);
    let output = ip.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "ip: {}", said.trim());
    Ok(())
}
