//! A prompt's tokens for the pools it may go to, where they help and come in time.

use std::sync::Arc;
use std::time::Instant;

use super::Gateway;
use super::inference::Routed;
use super::surface;
use crate::forward::plan::Plan;
use crate::serving::Pool;
use crate::tokens::{ModelTokenizer, Outcome};

/// Asks for the tokens of each pool whose engines' KV events are live, and waits no longer than the deadline for
/// each. Without them the byte index answers; late ones are remembered for the session's next turn.
pub(super) async fn tokenize(
    gateway: &Gateway,
    routed: &Routed<'_>,
    path: &str,
    plan: &mut Plan<'_>,
) {
    let (Some(tokens), Some(kind)) = (&gateway.tokens, surface::token_kind(path)) else {
        return;
    };
    let pools = &routed.serving.pools;
    let useful = |server: usize| Some((server, useful(&pools[server])?));
    let servers: Vec<_> = plan.servers().filter_map(useful).collect();
    for (server, tokenizer) in servers {
        let body = routed.body.bytes.clone();
        let asked = Instant::now();
        let outcome = tokens.tokenize(&tokenizer, kind, body).await;
        if let Some(kthena) = gateway.metrics.kthena() {
            let got = matches!(outcome, Outcome::Tokens(_));
            let model = kthena.model(&routed.body.model);
            model.tokenized(asked.elapsed(), got);
        }
        if let Outcome::Tokens(ids) = outcome {
            plan.set_tokens(server, &ids);
        }
    }
}

/// The pool's tokenizer, if its tokens tell anything: someone's events are live, and there is a choice.
fn useful(pool: &Pool) -> Option<Arc<ModelTokenizer>> {
    let tokenizer = pool.tokenizer.as_ref()?.get()?;
    let live = pool.members.iter().any(|member| member.cache.is_live());
    (live && pool.members.len() > 1).then_some(tokenizer)
}
