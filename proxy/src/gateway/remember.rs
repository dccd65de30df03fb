//! A prompt's tokens for the session's next turn, from the engine that serves this one, where the pool has no tokenizer.
//!
//! A task of its own beside the answer, which waits for nothing. One prompt at a time per endpoint: what comes meanwhile
//! is known by bytes.

use std::sync::Arc;

use bytes::Bytes;

use super::Gateway;
use super::inference::Routed;
use super::surface;
use crate::endpoints::Endpoint;
use crate::endpoints::tokenize::Turn;
use crate::openai::scan::{Facts, PromptKind};
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
    let Some(turn) = Turn::take(endpoint) else {
        tokens.told_by_engine(EngineOutcome::Busy);
        return;
    };
    let (connector, body) = (Arc::clone(&gateway.connector), body());
    let (prompt, cache) = (Arc::clone(&routed.prompt), Arc::clone(&pool.cache));
    let counted = Arc::clone(tokens);
    tokio::spawn(async move {
        let told = turn.ask(&connector, kind, body).await;
        counted.told_by_engine(match &told {
            Ok(_) => EngineOutcome::Told,
            Err(_) => EngineOutcome::Failed,
        });
        if let Ok(ids) = told {
            cache.remember(&prompt, ids);
        }
    });
}

/// A prompt of some length that is text throughout: an image's place in it is the engine's own affair.
fn tellable(routed: &Routed<'_>) -> bool {
    let facts = routed.body.facts();
    let text = |facts: &Facts| {
        facts
            .prompt
            .iter()
            .all(|part| part.kind != PromptKind::Media)
    };
    let short = routed.prompt.chain.blocks() == 0 || routed.prompt.tokens_sent > 0;
    !short && routed.body.bytes.len() <= MAX_BODY_BYTES && facts.is_some_and(text)
}

/// Someone's events are live, there is a choice, and nothing here could tokenise. What engines make of other APIs'
/// bodies at `/tokenize` is not known.
fn useful(pool: &Pool, kind: ApiKind) -> bool {
    let live = || pool.members.iter().any(|member| member.cache.is_live());
    let known = matches!(kind, ApiKind::Chat | ApiKind::Completions);
    known && pool.tokenizer.is_none() && pool.members.len() > 1 && live()
}
