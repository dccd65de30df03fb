//! `crdgen`: writes `crds/yaml/*.yaml` and the chart's copies of them, or with `--check` says which are stale.
//!
//! Not for: applying anything to a cluster.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool answers on its standard streams"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sluice_crds::manifest;

const USAGE: &str = "usage: crdgen [--check]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let directories = directories();
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [] => all(&directories, write),
        ["--check"] => all(&directories, check),
        ["--help" | "-h"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => fail(USAGE, 2),
    }
}

/// Where the files belong: beside the types, and where Helm takes them from, which follows no links out of a chart.
/// Cargo names the crate's folder; started by hand, the command belongs in the repository's root.
fn directories() -> [PathBuf; 2] {
    let room = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| "crds".into(), PathBuf::from);
    let chart = room.join("../helm/sluice/crds");
    [room.join("yaml"), chart]
}

/// Every directory's turn, even after a failure.
fn all(directories: &[PathBuf], turn: fn(&Path) -> ExitCode) -> ExitCode {
    let mut outcome = ExitCode::SUCCESS;
    for directory in directories {
        let one = turn(directory);
        if one != ExitCode::SUCCESS {
            outcome = one;
        }
    }
    outcome
}

fn write(directory: &Path) -> ExitCode {
    match manifest::write(directory) {
        Ok(changed) => {
            for name in changed {
                println!("{}", directory.join(name).display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(
            &format!("cannot write to {}: {error}", directory.display()),
            1,
        ),
    }
}

fn check(directory: &Path) -> ExitCode {
    match manifest::stale(directory) {
        Ok(stale) if stale.is_empty() => ExitCode::SUCCESS,
        Ok(stale) => fail(
            &format!(
                "stale in {}: {}; run `cargo run -p sluice-crds --bin crdgen` and commit the result",
                directory.display(),
                stale.join(", ")
            ),
            1,
        ),
        Err(error) => fail(&format!("cannot read {}: {error}", directory.display()), 1),
    }
}

fn fail(message: &str, code: u8) -> ExitCode {
    eprintln!("crdgen: {message}");
    ExitCode::from(code)
}
