//! A pod's status out of what is known of its containers. Pure: the clock comes in as an argument.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;

use super::board::{State, Termination, View};
use super::environment::Facts;

type Views = BTreeMap<String, View>;

/// Composes the status. `before` is the last one written: a condition that still holds keeps its time.
pub(super) fn compose(
    pod: &Pod,
    facts: &Facts,
    views: &Views,
    before: Option<&PodStatus>,
    start: Timestamp,
    now: Timestamp,
) -> PodStatus {
    let nothing = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&nothing);
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    let (phase, initialized) = phase(spec, views);
    let unready = unready(spec, views);
    let mut conditions = Conditions {
        pod,
        before: before.or(pod.status.as_ref()),
        now,
        list: Vec::new(),
    };
    conditions.set("PodScheduled", true, "", String::new());
    conditions.set("PodReadyToStartContainers", true, "", String::new());
    let reason = "ContainersNotInitialized";
    conditions.set("Initialized", initialized, reason, String::new());
    let why = format!("containers with unready status: {unready:?}");
    let running = phase == "Running";
    let ready = running && unready.is_empty();
    let reason = match phase {
        "Succeeded" => "PodCompleted",
        "Failed" => "PodFailed",
        _ => "ContainersNotReady",
    };
    conditions.set("ContainersReady", ready, reason, why.clone());
    match closed_gate(spec, pod) {
        Some(gate) if ready => {
            let why = format!("readiness gate {gate} is not true");
            conditions.set("Ready", false, "ReadinessGatesNotReady", why);
        }
        _ => conditions.set("Ready", ready, reason, why),
    }
    let statuses = |containers: &[Container]| {
        let statuses = containers.iter();
        let statuses: Vec<_> = statuses.map(|item| container_status(item, views)).collect();
        Some(statuses).filter(|statuses| !statuses.is_empty())
    };
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions.list),
        host_ip: Some(facts.node_ip.to_string()),
        host_ips: Some(vec![HostIP {
            ip: facts.node_ip.to_string(),
        }]),
        pod_ip: Some(facts.ip.to_string()),
        pod_ips: Some(vec![PodIP {
            ip: facts.ip.to_string(),
        }]),
        start_time: Some(Time(start)),
        observed_generation: pod.metadata.generation,
        init_container_statuses: statuses(inits),
        container_statuses: statuses(&spec.containers),
        ..PodStatus::default()
    }
}

/// The phase, and whether the init containers are through.
fn phase(spec: &PodSpec, views: &Views) -> (&'static str, bool) {
    let inits = spec.init_containers.iter().flatten();
    let mut initialized = true;
    for init in inits {
        let view = &views[&init.name];
        if is_sidecar(init) {
            initialized &= view.started || view.finished;
        } else {
            match exit_code(view) {
                Some(0) => {}
                Some(_) if view.finished => return ("Failed", false),
                _ => initialized = false,
            }
        }
    }
    let main = spec.containers.iter();
    let main: Vec<_> = main.map(|container| &views[&container.name]).collect();
    if main.iter().all(|view| view.finished) {
        let failed = main.iter().any(|view| exit_code(view) != Some(0));
        return (if failed { "Failed" } else { "Succeeded" }, initialized);
    }
    let begun = |view: &&View| !matches!(view.state, State::Waiting { .. }) || view.last.is_some();
    let phase = if initialized && main.iter().any(begun) {
        "Running"
    } else {
        "Pending"
    };
    (phase, initialized)
}

/// Init containers that run beside the others.
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn exit_code(view: &View) -> Option<i32> {
    match &view.state {
        State::Terminated(termination) => Some(termination.code),
        _ => None,
    }
}

fn unready<'a>(spec: &'a PodSpec, views: &Views) -> Vec<&'a str> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| is_sidecar(container));
    let all = spec.containers.iter().chain(sidecars);
    let unready = all.filter(|container| !views[&container.name].ready);
    unready.map(|container| container.name.as_str()).collect()
}

/// A readiness gate whose condition, written by someone else, is not true.
fn closed_gate<'a>(spec: &'a PodSpec, pod: &Pod) -> Option<&'a str> {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let holds = |gate: &str| {
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|condition| condition.type_ == gate && condition.status == "True")
    };
    let gates = spec.readiness_gates.iter().flatten();
    let mut gates = gates.map(|gate| gate.condition_type.as_str());
    gates.find(|gate| !holds(gate))
}

struct Conditions<'a> {
    pod: &'a Pod,
    before: Option<&'a PodStatus>,
    now: Timestamp,
    list: Vec<PodCondition>,
}

impl Conditions<'_> {
    /// Reason and message are only kept where the condition does not hold.
    fn set(&mut self, kind: &str, holds: bool, reason: &str, message: String) {
        let status = if holds { "True" } else { "False" };
        let mut before = self.before.iter().flat_map(|status| &status.conditions);
        let before = before.find_map(|list| list.iter().find(|item| item.type_ == kind));
        let since = before
            .filter(|before| before.status == status)
            .and_then(|before| before.last_transition_time.clone());
        self.list.push(PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            last_transition_time: Some(since.unwrap_or(Time(self.now))),
            observed_generation: self.pod.metadata.generation,
            reason: (!holds && !reason.is_empty()).then(|| reason.to_owned()),
            message: (!holds && !message.is_empty()).then_some(message),
            ..PodCondition::default()
        });
    }
}

fn container_status(container: &Container, views: &Views) -> ContainerStatus {
    let view = &views[&container.name];
    let image = container.image.clone().unwrap_or_default();
    let id = view
        .process
        .map(|process| format!("process://{}", process.id()));
    ContainerStatus {
        name: container.name.clone(),
        image_id: format!("process://{image}"),
        image,
        container_id: id,
        ready: view.ready,
        started: Some(view.started),
        restart_count: view.restarts,
        state: Some(state(&view.state)),
        last_state: view.last.as_ref().map(|last| ContainerState {
            terminated: Some(terminated(last)),
            ..ContainerState::default()
        }),
        ..ContainerStatus::default()
    }
}

fn state(state: &State) -> ContainerState {
    let mut result = ContainerState::default();
    match state {
        State::Waiting { reason, message } => {
            result.waiting = Some(ContainerStateWaiting {
                reason: Some((*reason).to_owned()),
                message: Some(message.clone()).filter(|message| !message.is_empty()),
            });
        }
        State::Running { since } => {
            result.running = Some(ContainerStateRunning {
                started_at: Some(Time(*since)),
            });
        }
        State::Terminated(termination) => result.terminated = Some(terminated(termination)),
    }
    result
}

fn terminated(termination: &Termination) -> ContainerStateTerminated {
    let reason = if termination.code == 0 {
        "Completed"
    } else {
        "Error"
    };
    ContainerStateTerminated {
        exit_code: termination.code,
        reason: Some(reason.to_owned()),
        started_at: Some(Time(termination.since)),
        finished_at: Some(Time(termination.until)),
        ..ContainerStateTerminated::default()
    }
}

#[cfg(test)]
mod tests;
