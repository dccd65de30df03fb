//! Logs: `tracing` to stderr, for people or as JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt;

/// Libraries that tell of every request and of every closed watch; what matters of it is logged by us.
const QUIET: [&str; 6] = [
    "kube_client=warn",
    "kube_runtime=error",
    "tower=warn",
    "hyper=warn",
    "hyper_util=warn",
    "h2=warn",
];

/// Starts logging by `wanted`, a filter such as `debug` or `info,sluice_control::push=debug`; else by `RUST_LOG`, else at
/// `info`.
pub fn init(json: bool, wanted: Option<&str>) {
    let environment = std::env::var("RUST_LOG").ok();
    let wanted = wanted.or(environment.as_deref()).unwrap_or_default();
    let (filter, refused) = filter(wanted);
    let builder = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = if json {
        builder.json().flatten_event(true).finish().try_init()
    } else {
        builder.finish().try_init()
    };
    if let (Ok(()), Some(error)) = (started, refused) {
        tracing::warn!(
            filter = wanted,
            error,
            "log filter not understood, using info"
        );
    }
}

/// The filter for a wish, and why the wish was not taken when it was not.
fn filter(wanted: &str) -> (EnvFilter, Option<String>) {
    let quiet = QUIET.join(",");
    let parse = |wish: &str| EnvFilter::builder().parse(format!("{quiet},{wish}"));
    match parse(if wanted.trim().is_empty() {
        "info"
    } else {
        wanted
    }) {
        Ok(filter) => (filter, None),
        Err(error) => (parse("info").unwrap_or_default(), Some(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_unless_asked_for() {
        assert!(filter("").0.to_string().contains("kube_client=warn"));
        let asked = filter("debug,kube_client=debug").0.to_string();
        assert!(!asked.contains("kube_client=warn"), "{asked}");
    }

    #[test]
    fn a_filter_that_is_not_one_falls_back_to_info() {
        let (filter, refused) = filter("info,=[=");
        assert!(refused.is_some() && filter.to_string().contains("info"));
    }
}
