//! Tokenizers of pools, loaded off every thread that matters: a pool routes by bytes until its tokenizer is there,
//! and for ever if it cannot be loaded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread;

use arc_swap::ArcSwapOption;

use crate::tokens::ModelTokenizer;

/// A tokenizer that may still be loading.
#[derive(Debug, Default)]
pub struct Loading {
    loaded: ArcSwapOption<ModelTokenizer>,
}

impl Loading {
    /// The tokenizer, once it is there.
    pub fn get(&self) -> Option<Arc<ModelTokenizer>> {
        self.loaded.load_full()
    }
}

/// Those in use, by path. A changed file is read anew when no pool names its path any more.
#[derive(Debug, Default)]
pub(super) struct Tokenizers {
    known: HashMap<PathBuf, Weak<Loading>>,
}

impl Tokenizers {
    /// The tokenizer at `path`: the one there is, or one that begins to load.
    pub(super) fn at(&mut self, path: &Path) -> Arc<Loading> {
        if let Some(known) = self.known.get(path).and_then(Weak::upgrade) {
            return known;
        }
        let loading = Arc::<Loading>::default();
        self.known.insert(path.to_owned(), Arc::downgrade(&loading));
        let (slot, path) = (Arc::downgrade(&loading), path.to_owned());
        let spawned = thread::Builder::new()
            .name("load-tokenizer".into())
            .spawn(move || load(&path, &slot));
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread to load a tokenizer: its pool is routed by bytes");
        }
        loading
    }

    /// Forgets those that no pool uses.
    pub(super) fn sweep(&mut self) {
        self.known.retain(|_, known| known.strong_count() > 0);
    }
}

fn load(path: &Path, slot: &Weak<Loading>) {
    let file = path.display();
    match ModelTokenizer::load(path) {
        Ok(tokenizer) => {
            tracing::info!(path = %file, "tokenizer is loaded");
            if let Some(slot) = slot.upgrade() {
                slot.loaded.store(Some(tokenizer));
            }
        }
        Err(error) => tracing::error!(
            path = %file,
            %error,
            "tokenizer cannot be loaded: its pools are routed by bytes"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_loaded_once_and_forgotten_with_its_pools() {
        let mut tokenizers = Tokenizers::default();
        let path = Path::new("/nowhere/tokenizer.json");
        let first = tokenizers.at(path);
        assert!(Arc::ptr_eq(&first, &tokenizers.at(path)));
        assert!(first.get().is_none());
        drop(first);
        tokenizers.sweep();
        assert!(tokenizers.known.is_empty());
    }
}
