//! `sluice-control`: flags, logging, run.

use std::process::ExitCode;

use clap::Parser;
use sluice_control::flags::{self, Command, Flags, Note, RunFlags};
use sluice_control::{commands, logging, server};

/// The image is static: musl's own allocator takes a lock for every call.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let (arguments, notes) = flags::translate(std::env::args_os());
    let flags = Flags::parse_from(arguments);
    let result = match flags.command {
        None => return run(&flags.run, &notes),
        Some(Command::Run(flags)) => return run(&flags, &notes),
        Some(Command::Crds) => commands::crds::run().map_err(Into::into),
        Some(Command::Check { paths }) => commands::check::run(&paths).map_err(Into::into),
        Some(Command::Migrate { values }) => commands::migrate::run(&values),
    };
    result.unwrap_or_else(|error| {
        logging::init(false, None);
        tracing::error!("{error:#}");
        ExitCode::FAILURE
    })
}

fn run(flags: &RunFlags, notes: &[Note]) -> ExitCode {
    logging::init(flags.log_json, flags.log_level.as_deref());
    for Note { given, taken } in notes {
        match taken {
            Some(taken) => tracing::info!(given, taken, "a flag of Kthena's was taken over"),
            None => tracing::warn!(given, "a flag of Kthena's means nothing here"),
        }
    }
    match server::run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
