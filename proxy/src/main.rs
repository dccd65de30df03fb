//! `sluice-proxy`: flags, logging, configuration, run.

use std::process::ExitCode;

use sluice_proxy::flags::{Command, Flags};
use sluice_proxy::server::{Assembly, Stop};
use sluice_proxy::telemetry::logging::{self, LogFormat};

/// Large bodies come and go: with glibc's allocator a request of 128 KiB costs half as much again (benches/README.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let flags = Flags::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    logging::init(if flags.log_json {
        LogFormat::Json
    } else {
        LogFormat::Text
    });
    if let Some(Command::Check { paths }) = &flags.command {
        return sluice_proxy::check::run(paths);
    }
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    match flags.bootstrap(environment).and_then(Assembly::new) {
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
