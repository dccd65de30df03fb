//! A prompt's tokens for the session's next turn, from the engine that serves this one, where the pool has no tokenizer.
//!
//! A task of its own beside the answer, which waits for nothing. One prompt at a time per endpoint, and only where there is
//! room for its body among those that may be held: what comes meanwhile is known by bytes.

use std::sync::Arc;

use bytes::Bytes;

use super::Gateway;
use super::inference::Routed;
use super::surface;
use crate::endpoints::Endpoint;
use crate::endpoints::tokenize::Turn;
use crate::openai::scan::{Facts, Key, Member, PromptKind};
use crate::serving::Pool;
use crate::tokens::ApiKind;
use crate::tokens::pool::EngineOutcome;

/// A longer body is not kept in memory for this.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Asks the endpoint that answers, if its tokens would tell anything and it is not being asked already. `body` makes
/// the body as it was sent there.
pub(super) fn remember(
    gateway: &Gateway,
    routed: &Routed<'_>,
    path: &str,
    server: usize,
    endpoint: &Arc<Endpoint>,
    body: impl FnOnce() -> Bytes,
) {
    let pool = &routed.serving.pools[server];
    let kind = surface::token_kind(path).filter(|&kind| useful(pool, kind));
    let (Some(tokens), Some(kind)) = (&gateway.tokens, kind) else {
        return;
    };
    if !tellable(routed) {
        return;
    }
    let turn = match Turn::take(endpoint, gateway.now()) {
        Ok(turn) => turn,
        Err(outcome) => return tokens.told_by_engine(outcome),
    };
    let (connector, body) = (Arc::clone(&gateway.connector), body());
    let mut held = gateway.bodies.guard();
    if !held.grow_to(body.len()) {
        return tokens.told_by_engine(EngineOutcome::Busy);
    }
    let (prompt, cache) = (Arc::clone(&routed.prompt), Arc::clone(&pool.cache));
    let counted = Arc::clone(tokens);
    tokio::spawn(async move {
        let told = turn.ask(&connector, kind, body).await;
        drop(held);
        counted.told_by_engine(match &told {
            Ok(_) => EngineOutcome::Told,
            Err(_) => EngineOutcome::Failed,
        });
        if let Ok(ids) = told {
            cache.remember(&prompt, ids);
        }
    });
}

/// A prompt of some length.
fn tellable(routed: &Routed<'_>) -> bool {
    let body = &routed.body.bytes;
    let short = routed.prompt.chain.blocks() == 0 || routed.prompt.tokens_sent > 0;
    let text = |facts: &Facts| is_one_text(facts, body);
    !short && body.len() <= MAX_BODY_BYTES && routed.body.facts().is_some_and(text)
}

/// Text throughout: an image's place in it is the engine's own affair. And no list of prompts, which `/tokenize` does not
/// take, be it one of one.
fn is_one_text(facts: &Facts, body: &[u8]) -> bool {
    let mut parts = facts.prompt.iter();
    let media = parts.any(|part| part.kind == PromptKind::Media);
    let is_list = |member: &Member| body.get(member.span.start) == Some(&b'[');
    let list = facts.member(Key::Prompt).is_some_and(is_list);
    !media && !list
}

/// Someone's events are live, there is a choice, and nothing here could tokenise. What engines make of other APIs'
/// bodies at `/tokenize` is not known.
fn useful(pool: &Pool, kind: ApiKind) -> bool {
    let live = || pool.members.iter().any(|member| member.cache.is_live());
    let known = matches!(kind, ApiKind::Chat | ApiKind::Completions);
    known && pool.tokenizer.is_none() && pool.members.len() > 1 && live()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::scan::scan;

    #[test]
    fn one_prompt_of_text_can_be_told() {
        let told = |body: &str| is_one_text(&scan(body.as_bytes()).unwrap(), body.as_bytes());
        assert!(told(r#"{"prompt": "[a]"}"#));
        assert!(told(r#"{"messages":[{"role":"user","content":"a"}]}"#));
        assert!(!told(r#"{"prompt": ["a", "b"]}"#));
        assert!(!told(r#"{"prompt":["a"]}"#));
        let image = r#"{"messages":[{"role":"user","content":[{"image_url":{"url":"x"}}]}]}"#;
        assert!(!told(image));
    }
}
