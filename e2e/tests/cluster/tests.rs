//! The tests, by what they look at: the rig itself, then Sluice on it.

mod containers;
mod endpoints;
mod faults;
mod identities;
mod kthena;
mod manifests;
mod outage;
mod resources;
mod rig;
mod schema;
mod server;
mod services;
mod trust;
mod updates;

use std::io::Write;

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use sluice_e2e::cluster::{Look, Namespace, eventually};

/// Waits until a pod is no more.
async fn gone(namespace: &Namespace, pod: &Pod) -> Result<()> {
    let name = pod.name_any();
    eventually(&format!("pod {name} is gone"), || async {
        let now = namespace.api::<Pod>().get_opt(&name).await?;
        Ok(Look::when(
            now.is_none_or(|now| now.uid() != pod.uid()),
            "it is there",
        ))
    })
    .await
}

/// A figure for whoever runs the tests, past the capture of the test runner.
fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").ok();
}
