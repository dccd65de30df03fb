//! An endpoint's own words, each with its age: too old is as good as unsaid.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use super::adapters::{self, ModelList};
use super::metrics::EngineReport;
use super::pacing;
use crate::schedule;

/// A list of models holds this long: adapters come and go slowly.
const OLDEST_MODELS: Duration = Duration::from_secs(3 * pacing::MODELS.as_secs() + 5);

/// What an endpoint last said. Read without a lock.
#[derive(Debug, Default)]
pub struct ReportedState {
    metrics: ArcSwapOption<Said<EngineReport>>,
    models: ArcSwapOption<Said<ModelList>>,
}

/// Something said, when, and until when it holds.
#[derive(Debug)]
struct Said<T> {
    what: T,
    at: Instant,
    until: Instant,
}

impl<T> Said<T> {
    fn new(what: T, at: Instant, oldest: Duration) -> Arc<Self> {
        let until = at + oldest;
        Arc::new(Self { what, at, until })
    }

    fn fresh(&self, now: Instant) -> Option<&T> {
        (now <= self.until).then_some(&self.what)
    }
}

impl ReportedState {
    /// Its metrics page, read at `now`; it holds for `oldest`.
    pub fn set_metrics(&self, report: EngineReport, now: Instant, oldest: Duration) {
        self.metrics.store(Some(Said::new(report, now, oldest)));
    }

    /// Its list of models, read at `now`.
    pub fn set_models(&self, list: ModelList, now: Instant) {
        self.models.store(Some(Said::new(list, now, OLDEST_MODELS)));
    }

    /// What a policy may use. All of it is `None` when the last word is too old.
    pub fn load(&self, now: Instant) -> schedule::Reported {
        let said = self.metrics.load();
        let Some(report) = said.as_ref().and_then(|said| said.fresh(now)) else {
            return schedule::Reported::default();
        };
        schedule::Reported {
            running: report.running,
            waiting: report.waiting,
            kv_usage: report.kv_usage,
        }
    }

    /// Tokens that the endpoint's KV cache holds. It does not age: the size is fixed while the engine runs.
    pub fn kv_tokens(&self) -> Option<f64> {
        self.metrics.load().as_ref()?.what.kv_tokens
    }

    /// Tokens of a block of its KV cache. It does not age.
    pub fn block_size(&self) -> Option<f64> {
        self.metrics.load().as_ref()?.what.block_size
    }

    /// Longest sequence that it takes, if it told lately.
    pub fn max_model_len(&self, now: Instant) -> Option<u32> {
        self.models.load().as_ref()?.fresh(now)?.max_model_len
    }

    /// Names of its models, then of its adapters, if it told lately.
    pub fn models(&self, now: Instant) -> Vec<Box<str>> {
        let models = self.models.load();
        let Some(list) = models.as_ref().and_then(|said| said.fresh(now)) else {
            return Vec::new();
        };
        let mut adapters: Vec<_> = list.adapters.iter().cloned().collect();
        adapters.sort_unstable();
        list.models.iter().cloned().chain(adapters).collect()
    }

    /// Its state towards an adapter.
    pub fn adapter(&self, name: &str, now: Instant) -> schedule::Adapter {
        let (models, metrics) = (self.models.load(), self.metrics.load());
        let list = models.as_ref().and_then(|said| said.fresh(now));
        let report = metrics.as_ref().and_then(|said| said.fresh(now));
        adapters::state(name, list, report.map(|report| &report.loras))
    }

    /// Everything its metrics page said last, however old, and how old that is.
    pub fn last(&self, now: Instant) -> Option<(EngineReport, Duration)> {
        let said = self.metrics.load_full()?;
        let age = now.saturating_duration_since(said.at);
        Some((said.what.clone(), age))
    }

    /// Age of what its metrics page said last.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let said = self.metrics.load();
        Some(now.saturating_duration_since(said.as_ref()?.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_decays_to_neutral_and_sizes_stay() {
        let state = ReportedState::default();
        let now = Instant::now();
        assert_eq!(state.load(now), schedule::Reported::default());
        let report = EngineReport {
            waiting: Some(3.0),
            kv_tokens: Some(1000.0),
            ..EngineReport::default()
        };
        state.set_metrics(report, now, Duration::from_secs(4));
        assert_eq!(state.load(now + Duration::from_secs(4)).waiting, Some(3.0));
        let late = now + Duration::from_secs(5);
        assert_eq!(state.load(late), schedule::Reported::default());
        assert_eq!(state.kv_tokens(), Some(1000.0));
        assert_eq!(state.age(late), Some(Duration::from_secs(5)));
    }

    #[test]
    fn adapters_are_unknown_again_after_a_while() {
        let state = ReportedState::default();
        let now = Instant::now();
        let page = br#"{"data":[{"id":"m","max_model_len":8},{"id":"a","parent":"m"}]}"#;
        state.set_models(ModelList::parse(page).unwrap(), now);
        assert_eq!(state.adapter("a", now), schedule::Adapter::Loaded);
        assert_eq!(state.max_model_len(now), Some(8));
        assert_eq!(state.models(now), [Box::from("m"), Box::from("a")]);
        let late = now + Duration::from_secs(100);
        assert_eq!(state.adapter("a", late), schedule::Adapter::Unknown);
        assert_eq!(state.max_model_len(late), None);
        assert!(state.models(late).is_empty());
    }
}
