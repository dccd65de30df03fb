//! Who may do what: service accounts have the rights that are given to them, and the audit log knows who asked.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::ListParams;
use kube::{Api, Client};
use sluice_e2e::cluster::{
    Cluster, ClusterOptions, ControlPlaneOptions, Look, Program, eventually, on_cluster,
};

const READER: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [''], resources: [configmaps], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader}]
";

async fn refused<T>(asked: impl Future<Output = kube::Result<T>>) -> Result<()> {
    match asked.await {
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => anyhow::bail!("it was allowed"),
    }
}

async fn maps(client: &Client, namespace: &str) -> kube::Result<usize> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    Ok(maps.list(&ListParams::default()).await?.items.len())
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_service_account_may_do_what_its_role_says_and_no_more() {
    on_cluster("rights", |namespace| async move {
        namespace.apply(READER).await?;
        let reader = namespace.service_account("reader").await?;
        eventually("the role applies", || async {
            let count = maps(&reader, "rights").await?;
            Ok(Look::when(count == 1, count))
        })
        .await?;
        refused(maps(&reader, "default")).await?;
        let secrets: Api<Secret> = Api::namespaced(reader.clone(), "rights");
        refused(secrets.list(&ListParams::default())).await
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn the_audit_log_knows_which_program_was_denied_what() {
    on_cluster("audit", |_| async move {
        let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n";
        let cluster = Cluster::start_with(ClusterOptions {
            control_plane: ControlPlaneOptions {
                audit_policy: Some(policy.to_owned()),
                ..ControlPlaneOptions::default()
            },
            crds: false,
            nodes: Vec::new(),
            ..ClusterOptions::default()
        })
        .await?;
        let namespace = cluster.namespace("audit").await?;
        namespace.apply(READER).await?;
        // kubectl, as a program with the account's rights.
        let kube = std::env::var_os("SLUICE_KUBE").context("SLUICE_KUBE is set")?;
        let program = Program::at(kube.as_ref()).args(["kubectl", "get", "secrets", "-n", "audit"]);
        let mut process = namespace.run_as("reader", program).await?;
        let status = process.ended().await?;
        ensure!(!status.success(), "secrets are not its to see");
        let denied = cluster.plane().audit()?.into_iter().any(|event| {
            event["user"]["username"] == "system:serviceaccount:audit:reader"
                && event["objectRef"]["resource"] == "secrets"
                && event["responseStatus"]["code"] == 403
        });
        ensure!(denied, "the denied request is not in the audit log");
        Ok(())
    });
}
