//! What must happen now and then, whether or not requests come: idle connections to engines are closed in time,
//! endpoints in force are asked what they say of themselves and their KV events followed, and what is known of caches
//! keeps to their size.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use sluice_crds::networking::InferenceEngine;

use crate::cache::subscribe::{FollowParams, Followers};
use crate::endpoints::publishers::{Followed, Publishers};
use crate::endpoints::scrape::task::{Asked, Scrapers};
use crate::gateway::Gateway;
use crate::serving::Serving;

const EVERY: Duration = Duration::from_secs(1);

pub(super) struct Upkeep(pub(super) Arc<Gateway>);

#[async_trait]
impl BackgroundService for Upkeep {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let gateway = &self.0;
        let mut scrapers = Scrapers::new(Arc::clone(&gateway.connector));
        let mut publishers = publishers(gateway);
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                _ = shutdown.changed() => return,
            }
            let serving = gateway.serving.load();
            self.tidy(&serving);
            if gateway.config.engines.metrics {
                scrapers.follow(asked(&serving));
            }
            if let Some(publishers) = &mut publishers {
                publishers.follow(followed(&serving));
            }
        }
    }
}

impl Upkeep {
    fn tidy(&self, serving: &Serving) {
        let idle_timeout = self.0.config.upstream.idle_timeout.into();
        for pool in &serving.pools {
            for member in pool.members.iter() {
                member.endpoint.link.sweep(idle_timeout);
                let kv_tokens = member.endpoint.constants().kv_tokens;
                member.cache.set_capacity(kv_tokens as u64);
            }
            pool.cache.byte_index().expire();
            pool.cache.token_index().expire();
        }
    }
}

fn publishers(gateway: &Gateway) -> Option<Publishers> {
    let tokens = gateway.tokens.as_ref()?;
    if !gateway.config.engines.kv_events {
        return None;
    }
    match Followers::start(FollowParams::default()) {
        Ok(followers) => Some(Publishers::new(
            Arc::clone(&gateway.connector),
            Arc::new(followers),
            Arc::clone(tokens),
        )),
        Err(error) => {
            tracing::error!(%error, "no thread for KV events: what engines hold is estimated");
            None
        }
    }
}

fn asked(serving: &Serving) -> impl Iterator<Item = Asked<'_>> {
    let pools = serving.pools.iter().zip(&serving.snapshot.servers);
    pools.flat_map(|(pool, server)| {
        let metrics = server.engine_metrics.as_ref();
        let ask = move |metrics| {
            pool.members.iter().map(move |member| Asked {
                endpoint: &member.endpoint,
                metrics,
            })
        };
        metrics.into_iter().flat_map(ask)
    })
}

fn followed(serving: &Serving) -> impl Iterator<Item = Followed<'_>> {
    let pools = serving.pools.iter().zip(&serving.snapshot.servers);
    pools.flat_map(|(pool, server)| {
        let tokenizer = pool.tokenizer.as_ref();
        // Without a tokenizer engines must tell what prompts' tokens are; others cannot, nor do they publish.
        let publishes = matches!(
            server.engine,
            InferenceEngine::Vllm | InferenceEngine::SgLang
        );
        let members = match tokenizer.is_some() || publishes {
            true => &pool.members[..],
            false => &[],
        };
        members.iter().map(move |member| Followed {
            member,
            events: server.kv_events,
            tokenizer,
        })
    })
}
