//! Asking an endpoint what a prompt's tokens are, for pools without a tokenizer of their own.
//!
//! Never on a request's way, and one prompt at a time: an engine has better things to do. vLLM's render endpoint gives
//! the very tokens of a chat; where it is not served, `/tokenize` does as well. One that refuses is left alone for a
//! while. Not for what is done with the tokens (`cache`), nor for comparing them with ours (`publishers`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::Endpoint;
use super::fetch::{self, FetchError};
use super::health::moment;
use crate::forward::upstream::Connector;
use crate::tokens::ApiKind;
use crate::tokens::check::{self, AnswerError};
use crate::tokens::pool::EngineOutcome;

const DEADLINE: Duration = Duration::from_secs(2);
/// After it refused: the next prompt would most likely be sent in vain, too.
const BACK_OFF: Duration = Duration::from_secs(30);
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
    /// Milliseconds; until then it is not asked.
    quiet_until: AtomicU64,
    /// The last prompt came back without tokens, which is logged when it changes.
    failing: AtomicBool,
}

/// The right to ask one endpoint one thing; dropping it gives the turn to the next.
pub struct Turn {
    endpoint: Arc<Endpoint>,
    /// When it was taken.
    at: Duration,
}

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

impl NotTold {
    /// It would not tell of another prompt either.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Fetch(FetchError::Status(_)) | Self::Answer(_))
    }
}

impl Turn {
    /// A turn at `now`, measured from any fixed point.
    ///
    /// # Errors
    /// What became of the prompt instead: another one is with the endpoint, or it has refused to tell lately.
    pub fn take(endpoint: &Arc<Endpoint>, now: Duration) -> Result<Self, EngineOutcome> {
        if endpoint.asking.busy.swap(true, Ordering::Acquire) {
            return Err(EngineOutcome::Busy);
        }
        // Made before anything else is looked at: dropping it gives the turn back.
        let turn = Self {
            endpoint: Arc::clone(endpoint),
            at: now,
        };
        if moment(now) < endpoint.asking.quiet_until.load(Ordering::Relaxed) {
            return Err(EngineOutcome::Failed);
        }
        Ok(turn)
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
        if told.as_ref().is_err_and(NotTold::is_refusal) {
            let until = moment(self.at + BACK_OFF);
            let quiet_until = &self.endpoint.asking.quiet_until;
            quiet_until.store(until, Ordering::Relaxed);
        }
        self.note(told.as_ref().err());
        told
    }

    async fn told(
        &self,
        connector: &Connector,
        kind: ApiKind,
        body: Bytes,
    ) -> Result<Vec<u32>, NotTold> {
        let no_render = &self.endpoint.asking.no_render;
        if kind == ApiKind::Chat && !no_render.load(Ordering::Relaxed) {
            match self.post(connector, RENDER, body.clone()).await {
                Err(FetchError::Status(status)) if is_not_served(status) => {
                    no_render.store(true, Ordering::Relaxed);
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
        let link = &self.endpoint.link;
        fetch::post_json(connector, link, path, body, MAX_ANSWER_BYTES, DEADLINE).await
    }

    /// One line per change.
    fn note(&self, error: Option<&NotTold>) {
        let failing = error.is_some();
        let asking = &self.endpoint.asking;
        if asking.failing.swap(failing, Ordering::Relaxed) == failing {
            return;
        }
        let endpoint = &*self.endpoint.address;
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
        self.endpoint.asking.busy.store(false, Ordering::Release);
    }
}

/// How an engine says that it has no such path, or not for everyone: vLLM answers 403 unless it was started with
/// `--enable-scale-out`.
fn is_not_served(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403 | 404 | 405 | 501)
}

/// Reading a hundred thousand numbers takes milliseconds, which no worker has.
async fn read(
    answer: Bytes,
    tokens: fn(&[u8]) -> Result<Vec<u32>, AnswerError>,
) -> Result<Vec<u32>, NotTold> {
    let reading = tokio::task::spawn_blocking(move || tokens(&answer));
    Ok(reading.await.map_err(|_| NotTold::Ended)??)
}

#[cfg(test)]
mod tests;
