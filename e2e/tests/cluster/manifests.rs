//! Manifests that several tests apply.

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
