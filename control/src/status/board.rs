//! Where the index leaves what it knows, for the writer to pick up: the newest of each document, so that a slow writer
//! makes nobody wait and nothing pile up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::index::{DocumentKey, Facts};

/// Facts of documents that have changed; `None`: the document is gone.
pub(super) type News = HashMap<DocumentKey, Option<Arc<Facts>>>;

/// Shared by reference.
#[derive(Debug, Default)]
pub struct Board {
    /// Held for moves of maps and never across an await.
    news: Mutex<News>,
    posted: Notify,
}

impl Board {
    /// Leaves what has changed.
    pub fn post(&self, facts: impl IntoIterator<Item = (DocumentKey, Option<Arc<Facts>>)>) {
        let mut news = self.lock();
        news.extend(facts);
        if !news.is_empty() {
            self.posted.notify_one();
        }
    }

    /// Waits until there is something, and takes it.
    pub(super) async fn take(&self) -> News {
        loop {
            let news = std::mem::take(&mut *self.lock());
            if !news.is_empty() {
                return news;
            }
            self.posted.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        // Whoever panicked left the map whole: it is only moved and extended.
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
