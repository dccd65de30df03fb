//! Who cannot serve the request at all, before any policy looks: adapters and context length.
//!
//! Not for health, draining or roles, which the gateway marks. What is not known excludes nobody.

use super::rank::eligible;
use super::{Adapter, CandidateView, RequestView};

/// Holds other adapters, while somebody holds this one.
pub const NOT_LOADED: &str = "does not hold the adapter, another endpoint does";
/// Has no room for the adapter.
pub const NO_ROOM: &str = "does not hold the adapter and has no room to load it";
/// Its context is too short.
pub const TOO_LONG: &str = "its longest context (max_model_len) is too short for the prompt";

/// A prompt must exceed an endpoint's context by this factor to be too long for it: prompt tokens are often
/// estimated from bytes, and the engine itself tells exactly, in words that clients know.
const CERTAINLY: f64 = 1.5;

/// Marks the candidates that cannot serve the request.
pub fn exclude(request: &RequestView<'_>, candidates: &mut [CandidateView<'_>]) {
    if request.lora {
        exclude_by_adapter(candidates);
    }
    exclude_by_context(request, candidates);
}

/// Where the adapter is loaded; else where it can be; else nowhere.
fn exclude_by_adapter(candidates: &mut [CandidateView<'_>]) {
    let any = |adapter| eligible(candidates).any(|(_, candidate)| candidate.adapter == adapter);
    let loaded = any(Adapter::Loaded);
    for candidate in candidates.iter_mut().filter(|c| c.excluded.is_none()) {
        candidate.excluded = match candidate.adapter {
            Adapter::Full => Some(NO_ROOM),
            Adapter::Loadable if loaded => Some(NOT_LOADED),
            Adapter::Loadable | Adapter::Loaded | Adapter::Unknown => None,
        };
    }
}

/// Where the prompt does not fit. If it fits nowhere, the largest stay: an estimate must not refuse a request, and
/// if it is right the engine's own refusal says by how much.
fn exclude_by_context(request: &RequestView<'_>, candidates: &mut [CandidateView<'_>]) {
    let prompt = f64::from(request.prompt_tokens);
    let fits =
        |limit: Option<u32>| limit.is_none_or(|limit| prompt <= CERTAINLY * f64::from(limit));
    let somewhere = eligible(candidates).any(|(_, candidate)| fits(candidate.max_model_len));
    let largest = eligible(candidates)
        .filter_map(|(_, candidate)| candidate.max_model_len)
        .max();
    for candidate in candidates.iter_mut().filter(|c| c.excluded.is_none()) {
        let last_resort = !somewhere && candidate.max_model_len == largest;
        if !fits(candidate.max_model_len) && !last_resort {
            candidate.excluded = Some(TOO_LONG);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::testing::with_in_flight;

    fn adapters(adapters: &[Adapter], lora: bool) -> Vec<Option<&'static str>> {
        let mut candidates = with_in_flight(&vec![0; adapters.len()]);
        for (candidate, &adapter) in candidates.iter_mut().zip(adapters) {
            candidate.adapter = adapter;
        }
        let request = RequestView {
            lora,
            ..RequestView::default()
        };
        exclude(&request, &mut candidates);
        candidates.iter().map(|c| c.excluded).collect()
    }

    #[test]
    fn loaded_comes_first_then_loadable_then_nobody() {
        use Adapter::{Full, Loadable, Loaded, Unknown};
        let found = adapters(&[Loaded, Loadable, Full, Unknown], true);
        assert_eq!(found, [None, Some(NOT_LOADED), Some(NO_ROOM), None]);
        assert_eq!(adapters(&[Loadable, Full], true), [None, Some(NO_ROOM)]);
        assert_eq!(adapters(&[Full, Full], true), [Some(NO_ROOM); 2]);
        assert_eq!(adapters(&[Loaded, Full], false), [None, None]);
    }

    #[test]
    fn an_endpoint_that_is_out_already_does_not_count() {
        let mut candidates = with_in_flight(&[0, 0]);
        candidates[0].adapter = Adapter::Loaded;
        candidates[0].excluded = Some("ejected");
        candidates[1].adapter = Adapter::Loadable;
        let request = RequestView {
            lora: true,
            ..RequestView::default()
        };
        exclude(&request, &mut candidates);
        assert_eq!(candidates[0].excluded, Some("ejected"));
        assert_eq!(candidates[1].excluded, None);
    }

    fn contexts(limits: &[Option<u32>], prompt_tokens: u32) -> Vec<Option<&'static str>> {
        let mut candidates = with_in_flight(&vec![0; limits.len()]);
        for (candidate, &limit) in candidates.iter_mut().zip(limits) {
            candidate.max_model_len = limit;
        }
        let request = RequestView {
            prompt_tokens,
            ..RequestView::default()
        };
        exclude(&request, &mut candidates);
        candidates.iter().map(|c| c.excluded).collect()
    }

    #[test]
    fn a_context_is_too_short_only_when_the_prompt_exceeds_it_clearly() {
        let limits = [Some(4096), Some(32_768), None];
        assert_eq!(contexts(&limits, 6000), [None, None, None]);
        assert_eq!(contexts(&limits, 7000), [Some(TOO_LONG), None, None]);
        assert_eq!(
            contexts(&limits, 90_000),
            [Some(TOO_LONG), Some(TOO_LONG), None]
        );
    }

    #[test]
    fn where_it_fits_nowhere_the_largest_is_left_to_say_so() {
        let limits = [Some(4096), Some(8192), Some(8192)];
        assert_eq!(contexts(&limits, 50_000), [Some(TOO_LONG), None, None]);
    }
}
