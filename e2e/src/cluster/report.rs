//! The state of a namespace in words, printed when its test has failed.

use std::fmt::Write;

use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::ResourceExt;
use kube::api::ListParams;

use super::namespace::Namespace;
use super::process::tail;

/// More of them would hide the rest.
const MOST_PODS: usize = 50;

/// Everything worth reading; what cannot be read is said instead.
pub(super) async fn of(namespace: &Namespace) -> String {
    let mut text = format!("namespace {}\n", namespace.name());
    match namespace.pods("").await {
        Ok(pods) => {
            for pod in pods.iter().take(MOST_PODS) {
                of_pod(&mut text, namespace, pod);
            }
            writeln!(text, "{} pods in all", pods.len()).expect(STRING);
        }
        Err(error) => writeln!(text, "pods cannot be listed: {error:#}").expect(STRING),
    }
    let events = namespace.api::<Event>().list(&ListParams::default()).await;
    for event in events.map(|list| list.items).unwrap_or_default() {
        let object = event.involved_object;
        writeln!(
            text,
            "event {} {}: {} {}",
            object.kind.unwrap_or_default(),
            object.name.unwrap_or_default(),
            event.reason.unwrap_or_default(),
            event.message.unwrap_or_default()
        )
        .expect(STRING);
    }
    writeln!(text, "logs: {}", namespace.cluster().folder().display()).expect(STRING);
    text
}

const STRING: &str = "a string takes everything";

fn of_pod(text: &mut String, namespace: &Namespace, pod: &Pod) {
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let unmet = conditions
        .iter()
        .filter(|condition| condition.status != "True")
        .map(|condition| {
            let message = condition.message.as_deref().unwrap_or_default();
            format!("not {}: {message}", condition.type_)
        });
    let unmet: Vec<_> = unmet.collect();
    writeln!(
        text,
        "pod {} {} {} {}",
        pod.name_any(),
        status.phase.unwrap_or_default(),
        status.pod_ip.unwrap_or_default(),
        unmet.join("; ")
    )
    .expect(STRING);
    let inits = status.init_container_statuses.into_iter().flatten();
    for container in inits.chain(status.container_statuses.into_iter().flatten()) {
        of_container(text, namespace, pod, &container);
    }
}

fn of_container(text: &mut String, namespace: &Namespace, pod: &Pod, status: &ContainerStatus) {
    let state = serde_json::to_string(&status.state).unwrap_or_default();
    writeln!(
        text,
        "  container {}: restarts {}, {state}",
        status.name, status.restart_count
    )
    .expect(STRING);
    let uid = pod.uid().unwrap_or_default();
    let short = uid.split('-').next().unwrap_or_default();
    let folder = format!("{}_{}_{short}", namespace.name(), pod.name_any());
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let log = namespace
        .cluster()
        .folder()
        .join(node.unwrap_or_default())
        .join("pods")
        .join(folder)
        .join(format!("{}.log", status.name));
    for line in tail(&log).lines() {
        writeln!(text, "    | {line}").expect(STRING);
    }
}
