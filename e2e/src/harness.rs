//! What whole-product tests stand on: ports, a gateway in this process, route files, and waiting by condition.
//!
//! No fixed sleeps: [`wait_until`] polls a condition and fails with what it waited for.

pub mod client;
pub mod control;
mod gateway;
pub mod issuer;
pub mod llama;
mod ports;
pub mod pushed;
mod raw;
mod routes;
mod script;
mod series;

use std::future::Future;
use std::time::{Duration, Instant};

pub use gateway::{Gateway, GatewayBuilder};
pub use ports::free_port;
pub use raw::{Ending, RawAnswer, RawClient};
pub use routes::{model_route, model_server};
pub use script::{Manner, ScriptedEngine};
pub use series::series_sum;

/// Longest wait of [`wait_until`]: generous, since it is only ever used up by a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until `condition` holds.
///
/// # Panics
/// After [`PATIENCE`], naming what was waited for.
pub async fn wait_until<F, Fut>(what: &str, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let started = Instant::now();
    while !condition().await {
        assert!(
            started.elapsed() < PATIENCE,
            "waited {PATIENCE:?} in vain until {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
