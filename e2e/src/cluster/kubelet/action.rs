//! What probes and life-cycle hooks do: ask over HTTP, connect, run a command, sleep.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{
    Container, ExecAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::process::Command;

use super::sandbox;
use crate::cluster::process::ProcessHandle;

/// A running container, as its probes and hooks need it.
#[derive(Clone)]
pub(super) struct Target<'a> {
    pub(super) container: &'a Container,
    pub(super) address: Ipv4Addr,
    pub(super) process: ProcessHandle,
    pub(super) variables: &'a BTreeMap<String, String>,
}

impl Target<'_> {
    /// One try of a probe.
    ///
    /// # Errors
    /// When the probe fails, and why.
    pub(super) async fn probe(&self, probe: &Probe) -> anyhow::Result<()> {
        let seconds = probe.timeout_seconds.unwrap_or(1).max(1).unsigned_abs();
        let limit = Duration::from_secs(seconds.into());
        let action = async {
            if let Some(action) = &probe.http_get {
                self.get(action).await
            } else if let Some(action) = &probe.tcp_socket {
                self.connect(action).await
            } else if let Some(action) = &probe.exec {
                self.run(action).await
            } else {
                anyhow::bail!("only httpGet, tcpSocket and exec probes are known to this kubelet")
            }
        };
        tokio::time::timeout(limit, action)
            .await
            .with_context(|| format!("no answer in {limit:?}"))?
    }

    /// Runs a hook to its end.
    ///
    /// # Errors
    /// When it fails, and why.
    pub(super) async fn hook(&self, hook: &LifecycleHandler) -> anyhow::Result<()> {
        if let Some(action) = &hook.exec {
            self.run(action).await
        } else if let Some(action) = &hook.http_get {
            self.get(action).await
        } else if let Some(action) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(action.seconds.unsigned_abs())).await;
            Ok(())
        } else {
            anyhow::bail!("only exec, httpGet and sleep hooks are known to this kubelet")
        }
    }

    async fn get(&self, action: &HTTPGetAction) -> anyhow::Result<()> {
        anyhow::ensure!(
            action.scheme.as_deref() != Some("HTTPS"),
            "this kubelet does not ask over HTTPS"
        );
        let host = self.host(action.host.as_deref());
        let port = self.port(&action.port)?;
        let path = action.path.as_deref().unwrap_or("/");
        // A connection of its own each time, as a real kubelet.
        let client = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .build()?;
        let mut request = client.get(format!("http://{host}:{port}{path}"));
        for header in action.http_headers.iter().flatten() {
            request = request.header(&header.name, &header.value);
        }
        let status = request.send().await?.status();
        anyhow::ensure!(
            status.is_success() || status.is_redirection(),
            "answered with {status}"
        );
        Ok(())
    }

    async fn connect(&self, action: &TCPSocketAction) -> anyhow::Result<()> {
        let host = self.host(action.host.as_deref());
        let port = self.port(&action.port)?;
        tokio::net::TcpStream::connect((host, port)).await?;
        Ok(())
    }

    async fn run(&self, action: &ExecAction) -> anyhow::Result<()> {
        let arguments = action.command.as_deref().unwrap_or_default();
        let mut command: Command = sandbox::enter(self.process.id(), arguments, self.variables);
        let output = command.kill_on_drop(true).output().await?;
        anyhow::ensure!(
            output.status.success(),
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn host(&self, written: Option<&str>) -> String {
        match written {
            Some(host) if !host.is_empty() => host.to_owned(),
            _ => self.address.to_string(),
        }
    }

    fn port(&self, port: &IntOrString) -> anyhow::Result<u16> {
        match port {
            IntOrString::Int(number) => Ok(u16::try_from(*number)?),
            IntOrString::String(name) => {
                let mut ports = self.container.ports.iter().flatten();
                let port = ports.find(|port| port.name.as_ref() == Some(name));
                let port = port.with_context(|| format!("there is no port {name}"))?;
                Ok(u16::try_from(port.container_port)?)
            }
        }
    }
}
