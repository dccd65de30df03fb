//! Waiting for the cluster by polling, with the last reason in the message when it was in vain.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

/// Longest wait of [`eventually`]: generous, since it is only ever used up by a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

const PERIOD: Duration = Duration::from_millis(50);

/// What one look at the cluster found.
#[derive(Debug)]
pub enum Look<T> {
    /// What was waited for.
    Done(T),
    /// Not yet, and why, in words.
    NotYet(String),
}

impl<T> Look<T> {
    /// Done with the value if there is one.
    pub fn some(value: Option<T>, why_not: impl Into<String>) -> Self {
        value.map_or_else(|| Self::NotYet(why_not.into()), Self::Done)
    }
}

impl Look<()> {
    /// Done if the condition holds; otherwise shows what was seen.
    pub fn when(condition: bool, seen: impl Debug) -> Self {
        if condition {
            Self::Done(())
        } else {
            Self::NotYet(format!("{seen:?}"))
        }
    }
}

/// Looks until it is done. An error of a look is a reason to look again: the API server may be down on purpose.
///
/// # Errors
/// After [`PATIENCE`], with what was waited for and what was last seen.
pub async fn eventually<T, F, Fut>(what: &str, look: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<Look<T>>>,
{
    within(PATIENCE, what, look).await
}

/// [`eventually`] with another limit.
///
/// # Errors
/// After the limit.
pub async fn within<T, F, Fut>(limit: Duration, what: &str, mut look: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<Look<T>>>,
{
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let last = match tokio::time::timeout_at(deadline, look()).await {
            Ok(Ok(Look::Done(value))) => return Ok(value),
            Ok(Ok(Look::NotYet(why))) => why,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "no answer".to_owned(),
        };
        anyhow::ensure!(
            tokio::time::Instant::now() < deadline,
            "waited {limit:?} in vain until {what}; last seen: {last}"
        );
        tokio::time::sleep(PERIOD).await;
    }
}
