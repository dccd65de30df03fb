//! The Helm chart, rendered as `helm template` renders it for users.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use tokio::process::Command;

/// All documents of the chart for a release in `namespace`, its definitions first if wanted. Later values go before
/// earlier ones.
///
/// # Errors
/// When there is no helm, or it refuses the values; what it said is in the message.
pub(super) async fn render(
    namespace: &str,
    folder: &Path,
    values: &[&str],
    definitions: bool,
) -> anyhow::Result<String> {
    std::fs::create_dir_all(folder)?;
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm/sluice");
    let mut command = Command::new(helm()?);
    command
        .args(["template", "sluice"])
        .arg(&chart)
        .args(["--namespace", namespace])
        .args(definitions.then_some("--include-crds"))
        .env("HELM_CONFIG_HOME", folder)
        .env("HELM_CACHE_HOME", folder)
        .env("HELM_DATA_HOME", folder);
    for (number, text) in values.iter().enumerate() {
        let file = folder.join(format!("{namespace}-{number}.values.yaml"));
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        command.arg("--values").arg(file);
    }
    let output = command.stdin(Stdio::null()).output().await;
    let output = output.context("cannot start helm")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "helm template: {}", said.trim());
    String::from_utf8(output.stdout).context("helm printed something else than text")
}

/// The program that `fetch-helm.sh` built.
fn helm() -> anyhow::Result<PathBuf> {
    let program = std::env::var_os("SLUICE_HELM")
        .context("SLUICE_HELM does not name helm: run `make e2e-cluster`")?;
    Ok(PathBuf::from(program))
}
