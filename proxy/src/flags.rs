//! Flags and environment, and the bootstrap configuration they give with the file.
//!
//! What goes before what: flags, our own environment variables, the bootstrap file, Kthena's environment variables,
//! defaults. Not for what the configuration does.

mod environment;
mod kthena;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use sluice_config::Bootstrap;
use sluice_config::bootstrap::{Listener, SettingOutcome};

use self::environment::{Mapped, Variable};
use self::kthena::KthenaFlags;
use crate::filters::BuiltinFilters;
use crate::source::push::PushFlags;

/// LLM inference gateway: routes OpenAI-style requests by model to inference engines.
#[derive(Debug, Parser)]
#[command(name = "sluice-proxy", version)]
pub struct Flags {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Log as JSON.
    #[arg(long)]
    pub log_json: bool,
    #[command(flatten)]
    serve: ServeFlags,
    #[command(flatten)]
    kthena: KthenaFlags,
}

#[derive(Debug, Args)]
struct ServeFlags {
    /// Bootstrap file; every field has a default.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Address for clients; may be given several times. Replaces the file's listeners.
    #[arg(long)]
    listen: Vec<SocketAddr>,
    /// YAML file, or folder of them, with ModelRoutes and ModelServers. Watched.
    #[arg(long)]
    routes: Option<PathBuf>,
    #[command(flatten)]
    push: PushFlags,
    /// Kthena's router configuration, bare or in its ConfigMap: defaults for scheduling, and who may ask. Watched.
    #[arg(long)]
    router_configuration: Option<PathBuf>,
    /// Address of the debug endpoints.
    #[arg(long)]
    admin: Option<SocketAddr>,
    /// Address of metrics and probes.
    #[arg(long)]
    metrics: Option<SocketAddr>,
    /// Export Kthena's metric families beside ours.
    /// Also by the environment variable SLUICE_KTHENA_METRICS.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    kthena_metrics: Option<bool>,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Validate bootstrap files, router configurations and route files or folders; exit 1 on errors.
    Check {
        /// Files and folders; routes in all of them are checked together.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
}

impl Flags {
    /// Reads the command line.
    ///
    /// # Errors
    /// A flag that is wrong, or one of kthena-router's that has no meaning here, with what to use instead.
    pub fn read(arguments: impl Iterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(kthena::without_idle(arguments)?)
    }

    /// The bootstrap configuration: the file over `environment` over the defaults, flags over all.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn bootstrap(
        self,
        environment: impl Iterator<Item = (String, String)>,
    ) -> anyhow::Result<Bootstrap> {
        let environment: Vec<(String, String)> = environment.collect();
        let mapped = environment::map(&environment);
        let settings: Vec<_> = mapped.iter().filter_map(Mapped::setting).collect();
        let filters = BuiltinFilters::default();
        let file = self.serve.config.as_deref();
        let loaded = Bootstrap::load_over(file, &settings, &filters)?;
        for problem in &loaded.warnings {
            tracing::warn!(%problem, "accepted with a warning");
        }
        tell(&mapped, &loaded.outcomes);
        let mut bootstrap = loaded.bootstrap;
        environment::own(&environment, &mut bootstrap)?;
        self.serve.apply(&mut bootstrap)?;
        self.kthena.apply(&mut bootstrap);
        Ok(bootstrap)
    }
}

impl ServeFlags {
    fn apply(self, bootstrap: &mut Bootstrap) -> anyhow::Result<()> {
        if !self.listen.is_empty() {
            let listener = |address| Listener {
                address,
                ..Listener::default()
            };
            bootstrap.listeners = self.listen.into_iter().map(listener).collect();
        }
        if let Some(routes) = self.routes {
            bootstrap.source.routes = Some(routes);
        }
        if let Some(file) = self.router_configuration {
            bootstrap.source.router_configuration = Some(file);
        }
        bootstrap.admin.address = self.admin.unwrap_or(bootstrap.admin.address);
        let metrics = &mut bootstrap.metrics;
        metrics.address = self.metrics.unwrap_or(metrics.address);
        metrics.kthena = self.kthena_metrics.unwrap_or(metrics.kthena);
        self.push.apply(&mut bootstrap.source)
    }
}

/// One line for each of Kthena's variables that is set.
fn tell(mapped: &[Mapped], outcomes: &[SettingOutcome]) {
    let mut outcomes = outcomes.iter();
    for Mapped { variable, value } in mapped {
        let Variable { name, .. } = variable;
        let outcome = value.as_ref().ok().and_then(|value| value.as_ref());
        let outcome = outcome.and_then(|setting| Some((setting, outcomes.next()?)));
        match (value, outcome) {
            (Err(reason), _) => tracing::warn!("{name}: {reason}: ignored"),
            (Ok(_), None) => tracing::info!("{name} is ignored: {}", variable.meaning()),
            (_, Some((setting, SettingOutcome::Applied))) => {
                tracing::info!("{name} sets {} to {}", setting.path, setting.value);
            }
            (_, Some((setting, SettingOutcome::Overruled))) => {
                let path = setting.path;
                tracing::info!("{name} is ignored: the bootstrap file says {path} itself");
            }
            (_, Some((_, SettingOutcome::Refused(reason)))) => {
                tracing::warn!("{name}: {reason}: ignored");
            }
        }
    }
}

#[cfg(test)]
mod tests;
