//! A file or folder as a source of updates: load, catalog and watch put together.
//!
//! Not for what becomes of an update: the receiver swaps the snapshot in and logs the problems.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::watch::{Fingerprint, Watcher};
use crate::{Catalog, FilterSet, LoadedDocuments, Update};

/// Delivers an [`Update`] at start and after every change, until dropped.
#[derive(Debug)]
pub struct FileSource {
    _watcher: Watcher,
}

impl FileSource {
    /// Loads `path` and delivers the outcome before it returns; later ones come from a thread of its own,
    /// `debounce` after the last change. `now` gives Unix seconds.
    ///
    /// # Errors
    /// When no thread can be started. Whatever is wrong with the files is in the updates.
    pub fn start(
        path: impl Into<PathBuf>,
        debounce: Duration,
        filters: FilterSet,
        now: impl Fn() -> u64 + Send + 'static,
        mut deliver: impl FnMut(Update) + Send + 'static,
    ) -> io::Result<Self> {
        let path = path.into();
        let mut catalog = Catalog::new(filters);
        // Before reading: a change during the read must not be missed.
        let seen = Fingerprint::of(&path);
        deliver(load(&mut catalog, &path, now()));
        let watched = path.clone();
        let on_change = move || deliver(load(&mut catalog, &path, now()));
        Ok(Self {
            _watcher: Watcher::since(seen, watched, debounce, on_change)?,
        })
    }
}

fn load(catalog: &mut Catalog, path: &Path, now: u64) -> Update {
    catalog.update(LoadedDocuments::read(path), now)
}
