//! Keeps the last good pushed state on disk: told of every batch, and writing at its own pace in a thread of its own.
//!
//! Not for what a file looks like: see [`super::state_file`].

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sluice_config::push::{Batch, BatchMessage};

use super::state_file::{self, Header, Stored, StoredResources};

/// Changes within this time are written together.
const EVERY: Duration = Duration::from_secs(1);
/// After a failure.
const RETRY: Duration = Duration::from_secs(30);

/// The thread; dropping it writes what is not written yet.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// Held to note a batch or to copy the map, never while a file is written.
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    header: Header,
    resources: StoredResources,
    /// There is something to write.
    dirty: bool,
    stop: bool,
}

impl Keeper {
    /// Keeps a state that begins with what is in the file, or with nothing.
    pub(super) fn start(file: PathBuf, namespaces: Vec<String>) -> io::Result<Self> {
        let header = Header {
            namespaces,
            ..Header::default()
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                header,
                ..State::default()
            }),
            wake: Condvar::new(),
        });
        let worker = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("sluice-state".into())
            .spawn(move || run(&worker, &file))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// What came from the file, as far as it is in force: it needs no writing.
    pub(super) fn restored(&self, batch: Batch, refused: &HashSet<usize>) {
        let mut state = self.shared.lock();
        state.note(batch, refused);
        // What this program refuses is left out from now on.
        state.dirty = !refused.is_empty();
    }

    /// A batch is in force, but for what was refused of it: of that the last version stays.
    pub(super) fn note(&self, batch: Batch, refused: &HashSet<usize>, end: &BatchMessage) {
        let mut state = self.shared.lock();
        state.note(batch, refused);
        state.header.control.clone_from(&end.control);
        state.header.generation = end.generation;
        state.dirty = true;
        drop(state);
        self.shared.wake.notify_one();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl State {
    fn note(&mut self, batch: Batch, refused: &HashSet<usize>) {
        for (kind, name) in batch.removals {
            self.resources.remove(&(kind, name.into()));
        }
        for (item, upsert) in batch.upserts.into_iter().enumerate() {
            if refused.contains(&item) || !state_file::is_kept(upsert.kind) {
                continue;
            }
            let stored = Stored {
                version: upsert.version,
                value: upsert.value,
            };
            let key = (upsert.kind, upsert.name.into());
            self.resources.insert(key, Arc::new(stored));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something to write, or all is over.
    fn wait(&self) -> MutexGuard<'_, State> {
        let idle = |state: &mut State| !state.dirty && !state.stop;
        let state = self.wake.wait_while(self.lock(), idle);
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets changes come together.
    fn pause(&self, pause: Duration) {
        let running = |state: &mut State| !state.stop;
        drop(self.wake.wait_timeout_while(self.lock(), pause, running));
    }
}

fn run(shared: &Shared, file: &std::path::Path) {
    let mut failure: Option<String> = None;
    loop {
        let mut state = shared.wait();
        let stop = state.stop;
        if !state.dirty {
            return;
        }
        state.dirty = false;
        let (header, resources) = (state.header.clone(), state.resources.clone());
        drop(state);
        let rows = resources.iter();
        let rows = rows.map(|((kind, name), stored)| (*kind, &**name, &**stored));
        let saved = state_file::save(file, &state_file::encode(&header, rows));
        let error = saved.err().map(|error| error.to_string());
        if let Some(error) = error
            .as_ref()
            .filter(|error| failure.as_ref() != Some(error))
        {
            tracing::error!(%error, "the last good state is not kept for the next start");
        }
        failure = error;
        if stop {
            return;
        }
        shared.lock().dirty |= failure.is_some();
        shared.pause(if failure.is_some() { RETRY } else { EVERY });
    }
}

#[cfg(test)]
mod tests {
    use sluice_config::push::{ResourceType, Upsert};

    use super::*;

    fn upsert(kind: ResourceType, name: &str, version: &str) -> Upsert {
        Upsert {
            kind,
            name: name.into(),
            version: version.into(),
            value: b"x".to_vec(),
        }
    }

    #[test]
    fn what_is_in_force_is_there_after_the_end_and_no_secret_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state");
        let keeper = Keeper::start(file.clone(), Vec::new()).unwrap();
        let end = BatchMessage {
            generation: 3,
            control: "c".into(),
            ..BatchMessage::default()
        };
        let first = Batch {
            upserts: vec![
                upsert(ResourceType::ModelServer, "a/s", "1"),
                upsert(ResourceType::Endpoint, "a/p:1", "1"),
                upsert(ResourceType::Secret, "a/key", "1"),
            ],
            removals: Vec::new(),
        };
        keeper.note(first, &HashSet::new(), &end);
        let second = Batch {
            upserts: vec![upsert(ResourceType::ModelServer, "a/s", "2")],
            removals: vec![(ResourceType::Endpoint, "a/p:1".into())],
        };
        keeper.note(second, &HashSet::from([0]), &end);
        drop(keeper);
        let (header, resources) = state_file::load(&file, &[]).unwrap().unwrap();
        assert_eq!((header.generation, &*header.control), (3, "c"));
        let found: Vec<_> = resources
            .iter()
            .map(|one| (one.kind, &*one.version))
            .collect();
        assert_eq!(found, [(ResourceType::ModelServer, "1")], "2 was refused");
    }

    #[test]
    fn a_folder_that_is_not_there_ends_nothing() {
        let keeper = Keeper::start("/nonexistent/state".into(), Vec::new()).unwrap();
        keeper.note(Batch::default(), &HashSet::new(), &BatchMessage::default());
        drop(keeper);
    }
}
