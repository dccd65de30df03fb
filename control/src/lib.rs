//! The control loop: Kubernetes in, configuration push out. It knows kube and never pingora.
//!
//! Not for serving requests: a gateway goes on without any of this.

mod api_error;
pub mod authenticate;
pub mod certificates;
pub mod client;
pub mod commands;
pub mod events;
pub mod flags;
pub mod grants;
pub mod index;
pub mod leader;
pub mod listener;
pub mod logging;
pub mod metrics;
pub mod operations;
pub mod push;
pub mod replicas;
pub mod server;
pub mod state;
pub mod status;
#[cfg(test)]
mod testing;
mod upkeep;
pub mod watch;
pub mod webhook;

use std::collections::BTreeMap;

/// Under which name we own fields of objects (server-side apply).
pub const FIELD_MANAGER: &str = "sluice-control";

/// Labels of the objects that we make for ourselves.
fn own_labels() -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "sluice"),
        ("app.kubernetes.io/component", "control"),
        ("app.kubernetes.io/managed-by", "sluice-control"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}
