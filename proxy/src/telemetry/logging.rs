//! Process logs: `tracing` to stderr, with the `log` records of libraries bridged in.
//!
//! Not the access log: see [`super::access_log`].

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt;

/// Pingora logs each closed connection at error or info level; what matters of it reaches the access log.
const QUIET: [&str; 3] = ["pingora=warn", "pingora_core=warn", "pingora_http=warn"];

/// Shape of a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging to stderr, filtered by `SLUICE_LOG`, else `RUST_LOG`, else `info` (libraries of the data path at
/// `warn`, unless the filter names them). Returns whether this call did it: a second one changes nothing.
pub fn init(format: LogFormat) -> bool {
    let wanted = std::env::var("SLUICE_LOG")
        .or_else(|_| std::env::var("RUST_LOG"))
        .unwrap_or_default();
    let (filter, refused) = filter(&wanted);
    let builder = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    }
    .is_ok();
    if let (true, Some(error)) = (started, refused) {
        tracing::warn!(
            filter = wanted,
            error,
            "log filter not understood, using info"
        );
    }
    started
}

/// The filter for a wish, and why the wish was not taken when it was not.
fn filter(wanted: &str) -> (EnvFilter, Option<String>) {
    let quiet = QUIET.join(",");
    let parse = |wish: &str| EnvFilter::builder().parse(format!("{quiet},{wish}"));
    if wanted.trim().is_empty() {
        return (parse("info").unwrap_or_default(), None);
    }
    match parse(wanted) {
        Ok(filter) => (filter, None),
        Err(error) => (parse("info").unwrap_or_default(), Some(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pingora_is_quiet_unless_asked_for() {
        assert!(filter("").0.to_string().contains("pingora_core=warn"));
        let asked = filter("debug,pingora_core=debug").0.to_string();
        assert!(
            asked.contains("pingora_core=debug") && !asked.contains("pingora_core=warn"),
            "{asked}"
        );
    }

    #[test]
    fn a_filter_that_is_not_one_falls_back_to_info() {
        let (filter, refused) = filter("info,=[=");
        assert!(refused.is_some());
        assert!(filter.to_string().contains("info"));
    }

    #[test]
    fn starting_twice_is_safe_and_bridges_log_records() {
        init(LogFormat::Json);
        assert!(!init(LogFormat::Text));
        // Records of `log` reach the same filter.
        assert!(log::log_enabled!(target: "pingora_core::server", log::Level::Warn));
        assert!(!log::log_enabled!(target: "pingora_core::server", log::Level::Info));
    }
}
