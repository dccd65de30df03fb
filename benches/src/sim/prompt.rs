//! Prompts as runs of content: a few words describe a hundred thousand tokens, which are made when a request is sent
//! and forgotten when it ends.
//!
//! Not text: routers that hash bytes see the same sharing as those that hash tokens.

use sluice_e2e::engine::hash;

/// A run of tokens with one origin. Equal runs are equal tokens; a shorter run is the beginning of the longer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where the tokens come from.
    pub source: Source,
    /// How many.
    pub tokens: u32,
}

/// What decides a segment's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Text written by people or programs, by its name.
    Text(u64),
    /// What an engine answers to a request with this output seed.
    Output(u64),
}

impl Segment {
    /// `tokens` tokens of the text called `name`.
    pub fn text(name: u64, tokens: u32) -> Self {
        Self {
            source: Source::Text(name),
            tokens,
        }
    }

    /// The whole answer of `tokens` tokens to a request with that output seed.
    pub fn output(seed: u64, tokens: u32) -> Self {
        Self {
            source: Source::Output(seed),
            tokens,
        }
    }

    fn append(self, tokens: &mut Vec<u32>) {
        match self.source {
            Source::Text(name) => {
                let start = hash::mix(name, 0x7465_7874);
                tokens.extend((0..u64::from(self.tokens)).map(|index| {
                    let word = (start + index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    (word >> 32) as u32
                }));
            }
            Source::Output(seed) => {
                tokens.extend((0..self.tokens).map(|index| hash::output_token(seed, index)));
            }
        }
    }
}

/// Number of tokens of a prompt.
pub(crate) fn length(segments: &[Segment]) -> u32 {
    segments.iter().map(|segment| segment.tokens).sum()
}

/// The tokens of a prompt.
pub(crate) fn tokens(segments: &[Segment]) -> Vec<u32> {
    let mut tokens = Vec::with_capacity(length(segments) as usize);
    for segment in segments {
        segment.append(&mut tokens);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_run_begins_with_the_shorter_and_names_differ() {
        let short = tokens(&[Segment::text(1, 10)]);
        assert!(tokens(&[Segment::text(1, 20)]).starts_with(&short));
        assert_ne!(tokens(&[Segment::text(2, 10)]), short);
        assert_eq!(length(&[Segment::text(1, 10), Segment::output(3, 5)]), 15);
    }

    #[test]
    fn an_answer_in_the_history_is_what_the_engine_generated() {
        let answer = tokens(&[Segment::output(9, 3)]);
        let generated: Vec<_> = (0..3).map(|index| hash::output_token(9, index)).collect();
        assert_eq!(answer, generated);
    }
}
