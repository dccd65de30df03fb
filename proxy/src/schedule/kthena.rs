//! Kthena's weighted plug-ins under Kthena's names, for those who come from there.
//!
//! Filters, then scores from 0 to 100 times weights, as Kthena's. Mended: a score that cannot be told is neutral,
//! every holder of a prefix scores and over the whole prompt, a filter that would leave nobody is passed over. A
//! normalised score still loses its magnitude: that cannot be mended here.

mod scores;

use rand::{Rng, RngCore};
use sluice_config::scheduling::{FilterPlugin, KthenaParams, ScorePlugin};

use self::scores::Extremes;
use super::rank::{self, Band, eligible};
use super::{Adapter, CandidateView, Plugin, PluginKind, Policy, Ranked, RequestView, Term};

/// What a filter removes weighs more than any score: it comes last, behind what is left.
const FILTERED_MS: f64 = 1e12;

/// One point of a score of weight 1 is worth a millisecond; half a point is no difference.
const BAND: Band = Band {
    relative: 0.0,
    absolute_ms: 0.5,
};

/// Weighted plug-ins; a cost is the points missed.
#[derive(Debug, Default, Clone)]
pub struct Kthena {
    /// Filters, weights and arguments.
    pub params: KthenaParams,
}

impl Kthena {
    /// For each candidate, does the filter that removes it say so; `None` if none does.
    fn filtered(
        &self,
        request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        ran: &mut dyn FnMut(Plugin),
    ) -> Vec<Option<&'static str>> {
        let mut filtered = vec![None; candidates.len()];
        for filter in &self.params.filters {
            self.filter(*filter, request, candidates, &mut filtered);
            let (kind, name) = (PluginKind::Filter, filter_name(*filter));
            ran(Plugin { kind, name });
        }
        filtered
    }

    fn filter(
        &self,
        filter: FilterPlugin,
        request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        filtered: &mut [Option<&'static str>],
    ) {
        let keeps = |(index, candidate): &(usize, &CandidateView<'_>)| {
            filtered[*index].is_none() && self.keeps(filter, request, candidate)
        };
        if !eligible(candidates).any(|candidate| keeps(&candidate)) {
            return;
        }
        let reason = match filter {
            FilterPlugin::LeastRequest => "filtered: too many requests wait",
            FilterPlugin::LoraAffinity => "filtered: does not hold the adapter",
        };
        for (index, candidate) in eligible(candidates) {
            if filtered[index].is_none() && !self.keeps(filter, request, candidate) {
                filtered[index] = Some(reason);
            }
        }
    }

    fn keeps(
        &self,
        filter: FilterPlugin,
        request: &RequestView<'_>,
        candidate: &CandidateView<'_>,
    ) -> bool {
        match filter {
            FilterPlugin::LeastRequest => {
                let waiting = candidate.reported.waiting;
                waiting.is_none_or(|waiting| waiting < self.params.max_waiting_requests)
            }
            FilterPlugin::LoraAffinity => {
                !request.lora || matches!(candidate.adapter, Adapter::Loaded | Adapter::Unknown)
            }
        }
    }

    /// Points missed by plug-in, weighted. Chance is not among them.
    fn missed(
        &self,
        extremes: &Extremes,
        request: &RequestView<'_>,
        candidate: &CandidateView<'_>,
    ) -> impl Iterator<Item = Term> {
        self.params.scores.iter().filter_map(move |&score| {
            Some(Term {
                name: scores::name(score.0),
                value: missed_by(score, extremes, request, candidate)?,
            })
        })
    }

    /// The sum of [`Self::missed`] for each candidate, one plug-in after the other.
    fn all_missed(
        &self,
        extremes: &Extremes,
        request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        ran: &mut dyn FnMut(Plugin),
    ) -> Vec<f64> {
        let mut missed = vec![0.0; candidates.len()];
        for &score in &self.params.scores {
            for (index, candidate) in eligible(candidates) {
                missed[index] += missed_by(score, extremes, request, candidate).unwrap_or(0.0);
            }
            let (kind, name) = (PluginKind::Score, scores::name(score.0));
            ran(Plugin { kind, name });
        }
        missed
    }

    fn weight_of_chance(&self) -> f64 {
        let chance = |(plugin, _): &&(ScorePlugin, u32)| *plugin == ScorePlugin::Random;
        let found = self.params.scores.iter().find(chance);
        found.map_or(0.0, |(_, weight)| f64::from(*weight))
    }
}

/// Points that one plug-in's score misses, weighted; `None` for the one that is chance.
fn missed_by(
    (plugin, weight): (ScorePlugin, u32),
    extremes: &Extremes,
    request: &RequestView<'_>,
    candidate: &CandidateView<'_>,
) -> Option<f64> {
    let score = extremes.score(plugin, request, candidate)?;
    Some(f64::from(weight) * (100.0 - score))
}

/// The plug-in's name in Kthena.
fn filter_name(filter: FilterPlugin) -> &'static str {
    match filter {
        FilterPlugin::LeastRequest => "least-request",
        FilterPlugin::LoraAffinity => "lora-affinity",
    }
}

impl Policy for Kthena {
    fn name(&self) -> &'static str {
        "kthena"
    }

    fn rank(
        &self,
        request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        random: &mut dyn RngCore,
    ) -> Vec<Ranked> {
        self.rank_told(request, candidates, random, &mut |_| {})
    }

    fn rank_told(
        &self,
        request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        mut random: &mut dyn RngCore,
        ran: &mut dyn FnMut(Plugin),
    ) -> Vec<Ranked> {
        let filtered = self.filtered(request, candidates, ran);
        let weight = self.params.first_token_weight;
        let extremes = Extremes::over(candidates, &filtered, weight);
        let missed = self.all_missed(&extremes, request, candidates, ran);
        let chance = self.weight_of_chance();
        let mut drawn = vec![0.0; candidates.len()];
        if chance > 0.0 {
            drawn.fill_with(|| random.random_range(0.0..=100.0));
        }
        rank::rank(candidates, BAND, &mut random, |index, _| {
            let cost = missed[index] + chance * (100.0 - drawn[index]);
            match filtered[index] {
                Some(reason) => (FILTERED_MS + cost, reason),
                None => (cost, "points missed in weighted scores"),
            }
        })
    }

    fn terms(
        &self,
        request: &RequestView<'_>,
        candidates: &[CandidateView<'_>],
        index: usize,
    ) -> Vec<Term> {
        if self.weight_of_chance() > 0.0 {
            return Vec::new();
        }
        let candidate = &candidates[index];
        let filtered = self.filtered(request, candidates, &mut |_| {});
        let extremes = Extremes::over(candidates, &filtered, self.params.first_token_weight);
        let mut terms: Vec<Term> = self.missed(&extremes, request, candidate).collect();
        if filtered[index].is_some() {
            terms.push(Term {
                name: "filtered",
                value: FILTERED_MS,
            });
        }
        terms.push(rank::penalty(candidate));
        terms
    }
}

#[cfg(test)]
mod tests;
