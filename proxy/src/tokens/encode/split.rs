//! A text cut at its special tokens, as the tokenizer itself isolates them before anything else.
//!
//! `tokenizers` finds added tokens in two passes, leftmost and longest first: those that are not normalised in
//! the raw text, then the normalised ones in what lies between, after normalising it. What lies between two
//! found tokens is then encoded on its own. The same two passes here give the same pieces, so pieces can be
//! encoded one by one. The second pass is the same only where nothing is normalised; with a normaliser its
//! tokens stay inside their pieces.

use std::collections::HashMap;

use regex::Regex;
use tokenizers::AddedToken;

/// Finds the tokens at which a text is cut.
#[derive(Debug)]
pub(super) struct Splitter {
    raw: Option<Matcher>,
    normalized: Option<Matcher>,
}

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A token that stands alone, whatever is around it.
    Token { id: u32, text: &'a str },
    /// Text between such tokens, not empty.
    Text(&'a str),
}

impl Splitter {
    /// For a tokenizer's added tokens; `normalizes` says whether it changes text before the second pass.
    /// Nothing when its tokens depend on what is around them, or are too many.
    pub(super) fn new(tokens: &[(u32, AddedToken)], normalizes: bool) -> Option<Self> {
        if tokens.iter().any(|(_, token)| token.single_word) {
            return None;
        }
        let (normalized, raw): (Vec<_>, Vec<_>) =
            tokens.iter().partition(|(_, token)| token.normalized);
        let normalized = if normalizes { Vec::new() } else { normalized };
        Some(Self {
            raw: Matcher::new(&raw)?,
            normalized: Matcher::new(&normalized)?,
        })
    }

    /// The pieces of `text` in order.
    pub(super) fn pieces<'a>(&self, text: &'a str) -> Vec<Piece<'a>> {
        let mut pieces = Vec::new();
        cut(self.raw.as_ref(), text, &mut |piece| match piece {
            Piece::Text(between) => cut(self.normalized.as_ref(), between, &mut |piece| {
                pieces.push(piece)
            }),
            token => pieces.push(token),
        });
        pieces
    }

    /// Texts of the tokens at which it cuts.
    pub(super) fn tokens(&self) -> impl Iterator<Item = &str> {
        let matchers = [&self.raw, &self.normalized].into_iter().flatten();
        matchers.flat_map(|matcher| matcher.cuts.keys().map(|text| &**text))
    }
}

/// One pass: all its tokens, and the ids of those at which to cut.
#[derive(Debug)]
struct Matcher {
    all: Regex,
    cuts: HashMap<Box<str>, u32>,
}

impl Matcher {
    /// `Some(None)` for no tokens, `None` when they cannot be searched for.
    fn new(tokens: &[&(u32, AddedToken)]) -> Option<Option<Self>> {
        if tokens.is_empty() {
            return Some(None);
        }
        let mut texts: Vec<&str> = tokens
            .iter()
            .map(|(_, token)| token.content.as_str())
            .collect();
        // First match wins in a regex: longest first makes it leftmost-longest.
        texts.sort_unstable_by_key(|text| std::cmp::Reverse(text.len()));
        let pattern: Vec<String> = texts.into_iter().map(regex::escape).collect();
        let all = Regex::new(&pattern.join("|")).ok()?;
        let cuts = tokens
            .iter()
            .filter(|(_, token)| isolates(token))
            .map(|(id, token)| (token.content.as_str().into(), *id))
            .collect();
        Some(Some(Self { all, cuts }))
    }
}

/// Whether the token takes nothing from its neighbours, nor they from it: a neighbour that strips takes spaces.
fn isolates(token: &AddedToken) -> bool {
    let text = &token.content;
    !token.lstrip && !token.rstrip && text.trim() == text
}

fn cut<'a>(matcher: Option<&Matcher>, text: &'a str, emit: &mut impl FnMut(Piece<'a>)) {
    let mut start = 0;
    if let Some(matcher) = matcher {
        for found in matcher.all.find_iter(text) {
            let Some(&id) = matcher.cuts.get(found.as_str()) else {
                continue;
            };
            if start < found.start() {
                emit(Piece::Text(&text[start..found.start()]));
            }
            emit(Piece::Token {
                id,
                text: found.as_str(),
            });
            start = found.end();
        }
    }
    if start < text.len() {
        emit(Piece::Text(&text[start..]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> AddedToken {
        AddedToken::from(text, true)
    }

    #[test]
    fn the_longest_token_wins_and_stripping_ones_stay_inside() {
        let tokens = [
            (1, token("<a>")),
            (2, token("<a>b")),
            (3, token("<s>").lstrip(true)),
            (4, token("n").normalized(true)),
        ];
        let splitter = Splitter::new(&tokens, false).unwrap();
        assert_eq!(
            splitter.pieces("x<a>bc <s><a>yn"),
            [
                Piece::Text("x"),
                Piece::Token {
                    id: 2,
                    text: "<a>b"
                },
                Piece::Text("c <s>"),
                Piece::Token { id: 1, text: "<a>" },
                Piece::Text("y"),
                Piece::Token { id: 4, text: "n" },
            ]
        );
        let splitter = Splitter::new(&tokens, true).unwrap();
        assert_eq!(splitter.pieces("yn"), [Piece::Text("yn")]);
        assert_eq!(splitter.pieces(""), []);
    }

    #[test]
    fn tokens_that_look_at_words_around_them_prevent_cutting() {
        assert!(Splitter::new(&[(1, token("<a>").single_word(true))], false).is_none());
    }
}
