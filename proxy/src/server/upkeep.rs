//! What must happen now and then, whether or not requests come: idle connections to engines are closed in time, and
//! the endpoints in force are asked what they say of themselves.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;

use crate::endpoints::scrape::task::Scrapers;
use crate::gateway::Gateway;

const EVERY: Duration = Duration::from_secs(1);

pub(super) struct Upkeep(pub(super) Arc<Gateway>);

#[async_trait]
impl BackgroundService for Upkeep {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let idle_timeout = self.0.config.upstream.idle_timeout.into();
        let mut scrapers = Scrapers::new(Arc::clone(&self.0.connector));
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                _ = shutdown.changed() => return,
            }
            let serving = self.0.serving.load();
            let members = serving.pools.iter().flat_map(|pool| &pool.members);
            for member in members.clone() {
                member.endpoint.link.sweep(idle_timeout);
            }
            if self.0.config.engines.metrics {
                scrapers.follow(members.map(|member| &member.endpoint));
            }
        }
    }
}
