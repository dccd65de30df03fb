//! Who is believed: gateways show a token for the control loop, which proves itself by certificates that it renews.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use sluice_e2e::cluster::{Look, Namespace, Sluice, eventually, on_cluster};

use super::manifests::{all, pool, route};

/// A gateway of somebody else's: the same, with another account or audience.
fn stranger(account: &str, audience: &str) -> String {
    format!(
        "
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {account}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: stranger}}
spec:
  selector: {{matchLabels: {{app: stranger}}}}
  template:
    metadata: {{labels: {{app: stranger}}}}
    spec:
      serviceAccountName: {account}
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      containers:
      - name: proxy
        image: sluice-proxy
        args: [--config=/etc/sluice/bootstrap/sluice.yaml]
        readinessProbe: {{httpGet: {{path: /readyz, port: 9090}}, periodSeconds: 1}}
        volumeMounts:
        - {{name: bootstrap, mountPath: /etc/sluice/bootstrap}}
        - {{name: control-ca, mountPath: /etc/sluice/control-ca}}
        - {{name: token, mountPath: /var/run/secrets/sluice-control}}
        - {{name: state, mountPath: /var/lib/sluice}}
      volumes:
      - {{name: bootstrap, configMap: {{name: sluice-proxy}}}}
      - {{name: control-ca, configMap: {{name: sluice-control-ca}}}}
      - {{name: state, emptyDir: {{}}}}
      - name: token
        projected: {{sources: [{{serviceAccountToken: {{audience: {audience}, path: token}}}}]}}
"
    )
}

async fn is_refused(namespace: &Namespace, words: &str) -> Result<()> {
    eventually("the stranger is refused", || async {
        let pods = namespace.pods("app=stranger").await?;
        let pod = pods.first().context("it is there")?;
        let log = namespace.running(pod)?.log("proxy");
        Ok(Look::when(log.contains(words), log))
    })
    .await?;
    let pod = namespace.pods("app=stranger").await?.remove(0);
    let conditions = pod
        .status
        .and_then(|status| status.conditions)
        .unwrap_or_default();
    let ready = conditions
        .iter()
        .any(|it| it.type_ == "Ready" && it.status == "True");
    ensure!(!ready, "it is ready, with nothing to serve");
    Ok(())
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn gateways_with_another_account_or_audience_are_refused_in_words() {
    on_cluster("strangers", |namespace| async move {
        Sluice::install_for_itself(&namespace, "control: {webhook: {enabled: false}}").await?;
        namespace
            .apply(&stranger("someone-else", "sluice-control"))
            .await?;
        is_refused(&namespace, "someone-else").await?;
        let wrong = stranger("sluice-proxy", "somebody-else");
        namespace
            .remove(&stranger("someone-else", "sluice-control"))
            .await?;
        eventually("it is gone", || async {
            let left = namespace.pods("app=stranger").await?.len();
            Ok(Look::when(left == 0, left))
        })
        .await?;
        namespace.apply(&wrong).await?;
        is_refused(&namespace, "not meant for this service").await
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn authorities_and_certificates_are_renewed_while_everything_goes_on() {
    on_cluster("renewal", |namespace| async move {
        let values = "
control:
  env:
  - {name: SLUICE_AUTHORITY_LIFETIME, value: 30s}
  - {name: SLUICE_CERTIFICATE_LIFETIME, value: 30s}
";
        let sluice = Sluice::install_for_itself(&namespace, values).await?;
        let engine = [
            pool("engine", "engine", 1),
            route("renewed", &[("engine", 1)]),
        ];
        namespace.apply(&all(&engine)).await?;
        sluice.serves("renewed", "engine").await?;
        let first = authority(&namespace).await?;
        eventually("the first authority is no longer believed", || async {
            let now = authority(&namespace).await?;
            Ok(Look::when(!now.contains(first.trim()), "it is among them"))
        })
        .await?;
        // The webhook's and the push stream's: both are asked anew.
        let began = Instant::now();
        let gateway = sluice.gateways().await?.remove(0);
        namespace.running(&gateway)?.kill("proxy")?;
        namespace
            .apply(&route("afterwards", &[("engine", 1)]))
            .await?;
        sluice.serves("afterwards", "engine").await?;
        ensure!(
            began.elapsed() < Duration::from_secs(30),
            "before the next renewal"
        );
        Ok(())
    });
}

/// The newest certificate authority of the control loop, as PEM.
async fn authority(namespace: &Namespace) -> Result<String> {
    let map = namespace
        .api::<ConfigMap>()
        .get("sluice-control-ca")
        .await?;
    let text = map.data.and_then(|mut data| data.remove("ca.crt"));
    text.context("no ca.crt")
}
