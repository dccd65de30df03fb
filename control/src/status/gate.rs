//! May this process write, now?

use std::sync::Arc;

use tokio::sync::watch;

/// Asked before each write; wakes when the answer becomes another one. Clones ask the same.
#[derive(Clone)]
pub struct WriteGate {
    ask: Arc<dyn Fn() -> bool + Send + Sync>,
    changed: watch::Receiver<bool>,
}

impl WriteGate {
    /// `ask` has the last word: it may say no before `changed` has been told, as a lease runs out by the clock.
    pub fn new(
        ask: impl Fn() -> bool + Send + Sync + 'static,
        changed: watch::Receiver<bool>,
    ) -> Self {
        Self {
            ask: Arc::new(ask),
            changed,
        }
    }

    /// May it?
    pub fn is_open(&self) -> bool {
        (self.ask)()
    }

    /// Waits until the answer may be another one; for ever where it cannot.
    pub async fn changed(&mut self) {
        if self.changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The channel alone decides.
impl From<watch::Receiver<bool>> for WriteGate {
    fn from(open: watch::Receiver<bool>) -> Self {
        let asked = open.clone();
        Self::new(move || *asked.borrow(), open)
    }
}

impl std::fmt::Debug for WriteGate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("WriteGate")
            .field("open", &self.is_open())
            .finish()
    }
}
