use super::*;
use std::net::Ipv4Addr;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(serde_json::json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
}

fn one_container() -> Pod {
    pod(serde_json::json!({"containers": [{"name": "a"}]}))
}

fn view(state: State) -> View {
    let running = matches!(state, State::Running { .. });
    View {
        ready: running,
        started: running,
        finished: matches!(state, State::Terminated(_)),
        state,
        ..View::default()
    }
}

fn ended(code: i32) -> State {
    State::Terminated(Termination {
        code,
        since: at(1),
        until: at(2),
    })
}

fn status(pod: &Pod, views: &[(&str, View)], before: Option<&PodStatus>, now: i64) -> PodStatus {
    let facts = Facts {
        ip: Ipv4Addr::new(10, 244, 1, 2),
        node: "one".to_owned(),
        node_ip: Ipv4Addr::new(10, 244, 1, 1),
    };
    let views = views.iter();
    let views = views.map(|(name, view)| ((*name).to_owned(), view.clone()));
    compose(pod, &facts, &views.collect(), before, at(0), at(now))
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> &'a PodCondition {
    let conditions = status.conditions.as_ref().unwrap();
    conditions.iter().find(|item| item.type_ == kind).unwrap()
}

#[test]
fn a_running_pod_is_ready_and_keeps_the_time_since_when() {
    let pod = one_container();
    let running = [("a", view(State::Running { since: at(3) }))];
    let first = status(&pod, &running, None, 5);
    assert_eq!(first.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&first, "Ready").status, "True");
    let second = status(&pod, &running, Some(&first), 9);
    assert_eq!(
        condition(&second, "Ready").last_transition_time,
        Some(Time(at(5)))
    );
}

#[test]
fn ended_pods_have_succeeded_or_failed() {
    let pod = one_container();
    for (code, phase) in [(0, "Succeeded"), (137, "Failed")] {
        let status = status(&pod, &[("a", view(ended(code)))], None, 5);
        assert_eq!(status.phase.as_deref(), Some(phase));
        assert_eq!(condition(&status, "Ready").status, "False");
    }
}

#[test]
fn a_pod_waits_for_its_init_containers() {
    let pod = pod(serde_json::json!({
        "initContainers": [{"name": "i"}],
        "containers": [{"name": "a"}],
    }));
    let waiting = [
        ("i", view(State::Running { since: at(1) })),
        ("a", View::default()),
    ];
    let before = status(&pod, &waiting, None, 5);
    assert_eq!(before.phase.as_deref(), Some("Pending"));
    assert_eq!(condition(&before, "Initialized").status, "False");
    let through = [
        ("i", view(ended(0))),
        ("a", view(State::Running { since: at(6) })),
    ];
    let after = status(&pod, &through, Some(&before), 7);
    assert_eq!(after.phase.as_deref(), Some("Running"));
    assert_eq!(
        condition(&after, "Initialized").last_transition_time,
        Some(Time(at(7)))
    );
}

#[test]
fn a_closed_readiness_gate_holds_the_pod_back() {
    let mut pod = pod(serde_json::json!({
        "containers": [{"name": "a"}],
        "readinessGates": [{"conditionType": "example/gate"}],
    }));
    let running = [("a", view(State::Running { since: at(3) }))];
    let closed = status(&pod, &running, None, 5);
    assert_eq!(condition(&closed, "ContainersReady").status, "True");
    assert_eq!(condition(&closed, "Ready").status, "False");
    pod.status = Some(PodStatus {
        conditions: Some(vec![PodCondition {
            type_: "example/gate".to_owned(),
            status: "True".to_owned(),
            ..PodCondition::default()
        }]),
        ..PodStatus::default()
    });
    assert_eq!(
        condition(&status(&pod, &running, None, 5), "Ready").status,
        "True"
    );
}
