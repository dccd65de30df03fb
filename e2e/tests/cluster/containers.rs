//! What containers of the process kubelet see and how they end.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use sluice_e2e::cluster::{Look, Namespace, eventually, on_cluster};

use super::manifests::shell;

async fn log_contains(namespace: &Namespace, pod: &str, text: &str) -> Result<()> {
    eventually(&format!("{pod} says {text:?}"), || async {
        let pod = namespace.api::<Pod>().get(pod).await?;
        let log = namespace.running(&pod)?.log("main");
        Ok(Look::when(log.contains(text), log))
    })
    .await
}

async fn gone(namespace: &Namespace, pod: &str) -> Result<()> {
    eventually(&format!("{pod} is gone"), || async {
        let pod = namespace.api::<Pod>().get_opt(pod).await?;
        Ok(Look::when(pod.is_none(), pod.map(|pod| pod.status)))
    })
    .await
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_pod_has_grace_for_its_hook_and_its_signal() {
    on_cluster("grace", |namespace| async move {
        let script =
            "trap 'ls /tmp/hook; echo told; exit 0' TERM\necho set\nwhile :; do sleep 0.05; done";
        let hook = "lifecycle: {preStop: {exec: {command: [/bin/touch, /tmp/hook]}}}";
        let manifest = shell("polite", script, hook, "terminationGracePeriodSeconds: 20");
        namespace.apply(&manifest).await?;
        log_contains(&namespace, "polite", "set").await?;
        let pod = namespace.api::<Pod>().get("polite").await?;
        let running = namespace.running(&pod)?;
        namespace.remove(&manifest).await?;
        gone(&namespace, "polite").await?;
        let log = running.log("main");
        ensure!(
            log == "set\n/tmp/hook\ntold\n",
            "the hook came first, then the signal: {log:?}"
        );
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_pod_that_ignores_its_signal_is_killed_after_its_grace() {
    on_cluster("stubborn", |namespace| async move {
        let script = "trap '' TERM\necho deaf\nwhile :; do sleep 0.05; done";
        let manifest = shell("stubborn", script, "", "terminationGracePeriodSeconds: 1");
        namespace.apply(&manifest).await?;
        log_contains(&namespace, "stubborn", "deaf").await?;
        let pod = namespace.api::<Pod>().get("stubborn").await?;
        let process = namespace
            .running(&pod)?
            .process("main")
            .context("it runs")?;
        let pods = namespace.api::<Pod>();
        pods.delete("stubborn", &DeleteParams::default()).await?;
        gone(&namespace, "stubborn").await?;
        let alive = std::path::Path::new(&format!("/proc/{process}")).exists();
        ensure!(!alive, "its process is gone");
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn config_maps_in_a_pod_follow_their_objects() {
    on_cluster("volumes", |namespace| async move {
        let map = |value: &str| {
            format!(
                "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: words}}, data: {{word: {value}}}}}"
            )
        };
        namespace.apply(&map("first")).await?;
        let script = "while :; do cat /var/run/words/word; echo; sleep 0.05; done";
        let mount = "volumeMounts: [{name: words, mountPath: /var/run/words}]\n\
            securityContext: {readOnlyRootFilesystem: true}";
        let volume = "volumes: [{name: words, configMap: {name: words}}]";
        let pod = shell("reader", script, mount, volume);
        namespace.apply(&pod).await?;
        log_contains(&namespace, "reader", "first").await?;
        namespace.apply(&map("second")).await?;
        log_contains(&namespace, "reader", "second").await?;
        ensure!(
            !std::path::Path::new("/var/run/words").exists(),
            "the machine's own files stay as they are"
        );
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_pod_has_a_token_of_its_service_account_for_an_audience() {
    on_cluster("tokens", |namespace| async move {
        let volume = "volumes:\n- name: token\n  projected:\n    sources:\n    \
            - serviceAccountToken: {path: token, audience: sluice-control, expirationSeconds: 600}";
        let mount = "volumeMounts: [{name: token, mountPath: /var/run/secrets/sluice}]\n\
            env: [{name: WHERE, value: '$(KUBERNETES_SERVICE_HOST):$(KUBERNETES_SERVICE_PORT)'}]";
        // The payload of a token is base64 without padding.
        let script = "payload() { cut -d. -f2 \"$1\" | tr _- /+ | sed 's/$/==/' | base64 -d 2>/dev/null; echo; }\n\
            payload /var/run/secrets/sluice/token\n\
            payload /var/run/secrets/kubernetes.io/serviceaccount/token\n\
            cat /var/run/secrets/kubernetes.io/serviceaccount/namespace\n\
            id -u; exec sleep 1000";
        let pod = shell("bearer", script, mount, volume);
        namespace.apply(&pod).await?;
        log_contains(&namespace, "bearer", "\"aud\":[\"sluice-control\"]").await?;
        log_contains(&namespace, "bearer", "system:serviceaccount:tokens:default").await?;
        log_contains(&namespace, "bearer", "\ntokens").await
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_pod_that_asks_for_a_user_runs_as_that_user() {
    on_cluster("users", |namespace| async move {
        let user = "securityContext: {runAsUser: 65532, runAsNonRoot: true}";
        namespace
            .apply(&shell("user", "id -u; exec sleep 1000", user, ""))
            .await?;
        log_contains(&namespace, "user", "65532").await?;
        let root = "securityContext: {runAsNonRoot: true}";
        namespace.apply(&shell("root", "id -u", root, "")).await?;
        eventually("root is refused", || async {
            let pod = namespace.api::<Pod>().get("root").await?;
            let status = serde_json::to_string(&pod.status)?;
            Ok(Look::when(status.contains("runAsNonRoot"), status))
        })
        .await
    });
}
