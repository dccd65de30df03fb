//! A file or folder as a source of documents: load and watch put together.
//!
//! Not for what becomes of a load: the receiver gives it to its [`Catalog`](crate::Catalog).

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::LoadedDocuments;
use crate::watch::{Fingerprint, Watcher};

/// Delivers [`LoadedDocuments`] at start and after every change, until dropped.
#[derive(Debug)]
pub struct FileSource {
    _watcher: Watcher,
}

impl FileSource {
    /// Loads `path` and delivers the outcome before it returns; later ones come from a thread of its own,
    /// `debounce` after the last change.
    ///
    /// # Errors
    /// When no thread can be started. Whatever is wrong with the files is in what is delivered.
    pub fn start(
        path: impl Into<PathBuf>,
        debounce: Duration,
        mut deliver: impl FnMut(LoadedDocuments) + Send + 'static,
    ) -> io::Result<Self> {
        let path = path.into();
        // Before reading: a change during the read must not be missed.
        let seen = Fingerprint::of(&path);
        deliver(LoadedDocuments::read(&path));
        let watched = path.clone();
        let on_change = move || deliver(LoadedDocuments::read(&path));
        Ok(Self {
            _watcher: Watcher::since(seen, watched, debounce, on_change)?,
        })
    }
}
