//! What `sluice-control` does besides running: `crds`, `check`, `migrate`. None of them talks to a cluster.

pub mod check;
pub mod crds;
pub mod migrate;

use std::io::{self, Write};
use std::process::ExitCode;

/// Prints what a command has to say. A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn exit(success: bool) -> ExitCode {
    if success {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
