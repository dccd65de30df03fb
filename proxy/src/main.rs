//! `sluice-proxy`: flags, logging, configuration, run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sluice_config::Bootstrap;
use sluice_config::bootstrap::Listener;
use sluice_proxy::filters::BuiltinFilters;
use sluice_proxy::server::{Assembly, Stop};
use sluice_proxy::source::push::PushFlags;
use sluice_proxy::telemetry::logging::{self, LogFormat};

/// Large bodies come and go: with glibc's allocator a request of 128 KiB costs half as much again (benches/README.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// LLM inference gateway: routes OpenAI-style requests by model to inference engines.
#[derive(Parser)]
#[command(name = "sluice-proxy", version)]
struct Flags {
    #[command(subcommand)]
    command: Option<Command>,
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
    /// Address of the debug endpoints.
    #[arg(long)]
    admin: Option<SocketAddr>,
    /// Address of metrics and probes.
    #[arg(long)]
    metrics: Option<SocketAddr>,
    /// Log as JSON.
    #[arg(long)]
    log_json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Validate bootstrap files and route files or folders; exit 1 on errors.
    Check {
        /// Files and folders; routes in all of them are checked together.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    logging::init(if flags.log_json {
        LogFormat::Json
    } else {
        LogFormat::Text
    });
    if let Some(Command::Check { paths }) = &flags.command {
        return sluice_proxy::check::run(paths);
    }
    match bootstrap(flags).and_then(Assembly::new) {
        Ok(assembly) => {
            let listeners: Vec<String> = assembly
                .gateway
                .config
                .listeners
                .iter()
                .map(|listener| listener.address.to_string())
                .collect();
            tracing::info!(
                listeners = listeners.join(", "),
                admin = %assembly.gateway.config.admin.address,
                metrics = %assembly.gateway.config.metrics.address,
                version = env!("CARGO_PKG_VERSION"),
                "serving"
            );
            assembly.run(Stop::Signals);
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bootstrap(flags: Flags) -> anyhow::Result<Bootstrap> {
    let mut bootstrap = match &flags.config {
        Some(path) => {
            let (bootstrap, warnings) = Bootstrap::load(path, &BuiltinFilters::default())?;
            for problem in warnings {
                tracing::warn!(%problem, "accepted with a warning");
            }
            bootstrap
        }
        None => Bootstrap::default(),
    };
    if !flags.listen.is_empty() {
        bootstrap.listeners = flags
            .listen
            .into_iter()
            .map(|address| Listener {
                address,
                ..Listener::default()
            })
            .collect();
    }
    if let Some(routes) = flags.routes {
        bootstrap.source.routes = Some(routes);
    }
    flags.push.apply(&mut bootstrap.source)?;
    bootstrap.admin.address = flags.admin.unwrap_or(bootstrap.admin.address);
    bootstrap.metrics.address = flags.metrics.unwrap_or(bootstrap.metrics.address);
    Ok(bootstrap)
}
