//! Manifests that several tests apply.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// A Deployment of simulated engines and its Service, both named `engine`.
pub(super) fn engines(replicas: u32, extra_arguments: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: engine}}
spec:
  selector: {{app: engine}}
  ports: [{{port: 8000, targetPort: http}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: engine}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: engine}}}}
  template:
    metadata: {{labels: {{app: engine}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: engine
        image: example.org/sluice-engine:test
        args: ["--listen=$(POD_IP):8000", "--model=tiny", "--profile=instant"{extra_arguments}]
        env:
        - {{name: POD_IP, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}
        ports: [{{name: http, containerPort: 8000}}]
        readinessProbe: {{httpGet: {{path: /health, port: http}}, periodSeconds: 1}}
"#
    )
}

/// A pod that runs a shell script; `extra` are more lines of its only container, `pod` more of its spec.
pub(super) fn shell(name: &str, script: &str, extra: &str, pod: &str) -> String {
    let script = script.replace('\n', "\n      ");
    let extra = extra.replace('\n', "\n    ");
    let pod = pod.replace('\n', "\n  ");
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  {pod}
  containers:
  - name: main
    image: shell
    command: [/bin/sh, -c]
    args:
    - |
      {script}
    {extra}
"#
    )
}

/// A Deployment of `replicas` engines that call themselves `model`, and a ModelServer of them, both named `name`.
/// Streams of them take 20 ms a token; engines are told of their end after two seconds in which they may finish.
pub(super) fn pool(name: &str, model: &str, replicas: u32) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: engine
        image: sluice-engine
        args: ["--listen=$(POD_IP):8000", "--model={model}", "--profile=instant", "--event-interval-ms=20"]
        env:
        - {{name: POD_IP, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}
        - {{name: REVISION, value: "1"}}
        ports: [{{name: http, containerPort: 8000}}]
        readinessProbe: {{httpGet: {{path: /health, port: http}}, periodSeconds: 1}}
        lifecycle: {{preStop: {{sleep: {{seconds: 2}}}}}}
---
{}"#,
        server(name, model)
    )
}

/// A ModelServer of the pods with the label `app: NAME`.
pub(super) fn server(name: &str, model: &str) -> String {
    format!(
        r#"apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelServer
metadata: {{name: {name}}}
spec:
  inferenceEngine: vLLM
  model: {model}
  workloadSelector: {{matchLabels: {{app: {name}}}}}
  workloadPort: {{port: 8000}}
"#
    )
}

/// A ModelRoute of its model's name to ModelServers by weight.
pub(super) fn route(model: &str, targets: &[(&str, u32)]) -> String {
    let targets: Vec<_> = targets
        .iter()
        .map(|(server, weight)| format!("{{modelServerName: {server}, weight: {weight}}}"))
        .collect();
    let targets = targets.join(", ");
    format!(
        r#"apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelRoute
metadata: {{name: {model}}}
spec:
  modelName: {model}
  rules: [{{targetModels: [{targets}]}}]
"#
    )
}

/// One of `config/examples/kthena`, as it is.
pub(super) fn example(name: &str) -> anyhow::Result<String> {
    let path = examples_folder().join(name).with_extension("yaml");
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// `config/examples/kthena`.
pub(super) fn examples_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples/kthena")
}

/// Documents in one text.
pub(super) fn all(documents: &[String]) -> String {
    documents.join("\n---\n")
}
