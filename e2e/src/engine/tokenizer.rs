//! A real model's tokenizer in place of the simulator's own rule: then a router that tokenises with the same files
//! comes to the same tokens.
//!
//! Output stays the simulator's: an answer that comes back as part of the next turn has other tokens than it had when
//! it was generated, as happens with real models too.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sluice_proxy::tokens::{
    ApiKind, ModelTokenizer, Outcome, Reason, TokenPool, TokenPoolParams, TokenizerError,
};

/// An engine waits for its tokens, however long they take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a tokenizer is not there.
#[derive(Debug, thiserror::Error)]
pub enum TokenizingError {
    /// Its files.
    #[error(transparent)]
    Files(#[from] TokenizerError),
    /// Its thread.
    #[error("cannot start a thread that tokenises, is a limit of the system reached?")]
    Thread(#[from] std::io::Error),
}

/// A loaded model with a thread of its own: templates need a deep stack.
#[derive(Debug)]
pub(crate) struct Tokenizing {
    model: Arc<ModelTokenizer>,
    pool: TokenPool,
}

impl Tokenizing {
    pub(crate) fn load(path: &Path) -> Result<Self, TokenizingError> {
        let params = TokenPoolParams {
            threads: 1,
            deadline: PATIENCE,
            ..TokenPoolParams::default()
        };
        Ok(Self {
            model: ModelTokenizer::load(path)?,
            pool: TokenPool::new(params)?,
        })
    }

    /// Tokens of the prompt in a body.
    pub(crate) async fn ids(&self, kind: ApiKind, body: &Bytes) -> Result<Vec<u32>, Reason> {
        match self.pool.tokenize(&self.model, kind, body.clone()).await {
            Outcome::Tokens(ids) => Ok(ids.to_vec()),
            Outcome::Late(late) => late.ids().await.map(|ids| ids.to_vec()),
            Outcome::Unavailable(reason) => Err(reason),
        }
    }
}
