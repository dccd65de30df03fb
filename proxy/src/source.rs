//! Where resources come from, and how a change takes effect: now a watched file or folder, later a push stream.
//!
//! Not for what documents mean: `sluice-config` compiles them and keeps what was last good.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::Context;
use arc_swap::ArcSwap;
use sluice_config::{FileSource, FilterSet, Problem, Update};

use crate::filters::BuiltinFilters;
use crate::gateway::Gateway;
use crate::telemetry::metrics::ProblemSource;

fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The source of a gateway's routes.
pub struct Source {
    problems: ArcSwap<Vec<Problem>>,
    /// Dropping it ends the watch.
    watch: Mutex<Option<FileSource>>,
}

impl Source {
    /// Loads the routes and watches them. The first load is done when this returns.
    pub fn start(gateway: Arc<Gateway>) -> anyhow::Result<Arc<Self>> {
        let source = Arc::new(Self {
            problems: ArcSwap::default(),
            watch: Mutex::new(None),
        });
        let config = gateway.config.source.clone();
        let Some(path) = config.routes else {
            tracing::warn!(
                "no source of routes: give --routes, or source.routes in the bootstrap file"
            );
            return Ok(source);
        };
        let set = FilterSet::new(&gateway.config.filters, Arc::new(BuiltinFilters::default()));
        let applier = Arc::clone(&source);
        let watch = FileSource::start(
            &path,
            config.debounce.into(),
            set,
            unix_now,
            move |update| {
                applier.apply(&gateway, update);
            },
        )
        .with_context(|| format!("cannot watch {}", path.display()))?;
        *source.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch);
        Ok(source)
    }

    /// Problems of the last load.
    pub fn problems(&self) -> Arc<Vec<Problem>> {
        self.problems.load_full()
    }

    /// Ends the watch.
    pub fn stop(&self) {
        drop(
            self.watch
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }

    fn apply(&self, gateway: &Gateway, update: Update) {
        for problem in &update.problems {
            if problem.is_error() {
                tracing::error!(%problem, "refused");
            } else {
                tracing::warn!(%problem, "accepted with a warning");
            }
        }
        let errors = update
            .problems
            .iter()
            .filter(|problem| problem.is_error())
            .count();
        let metrics = &gateway.metrics;
        metrics.set_config_problems(
            ProblemSource::Documents,
            errors,
            update.problems.len() - errors,
        );
        metrics.config_rejects.inc_by(update.rejected as u64);
        self.problems.store(Arc::new(update.problems));
        if update.changed {
            let snapshot = update.snapshot;
            let generation = snapshot.generation;
            tracing::info!(
                generation,
                routes = snapshot.routes.len(),
                servers = snapshot.servers.len(),
                rejected = update.rejected,
                "configuration in force"
            );
            gateway.serving.install(snapshot);
            metrics
                .config_generation
                .set(i64::try_from(generation).unwrap_or(i64::MAX));
            gateway.drain.set_configured();
        }
    }
}
