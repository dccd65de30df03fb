//! What a delay is made of: the engine's step formula, as far as a gateway can see into the engine.
//!
//! A delay is a sum of shares, one for each constant that causes it: `share[i] = c_i * d(delay)/d(c_i)`. The formula
//! is homogeneous of degree one in the constants (an engine with all of them doubled takes twice as long), so
//! the shares add up to the delay, and divided by it they are the derivative of its logarithm by the logarithm
//! of each constant. That is all that learning needs.
//!
//! Not the engine's truth: later arrivals that share a step, the kernel's jitter and the network are noise here.

use crate::endpoints::load::{Load, Work};

/// Number of constants that are learned.
pub(super) const COUNT: usize = 5;
/// W, milliseconds.
pub(super) const STEP: usize = 0;
/// D, milliseconds per token.
pub(super) const TOKEN: usize = 1;
/// Kd, milliseconds per token of context.
pub(super) const CONTEXT: usize = 2;
/// Kp, milliseconds per token at one token of context.
pub(super) const ATTENTION: usize = 3;
/// What a request costs once, whatever its size: network, parsing, tokenising. Milliseconds.
pub(super) const REQUEST: usize = 4;

/// One value per constant, or milliseconds by the constant that causes them.
pub(super) type Vector = [f64; COUNT];

/// What was going on while a request's tokens after its first were generated.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Decoding {
    /// Tokens after the first.
    pub tokens: f64,
    /// Requests in flight, on average.
    pub requests: f64,
    /// Context tokens held by the endpoint, on average.
    pub context: f64,
    /// Prompt tokens of other requests that the endpoint prefilled meanwhile.
    pub prefilled_tokens: f64,
    /// In so many prefills.
    pub prefills: f64,
}

/// The constants with the most tokens of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model {
    pub(super) constants: Vector,
    pub(super) batch_tokens: f64,
}

impl Model {
    /// Delay of the first token of a request that found `load` at dispatch:
    ///
    /// what is pending is prefilled first, in whole steps, then the request's own tokens; if nothing is pending but
    /// requests are decoding, half a step passes until the next begins. (With something pending, the step that
    /// runs has done part of it: the two halves cancel.)
    pub(super) fn first_token(&self, load: Load, work: Work) -> Vector {
        let (pending, own) = (
            load.pending_tokens as f64,
            f64::from(work.uncached().max(1)),
        );
        let (requests, context) = (f64::from(load.in_flight), load.context_tokens as f64);
        let batch = self.batch_tokens.max(1.0);
        let steps = ((pending + own) / batch).ceil().max(1.0);
        let last = pending + own - (steps - 1.0) * batch;
        let mut delay = [0.0; COUNT];
        self.add_steps(&mut delay, steps - 1.0, batch, context);
        self.add_steps(&mut delay, 1.0, last + requests, context);
        if pending == 0.0 && requests > 0.0 {
            self.add_steps(&mut delay, 0.5, requests, context);
        }
        let attended = own * (f64::from(work.prompt_tokens) - own / 2.0).max(own / 2.0);
        delay[ATTENTION] += self.constants[ATTENTION] * attended;
        delay[REQUEST] += self.constants[REQUEST];
        delay
    }

    /// Time for the tokens after the first: one step each, some of which prefill for others.
    pub(super) fn decoding(&self, decoding: &Decoding) -> Vector {
        let steps = decoding.tokens.max(1.0);
        let prefilled = decoding.prefilled_tokens.max(0.0);
        let fewest = prefilled / self.batch_tokens.max(1.0);
        let mixed = if prefilled > 0.0 {
            decoding.prefills.max(fewest).clamp(1.0, steps)
        } else {
            0.0
        };
        let requests = decoding.requests.max(1.0);
        let mut time = [0.0; COUNT];
        self.add_steps(&mut time, steps - mixed, requests, decoding.context);
        if mixed > 0.0 {
            let chunk = prefilled / mixed;
            self.add_steps(&mut time, mixed, requests + chunk, decoding.context);
            time[ATTENTION] += self.constants[ATTENTION] * prefilled * chunk / 2.0;
        }
        time
    }

    /// `steps` steps of `tokens` tokens each, with `context` tokens of decodes.
    fn add_steps(&self, time: &mut Vector, steps: f64, tokens: f64, context: f64) {
        let floor = self.constants[STEP];
        let work = self.constants[TOKEN] * tokens;
        let step = floor.hypot(work);
        if step > 0.0 {
            time[STEP] += steps * floor * floor / step;
            time[TOKEN] += steps * work * work / step;
        }
        time[CONTEXT] += steps * self.constants[CONTEXT] * context;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: Model = Model {
        constants: [9.2, 0.03, 0.000_076, 0.000_001, 2.0],
        batch_tokens: 8192.0,
    };

    fn total(shares: Vector) -> f64 {
        shares.iter().sum()
    }

    #[test]
    fn shares_are_the_derivatives() {
        let load = Load {
            in_flight: 12,
            pending_tokens: 9000,
            context_tokens: 40_000,
        };
        let work = Work {
            prompt_tokens: 5000,
            cached_tokens: 1000,
        };
        let decoding = Decoding {
            tokens: 100.0,
            requests: 12.0,
            context: 40_000.0,
            prefilled_tokens: 7000.0,
            prefills: 4.0,
        };
        for delay in [
            |model: &Model, load, work, _: &Decoding| model.first_token(load, work),
            |model: &Model, _, _, decoding: &Decoding| model.decoding(decoding),
        ] {
            let shares = delay(&MODEL, load, work, &decoding);
            for (index, share) in shares.into_iter().enumerate() {
                let mut more = MODEL;
                more.constants[index] *= 1.0 + 1e-6;
                let difference = total(delay(&more, load, work, &decoding)) - total(shares);
                assert!((difference / 1e-6 - share).abs() < 1e-3 * total(shares));
            }
        }
    }

    #[test]
    fn an_empty_engine_takes_one_step() {
        let work = Work {
            prompt_tokens: 1000,
            cached_tokens: 0,
        };
        let expected = 9.2_f64.hypot(30.0) + 0.000_001 * 1000.0 * 500.0 + 2.0;
        let delay = total(MODEL.first_token(Load::default(), work));
        assert!((delay - expected).abs() < 1e-9);
    }
}
