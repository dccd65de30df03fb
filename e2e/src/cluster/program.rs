//! A program that runs beside the cluster rather than in a pod.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::kubelet::built;
use super::process::Process;

/// What to start.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    name: String,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
}

impl Program {
    /// A program of this build, such as `sluice-control`.
    ///
    /// # Errors
    /// When the test's own path cannot be told.
    pub fn built(name: &str) -> anyhow::Result<Self> {
        Ok(Self::at(&built(name)?))
    }

    /// Any program.
    pub fn at(path: &Path) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str());
        Self {
            path: path.to_owned(),
            name: name.to_string_lossy().into_owned(),
            arguments: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// Another name for its log, where the same program runs more than once.
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Adds arguments.
    pub fn args<T: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds a variable.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn start(&self, kubeconfig: &Path, log: &Path) -> anyhow::Result<Process> {
        let mut command = Command::new(&self.path);
        command
            .args(&self.arguments)
            .env("KUBECONFIG", kubeconfig)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        Process::start(&self.name, &mut command, log)
    }
}
