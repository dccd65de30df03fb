//! Asking an endpoint what a prompt's tokens are, for pools without a tokenizer of their own.
//!
//! Never on a request's way, and one prompt at a time: an engine has better things to do. vLLM's render endpoint gives
//! the very tokens of a chat; where it is not served, `/tokenize` does as well. Not for what is done with the tokens
//! (`cache`), nor for comparing them with ours (`publishers`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::Endpoint;
use super::fetch::{self, FetchError};
use crate::forward::upstream::Connector;
use crate::tokens::ApiKind;
use crate::tokens::check::{self, AnswerError};

const DEADLINE: Duration = Duration::from_secs(2);
/// A million tokens and more.
const MAX_ANSWER_BYTES: usize = 8 << 20;
const RENDER: &str = "/v1/chat/completions/render";
const TOKENIZE: &str = "/tokenize";

/// How asking one endpoint stands.
#[derive(Debug, Default)]
pub struct Asking {
    /// A prompt is with it now.
    busy: AtomicBool,
    /// It does not serve the render endpoint.
    no_render: AtomicBool,
    /// The last prompt came back without tokens, which is logged when it changes.
    failing: AtomicBool,
}

/// The right to ask one endpoint one thing; dropping it gives the turn to the next.
pub struct Turn(Arc<Endpoint>);

/// Why a prompt's tokens are not told.
#[derive(Debug, thiserror::Error)]
pub enum NotTold {
    /// The endpoint was asked in vain.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It answered something else.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// There was no thread to read the answer.
    #[error("the answer was not read: the gateway ends")]
    Ended,
}

impl Turn {
    /// A turn, unless another prompt is with the endpoint.
    pub fn take(endpoint: &Arc<Endpoint>) -> Option<Self> {
        let busy = endpoint.asking.busy.swap(true, Ordering::Acquire);
        (!busy).then(|| Self(Arc::clone(endpoint)))
    }

    /// The tokens of the prompt in a body that the endpoint has accepted.
    ///
    /// # Errors
    /// When the endpoint does not tell; logged once until it does again.
    pub async fn ask(
        &self,
        connector: &Connector,
        kind: ApiKind,
        body: Bytes,
    ) -> Result<Vec<u32>, NotTold> {
        let told = self.told(connector, kind, body).await;
        self.note(told.as_ref().err());
        told
    }

    async fn told(
        &self,
        connector: &Connector,
        kind: ApiKind,
        body: Bytes,
    ) -> Result<Vec<u32>, NotTold> {
        let no_render = &self.0.asking.no_render;
        if kind == ApiKind::Chat && !no_render.load(Ordering::Relaxed) {
            match self.post(connector, RENDER, body.clone()).await {
                Err(FetchError::Status(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)) => {
                    no_render.store(true, Ordering::Relaxed)
                }
                answer => return read(answer?, check::render_answer).await,
            }
        }
        let answer = self.post(connector, TOKENIZE, body).await?;
        read(answer, check::tokenize_answer).await
    }

    async fn post(
        &self,
        connector: &Connector,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, FetchError> {
        let link = &self.0.link;
        fetch::post_json(connector, link, path, body, MAX_ANSWER_BYTES, DEADLINE).await
    }

    /// One line per change.
    fn note(&self, error: Option<&NotTold>) {
        let failing = error.is_some();
        if self.0.asking.failing.swap(failing, Ordering::Relaxed) == failing {
            return;
        }
        let endpoint = &*self.0.address;
        match error {
            Some(error) => tracing::warn!(
                endpoint,
                %error,
                "does not tell prompts' tokens: what it holds is estimated"
            ),
            None => tracing::info!(endpoint, "tells prompts' tokens again"),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.asking.busy.store(false, Ordering::Release);
    }
}

/// Reading a hundred thousand numbers takes milliseconds, which no worker has.
async fn read(
    answer: Bytes,
    tokens: fn(&[u8]) -> Result<Vec<u32>, AnswerError>,
) -> Result<Vec<u32>, NotTold> {
    let reading = tokio::task::spawn_blocking(move || tokens(&answer));
    Ok(reading.await.map_err(|_| NotTold::Ended)??)
}
