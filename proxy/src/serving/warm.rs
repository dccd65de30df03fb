//! What was known of caches before a restart: written at shutdown, given to members as they appear.
//!
//! Engines go on while the gateway restarts, so most of it still holds; a file that is too old is left alone. Only
//! what was learned from dispatches is kept: events tell the rest anew.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use sluice_config::bootstrap::CacheConfig;

use super::Serving;
use crate::cache::members::MemberCache;
use crate::cache::snapshot::{self, EndpointSnapshot, PoolSnapshot, Snapshot};

/// Largest file.
const MAX_BYTES: usize = 256 << 20;
/// Most blocks kept of one member.
const MAX_BLOCKS: usize = 1 << 20;

/// Blocks by pool and endpoint (its instance: another pod at the address knows nothing), waiting for their members.
#[derive(Debug, Default)]
pub struct Warm(HashMap<(String, String), Vec<(u64, u32)>>);

impl Warm {
    /// Reads the file, if one is configured and there.
    pub fn load(config: &CacheConfig) -> Self {
        let Some(file) = &config.file else {
            return Self::default();
        };
        let age = Duration::from(config.max_age);
        match snapshot::load(file, MAX_BYTES, SystemTime::now(), age) {
            Ok(None) => Self::default(),
            Ok(Some(snapshot)) => {
                let warm = Self::of(snapshot);
                let members = warm.0.len();
                tracing::info!(members, "what was known of caches is taken over");
                warm
            }
            Err(error) => {
                tracing::warn!(%error, "what was known of caches is not taken over");
                Self::default()
            }
        }
    }

    fn of(snapshot: Snapshot) -> Self {
        let pools = snapshot.pools.into_iter();
        let blocks = pools.flat_map(|pool| {
            let name = pool.name;
            pool.endpoints
                .into_iter()
                .map(move |endpoint| ((name.clone(), endpoint.address), endpoint.blocks))
        });
        Self(blocks.collect())
    }

    /// Gives a new member what was known of it.
    pub(super) fn give(&mut self, pool: &str, instance: &str, member: &MemberCache) {
        if self.0.is_empty() {
            return;
        }
        let key = (pool.to_owned(), instance.to_owned());
        if let Some(blocks) = self.0.remove(&key) {
            member.import(&blocks);
        }
    }
}

/// Writes what is known now, if a file is configured.
pub fn save(serving: &Serving, config: &CacheConfig) {
    let Some(file) = &config.file else { return };
    let pools = serving.pools.iter().map(|pool| PoolSnapshot {
        name: pool.name.to_string(),
        endpoints: pool
            .members
            .iter()
            .map(|member| EndpointSnapshot {
                address: member.configured.instance(),
                blocks: member.cache.export(MAX_BLOCKS),
            })
            .collect(),
    });
    let snapshot = Snapshot {
        taken: SystemTime::now(),
        pools: pools.collect(),
    };
    if let Err(error) = snapshot::save(file, &snapshot, MAX_BYTES) {
        tracing::error!(%error, "what is known of caches is not kept for the next start");
    }
}
