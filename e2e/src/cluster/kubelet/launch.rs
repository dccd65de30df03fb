//! Everything that starting a container takes, out of its pod, its image and its volumes.

use anyhow::Context;
use k8s_openapi::api::core::v1::{Container, PodSecurityContext, SecurityContext};
use tokio::process::Command;

use super::environment::{Variables, expand, resolve};
use super::images::Image;
use super::network::PodNetwork;
use super::pod::PodContext;
use super::sandbox::{Mount, Sandbox};

/// A container about to be started.
pub(super) struct Launch {
    sandbox: Sandbox,
    arguments: Vec<String>,
    pub(super) variables: Variables,
}

impl Launch {
    /// Resolves the environment and lays out the sandbox.
    ///
    /// # Errors
    /// When something that the container names is missing.
    pub(super) async fn prepare(
        pod: &PodContext,
        container: &Container,
        name: &str,
        image: &Image,
    ) -> anyhow::Result<Self> {
        let object = pod.object.borrow().clone();
        let base = base(pod);
        let variables = resolve(&pod.objects, &object, container, &pod.facts, &base).await?;
        let arguments = arguments(container, name, image, &variables)?;
        let folder = pod.folder.join(&container.name);
        let (mounts, links) = layout(pod, container, name, image)?;
        let spec = object.spec.as_ref();
        let of_pod = spec.and_then(|spec| spec.security_context.as_ref());
        let (user, group) = user(container.security_context.as_ref(), of_pod, image)?;
        let own = container.security_context.as_ref();
        let working = container
            .working_dir
            .clone()
            .filter(|path| !path.is_empty());
        Ok(Self {
            sandbox: Sandbox {
                folder,
                network: pod.network.as_ref().map(PodNetwork::file),
                mounts,
                links,
                read_only_root: own.and_then(|own| own.read_only_root_filesystem) == Some(true),
                working_folder: working.unwrap_or_else(|| "/".to_owned()),
                user,
                group,
            },
            arguments,
            variables,
        })
    }

    /// The command that starts it.
    ///
    /// # Errors
    /// When its script cannot be written.
    pub(super) fn command(&self) -> anyhow::Result<Command> {
        let command = self.sandbox.command(&self.arguments, &self.variables);
        command.context("the sandbox cannot be laid out")
    }

    /// Waits until the program itself begins.
    pub(super) async fn begun(&self) {
        self.sandbox.begun().await;
    }
}

/// What each container finds in its environment.
fn base(pod: &PodContext) -> Variables {
    // This machine's loopback is not that of a pod with a network of its own.
    let [direct, service] = pod.node.api_server;
    let api = if pod.network.is_some() {
        service
    } else {
        direct
    };
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    [
        ("PATH", path.to_owned()),
        ("HOME", "/".to_owned()),
        ("HOSTNAME", pod.name.clone()),
        ("KUBERNETES_SERVICE_HOST", api.ip().to_string()),
        ("KUBERNETES_SERVICE_PORT", api.port().to_string()),
        ("KUBERNETES_SERVICE_PORT_HTTPS", api.port().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn in_container(name: &str) -> String {
    format!("/usr/local/bin/{name}")
}

fn arguments(
    container: &Container,
    name: &str,
    image: &Image,
    variables: &Variables,
) -> anyhow::Result<Vec<String>> {
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        let list = list.iter().flatten();
        list.map(|text| expand(text, variables)).collect()
    };
    let mut all = expanded(&container.command);
    if all.is_empty() {
        all.clone_from(&image.entrypoint);
    }
    if all.is_empty() && image.program.is_some() {
        all.push(in_container(name));
    }
    anyhow::ensure!(!all.is_empty(), "there is no command");
    all.extend(expanded(&container.args));
    Ok(all)
}

type Layout = (Vec<Mount>, Vec<(String, String)>);

fn layout(
    pod: &PodContext,
    container: &Container,
    name: &str,
    image: &Image,
) -> anyhow::Result<Layout> {
    let fixed = |source: &std::path::Path, target: String| Mount {
        source: source.to_owned(),
        target,
        read_only: true,
    };
    let hosts = pod.node.hosts.file(&pod.objects.namespace);
    let hosts = hosts.context("names cannot be written")?;
    let mut mounts = vec![fixed(&hosts, "/etc/hosts".to_owned())];
    let mut links = Vec::new();
    if let Some(program) = &image.program {
        anyhow::ensure!(program.exists(), "{} is not built", program.display());
        mounts.push(fixed(program, in_container(name)));
        links.push((format!("/{name}"), in_container(name)));
    }
    for folder in &image.folders {
        mounts.push(fixed(folder, folder.display().to_string()));
    }
    let volumes = pod.volumes()?.mounts(container)?;
    mounts.extend(volumes);
    Ok((mounts, links))
}

fn user(
    own: Option<&SecurityContext>,
    of_pod: Option<&PodSecurityContext>,
    image: &Image,
) -> anyhow::Result<(Option<u32>, Option<u32>)> {
    let number =
        |own: Option<i64>, of_pod: Option<i64>| own.or(of_pod).map(u32::try_from).transpose();
    let user = number(
        own.and_then(|own| own.run_as_user),
        of_pod.and_then(|of_pod| of_pod.run_as_user),
    )?;
    let group = number(
        own.and_then(|own| own.run_as_group),
        of_pod.and_then(|of_pod| of_pod.run_as_group),
    )?;
    let user = user.or(image.user);
    let must_not_be_root = own
        .and_then(|own| own.run_as_non_root)
        .or(of_pod.and_then(|of_pod| of_pod.run_as_non_root));
    anyhow::ensure!(
        must_not_be_root != Some(true) || user.is_some_and(|user| user != 0),
        "container has runAsNonRoot and its image would run as root"
    );
    Ok((user, group))
}
