//! The scores of Kthena's plug-ins, 0 to 100, and the extremes over all candidates that they are held against.

use sluice_config::scheduling::ScorePlugin;

use crate::schedule::gpu_usage::reported;
use crate::schedule::rank::eligible;
use crate::schedule::{CandidateView, RequestView};

/// A score that cannot be told.
const NEUTRAL: f64 = 50.0;

/// What scores are relative to, over the candidates that no filter removed.
pub(super) struct Extremes {
    most_requests: f64,
    mean_use: Option<f64>,
    ttft_ms: (f64, f64),
    token_gap_ms: (f64, f64),
    first_token_weight: f64,
}

impl Extremes {
    pub(super) fn over(
        candidates: &[CandidateView<'_>],
        filtered: &[Option<&'static str>],
        first_token_weight: f64,
    ) -> Self {
        let nothing = (f64::INFINITY, f64::NEG_INFINITY);
        let (mut use_sum, mut use_count) = (0.0, 0.0);
        let mut extremes = Self {
            most_requests: 0.0,
            mean_use: None,
            ttft_ms: nothing,
            token_gap_ms: nothing,
            first_token_weight,
        };
        for (_, candidate) in eligible(candidates).filter(|(index, _)| filtered[*index].is_none()) {
            extremes.most_requests = extremes.most_requests.max(weighted_requests(candidate));
            widen(&mut extremes.ttft_ms, candidate.ttft_ms);
            widen(&mut extremes.token_gap_ms, candidate.token_gap_ms);
            if let Some(used) = reported(candidate) {
                (use_sum, use_count) = (use_sum + used, use_count + 1.0);
            }
        }
        extremes.mean_use = (use_count > 0.0).then(|| use_sum / use_count);
        extremes
    }

    /// The plug-in's score; `None` for the one that is chance.
    pub(super) fn score(
        &self,
        plugin: ScorePlugin,
        request: &RequestView<'_>,
        candidate: &CandidateView<'_>,
    ) -> Option<f64> {
        let score = match plugin {
            ScorePlugin::LeastRequest => self.least_request(candidate),
            ScorePlugin::GpuUsage => reported(candidate)
                .or(self.mean_use)
                .map_or(NEUTRAL, |used| (1.0 - used) * 100.0),
            ScorePlugin::LeastLatency => {
                let first = self.first_token_weight;
                first * below(candidate.ttft_ms, self.ttft_ms)
                    + (1.0 - first) * below(candidate.token_gap_ms, self.token_gap_ms)
            }
            ScorePlugin::PrefixCache | ScorePlugin::KvcacheAware => {
                candidate.cached_share(request) * 100.0
            }
            ScorePlugin::Random => return None,
        };
        Some(score.clamp(0.0, 100.0))
    }

    fn least_request(&self, candidate: &CandidateView<'_>) -> f64 {
        if self.most_requests <= 0.0 {
            return 100.0;
        }
        (self.most_requests - weighted_requests(candidate)) / self.most_requests * 100.0
    }
}

/// The plug-in's name in Kthena.
pub(super) fn name(plugin: ScorePlugin) -> &'static str {
    match plugin {
        ScorePlugin::LeastRequest => "least-request",
        ScorePlugin::GpuUsage => "gpu-usage",
        ScorePlugin::LeastLatency => "least-latency",
        ScorePlugin::PrefixCache => "prefix-cache",
        ScorePlugin::KvcacheAware => "kvcache-aware",
        ScorePlugin::Random => "random",
    }
}

/// Requests in flight, and a hundred times those that cannot be running yet. Where the engine does not say what is
/// running, all are taken to run.
fn weighted_requests(candidate: &CandidateView<'_>) -> f64 {
    let in_flight = f64::from(candidate.load.in_flight);
    let running = candidate
        .reported
        .running
        .filter(|running| running.is_finite());
    let waiting = (in_flight - running.unwrap_or(in_flight)).clamp(0.0, in_flight);
    in_flight + 100.0 * waiting
}

fn widen(range: &mut (f64, f64), value: Option<f64>) {
    if let Some(value) = value.filter(|value| value.is_finite()) {
        *range = (range.0.min(value), range.1.max(value));
    }
}

/// How far below the highest of the range, in per cent of its width. Equal values are all the best.
fn below(value: Option<f64>, (low, high): (f64, f64)) -> f64 {
    match value.filter(|value| value.is_finite()) {
        None => NEUTRAL,
        Some(value) if high > low => (high - value) / (high - low) * 100.0,
        Some(_) => 100.0,
    }
}
