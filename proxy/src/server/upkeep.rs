//! What must happen now and then, whether or not requests come: idle connections to engines are closed in time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;

use crate::gateway::Gateway;

const EVERY: Duration = Duration::from_secs(1);

pub(super) struct Upkeep(pub(super) Arc<Gateway>);

#[async_trait]
impl BackgroundService for Upkeep {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let idle_timeout = self.0.config.upstream.idle_timeout.into();
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                _ = shutdown.changed() => return,
            }
            let serving = self.0.serving.load();
            for member in serving.pools.iter().flat_map(|pool| &pool.members) {
                member.endpoint.link.sweep(idle_timeout);
            }
        }
    }
}
