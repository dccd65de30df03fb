//! One generation as the API sees it: checks, submission, the text of each choice and usage. How it is written out is
//! left to the surfaces.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::Instant;

use super::error::ApiError;
use crate::engine::driver::Generation;
use crate::engine::hash;
use crate::engine::kv::Namespace;
use crate::engine::reply::Incoming;
use crate::engine::sequence::GenerateRequest;
use crate::engine::shared::{LoraGuard, PaceGuard, Shared};
use crate::engine::tokens;

/// Output tokens where the client names no number.
const DEFAULT_MAX_TOKENS: usize = 16;

/// What a client asked for, whatever the surface.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    pub(crate) model: Option<String>,
    /// Each prompt yields `choices` sequences.
    pub(crate) prompts: Vec<Vec<u32>>,
    pub(crate) choices: usize,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) seed: Option<i64>,
    pub(crate) stop: Vec<String>,
    pub(crate) cache_salt: Option<String>,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) continuous_usage: bool,
}

/// One sequence's output.
#[derive(Clone, Debug)]
struct Output {
    seed: u64,
    /// Tokens it will have.
    length: u32,
    /// Bytes of text a client sees: less than the tokens hold when a stop string cut it.
    visible: usize,
    stop: Option<String>,
    /// Tokens handed out.
    done: u32,
    cached: usize,
}

/// Counts for a `usage` object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) prompt: usize,
    pub(crate) completion: usize,
    pub(crate) cached: usize,
}

/// A piece of one choice's text.
#[derive(Clone, Debug)]
pub(crate) struct Delta {
    pub(crate) index: usize,
    pub(crate) text: String,
    /// Why the choice ends here: `length` or `stop`.
    pub(crate) finish: Option<&'static str>,
    /// The stop string that ended it.
    pub(crate) stop: Option<String>,
}

/// A submitted generation; dropping it cancels it.
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) ask: Ask,
    prompt_tokens: usize,
    outputs: Vec<Output>,
    generation: Generation,
    pace: Option<(Duration, Instant, u32)>,
    held: watch::Receiver<bool>,
    _guards: (Option<LoraGuard>, Option<PaceGuard>),
}

impl Job {
    /// Checks and submits; `prefix` is the id's.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        incoming: &Incoming,
        mut ask: Ask,
        prefix: &str,
    ) -> Result<Self, ApiError> {
        let model = ask.model.take().filter(|name| !name.is_empty());
        let model =
            model.unwrap_or_else(|| shared.options.models.first().cloned().unwrap_or_default());
        let lora = match shared.is_base_model(&model) {
            true => None,
            false => Some(
                shared
                    .use_lora(&model)
                    .ok_or_else(|| unknown(shared, &model))?,
            ),
        };
        let namespace = Namespace {
            lora: lora.is_some().then(|| model.clone()),
            cache_salt: ask.cache_salt.clone(),
        };
        let salt = namespace.salt();
        if let Some(kv) = &shared.kv {
            kv.namespaces.remember(namespace);
        }
        let prompt_tokens = ask.prompts.iter().map(Vec::len).sum();
        let mut outputs = Vec::new();
        let mut requests = Vec::new();
        for prompt in std::mem::take(&mut ask.prompts) {
            let length = output_length(prompt.len(), ask.max_tokens, shared.options.max_model_len)?;
            let base = hash::chain(shared.options.seed, prompt.iter().copied());
            let base = hash::mix(base, ask.seed.unwrap_or(0) as u64);
            for choice in 0..ask.choices {
                let output = Output::plan(hash::mix(base, choice as u64), length, &ask.stop);
                let prompt = prompt.clone();
                let (max_tokens, output_seed) = (output.length, output.seed);
                requests.push(GenerateRequest {
                    prompt,
                    salt,
                    max_tokens,
                    output_seed,
                });
                outputs.push(output);
            }
        }
        let batch = if ask.stream {
            shared.options.tokens_per_event.max(1)
        } else {
            u32::MAX
        };
        let generation = shared.driver.submit(requests, batch)?;
        let id = match incoming.header("x-request-id") {
            Some(id) => format!("{prefix}{id}"),
            None => format!("{prefix}{}", shared.new_id()),
        };
        let per_event = shared.options.tokens_per_event.max(1);
        Ok(Self {
            id,
            created: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs(),
            model,
            ask,
            prompt_tokens,
            outputs,
            generation,
            pace: shared
                .options
                .event_interval
                .map(|interval| (interval, Instant::now(), per_event)),
            held: shared.held.subscribe(),
            _guards: (lora, shared.pace()),
        })
    }

    /// The next piece of any choice; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Delta> {
        let piece = self.generation.next().await?;
        let output = &mut self.outputs[piece.sequence];
        let from = output.done;
        output.done += piece.tokens;
        output.cached = piece.cached;
        let text = output.text(from, output.done);
        let finish = piece.last.then_some(if output.stop.is_some() {
            "stop"
        } else {
            "length"
        });
        let stop = output.stop.clone().filter(|_| piece.last);
        let done = output.done;
        if let Some((interval, started, per_event)) = self.pace {
            let events = done.div_ceil(per_event).saturating_sub(1);
            tokio::time::sleep_until(started + interval * events).await;
        }
        Some(Delta {
            index: piece.sequence,
            text,
            finish,
            stop,
        })
    }

    /// Waits while streams are held.
    pub(crate) async fn released(&mut self) {
        // An error means that the engine is stopping: nobody holds them any more.
        let _ = self.held.wait_for(|&held| !held).await;
    }

    /// All choices, in order.
    pub(crate) async fn finish(&mut self) -> Vec<Delta> {
        let mut all = Vec::with_capacity(self.outputs.len());
        while let Some(delta) = self.next().await {
            all.push(delta);
        }
        all.sort_by_key(|delta| delta.index);
        all
    }

    pub(crate) fn choices(&self) -> usize {
        self.outputs.len()
    }

    /// Usage so far.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            prompt: self.prompt_tokens,
            completion: self.outputs.iter().map(|output| output.done as usize).sum(),
            cached: self
                .outputs
                .iter()
                .step_by(self.ask.choices.max(1))
                .map(|output| output.cached)
                .sum(),
        }
    }
}

impl Output {
    /// The output is known beforehand, so is where a stop string ends it.
    fn plan(seed: u64, length: u32, stops: &[String]) -> Self {
        let mut output = Self {
            seed,
            length,
            visible: length as usize * tokens::BYTES,
            stop: None,
            done: 0,
            cached: 0,
        };
        if stops.is_empty() {
            return output;
        }
        let text = output.text(0, length);
        let found = stops.iter().filter(|stop| !stop.is_empty());
        let found = found.filter_map(|stop| {
            text.find(stop.as_str())
                .map(|at| (at + stop.len(), at, stop))
        });
        if let Some((end, at, stop)) = found.min() {
            output.length = end.div_ceil(tokens::BYTES) as u32;
            output.visible = at;
            output.stop = Some(stop.clone());
        }
        output
    }

    fn text(&self, from: u32, to: u32) -> String {
        let mut text = String::with_capacity((to - from) as usize * tokens::BYTES);
        for index in from..to {
            text.extend(hash::output_text(self.seed, index).map(char::from));
        }
        text.truncate(self.visible.saturating_sub(from as usize * tokens::BYTES));
        text
    }
}

fn unknown(shared: &Shared, model: &str) -> ApiError {
    ApiError::unknown_model(model, &shared.options.models)
}

/// How many tokens to generate after a prompt.
fn output_length(prompt: usize, asked: Option<u64>, limit: usize) -> Result<u32, ApiError> {
    if prompt >= limit {
        return Err(ApiError::prompt_too_long(prompt, limit));
    }
    let room = limit - prompt;
    match asked {
        None => Ok(room.min(DEFAULT_MAX_TOKENS) as u32),
        Some(asked) if asked > limit as u64 => Err(ApiError::output_too_long(asked, limit)),
        Some(asked) if asked as usize > room => {
            Err(ApiError::total_too_long(prompt, asked as usize, limit))
        }
        Some(asked) => Ok((asked as u32).max(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_fits_the_context_or_is_refused_as_vllm_does() {
        assert_eq!(output_length(10, None, 100), Ok(16));
        assert_eq!(output_length(95, None, 100), Ok(5));
        assert_eq!(output_length(10, Some(90), 100), Ok(90));
        assert_eq!(
            output_length(10, Some(91), 100)
                .unwrap_err()
                .param
                .as_deref(),
            Some("input_tokens")
        );
        assert_eq!(
            output_length(10, Some(101), 100)
                .unwrap_err()
                .param
                .as_deref(),
            Some("max_tokens")
        );
        let message = output_length(101, None, 100).unwrap_err().message;
        assert!(message.starts_with("This model's maximum context length is 100 tokens. However, your prompt contains at least 101"));
    }

    #[test]
    fn a_stop_string_shortens_the_output_and_stays_invisible() {
        let whole = Output::plan(7, 8, &[]);
        let text = whole.text(0, 8);
        let cut = Output::plan(7, 8, &[text[9..11].to_owned()]);
        let at = text.find(&text[9..11]).unwrap();
        assert_eq!(cut.text(0, cut.length), text[..at]);
        assert_eq!(cut.length as usize, (at + 2).div_ceil(4));
        assert_eq!(cut.stop.as_deref(), Some(&text[9..11]));
    }
}
