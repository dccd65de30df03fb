//! Is this the model's tokenizer? Our ids held against the engine's, which cost one request or are in its events.
//!
//! Pure: who asks the engine, when, and what a mismatch leads to is decided elsewhere (once per model; then the
//! byte index answers and the log says so). The answers read here are vLLM's: `/tokenize`, and
//! `/v1/chat/completions/render` of servers that offer it, which also tell the tokens of prompts where there is no
//! tokenizer of our own (`endpoints::tokenize`). Never on a request's way.

use serde::Deserialize;

/// Ids in an answer: no model reads longer prompts.
const MAX_IDS: usize = 16 << 20;

/// What the comparison says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The ids are the same.
    Matching,
    /// They differ.
    Different {
        /// The first place where they do; the shorter one's length when it is the other's beginning.
        at: usize,
    },
}

/// Why an engine's answer could not be read.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Not the JSON of either endpoint.
    #[error("engine's answer has no token ids, it may be an error or of an unknown version: {0}")]
    NoIds(serde_json::Error),
    /// More ids than any prompt.
    #[error("engine's answer has more than {MAX_IDS} token ids")]
    TooMany,
    /// The answer holds several prompts, or none.
    #[error("engine's answer holds {0} prompts instead of one")]
    NotOne(usize),
}

/// Compares whole prompts.
pub fn compare(ours: &[u32], engine: &[u32]) -> Verdict {
    match differs_at(ours, engine) {
        None if ours.len() == engine.len() => Verdict::Matching,
        at => Verdict::Different {
            at: at.unwrap_or(ours.len().min(engine.len())),
        },
    }
}

fn differs_at(one: &[u32], two: &[u32]) -> Option<usize> {
    one.iter().zip(two).position(|(one, two)| one != two)
}

/// Ids in the answer of `/tokenize` (`{"tokens": [...]}`).
///
/// # Errors
/// When the answer is not that.
pub fn tokenize_answer(json: &[u8]) -> Result<Vec<u32>, AnswerError> {
    #[derive(Deserialize)]
    struct Answer {
        tokens: Vec<u32>,
    }
    let answer: Answer = serde_json::from_slice(json).map_err(AnswerError::NoIds)?;
    bounded(answer.tokens)
}

/// Ids in the answer of `/v1/chat/completions/render`: an object with `token_ids` (`prompt_token_ids` in some
/// versions), or a list of one such.
///
/// # Errors
/// When the answer is not that.
pub fn render_answer(json: &[u8]) -> Result<Vec<u32>, AnswerError> {
    #[derive(Deserialize)]
    struct Rendered {
        #[serde(alias = "prompt_token_ids")]
        token_ids: Vec<u32>,
    }
    let value: serde_json::Value = serde_json::from_slice(json).map_err(AnswerError::NoIds)?;
    let one = match value {
        serde_json::Value::Array(mut prompts) => match prompts.len() {
            1 => prompts.remove(0),
            count => return Err(AnswerError::NotOne(count)),
        },
        one => one,
    };
    let rendered: Rendered = serde_json::from_value(one).map_err(AnswerError::NoIds)?;
    bounded(rendered.token_ids)
}

fn bounded(ids: Vec<u32>) -> Result<Vec<u32>, AnswerError> {
    if ids.len() > MAX_IDS {
        Err(AnswerError::TooMany)
    } else {
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_match_or_differ_at_a_place() {
        assert_eq!(compare(&[1, 2, 3], &[1, 2, 3]), Verdict::Matching);
        assert_eq!(
            compare(&[1, 2, 3], &[1, 5, 3]),
            Verdict::Different { at: 1 }
        );
        assert_eq!(compare(&[1, 2], &[1, 2, 3]), Verdict::Different { at: 2 });
        assert_eq!(compare(&[], &[1]), Verdict::Different { at: 0 });
    }

    #[test]
    fn answers_of_vllm_are_read() {
        let tokenize = br#"{"count":2,"max_model_len":2048,"tokens":[767,578],"token_strs":null}"#;
        assert_eq!(tokenize_answer(tokenize).unwrap(), [767, 578]);
        assert_eq!(
            render_answer(br#"{"request_id":"r","token_ids":[1,2]}"#).unwrap(),
            [1, 2]
        );
        assert_eq!(
            render_answer(br#"[{"prompt_token_ids":[3]}]"#).unwrap(),
            [3]
        );
    }

    #[test]
    fn other_answers_are_errors() {
        for json in [
            &b"{\"error\":{\"message\":\"no\"}}"[..],
            b"",
            b"{\"tokens\":[-1]}",
            b"{\"tokens\":[5000000000]}",
        ] {
            assert!(matches!(tokenize_answer(json), Err(AnswerError::NoIds(_))));
        }
        assert!(matches!(render_answer(b"[]"), Err(AnswerError::NotOne(0))));
        assert!(matches!(
            render_answer(b"[{},{}]"),
            Err(AnswerError::NotOne(2))
        ));
        assert!(matches!(render_answer(b"{}"), Err(AnswerError::NoIds(_))));
    }
}
