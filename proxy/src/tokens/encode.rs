//! Text to ids, remembering: a text is cut where that cannot change its ids, and each part is looked up before
//! it is encoded. So the next turn of a session costs its new text.
//!
//! Parts lie between special tokens ([`split`]), which a chat template puts around every message, and within
//! long parts between words where that is proven ([`safe_cut`]). That the parts give what the whole gives is
//! checked when a tokenizer is loaded, and cutting is switched off for one that differs.

use std::sync::Arc;

use serde_json::Value;
use tokenizers::{AddedToken, Tokenizer};
use xxhash_rust::xxh3::xxh3_128_with_seed;

mod memo;
mod safe_cut;
mod self_check;
mod split;

#[cfg(test)]
mod tests;

pub use memo::Memo;
use split::{Piece, Splitter};

/// Why a text has no ids.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The definition is not one the `tokenizers` library understands.
    #[error("tokenizer definition is not valid: {0}")]
    Definition(String),
    /// The library refuses the text, such as a model without an unknown token.
    #[error("tokenizer cannot encode the text")]
    Text,
}

/// How a tokenizer's texts are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cutting {
    /// Not at all: every prompt is encoded as a whole.
    Nowhere,
    /// At special tokens.
    SpecialTokens,
    /// At special tokens, and within long texts between words.
    Words,
}

/// A tokenizer with its way of cutting.
pub(super) struct Encoder {
    tokenizer: Tokenizer,
    splitter: Option<Splitter>,
    cutting: Cutting,
    /// What `add_special_tokens` puts around a text, where that does not depend on the text.
    around: Option<(Vec<u32>, Vec<u32>)>,
    /// Sets this tokenizer's entries in a shared memo apart.
    seed: u64,
}

impl Encoder {
    /// From the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// When the library does not understand them.
    pub(super) fn new(json: &[u8], seed: u64) -> Result<Self, EncodeError> {
        let invalid = |error: &dyn std::fmt::Display| EncodeError::Definition(error.to_string());
        let definition: Value = serde_json::from_slice(json).map_err(|error| invalid(&error))?;
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|error| invalid(&error))?;
        // Stored for training; engines encode without them.
        tokenizer
            .with_truncation(None)
            .map_err(|error| invalid(&error))?;
        tokenizer.with_padding(None);
        let added: Vec<(u32, AddedToken)> =
            tokenizer.get_added_tokens_decoder().into_iter().collect();
        let splitter = Splitter::new(&added, normalizes(&definition["normalizer"]));
        let cutting = cutting(splitter.as_ref(), &definition, &added);
        let around = around(&tokenizer);
        let mut encoder = Self {
            tokenizer,
            splitter,
            cutting,
            around,
            seed,
        };
        encoder.cutting = self_check::trusted(&mut encoder);
        Ok(encoder)
    }

    pub(super) fn cutting(&self) -> Cutting {
        self.cutting
    }

    pub(super) fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// The ids of `text`, as the whole tokenizer gives them.
    ///
    /// # Errors
    /// When the library refuses the text.
    pub(super) fn encode(
        &self,
        memo: &Memo,
        text: &str,
        special: bool,
    ) -> Result<Vec<u32>, EncodeError> {
        let around = match (&self.around, special) {
            (_, false) => Some((&[][..], &[][..])),
            (Some((before, after)), true) => Some((before.as_slice(), after.as_slice())),
            (None, true) => None,
        };
        match (&self.splitter, around) {
            (Some(splitter), Some((before, after)))
                if self.cutting > Cutting::Nowhere && !text.is_empty() =>
            {
                let mut ids = Vec::with_capacity(text.len() / 3 + 8);
                ids.extend_from_slice(before);
                self.parts(memo, splitter, text, &mut ids)?;
                ids.extend_from_slice(after);
                Ok(ids)
            }
            _ => self.whole(text, special),
        }
    }

    fn parts(
        &self,
        memo: &Memo,
        splitter: &Splitter,
        text: &str,
        ids: &mut Vec<u32>,
    ) -> Result<(), EncodeError> {
        let mut anchor = None;
        for piece in splitter.pieces(text) {
            match piece {
                Piece::Token { id, text } => {
                    ids.push(id);
                    anchor = Some((id, text));
                }
                Piece::Text(text) => self.part(memo, anchor, text, ids)?,
            }
        }
        Ok(())
    }

    /// The ids by the library alone.
    pub(super) fn whole(&self, text: &str, special: bool) -> Result<Vec<u32>, EncodeError> {
        let encoding = self
            .tokenizer
            .encode_fast(text, special)
            .map_err(|_| EncodeError::Text)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Adds the ids of the text after `anchor`, the special token before it if there is one.
    fn part(
        &self,
        memo: &Memo,
        anchor: Option<(u32, &str)>,
        text: &str,
        ids: &mut Vec<u32>,
    ) -> Result<(), EncodeError> {
        if self.cutting < Cutting::Words {
            return self.remembered(memo, anchor, text, ids);
        }
        // Tokenizers that are cut at words do not care where in the prompt a text stands: no anchor.
        safe_cut::chunks(text).try_for_each(|chunk| self.remembered(memo, None, chunk, ids))
    }

    fn remembered(
        &self,
        memo: &Memo,
        anchor: Option<(u32, &str)>,
        text: &str,
        ids: &mut Vec<u32>,
    ) -> Result<(), EncodeError> {
        let first = u64::from(anchor.is_none());
        let key = xxh3_128_with_seed(text.as_bytes(), self.seed ^ first);
        if let Some(found) = memo.find(key) {
            ids.extend_from_slice(&found);
            return Ok(());
        }
        let fresh: Arc<[u32]> = self.fresh(anchor, text)?.into();
        ids.extend_from_slice(&fresh);
        memo.insert(key, fresh);
        Ok(())
    }

    /// SentencePiece's successors treat the start of a prompt differently from the start of a later part
    /// (`Metaspace` with `prepend_scheme: first`): a later part is encoded behind its special token.
    fn fresh(&self, anchor: Option<(u32, &str)>, text: &str) -> Result<Vec<u32>, EncodeError> {
        let Some((id, token)) = anchor else {
            return self.whole(text, false);
        };
        let mut ids = self.whole(&format!("{token}{text}"), false)?;
        if ids.first() != Some(&id) {
            return Err(EncodeError::Text);
        }
        ids.remove(0);
        Ok(ids)
    }
}

/// Whether text is changed before normalised tokens are looked for.
fn normalizes(normalizer: &Value) -> bool {
    match normalizer["type"].as_str() {
        None => !normalizer.is_null(),
        Some("Sequence") => normalizer["normalizers"]
            .as_array()
            .is_none_or(|steps| steps.iter().any(normalizes)),
        Some(_) => true,
    }
}

fn cutting(
    splitter: Option<&Splitter>,
    definition: &Value,
    added: &[(u32, AddedToken)],
) -> Cutting {
    let Some(splitter) = splitter else {
        return Cutting::Nowhere;
    };
    let cuts: std::collections::HashSet<&str> = splitter.tokens().collect();
    let inside: Vec<&AddedToken> = added
        .iter()
        .map(|(_, token)| token)
        .filter(|token| !cuts.contains(token.content.as_str()))
        .collect();
    if safe_cut::proven(definition, &inside) {
        Cutting::Words
    } else {
        Cutting::SpecialTokens
    }
}

/// What the post-processor puts around a text.
fn around(tokenizer: &Tokenizer) -> Option<(Vec<u32>, Vec<u32>)> {
    let ids = |special| {
        tokenizer
            .encode_fast("a b", special)
            .ok()
            .map(|encoding| encoding.get_ids().to_vec())
    };
    let (bare, with) = (ids(false)?, ids(true)?);
    let at = with
        .windows(bare.len().max(1))
        .position(|window| window == bare)?;
    Some((with[..at].to_vec(), with[at + bare.len()..].to_vec()))
}
