//! `sluice-proxy check FILE...`: every problem of every file, for people and for CI.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use crate::filters::BuiltinFilters;

/// Prints all problems; fails when one is an error.
#[expect(clippy::print_stdout, reason = "a command's own output")]
pub fn run(paths: &[PathBuf]) -> ExitCode {
    let problems = sluice_config::check(paths, Arc::new(BuiltinFilters::default()));
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    for problem in &problems {
        let severity = if problem.is_error() {
            "error"
        } else {
            "warning"
        };
        println!("{severity}: {problem}");
    }
    println!("{errors} errors, {} warnings", problems.len() - errors);
    if errors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
